//! Vectors that another encoder made: `.npy` or `.safetensors`, checked against the items.

use std::collections::HashMap;
use std::path::Path;

use super::Vectors;
use super::rows::VectorFile;
use crate::data::Item;
use crate::error::{Result, TrainError};
use crate::files::read_text;

/// Numbers that are read at once, about.
const BLOCK: usize = 1 << 16;

/// Where the vectors and their ids are.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// `.npy` (a matrix of floats) or `.safetensors`.
    pub vectors: &'a Path,
    /// Name of the tensor, where a safetensors file has several matrices of floats.
    pub tensor: Option<&'a str>,
    /// One id a line, in the order of the rows. Without it the ids are the JSON list `ids` in the
    /// metadata of a safetensors file; without that, row i belongs to item i.
    pub ids: Option<&'a Path>,
    /// Whether vectors of ids that the data set does not have are left out, and not refused.
    pub drop_extra: bool,
}

/// Reads the vectors and brings them into the order of the items.
///
/// # Errors
/// [`TrainError::File`] when a file cannot be read, the rows do not match the ids, an item has no
/// vector or two, an id is unknown, or a value is not finite.
pub fn read(source: Source<'_>, items: &[Item]) -> Result<Vectors> {
    let path = source.vectors;
    let mut file = VectorFile::open(path, source.tensor, "choose one with --tensor")?;
    let (rows, dimensions) = (file.rows(), file.dimensions());
    let listed = source.ids.map(read_ids).transpose()?;
    let ids_from = source.ids.unwrap_or(path);
    let rows_of_items = match listed.as_deref().or(file.ids()) {
        Some(ids) => rows_by_id(ids, rows, items, source.drop_extra)
            .map_err(|e| TrainError::file(ids_from, e))?,
        None if rows == items.len() => (0..rows).collect(),
        None => {
            let count = items.len();
            let reason =
                format!("has {rows} rows for {count} items; give the ids of its rows with --ids");
            return Err(TrainError::file(path, reason));
        }
    };
    let mut item_of_row = vec![None; rows];
    for (item, row) in rows_of_items.into_iter().enumerate() {
        item_of_row[row] = Some(item);
    }
    // The file's rows go to their places a block at a time: the matrix is in memory once.
    let mut data = vec![0.0; items.len() * dimensions];
    let block = (BLOCK / dimensions).max(1);
    for (number, placed) in item_of_row.chunks(block).enumerate() {
        let values = file.next_rows_unchecked(block)?;
        for (at, (item, vector)) in placed.iter().zip(values.chunks_exact(dimensions)).enumerate() {
            let &Some(item) = item else { continue };
            if let Some(at_dimension) = vector.iter().position(|x| !x.is_finite()) {
                let (id, value) = (&items[item].id, vector[at_dimension]);
                let row = number * block + at;
                let reason = format!(
                    "row {row} (item \"{id}\") has {value} at dimension {at_dimension}; all must \
                     be finite"
                );
                return Err(TrainError::file(path, reason));
            }
            data[item * dimensions..(item + 1) * dimensions].copy_from_slice(vector);
        }
    }
    Ok(Vectors { dimensions, data })
}

fn read_ids(path: &Path) -> Result<Vec<String>> {
    Ok(read_text(path, "check the path")?.lines().map(str::to_owned).collect())
}

