//! Rows of a vector file, block by block, for files larger than the memory.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::npy;
use crate::error::{Result, TrainError};
use crate::files::open_file;
use crate::tensors::{self, Element};

/// A `.npy` or `.safetensors` file of which rows are read in turn.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    file: BufReader<File>,
    rows: usize,
    dimensions: usize,
    element: Element,
    read: usize,
    ids: Option<Vec<String>>,
    encoder: Option<String>,
}

impl VectorFile {
    /// Opens a file and reads its header. `tensor` names the matrix of a safetensors file;
    /// `several` says what to do where there are several and none is named.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that is missing, of another format, without the matrix of
    /// floats, or of another length than its header says; [`TrainError::Usage`] for a tensor of an
    /// `.npy`.
    pub fn open(path: &Path, tensor: Option<&str>, several: &str) -> Result<Self> {
        let failed = |reason: String| TrainError::file(path, reason);
        let mut file = BufReader::with_capacity(1 << 20, open_file(path, "check the path")?);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let (header, about) = match extension.to_ascii_lowercase().as_str() {
            "npy" if tensor.is_some() => {
                let reason = "--tensor is for .safetensors; an .npy has one matrix";
                return Err(TrainError::usage(reason));
            }
            "npy" => (npy::read_header(&mut file).map_err(failed)?, About::default()),
            "safetensors" => safetensors_header(&mut file, tensor, several).map_err(failed)?,
            _ => {
                return Err(failed(
                    "its extension does not tell the format; it must be .npy or .safetensors"
                        .into(),
                ));
            }
        };
        let npy::Header { rows, dimensions, element } = header;
        let About { ids, encoder } = about;
        Ok(Self { path: path.to_owned(), file, rows, dimensions, element, read: 0, ids, encoder })
    }

    /// Rows of the file.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of a row.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Ids of the rows, where the file names them (the JSON list `ids` in a safetensors file's
    /// metadata).
    pub fn ids(&self) -> Option<&[String]> {
        self.ids.as_deref()
    }

    /// What made the rows, where the file says so, as files of `tigret embed` do.
    pub fn encoder(&self) -> Option<&str> {
        self.encoder.as_deref()
    }

    /// The next rows, row-major, at most `most`; none at the end.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that cannot be read, or a number that is not finite.
    pub fn next_rows(&mut self, most: usize) -> Result<Vec<f32>> {
        let first = self.read;
        let values = self.next_rows_unchecked(most)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (first + at / self.dimensions, at % self.dimensions);
            let reason = format!("number {column} of row {row} (counted from 0) is not finite");
            return Err(TrainError::file(&self.path, reason));
        }
        Ok(values)
    }

    /// [`Self::next_rows`] with whatever numbers they have.
    pub(super) fn next_rows_unchecked(&mut self, most: usize) -> Result<Vec<f32>> {
        let count = most.min(self.rows - self.read);
        let mut bytes = vec![0; count * self.dimensions * self.element.bytes()];
        self.file.read_exact(&mut bytes).map_err(|e| TrainError::file(&self.path, e))?;
        self.read += count;
        Ok(self.element.floats(&bytes))
    }
}

/// What a file says of its rows.
#[derive(Debug, Default)]
struct About {
    ids: Option<Vec<String>>,
    encoder: Option<String>,
}

