//! Safetensors files: written whole from numbers in memory, and read by their header.
//!
//! Nothing here holds the bytes of a file beside its numbers.

mod element;
pub(crate) mod shards;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use tigret_infer::tensor_file::LENGTH;
pub(crate) use tigret_infer::tensor_file::{Notes, Place, header};

pub(crate) use element::Element;

use crate::destination;
use crate::error::{Result, TrainError};
use crate::files::write_atomically;

/// Numbers that are turned into bytes or back at once.
const BLOCK: usize = 1 << 16;

/// Numbers of a tensor, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// Of type `F32`.
    F32(&'a [f32]),
    /// Of type `U8`.
    U8(&'a [u8]),
}

impl Values<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::U8(_) => Dtype::U8,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values),
            Self::U8(values) => values.len(),
        }
    }

    fn write(self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Self::F32(values) => f32_blocks(values).try_for_each(|block| out.write_all(&block)),
            Self::U8(values) => out.write_all(values),
        }
    }
}

/// Writes a file of named tensors (name, shape, values) whole, as [`write_atomically`] does. Its
/// bytes follow from the tensors and the notes ([`header`]).
///
/// # Errors
/// [`TrainError::File`]; also for a shape that does not fit its values.
pub(crate) fn write(
    path: &Path,
    mut tensors: Vec<(&str, Vec<usize>, Values<'_>)>,
    notes: Notes,
) -> Result<()> {
    tensors.sort_by(|(a, _, x), (b, _, y)| y.dtype().cmp(&x.dtype()).then(a.cmp(b)));
    let places = tensors.iter().map(|(name, shape, values)| Place {
        name,
        dtype: values.dtype(),
        shape: shape.clone(),
        bytes: values.bytes(),
    });
    let header = header(places, &notes).map_err(|e| TrainError::file(path, e))?;
    write_atomically(path, |out| {
        out.write_all(&header)?;
        tensors.iter().try_for_each(|(_, _, values)| values.write(out))
    })
}

/// The bytes of numbers in a file, a block after the other.
pub(crate) fn f32_blocks(values: &[f32]) -> impl Iterator<Item = Vec<u8>> {
    values.chunks(BLOCK).map(|block| block.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// The tensors and the notes of a file in memory.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn parse(bytes: &[u8]) -> Result<(SafeTensors<'_>, Notes), SafeTensorError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    Ok((SafeTensors::deserialize(bytes)?, notes_of(&metadata)))
}

fn notes_of(metadata: &Metadata) -> Notes {
    metadata.metadata().clone().unwrap_or_default().into_iter().collect()
}

/// What stands in a file's header.
#[derive(Debug)]
pub(crate) struct Header {
    /// Where the tensors begin, in bytes from the start of the file.
    pub(crate) start: u64,
    /// Types, shapes and places of the tensors, the places counted from `start`.
    pub(crate) tensors: Metadata,
}

impl Header {
    /// Reads the header of an open file, which is left where the tensors begin.
    ///
    /// # Errors
    /// A sentence without the file's name that says what is wrong, also where the file is not as
    /// long as its header says.
    pub(crate) fn read(file: &mut BufReader<File>) -> Result<Self, String> {
        let (header, file_length) = Self::read_start(file)?;
        match header.start.checked_add(header.tensors.data_len() as u64) {
            Some(end) if end == file_length => Ok(header),
            Some(end) if end < file_length => Err(format!(
                "is not a safetensors file: {}",
                SafeTensorError::MetadataIncompleteBuffer
            )),
            _ => Err("ends before its tensors do; was it cut short?".into()),
        }
    }

    /// Reads the header of a file whose tensors need not be there yet. Returns the length of the
    /// file, too.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub(crate) fn read_start(file: &mut BufReader<File>) -> Result<(Self, u64), String> {
        let file_length = file.get_ref().metadata().map_err(|e| e.to_string())?.len();
        let cut = |_| "is cut off in its header".to_owned();
        let mut length = [0; LENGTH];
        file.read_exact(&mut length).map_err(cut)?;
        let length = u64::from_le_bytes(length);
        if length > file_length {
            let reason = "is not a safetensors file (its header would be longer than the file)";
            return Err(reason.into());
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(cut)?;
        let wrong = |reason: String| format!("is not a safetensors file: {reason}");
        let tensors: Metadata = serde_json::from_slice(&header).map_err(|e| match e.line() {
            // The numbers contradict each other.
            0 => wrong(e.to_string()),
            _ => wrong(format!("invalid JSON in header: {e}")),
        })?;
        Ok((Self { start: LENGTH as u64 + length, tensors }, file_length))
    }

    /// Goes to where a tensor's bytes begin; returns how many they are.
    fn seek(&self, file: &mut BufReader<File>, tensor: &TensorInfo) -> std::io::Result<usize> {
        let (start, end) = tensor.data_offsets;
        file.seek(SeekFrom::Start(self.start + start as u64))?;
        Ok(end - start)
    }

    /// The numbers of a tensor of type `F32`, of the file that the header is of.
    ///
    /// # Errors
    /// Of reading the file.
    pub(crate) fn read_f32s(
        &self,
        file: &mut BufReader<File>,
        tensor: &TensorInfo,
    ) -> std::io::Result<Vec<f32>> {
        let count = self.seek(file, tensor)? / size_of::<f32>();
        let mut values = Vec::with_capacity(count);
        let mut bytes = vec![0; BLOCK.min(count) * size_of::<f32>()];
        while values.len() < count {
            let block = &mut bytes[..BLOCK.min(count - values.len()) * size_of::<f32>()];
            file.read_exact(block)?;
            values.extend(Element::F32.floats(block));
        }
        Ok(values)
    }

    /// The bytes of a tensor, of the file that the header is of.
    ///
    /// # Errors
    /// Of reading the file.
    pub(crate) fn read_u8s(
        &self,
        file: &mut BufReader<File>,
        tensor: &TensorInfo,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.seek(file, tensor)?];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// All notes of the file.
    pub(crate) fn notes(&self) -> Notes {
        notes_of(&self.tensors)
    }

    /// A note of the file.
    pub(crate) fn note(&self, name: &str) -> Option<&str> {
        self.tensors.metadata().as_ref()?.get(name).map(String::as_str)
    }
}

/// Refuses to replace what lies at a path, unless it may be replaced by any file
/// ([`destination::check_replaces`]) or `is_ours` holds of its header; `what` completes the message: why
/// the existing file is not ours.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn check_replaces(
    path: &Path,
    is_ours: impl FnOnce(&Header) -> bool,
    what: &str,
) -> Result<()> {
    let header = |file: File| Header::read(&mut BufReader::new(file));
    destination::check_replaces(
        path,
        |file| header(file).is_ok_and(|header| is_ours(&header)),
        what,
    )
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn a_file_has_the_bytes_that_the_crate_writes_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        // More than a block; a name of more bytes than characters; U8 goes behind F32.
        let numbers: Vec<f32> = (0..BLOCK + 3).map(|i| i as f32 * -0.5).collect();
        let notes = Notes::from([("kind".to_owned(), "ü".to_owned())]);
        let tensors = vec![
            ("done", vec![3], Values::U8(&[1, 0, 1])),
            ("größe", vec![1, 2], Values::F32(&numbers[..2])),
            ("all", vec![BLOCK + 3], Values::F32(&numbers)),
        ];
        write(&path, tensors, notes.clone()).unwrap();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = |dtype, shape, data| TensorView::new(dtype, shape, data).unwrap();
        let expected = [
            ("done", view(Dtype::U8, vec![3], &[1, 0, 1])),
            ("größe", view(Dtype::F32, vec![1, 2], &bytes[..8])),
            ("all", view(Dtype::F32, vec![BLOCK + 3], &bytes)),
        ];
        let metadata = Some(notes.clone().into_iter().collect());
        let expected = safetensors::serialize(expected, metadata).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written, expected);

        let (tensors, found) = parse(&written).unwrap();
        assert_eq!(found, notes);
        assert_eq!(Element::F32.floats(tensors.tensor("all").unwrap().data()), numbers);
        let mut file = BufReader::new(File::open(&path).unwrap());
        let header = Header::read(&mut file).unwrap();
        assert_eq!(header.note("kind"), Some("ü"));
        let info = header.tensors.info("all").unwrap();
        assert_eq!(header.read_f32s(&mut file, info).unwrap(), numbers);
    }

    #[test]
    fn the_same_contents_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let path = folder.path().join(name);
            let notes = ["texts_hash", "encoder", "ids_hash"].map(|note| (note.into(), "x".into()));
            write(&path, vec![("a", vec![1], Values::U8(&[7]))], Notes::from(notes)).unwrap();
            std::fs::read(&path).unwrap()
        };
        let first = written("0");
        // A hash map would give them the same order by chance, one time in six.
        assert!((1..20).all(|again| written(&again.to_string()) == first));
    }

    #[test]
    fn a_shape_that_does_not_fit_its_values_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = vec![("a", vec![2, 2], Values::F32(&[1.0, 2.0, 3.0]))];
        let error = write(&path, tensors, Notes::new()).unwrap_err().to_string();
        assert!(error.contains("a.safetensors: "), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_header_is_held_against_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, vec![("a", vec![2], Values::F32(&[1.0, 2.0]))], Notes::new()).unwrap();
        let good = std::fs::read(&path).unwrap();
        for (bytes, reason) in [
            (good[..good.len() - 1].to_vec(), "ends before its tensors do"),
            ([&good[..], &[0]].concat(), "not fully covered"),
            (good[..20].to_vec(), "longer than the file"),
            (good[..5].to_vec(), "is cut off in its header"),
            ([&8u64.to_le_bytes()[..], b"no json "].concat(), "invalid JSON in header"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let mut file = BufReader::new(File::open(&path).unwrap());
            let error = Header::read(&mut file).unwrap_err();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }
}
