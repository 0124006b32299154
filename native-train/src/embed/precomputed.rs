//! Vectors that another encoder made: `.npy` or `.safetensors`, checked against the items.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Vectors, npy};
use crate::data::Dataset;
use crate::error::{Result, TrainError};

/// What to do with vectors of ids that the data set does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraIds {
    /// Refuse the file.
    Refuse,
    /// Leave the vectors out.
    Drop,
}

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
}

/// Reads the vectors and brings them into the order of the items.
///
/// # Errors
/// [`TrainError::File`] when a file cannot be read, the rows do not match the ids, an item has no
/// vector or two, an id is unknown, or a value is not finite.
pub fn read(source: Source<'_>, dataset: &Dataset, extra: ExtraIds) -> Result<Vectors> {
    let path = source.vectors;
    let wrong = |reason: String| TrainError::file(path, reason);
    let bytes = read_file(path)?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let (rows, vectors, own_ids) = match extension.to_ascii_lowercase().as_str() {
        "npy" if source.tensor.is_some() => {
            return Err(TrainError::usage("--tensor is for .safetensors; an .npy has one matrix"));
        }
        "npy" => {
            let (rows, vectors) = npy::parse(&bytes).map_err(wrong)?;
            (rows, vectors, None)
        }
        "safetensors" => from_safetensors(&bytes, source.tensor).map_err(wrong)?,
        _ => {
            return Err(wrong(
                "its extension does not tell the format; it must be .npy or .safetensors".into(),
            ));
        }
    };
    let (ids, ids_from) = match source.ids {
        Some(file) => {
            let bytes = read_file(file)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| TrainError::file(file, "is not UTF-8 text"))?;
            (Some(text.lines().map(str::to_owned).collect()), file)
        }
        None => (own_ids, path),
    };
    let rows_of_items = match &ids {
        Some(ids) => {
            rows_by_id(ids, rows, dataset, extra).map_err(|e| TrainError::file(ids_from, e))?
        }
        None if rows == dataset.items.len() => (0..rows).collect(),
        None => {
            let items = dataset.items.len();
            return Err(wrong(format!(
                "has {rows} rows for {items} items; give the ids of its rows with --ids"
            )));
        }
    };
    let mut ordered = Vectors {
        dimensions: vectors.dimensions,
        data: Vec::with_capacity(rows_of_items.len() * vectors.dimensions),
    };
    for (item, row) in dataset.items.iter().zip(rows_of_items) {
        let vector = vectors.row(row);
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            let (id, value) = (&item.id, vector[at]);
            return Err(wrong(format!(
                "row {row} (item \"{id}\") has {value} at dimension {at}; all must be finite"
            )));
        }
        ordered.data.extend_from_slice(vector);
    }
    Ok(ordered)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, "not found; check the path"),
        _ => TrainError::file(path, e),
    })
}

/// The row of every item.
fn rows_by_id(
    ids: &[String],
    rows: usize,
    dataset: &Dataset,
    extra: ExtraIds,
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
    let mut missing = dataset.items.iter().filter(|item| !row_of.contains_key(item.id.as_str()));
    if let Some(first) = missing.next() {
        let count = 1 + missing.count();
        let of = dataset.items.len();
        return Err(format!("has no vector for {count} of {of} items, the first \"{}\"", first.id));
    }
    let found: Vec<usize> = dataset.items.iter().map(|item| row_of[item.id.as_str()]).collect();
    if found.len() < rows && extra == ExtraIds::Refuse {
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

type Matrix = (usize, Vectors, Option<Vec<String>>);

fn from_safetensors(bytes: &[u8], name: Option<&str>) -> Result<Matrix, String> {
    let file = |e: safetensors::SafeTensorError| format!("is not a safetensors file: {e}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(file)?;
    let ids = match header.metadata().as_ref().and_then(|metadata| metadata.get("ids")) {
        Some(text) => Some(
            serde_json::from_str(text)
                .map_err(|e| format!("its metadata \"ids\" is not a JSON list of strings: {e}"))?,
        ),
        None => None,
    };
    let tensors = SafeTensors::deserialize(bytes).map_err(file)?;
    let mut all = tensors.tensors();
    // They come in the order of a hash map; messages should not change from run to run.
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let named = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
    let matrices: Vec<_> = all.iter().filter(|(_, tensor)| is_float_matrix(tensor)).collect();
    let tensor = match (name, matrices.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            format!("has no tensor \"{name}\"; it has {}", names.join(", "))
        })?,
        (None, [(_, tensor)]) => tensor,
        (None, []) => return Err("has no matrix of floats".into()),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(", ");
            return Err(format!("has several matrices ({names}); choose one with --tensor"));
        }
    };
    if !is_float_matrix(tensor) {
        let (kind, shape) = (tensor.dtype(), tensor.shape());
        return Err(format!("the tensor is {kind:?} {shape:?}, not a matrix of floats"));
    }
    let (rows, dimensions) = (tensor.shape()[0], tensor.shape()[1]);
    Ok((rows, Vectors { dimensions, data: floats(tensor) }, ids))
}

