//! Safetensors files. They are written as the same bytes for the same contents, so that a hash names a
//! file. (`safetensors::serialize` writes metadata in the order of a hash map, which is another each
//! time.)

use std::collections::BTreeMap;

use bytemuck::Pod;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Serialize, Serializer};

use crate::error::BundleError;

/// Bytes of the number that a file begins with, the length of its header; headers end at a
/// multiple of them.
pub const LENGTH: usize = 8;

/// The text metadata of a file.
pub type Notes = BTreeMap<String, String>;

/// A tensor in the header of a file.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its lengths along each axis.
    pub shape: Vec<usize>,
    /// Bytes of its numbers.
    pub bytes: usize,
}

/// An entry of a header's JSON object.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Notes(&'a Notes),
    Tensor(&'a TensorInfo),
}

/// What a file begins with, before the bytes of its tensors in this order: but for the order of the
/// notes, the bytes that `safetensors::serialize` would write.
///
/// # Errors
/// For a shape that does not fit its bytes.
pub fn header<'a>(
    tensors: impl Iterator<Item = Place<'a>>,
    notes: &Notes,
) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let infos: Vec<(String, TensorInfo)> = tensors
        .map(|Place { name, dtype, shape, bytes }| {
            let start = end;
            end += bytes;
            (name.to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) })
        })
        .collect();
    // Checks the shapes.
    Metadata::new(None, infos.clone())?;
    let tensors = infos.iter().map(|(name, info)| (name.as_str(), Entry::Tensor(info)));
    let entries = std::iter::once(("__metadata__", Entry::Notes(notes))).chain(tensors);
    let mut header = vec![0; LENGTH];
    serde_json::Serializer::new(&mut header).collect_map(entries)?;
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let length = (header.len() - LENGTH) as u64;
    header[..LENGTH].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// A file in memory. (`SafeTensors` does not give out the metadata.)
pub(crate) struct File<'a> {
    header: Metadata,
    /// The bytes of all tensors.
    data: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, SafeTensorError> {
        let (length, header) = SafeTensors::read_metadata(bytes)?;
        Ok(Self { header, data: &bytes[LENGTH + length..] })
    }

    /// A field of the text metadata.
    pub(crate) fn note(&self, name: &str) -> Option<&String> {
        self.header.metadata().as_ref()?.get(name)
    }

    /// A tensor.
    ///
    /// # Errors
    /// [`BundleError::Tensor`] where it is missing.
    pub(crate) fn tensor(&self, name: &str) -> Result<TensorView<'a>, BundleError> {
        let info = self.header.info(name);
        let TensorInfo { dtype, shape, data_offsets: (start, end) } =
            info.ok_or_else(|| BundleError::tensor(name, "is missing"))?;
        TensorView::new(*dtype, shape.clone(), &self.data[*start..*end])
            .map_err(|e| BundleError::tensor(name, e))
    }
}

/// The numbers of a tensor of a file.
pub(crate) fn numbers<T: Pod>(view: &TensorView<'_>) -> Vec<T> {
    bytemuck::pod_collect_to_vec(view.data())
}

/// A tensor on its way into a file: name, type, shape, bytes.
pub(crate) type FileTensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// The bytes of a file.
///
/// # Errors
/// [`BundleError`] for a shape that does not fit its bytes.
pub(crate) fn serialize(
    mut tensors: Vec<FileTensor>,
    notes: &Notes,
) -> Result<Vec<u8>, BundleError> {
    // The widest numbers first: so all are aligned.
    tensors.sort_by(|(a, x, ..), (b, y, ..)| y.cmp(x).then(a.cmp(b)));
    let places = tensors.iter().map(|(name, dtype, shape, bytes)| Place {
        name,
        dtype: *dtype,
        shape: shape.clone(),
        bytes: bytes.len(),
    });
    let header = header(places, notes);
    let mut file = header.map_err(|e| BundleError::NotSafetensors(e.to_string()))?;
    file.reserve_exact(tensors.iter().map(|(.., bytes)| bytes.len()).sum());
    tensors.iter().for_each(|(.., bytes)| file.extend(bytes));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_fit_its_bytes_is_refused() {
        let file = |bytes| {
            let place = Place { name: "a", dtype: Dtype::F32, shape: vec![2, 3], bytes };
            header(std::iter::once(place), &Notes::new())
        };
        assert!(file(24).is_ok());
        assert!(file(20).is_err() && file(28).is_err());
    }
}
