//! From text to vectors: the content embedding that semantic IDs are made of.

pub(crate) mod append;
pub mod encoder;
mod npy;
pub mod precomputed;
pub mod rows;
pub mod sentence;
mod sparse;
pub mod svd;
pub mod texts;
pub mod tfidf;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;

use safetensors::tensor::Dtype;
use tigret_infer::CatalogFile;
use tigret_infer::quantizer::to_unit_length;

use crate::data::Item;
use crate::error::{Result, TrainError};
use crate::files::{open_file, read_json};
use crate::hash::Fingerprint;
use crate::run_dir::RunDir;
use crate::tensors::{self, Notes, Values};

/// A vector per item.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Length of a vector.
    pub dimensions: usize,
    /// Row-major `[items, dimensions]`, rows in the order of the items; finite.
    pub data: Vec<f32>,
}

/// Name of the tensor in `vectors.safetensors`.
const TENSOR: &str = "vectors";

impl Vectors {
    /// Row of an item.
    pub fn row(&self, item: usize) -> &[f32] {
        &self.data[item * self.dimensions..(item + 1) * self.dimensions]
    }

    /// Scales every row to length 1; a zero row stays.
    pub fn normalise(&mut self) {
        self.data.chunks_exact_mut(self.dimensions).for_each(to_unit_length);
    }

    /// The first dimension in which all rows are equal, if there are several rows.
    pub fn constant_dimension(&self) -> Option<usize> {
        let mut constant: Vec<usize> = (0..self.dimensions).collect();
        let (first, rows) = self.data.split_at_checked(self.dimensions)?;
        for row in rows.chunks_exact(self.dimensions) {
            constant.retain(|&at| row[at] == first[at]);
        }
        constant.first().copied().filter(|_| !rows.is_empty())
    }

    /// How many rows are zero.
    pub fn zero_rows(&self) -> usize {
        self.data.chunks_exact(self.dimensions).filter(|row| row.iter().all(|&x| x == 0.0)).count()
    }

    /// Reads the artefact of a run and checks that it belongs to these items: by what it says of
    /// them, or, where a file of the user's own says nothing, by its number of rows. Rows in the
    /// order of `catalog.json` are brought into that of the items, which a later `tigret prepare`
    /// may have changed.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is missing, not such a file, made for other items, or has
    /// values that are not finite.
    pub fn load(run: &RunDir, items: &[Item]) -> Result<Self> {
        let path = run.vectors();
        let wrong = |reason: String| TrainError::file(&path, reason);
        let mut file = BufReader::new(open_file(&path, encoder::EMBED)?);
        let header = tensors::Header::read(&mut file).map_err(wrong)?;
        let row_of_item = match header.note("ids_hash") {
            Some(ids) if ids != ids_hash(items) => {
                Some(rows_by_catalogue(run, items, ids).ok_or_else(|| {
                    wrong(
                        "was made for other items than items.jsonl has; repeat a `tigret tokenize \
                         --assign` that was interrupted, else run `tigret embed` again"
                            .into(),
                    )
                })?)
            }
            _ => None,
        };
        let mut by_row: Vec<&Item> = items.iter().collect();
        for (item, &row) in items.iter().zip(row_of_item.iter().flatten()) {
            by_row[row] = item;
        }
        if TextsNote::of(&header).is_some_and(|texts| !texts.are_those_of(&by_row)) {
            return Err(wrong(
                "was made of other texts than items.jsonl has; give `tigret prepare` the texts that \
                 they were, or run `tigret embed` and `tigret tokenize` again, which gives other \
                 semantic IDs"
                    .into(),
            ));
        }
        let tensor = header
            .tensors
            .info(TENSOR)
            .ok_or_else(|| wrong(format!("tensor `{TENSOR}` not found")))?;
        let [rows, dimensions] = tensor.shape[..] else {
            return Err(wrong(format!("\"{TENSOR}\" has {} axes, not 2", tensor.shape.len())));
        };
        if tensor.dtype != Dtype::F32 || rows != items.len() || dimensions == 0 {
            return Err(wrong(format!(
                "\"{TENSOR}\" is {:?} [{rows}, {dimensions}], not F32 [{}, ≥ 1], a row for each item",
                tensor.dtype,
                items.len()
            )));
        }
        let data = header.read_f32s(&mut file, tensor).map_err(|e| wrong(e.to_string()))?;
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            let id = &by_row[at / dimensions].id;
            return Err(wrong(format!("the vector of item \"{id}\" is not finite")));
        }
        let data = match row_of_item {
            None => data,
            Some(rows) => rows
                .iter()
                .flat_map(|row| &data[row * dimensions..][..dimensions])
                .copied()
                .collect(),
        };
        Ok(Self { dimensions, data })
    }

    /// What made the vectors of a run ([`encoder::Encoder::id`]), from the header alone; `None`
    /// where there are none or it does not say.
    pub fn encoder(run: &RunDir) -> Option<String> {
        Self::note(run, "encoder")
    }

    /// [`ids_hash`] of the items that the vectors of a run are of, from the header alone.
    pub(crate) fn ids_hash(run: &RunDir) -> Option<String> {
        Self::note(run, "ids_hash")
    }

    fn note(run: &RunDir, name: &str) -> Option<String> {
        Self::header(run)?.note(name).map(str::to_owned)
    }

    fn header(run: &RunDir) -> Option<tensors::Header> {
        tensors::Header::read(&mut BufReader::new(File::open(run.vectors()).ok()?)).ok()
    }

    /// Writes the artefact; `encoder` says what made the vectors. Beside other texts than these,
    /// [`Vectors::load`] refuses those that are `of_texts`.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir, items: &[Item], encoder: &str, of_texts: bool) -> Result<()> {
        let texts = of_texts.then(|| TextsNote::of_items(&items.iter().collect::<Vec<_>>()));
        let matrix = (TENSOR, vec![items.len(), self.dimensions], Values::F32(&self.data));
        let notes = vector_notes(encoder, ids_hash(items), texts);
        tensors::write(&run.vectors(), vec![matrix], notes)
    }
}