fn is_float_matrix(tensor: &TensorView<'_>) -> bool {
    matches!(tensor.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
        && matches!(tensor.shape(), [_, dimensions] if *dimensions > 0)
}

/// The values of a tensor that [`is_float_matrix`].
fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::data::Item;

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
    fn dataset() -> Dataset {
        let item =
            |id: &str| Item { id: id.into(), text: String::new(), fields: Default::default() };
        Dataset { items: ["a", "b", "c"].map(item).to_vec(), sequences: vec![] }
    }

    fn source(vectors: &Path) -> Source<'_> {
        Source { vectors, tensor: None, ids: None }
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    const ROWS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn rows_without_ids_are_in_the_order_of_the_items() {
        let files = Files::new();
        let vectors = read(source(&files.npy(&ROWS)), &dataset(), ExtraIds::Refuse).unwrap();
        assert_eq!((vectors.dimensions, vectors.data.as_slice()), (2, &ROWS[..]));
    }

    #[test]
    fn rows_follow_their_ids() {
        let files = Files::new();
        let (vectors, ids) = (files.npy(&ROWS), files.write("ids.txt", "c\r\na\nb\n"));
        let with_ids = Source { ids: Some(&ids), ..source(&vectors) };
        let reordered = [3.0, 4.0, 5.0, 6.0, 1.0, 2.0];
        assert_eq!(read(with_ids, &dataset(), ExtraIds::Refuse).unwrap().data, reordered);
        let file = files
            .safetensors(&[("x", Dtype::F32, &[3, 2], f32s(&ROWS))], Some("[\"c\", \"a\", \"b\"]"));
        assert_eq!(read(source(&file), &dataset(), ExtraIds::Refuse).unwrap().data, reordered);
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
            let vectors = read(source(&file), &dataset(), ExtraIds::Refuse).unwrap();
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
        let choose =
            |tensor| read(Source { tensor, ..source(&file) }, &dataset(), ExtraIds::Refuse);
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
            let error = read(with_ids, &dataset(), ExtraIds::Refuse).unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
        let vectors = files.npy(&[1.0; 8]);
        let error = read(source(&vectors), &dataset(), ExtraIds::Refuse).unwrap_err().to_string();
        assert!(error.contains("has 4 rows for 3 items; give the ids"), "{error}");
    }

    #[test]
    fn extra_ids_can_be_dropped() {
        let files = Files::new();
        let vectors = files.npy(&[0.0, 0.0, 5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
        let ids = files.write("ids.txt", "x\nc\nb\na");
        let with_ids = Source { ids: Some(&ids), ..source(&vectors) };
        assert_eq!(read(with_ids, &dataset(), ExtraIds::Drop).unwrap().data, ROWS);
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let files = Files::new();
        for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let vectors = files.npy(&[1.0, 2.0, 3.0, value, 5.0, 6.0]);
            let error =
                read(source(&vectors), &dataset(), ExtraIds::Refuse).unwrap_err().to_string();
            let expected = format!("row 1 (item \"b\") has {name} at dimension 1");
            assert!(error.contains(&expected), "{error}");
        }
        // Beyond f32: a double that becomes infinite must not slip through.
        let data: Vec<u8> = [1e300f64; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = files.safetensors(&[("x", Dtype::F64, &[3, 2], data)], None);
        assert!(read(source(&file), &dataset(), ExtraIds::Refuse).is_err());
    }

    #[test]
    fn files_of_another_kind_are_refused() {
        let files = Files::new();
        for (name, reason) in [
            ("vectors.pt", "must be .npy or .safetensors"),
            ("broken.npy", "not an .npy file"),
            ("broken.safetensors", "not a safetensors file"),
        ] {
            let path = files.write(name, "something else");
            let error = read(source(&path), &dataset(), ExtraIds::Refuse).unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
        let missing = files.0.path().join("none.npy");
        let error = read(source(&missing), &dataset(), ExtraIds::Refuse).unwrap_err().to_string();
        assert!(error.contains("none.npy: not found"), "{error}");
    }
}
