//! Writing files whole: to a temporary name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::lock::try_lock;
use crate::error::{Result, TrainError};

/// What is said where a folder lies in the place of a file.
pub(crate) const FOLDER: &str = "is a folder; name a file";
/// What is said where a device or a pipe lies.
pub(crate) const DEVICE: &str =
    "is a device or a pipe, where no file can be put in place; name a file";

/// Ends the name of a file that is not whole yet, and of no file of anybody else's.
pub(crate) const UNFINISHED: &str = ".tigret.partial";

/// The name of a file that is not whole yet.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Opens a file that is not whole yet, which is made if it is not there. Until it is closed, no other
/// command opens it.
///
/// # Errors
/// Of the system, and where another command has it open.
pub(crate) fn open_unfinished(path: &Path) -> io::Result<File> {
    /// A file system that numbers and counts in a way of its own is believed after so many.
    const TURNS: usize = 4;
    let open = || {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let reason = "another command is writing this file; wait for it or end it";
        if try_lock(&file)? { Ok(file) } else { Err(io::Error::other(reason)) }
    };
    let mut file = open()?;
    for _ in 0..TURNS {
        match (lies_at(&file, path)?, is_shared(&file)?) {
            (true, false) => break,
            // A killed command left a link of a file that runs share.
            (true, true) => fs::remove_file(path)?,
            // Before its lock was taken, another command put it in its place.
            (false, _) => {}
        }
        drop(file);
        file = open()?;
    }
    Ok(file)
}

fn lies_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino())))
}

fn is_shared(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() > 1)
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
/// wraps in an `io::Error` comes back as it was.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut one = Together::default();
    one.write(path, write)?;
    one.put()
}

/// Files that are written under temporary names and then take their places one after the other:
/// where one of them cannot be written, all are as they were.
#[derive(Debug, Default)]
pub(crate) struct Together {
    files: Vec<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    temporary: PathBuf,
    place: PathBuf,
    /// Open until it is in its place, so that no other command writes it.
    _file: File,
}

impl Together {
    /// Writes the next file.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub(crate) fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let temporary = unfinished(path);
        check_place(path)?;
        check_place(&temporary)?;
        let file = open_unfinished(&temporary).map_err(|e| TrainError::file(path, e))?;
        let fill = |file: &File| -> io::Result<()> {
            file.set_len(0)?;
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()?;
            file.sync_all()
        };
        let filled = fill(&file);
        self.files.push(Unfinished { temporary, place: path.to_owned(), _file: file });
        // Beside errors of writing, `write` gives those of what it reads.
        filled.map_err(|e| e.downcast().unwrap_or_else(|e| TrainError::file(path, e)))
    }

    /// Whether the files so far are what lies in their places already.
    pub(crate) fn are_there(&self) -> bool {
        let is_there = |one: &Unfinished| same_bytes(&one.temporary, &one.place).unwrap_or(false);
        self.files.iter().all(is_there)
    }

    /// Puts the files in their places, in the order in which they were written. If a later rename
    /// fails, that file and the remaining ones keep their temporary names.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn put(mut self) -> Result<()> {
        let mut is_first = true;
        for Unfinished { temporary, place, .. } in &self.files {
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
        for one in &self.files {
            // Of no use; failing to remove it changes nothing.
            let _ = fs::remove_file(&one.temporary);
        }
    }
}

fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
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

/// Writes a value as pretty JSON, whole.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |file| pretty(file, value))
}

/// A value as pretty JSON.
pub(crate) fn pretty(file: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, value)?;
    writeln!(file)
}

/// Writes a value as a line of JSON.
pub(crate) fn write_line(file: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, value)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_file_that_another_command_writes_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let second = || write_atomically(&path, |out| out.write_all(b"second"));
        let mut first = Together::default();
        first.write(&path, |out| out.write_all(b"first")).unwrap();
        let error = second().unwrap_err().to_string();
        assert!(error.ends_with("a: another command is writing this file; wait for it or end it"));
        first.put().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        second().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn what_a_killed_command_left_is_replaced_and_what_is_somebody_else_s_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let theirs = folder.path().join("a.partial");
        fs::write(&theirs, "precious").unwrap();
        fs::write(unfinished(&path), "much longer than what comes").unwrap();
        write_atomically(&path, |out| out.write_all(b"short")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read(&theirs).unwrap(), b"precious");
        assert!(!unfinished(&path).exists());
        // A link of another file, as `store` makes them before they take their place.
        fs::hard_link(&theirs, unfinished(&path)).unwrap();
        write_atomically(&path, |out| out.write_all(b"short")).unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"precious");
    }
}