/// What `vectors.safetensors` notes: what made the vectors, of which items they are, and of which
/// texts, where they are of texts.
fn vector_notes(encoder: &str, ids_hash: String, texts: Option<TextsNote>) -> Notes {
    let mut notes =
        Notes::from([("encoder".into(), encoder.to_owned()), ("ids_hash".into(), ids_hash)]);
    if let Some(TextsNote { items, hash }) = texts {
        notes.insert("texts_count".into(), items.to_string());
        notes.insert("texts_hash".into(), hash);
    }
    notes
}

/// The texts that vectors were made of: those of the items of the first `items` rows. Items that
/// were added later have brought their vectors.
#[derive(Debug, PartialEq)]
struct TextsNote {
    items: usize,
    hash: String,
}

impl TextsNote {
    fn of_items(items: &[&Item]) -> Self {
        Self { items: items.len(), hash: Fingerprint::of(items.iter().map(|item| &item.text)) }
    }

    /// What a file notes, if it does.
    fn of(header: &tensors::Header) -> Option<Self> {
        let items = header.note("texts_count")?.parse().ok()?;
        Some(Self { items, hash: header.note("texts_hash")?.to_owned() })
    }

    fn are_those_of(&self, items: &[&Item]) -> bool {
        items.get(..self.items).is_some_and(|items| Self::of_items(items) == *self)
    }
}

/// The row of each item, where `hash` is [`ids_hash`] of the same items in the order of
/// `catalog.json`.
fn rows_by_catalogue(run: &RunDir, items: &[Item], hash: &str) -> Option<Vec<usize>> {
    let CatalogFile { items: catalog } = read_json(&run.catalog(), "").ok()?;
    if catalog.len() != items.len() || Fingerprint::of(catalog.iter().map(|i| &i.id)) != hash {
        return None;
    }
    let rows: HashMap<&str, usize> =
        catalog.iter().enumerate().map(|(row, item)| (item.id.as_str(), row)).collect();
    // As many items with ids of their own, each in the catalogue: every row is one item's.
    (rows.len() == items.len())
        .then(|| items.iter().map(|item| rows.get(item.id.as_str()).copied()).collect())
        .flatten()
}