/// The row of every item.
fn rows_by_id(
    ids: &[String],
    rows: usize,
    items: &[Item],
    drop_extra: bool,
) -> Result<Vec<usize>, String> {
    if ids.len() != rows {
        return Err(format!("has {} ids for {rows} rows of vectors", ids.len()));
    }
    let mut row_of: HashMap<&str, usize> = HashMap::with_capacity(rows);
    for (row, id) in ids.iter().enumerate() {
        if let Some(first) = row_of.insert(id, row) {
            return Err(format!("id \"{id}\" stands at rows {first} and {row}"));
        }
    }
    let mut missing = items.iter().filter(|item| !row_of.contains_key(item.id.as_str()));
    if let Some(first) = missing.next() {
        let count = 1 + missing.count();
        let of = items.len();
        return Err(format!("has no vector for {count} of {of} items, the first \"{}\"", first.id));
    }
    let found: Vec<usize> = items.iter().map(|item| row_of[item.id.as_str()]).collect();
    if found.len() < rows && !drop_extra {
        let known: std::collections::HashSet<usize> = found.iter().copied().collect();
        let first = ids.iter().enumerate().find(|(row, _)| !known.contains(row));
        let count = rows - found.len();
        let example = first.map_or("", |(_, id)| id);
        return Err(format!(
            "has {count} ids that the data set does not have, the first \"{example}\"; \
             leave them out with --drop-extra"
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use half::{bf16, f16};
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }

        /// An `.npy` of rows of two.
        fn npy(&self, values: &[f32]) -> PathBuf {
            let rows = values.len() / 2;
            let header =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}\n");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            self.write("vectors.npy", bytes)
        }

        fn safetensors(
            &self,
            tensors: &[(&str, Dtype, &[usize], Vec<u8>)],
            ids: Option<&str>,
        ) -> PathBuf {
            let views = tensors.iter().map(|(name, dtype, shape, data)| {
                (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())
            });
            let metadata = ids.map(|ids| HashMap::from([("ids".to_owned(), ids.to_owned())]));
            let bytes = safetensors::serialize(views, metadata).unwrap();
            self.write("vectors.safetensors", bytes)
        }
    }

    /// Items a, b, c.
    fn items() -> [Item; 3] {
        ["a", "b", "c"].map(|id| Item {
            id: id.into(),
            text: String::new(),
            fields: Default::default(),
        })
    }

    fn source(vectors: &Path) -> Source<'_> {
        Source { vectors, tensor: None, ids: None, drop_extra: false }
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    const ROWS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn rows_without_ids_are_in_the_order_of_the_items() {
        let files = Files::new();
        let vectors = read(source(&files.npy(&ROWS)), &items()).unwrap();
        assert_eq!((vectors.dimensions, vectors.data.as_slice()), (2, &ROWS[..]));
    }

    #[test]
    fn rows_follow_their_ids() {
        let files = Files::new();
        let (vectors, ids) = (files.npy(&ROWS), files.write("ids.txt", "c\r\na\nb\n"));
        let with_ids = Source { ids: Some(&ids), ..source(&vectors) };
        let reordered = [3.0, 4.0, 5.0, 6.0, 1.0, 2.0];
        assert_eq!(read(with_ids, &items()).unwrap().data, reordered);
        let file = files
            .safetensors(&[("x", Dtype::F32, &[3, 2], f32s(&ROWS))], Some("[\"c\", \"a\", \"b\"]"));
        assert_eq!(read(source(&file), &items()).unwrap().data, reordered);
    }

    #[test]
    fn every_float_kind_of_safetensors_is_read() {
        let files = Files::new();
        let kinds = [
            (Dtype::F16, ROWS.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (Dtype::BF16, ROWS.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
            (Dtype::F32, f32s(&ROWS)),
            (Dtype::F64, ROWS.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect()),
        ];
        for (dtype, data) in kinds {
            let file = files.safetensors(&[("x", dtype, &[3, 2], data)], None);
            let vectors = read(source(&file), &items()).unwrap();
            assert_eq!(vectors.data, ROWS, "{dtype:?}");
        }
    }

    #[test]
    fn one_matrix_of_several_is_chosen_by_name() {
        let files = Files::new();
        let tensors = [
            ("counts", Dtype::I32, &[3, 2][..], vec![0; 24]),
            ("image", Dtype::F32, &[3, 1], f32s(&[7.0, 8.0, 9.0])),
            ("text", Dtype::F32, &[3, 2], f32s(&ROWS)),
        ];
        let file = files.safetensors(&tensors, None);
        let choose = |tensor| read(Source { tensor, ..source(&file) }, &items());
        assert_eq!(choose(Some("image")).unwrap().data, [7.0, 8.0, 9.0]);
        for (tensor, reason) in [
            (None, "several matrices (image, text); choose one with --tensor"),
            (Some("counts"), "not a matrix of floats"),
            (Some("sound"), "has no tensor \"sound\"; it has"),
        ] {
            let error = choose(tensor).unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }

    #[test]
    fn wrong_ids_are_refused_with_a_reason() {
        let files = Files::new();
        for (rows, ids, reason) in [
            (3, "a\nb\n", "ids.txt: has 2 ids for 3 rows"),
            (3, "a\nb\na\n", "id \"a\" stands at rows 0 and 2"),
            (3, "a\nb\nx\n", "has no vector for 1 of 3 items, the first \"c\""),
            (4, "a\nb\nc\nx\n", "has 1 ids that the data set does not have, the first \"x\""),
        ] {
            let vectors = files.npy(&vec![1.0; 2 * rows]);
            let ids = files.write("ids.txt", ids);
            let with_ids = Source { ids: Some(&ids), ..source(&vectors) };
            let error = read(with_ids, &items()).unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
        let vectors = files.npy(&[1.0; 8]);
        let error = read(source(&vectors), &items()).unwrap_err().to_string();
        assert!(error.contains("has 4 rows for 3 items; give the ids"), "{error}");
    }

    #[test]
    fn extra_ids_can_be_dropped() {
        let files = Files::new();
        let vectors = files.npy(&[0.0, 0.0, 5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
        let ids = files.write("ids.txt", "x\nc\nb\na");
        let with_ids = Source { ids: Some(&ids), drop_extra: true, ..source(&vectors) };
        assert_eq!(read(with_ids, &items()).unwrap().data, ROWS);
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let files = Files::new();
        for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let vectors = files.npy(&[1.0, 2.0, 3.0, value, 5.0, 6.0]);
            let error = read(source(&vectors), &items()).unwrap_err().to_string();
            let expected = format!("row 1 (item \"b\") has {name} at dimension 1");
            assert!(error.contains(&expected), "{error}");
        }
        // Beyond f32: a double that becomes infinite must not slip through.
        let data: Vec<u8> = [1e300f64; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = files.safetensors(&[("x", Dtype::F64, &[3, 2], data)], None);
        assert!(read(source(&file), &items()).is_err());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let files = Files::new();
        let missing = files.0.path().join("none.npy");
        let error = read(source(&missing), &items()).unwrap_err().to_string();
        assert!(error.contains("none.npy: not found"), "{error}");
    }
}