/// The matrix of a safetensors file and what the file says of its rows; the file is left where the
/// matrix starts.
fn safetensors_header(
    file: &mut BufReader<File>,
    tensor: Option<&str>,
    several: &str,
) -> Result<(npy::Header, About), String> {
    let header = tensors::Header::read(file)?;
    let ids: Option<Vec<String>> = header
        .note("ids")
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| format!("its metadata \"ids\" is not a JSON list of strings: {e}"))?;
    let all = header.tensors.tensors();
    // They come in the order of a hash map; messages should not change from run to run.
    let listed = |of: &dyn Fn(&TensorInfo) -> bool| {
        let mut names: Vec<&str> =
            all.iter().filter(|(_, info)| of(info)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    };
    let matrices = listed(&|info| matrix(info).is_some());
    let name = match (tensor, &matrices[..]) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, []) => return Err("has no matrix of floats".into()),
        (None, names) => {
            return Err(format!("has several matrices ({}); {several}", names.join(", ")));
        }
    };
    let Some(info) = all.get(name) else {
        let names = listed(&|_| true).join(", ");
        return Err(format!("has no tensor \"{name}\"; it has {names}"));
    };
    let Some(found) = matrix(info) else {
        let (kind, shape) = (info.dtype, &info.shape);
        return Err(format!("the tensor is {kind:?} {shape:?}, not a matrix of floats"));
    };
    if let Some(ids) = ids.as_ref().filter(|ids| ids.len() != found.rows) {
        return Err(format!("has {} ids for {} rows of vectors", ids.len(), found.rows));
    }
    let start = header.start + info.data_offsets.0 as u64;
    file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
    let encoder = header.note("encoder").map(str::to_owned);
    Ok((found, About { ids, encoder }))
}

/// A tensor as a matrix of floats, where it is one.
fn matrix(info: &TensorInfo) -> Option<npy::Header> {
    match info.shape[..] {
        [rows, dimensions] if dimensions > 0 => {
            Some(npy::Header { rows, dimensions, element: Element::of(info.dtype)? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    const VALUES: [f32; 6] = [1.0, -0.5, 0.25, 2.0, 0.0, 8.0];

    fn bytes() -> Vec<u8> {
        VALUES.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn safetensors(ids: &str) -> Vec<u8> {
        let data = bytes();
        let other = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
        let matrix = TensorView::new(Dtype::F32, vec![3, 2], &data).unwrap();
        let metadata = HashMap::from([("ids".to_owned(), ids.to_owned())]);
        safetensors::serialize([("a", other), ("m", matrix)], Some(metadata)).unwrap()
    }

    fn open(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<VectorFile>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let file = VectorFile::open(&path, None, "one is enough");
        (folder, file)
    }

    #[test]
    fn rows_come_in_blocks_and_in_order() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((header.len() as u16).to_le_bytes());
        npy.extend(header.as_bytes());
        npy.extend(bytes());
        for (name, bytes) in
            [("v.npy", npy), ("v.safetensors", safetensors("[\"x\", \"y\", \"z\"]"))]
        {
            let (_folder, file) = open(name, &bytes);
            let mut file = file.unwrap();
            assert_eq!((file.rows(), file.dimensions()), (3, 2), "{name}");
            assert_eq!(file.ids().is_some(), name == "v.safetensors");
            assert_eq!(file.next_rows(2).unwrap(), VALUES[..4], "{name}");
            assert_eq!(file.next_rows(2).unwrap(), VALUES[4..], "{name}");
            assert!(file.next_rows(2).unwrap().is_empty());
        }
    }

    #[test]
    fn wrong_files_are_refused_with_a_reason() {
        let good = safetensors("[\"x\", \"y\", \"z\"]");
        let mut nan = good.clone();
        let end = nan.len();
        nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        for (name, bytes, reason) in [
            ("v.csv", good.clone(), "must be .npy or .safetensors"),
            ("v.safetensors", good[..end - 1].to_vec(), "ends before its tensors"),
            ("v.safetensors", safetensors("[\"x\"]"), "has 1 ids for 3 rows"),
            ("v.safetensors", safetensors("x"), "not a JSON list"),
            ("v.npy", good.clone(), "not an .npy file"),
        ] {
            let error = open(name, &bytes).1.unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
        let (_folder, file) = open("v.safetensors", &nan);
        let error = file.unwrap().next_rows(3).unwrap_err().to_string();
        assert!(error.contains("number 1 of row 2"), "{error}");
    }
}
