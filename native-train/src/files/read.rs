//! Reading files, with errors that say how to make one that is missing.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Result, TrainError};

/// Reads a JSON file.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, hint: &str) -> Result<T> {
    let text = read_text(path, hint)?;
    serde_json::from_str(&text).map_err(|e| TrainError::file(path, e))
}

/// Reads a text file.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub(crate) fn read_text(path: &Path, hint: &str) -> Result<String> {
    let mut text = fs::read_to_string(path).map_err(|e| unread(path, hint, &e))?;
    // Editors of other systems put a byte order mark in front.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Reads a file of any bytes.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub(crate) fn read_bytes(path: &Path, hint: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| unread(path, hint, &e))
}

/// Refuses a file that is empty when it is read again, as a pipe is. That there is one at all is left
/// to those who read it.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn check_is_kept(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(about) if !about.is_file() && !about.is_dir() => {
            let reason = "is read twice, and is no file that keeps what it has (a pipe, maybe); write \
                          it into a file first";
            Err(TrainError::file(path, reason))
        }
        _ => Ok(()),
    }
}

/// Opens a file to read it.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub(crate) fn open_file(path: &Path, hint: &str) -> Result<fs::File> {
    let file = fs::File::open(path).map_err(|e| unread(path, hint, &e))?;
    // A folder can be opened; only reading it fails.
    match file.metadata() {
        Ok(about) if about.is_dir() => Err(unread(path, hint, &ErrorKind::IsADirectory.into())),
        _ => Ok(file),
    }
}

/// What is said of bytes that are not text.
pub(crate) const NOT_UTF8: &str = "is not UTF-8 text; save the file as UTF-8";

fn unread(path: &Path, hint: &str, error: &std::io::Error) -> TrainError {
    match error.kind() {
        ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        ErrorKind::IsADirectory => {
            TrainError::file(path, format!("is a folder, not a file; {hint}"))
        }
        // Of `read_to_string` alone.
        ErrorKind::InvalidData => TrainError::file(path, NOT_UTF8),
        _ => TrainError::file(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_the_place_of_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = open_file(folder.path(), "name one").unwrap_err().to_string();
        assert!(said.ends_with("is a folder, not a file; name one"), "{said}");
    }
}
