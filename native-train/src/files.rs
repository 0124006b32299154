//! Reading files, and writing them whole: to a temporary name, then renamed.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, TrainError};

/// What is said where a folder lies in the place of a file.
pub(crate) const FOLDER: &str = "is a folder; name a file";
/// What is said where a device or a pipe lies.
pub(crate) const DEVICE: &str =
    "is a device or a pipe, where no file can be put in place; name a file";

/// The name of a file that is not whole yet.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Refuses a path at which a folder, a device or a pipe lies; a link is none of them.
///
/// # Errors
/// [`TrainError::File`].
fn check_place(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Err(TrainError::file(path, FOLDER)),
        Ok(there) if !there.is_file() && !there.is_symlink() => Err(TrainError::file(path, DEVICE)),
        // What keeps a file from being made is said when it is made.
        _ => Ok(()),
    }
}

/// Writes a file whole: to a temporary name beside it, then renamed, so that a reader never sees
/// half of it. A link is replaced by the file: what a run shares with another stays the other's.
///
/// # Errors
/// [`TrainError::File`]; also where a folder, a device or a pipe lies. A [`TrainError`] that `write`
/// wraps in an `std::io::Error` comes back as it was.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut one = Together::default();
    one.write(path, write)?;
    one.put()
}

/// Files that are written under temporary names and then take their places one after the other:
/// where one of them cannot be written, all are as they were.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// Temporary names and places.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Together {
    /// Writes the next file.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub(crate) fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let temporary = unfinished(path);
        check_place(path)?;
        check_place(&temporary)?;
        self.files.push((temporary.clone(), path.to_owned()));
        let attempt = || -> std::io::Result<()> {
            let mut file = std::io::BufWriter::new(fs::File::create(&temporary)?);
            write(&mut file)?;
            file.flush()?;
            file.get_ref().sync_all()
        };
        // Beside errors of writing, `write` gives those of what it reads.
        attempt().map_err(|e| e.downcast().unwrap_or_else(|e| TrainError::file(path, e)))
    }

    /// Whether the files so far are what lies in their places already.
    pub(crate) fn are_there(&self) -> bool {
        self.files.iter().all(|(temporary, place)| same_bytes(temporary, place).unwrap_or(false))
    }

    /// Puts the files in their places, in the order in which they were written. If a later rename
    /// fails, that file and the remaining ones keep their temporary names.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn put(mut self) -> Result<()> {
        let mut is_first = true;
        for (temporary, place) in &self.files {
            if let Err(e) = fs::rename(temporary, place) {
                let error = TrainError::file(place, e);
                if !is_first {
                    self.files.clear();
                }
                return Err(error);
            }
            is_first = false;
        }
        self.files.clear();
        Ok(())
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // Of no use; failing to remove it changes nothing.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut of_one, mut of_other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut of_one)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut of_other[..count])?;
        if of_one[..count] != of_other[..count] {
            return Ok(false);
        }
    }
}

/// Makes the folder that a file is to lie in; the one of a bare name is there.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e)),
        None => Ok(()),
    }
}

/// Makes a folder and tries to write into it, so that long work does not end with a result that
/// finds no place.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn check_writable(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    let probe = folder.join("writable.partial");
    write_atomically(&probe, |_| Ok(()))?;
    fs::remove_file(&probe).map_err(|e| TrainError::file(&probe, e))
}

/// Removes a file of an earlier run that would be wrong beside the new ones.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::file(path, e)),
        _ => Ok(()),
    }
}

/// Writes a value as pretty JSON, whole.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |file| pretty(file, value))
}

/// A value as pretty JSON.
pub(crate) fn pretty(file: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, value)?;
    writeln!(file)
}

/// Writes a value as a line of JSON.
pub(crate) fn write_line(file: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, value)?;
    file.write_all(b"\n")
}

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

/// Opens a file to read it.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub(crate) fn open_file(path: &Path, hint: &str) -> Result<fs::File> {
    let file = fs::File::open(path).map_err(|e| unread(path, hint, &e))?;
    // A folder can be opened; only reading it fails.
    match file.metadata() {
        Ok(about) if about.is_dir() => {
            Err(unread(path, hint, &std::io::ErrorKind::IsADirectory.into()))
        }
        _ => Ok(file),
    }
}

/// What is said of bytes that are not text.
pub(crate) const NOT_UTF8: &str = "is not UTF-8 text; save the file as UTF-8";

fn unread(path: &Path, hint: &str, error: &std::io::Error) -> TrainError {
    match error.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        std::io::ErrorKind::IsADirectory => {
            TrainError::file(path, format!("is a folder, not a file; {hint}"))
        }
        // Of `read_to_string` alone.
        std::io::ErrorKind::InvalidData => TrainError::file(path, NOT_UTF8),
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

    #[test]
    fn what_keeps_a_file_from_being_whole_is_said_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let refused = |reason: std::io::Error| {
            let write = |out: &mut dyn Write| out.write_all(b"half").and(Err(reason));
            write_atomically(&path, write).unwrap_err().to_string()
        };
        let line = TrainError::line("b", 7, "is wrong");
        assert_eq!(refused(std::io::Error::other(line)), "b:7: is wrong");
        let full = std::io::Error::other("no space");
        assert_eq!(refused(full), format!("{}: no space", path.display()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
