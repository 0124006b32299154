//! One command at a time writes into a run directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Result, TrainError};
use crate::files::try_lock;
use crate::run_dir::RunDir;

/// Holds a run directory for one command until it is dropped or the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    /// The run directory, if this lock made it.
    made: Option<PathBuf>,
}

impl RunLock {
    /// Takes the lock of a run directory, which is made if it is not there. `command` is told to
    /// whoever comes second.
    ///
    /// # Errors
    /// [`TrainError::File`] when another command holds it, or the folder cannot be written to.
    pub fn acquire(root: &Path, command: &str) -> Result<Self> {
        let made = (!root.exists()).then(|| root.to_owned());
        let path = RunDir::create(root)?.lock();
        let failed = |e: std::io::Error| TrainError::file(&path, e);
        fs::create_dir_all(path.parent().unwrap_or(root)).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if !try_lock(&file).map_err(failed)? {
            let mut holder = String::new();
            // What stands there is for the message only.
            let _ = file.read_to_string(&mut holder);
            return Err(TrainError::file(
                root,
                format!(
                    "another command is writing into this run ({}); wait for it or end it",
                    if holder.is_empty() { "just begun" } else { holder.trim() }
                ),
            ));
        }
        // From here on, a folder made for nothing goes.
        let mut lock = Self { file, made };
        let file = &mut lock.file;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "`{command}`, process {}", std::process::id()))
            .map_err(failed)?;
        Ok(lock)
    }
}

impl Drop for RunLock {
    /// A command that failed before it wrote anything leaves no folder behind: these removals fail
    /// where there is something else.
    fn drop(&mut self) {
        let Some(root) = &self.made else { return };
        let holds_more = |folder: &Path, own: &str| {
            fs::read_dir(folder).map_or(true, |mut entries| {
                entries.any(|entry| entry.map_or(true, |entry| entry.file_name() != own))
            })
        };
        let lock = RunDir::named(root).lock();
        let Some(state) = lock.parent() else { return };
        if holds_more(state, "lock") || holds_more(root, ".tigret") {
            return;
        }
        let _ = fs::remove_file(&lock)
            .and_then(|()| fs::remove_dir(state))
            .and_then(|()| fs::remove_dir(root));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_command_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(folder.path(), "tigret train").unwrap();
        let error = RunLock::acquire(folder.path(), "tigret run").unwrap_err().to_string();
        assert!(error.contains("`tigret train`, process "), "{error}");
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        drop(first);
        let second = RunLock::acquire(folder.path(), "tigret run").unwrap();
        let error = RunLock::acquire(folder.path(), "tigret embed").unwrap_err().to_string();
        assert!(error.contains("`tigret run`, process"), "{error}");
        drop(second);
        assert!(folder.path().is_dir(), "a folder that was there stays");
    }

    #[test]
    fn a_folder_that_was_made_for_nothing_goes() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        drop(RunLock::acquire(&run, "tigret prepare").unwrap());
        assert!(!run.exists());
        let lock = RunLock::acquire(&run, "tigret prepare").unwrap();
        fs::write(run.join("items.jsonl"), "").unwrap();
        drop(lock);
        assert!(run.join("items.jsonl").exists());
    }
}