/// Tells whether an artefact with a row per item belongs to these items in this order.
fn ids_hash(items: &[Item]) -> String {
    Fingerprint::of(items.iter().map(|item| &item.id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn items(ids: &[&str]) -> Vec<Item> {
        let item =
            |id: &&str| Item { id: (*id).into(), text: String::new(), fields: Default::default() };
        ids.iter().map(item).collect()
    }

    #[test]
    fn saved_vectors_load_the_same_for_the_same_items_only() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let vectors = Vectors { dimensions: 3, data: vec![1.0, -2.5, 0.0, 4.0, 5.0, 1e-30] };
        vectors.save(&run, &items(&["a", "b"]), "tf-idf+svd", false).unwrap();
        assert_eq!(Vectors::load(&run, &items(&["a", "b"])).unwrap(), vectors);
        for other in [&["b", "a"][..], &["a"], &["a", "b", "c"], &["a\nb"]] {
            let error = Vectors::load(&run, &items(other)).unwrap_err().to_string();
            assert!(error.contains("made for other items"), "{error}");
        }
    }

    #[test]
    fn rows_in_the_order_of_the_catalogue_are_brought_into_that_of_the_items() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let vectors = Vectors { dimensions: 2, data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        vectors.save(&run, &items(&["a", "b", "c"]), "e", true).unwrap();
        let catalog = |ids: [&str; 3]| {
            let item = |(code, id): (u32, &str)| json!({"id": id, "codes": [code]});
            let items: Vec<_> = (0..).zip(ids).map(item).collect();
            std::fs::write(run.catalog(), json!({ "items": items }).to_string()).unwrap();
        };
        let other = items(&["c", "a", "b"]);
        catalog(["b", "a", "c"]);
        assert!(Vectors::load(&run, &other).is_err(), "in neither order");
        catalog(["a", "b", "c"]);
        assert_eq!(Vectors::load(&run, &other).unwrap().data, [5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(Vectors::load(&run, &items(&["c", "a", "d"])).is_err(), "another item");
        let mut texts = other;
        texts[0].text = "another".into();
        let error = Vectors::load(&run, &texts).unwrap_err().to_string();
        assert!(error.contains("made of other texts"), "{error}");
    }

    #[test]
    fn a_file_of_ones_own_needs_a_row_for_each_item() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let vectors = Vectors { dimensions: 1, data: vec![1.0, 2.0] };
        let matrix = (TENSOR, vec![2, 1], Values::F32(&vectors.data));
        tensors::write(&run.vectors(), vec![matrix], Notes::new()).unwrap();
        assert_eq!(Vectors::load(&run, &items(&["c", "d"])).unwrap(), vectors);
        let error = Vectors::load(&run, &items(&["a"])).unwrap_err().to_string();
        assert!(error.contains("is F32 [2, 1], not F32 [1, ≥ 1]"), "{error}");
    }

    #[test]
    fn vectors_of_texts_go_with_these_texts_alone() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let vectors = Vectors { dimensions: 1, data: vec![1.0, 2.0] };
        let (old, mut new) = (items(&["a", "b"]), items(&["a", "b"]));
        new[1].text = "another title".into();
        vectors.save(&run, &old, "tf-idf+svd", true).unwrap();
        assert_eq!(Vectors::load(&run, &old).unwrap(), vectors);
        let error = Vectors::load(&run, &new).unwrap_err().to_string();
        assert!(error.contains("made of other texts than items.jsonl has"), "{error}");
        // Vectors that were given are of anything.
        vectors.save(&run, &old, "precomputed", false).unwrap();
        assert_eq!(Vectors::load(&run, &new).unwrap(), vectors);
    }

    #[test]
    fn vectors_that_are_missing_or_not_finite_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let items = items(&["a", "b"]);
        let error = Vectors::load(&run, &items).unwrap_err().to_string();
        assert!(error.contains("not found; make it with `tigret embed`"), "{error}");
        let vectors = Vectors { dimensions: 1, data: vec![1.0, f32::NAN] };
        vectors.save(&run, &items, "precomputed", false).unwrap();
        let error = Vectors::load(&run, &items).unwrap_err().to_string();
        assert!(error.contains("vector of item \"b\" is not finite"), "{error}");
    }

    #[test]
    fn rows_are_scaled_to_length_one_and_zero_rows_stay() {
        let mut vectors = Vectors { dimensions: 2, data: vec![3.0, 4.0, 0.0, 0.0] };
        vectors.normalise();
        assert_eq!(vectors.data, [0.6, 0.8, 0.0, 0.0]);
        assert_eq!(vectors.zero_rows(), 1);
    }
}
