//! Rows of a vector file, block by block, for files larger than the memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::Value;

use super::npy;
use crate::error::{Result, TrainError};

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    F16Big,
    Bf16,
    F32,
    F32Big,
    F64,
    F64Big,
}

impl Element {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::F16Big | Self::Bf16 => 2,
            Self::F32 | Self::F32Big => 4,
            Self::F64 | Self::F64Big => 8,
        }
    }

    /// All numbers of some bytes.
    pub(super) fn floats(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|value| read(*value)).collect()
        }
        match self {
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::F16Big => each(bytes, |b| f16::from_be_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F32Big => each(bytes, f32::from_be_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F64Big => each(bytes, |b| f64::from_be_bytes(b) as f32),
        }
    }
}

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
}

impl VectorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that is missing, of another format, without a matrix of
    /// floats, or of another length than its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |reason: String| TrainError::file(path, reason);
        let file = File::open(path).map_err(|e| failed(e.to_string()))?;
        let length = file.metadata().map_err(|e| failed(e.to_string()))?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let (header, data, ids) = match extension.to_ascii_lowercase().as_str() {
            "npy" => {
                let header = npy::read_header(&mut file).map_err(failed)?;
                let at = std::io::Seek::stream_position(&mut file);
                let at = at.map_err(|e| failed(e.to_string()))?;
                (header, length.saturating_sub(at), None)
            }
            "safetensors" => safetensors_header(&mut file, length).map_err(failed)?,
            _ => {
                return Err(failed(
                    "its extension does not tell the format; it must be .npy or .safetensors"
                        .into(),
                ));
            }
        };
        let npy::Header { rows, dimensions, element } = header;
        let wanted = (rows as u64)
            .checked_mul(dimensions as u64)
            .and_then(|n| n.checked_mul(element.bytes() as u64));
        if wanted != Some(data) {
            return Err(failed(format!(
                "has {data} bytes of data; its shape ({rows}, {dimensions}) does not fit"
            )));
        }
        Ok(Self { path: path.to_owned(), file, rows, dimensions, element, read: 0, ids })
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

    /// The next rows, row-major, at most `most`; none at the end.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that cannot be read, or a number that is not finite.
    pub fn next_rows(&mut self, most: usize) -> Result<Vec<f32>> {
        let count = most.min(self.rows - self.read);
        let mut bytes = vec![0; count * self.dimensions * self.element.bytes()];
        self.file.read_exact(&mut bytes).map_err(|e| TrainError::file(&self.path, e))?;
        let values = self.element.floats(&bytes);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (self.read + at / self.dimensions, at % self.dimensions);
            let reason = format!("number {column} of row {row} (counted from 0) is not finite");
            return Err(TrainError::file(&self.path, reason));
        }
        self.read += count;
        Ok(values)
    }
}

/// The one matrix of floats of a safetensors file, the bytes it has, and the ids of its rows; the
/// file is left where the matrix starts.
fn safetensors_header(
    file: &mut BufReader<File>,
    length: u64,
) -> Result<(npy::Header, u64, Option<Vec<String>>), String> {
    let cut = |_| "is cut off in its header".to_owned();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(cut)?;
    let size = u64::from_le_bytes(size);
    if size > length {
        return Err("is not a safetensors file (its header would be longer than the file)".into());
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(cut)?;
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(&header).map_err(|e| format!("is not a safetensors file: {e}"))?;
    let numbers = |value: &Value| -> Option<Vec<u64>> {
        value.as_array()?.iter().map(Value::as_u64).collect()
    };
    let matrices: Vec<_> = header
        .iter()
        .filter_map(|(_, tensor)| {
            let element = match tensor["dtype"].as_str()? {
                "F16" => Element::F16,
                "BF16" => Element::Bf16,
                "F32" => Element::F32,
                "F64" => Element::F64,
                _ => return None,
            };
            let (shape, offsets) = (numbers(&tensor["shape"])?, numbers(&tensor["data_offsets"])?);
            match (&shape[..], &offsets[..]) {
                (&[rows, dimensions], &[start, end]) if start <= end && dimensions > 0 => {
                    Some((rows, dimensions, element, start, end))
                }
                _ => None,
            }
        })
        .collect();
    let &[(rows, dimensions, element, start, end)] = &matrices[..] else {
        let count = matrices.len();
        return Err(format!("has {count} matrices of floats; it must have one"));
    };
    if (8 + size).checked_add(end).is_none_or(|end| end > length) {
        return Err("ends before its matrix does; was it cut short?".into());
    }
    let start = i64::try_from(start).map_err(|e| e.to_string())?;
    file.seek_relative(start).map_err(|e| e.to_string())?;
    let ids = header.get("__metadata__").and_then(|metadata| metadata["ids"].as_str());
    let ids = ids
        .map(serde_json::from_str::<Vec<String>>)
        .transpose()
        .map_err(|e| format!("has metadata \"ids\" that is no JSON list of texts: {e}"))?;
    if let Some(ids) = ids.as_ref().filter(|ids| ids.len() as u64 != rows) {
        return Err(format!("names {} ids for {rows} rows", ids.len()));
    }
    let header = npy::Header { rows: rows as usize, dimensions: dimensions as usize, element };
    Ok((header, end - start as u64, ids))
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
        let file = VectorFile::open(&path);
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
            ("v.safetensors", good[..end - 1].to_vec(), "ends before its matrix"),
            ("v.safetensors", good[..20].to_vec(), "longer than the file"),
            ("v.safetensors", safetensors("[\"x\"]"), "names 1 ids for 3 rows"),
            ("v.safetensors", safetensors("x"), "no JSON list"),
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
