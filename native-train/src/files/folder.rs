//! Folders that results are to lie in, and what an earlier run left there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::write::{open_unfinished, unfinished};
use crate::error::{Result, TrainError};

/// Makes the folder that a file is to lie in; the one of a bare name is there.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::create_dir_all(folder).map_err(|e| match e.kind() {
            // A folder that is there is no error.
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                TrainError::file(path, "lies under a file; name a place in a folder")
            }
            _ => TrainError::file(folder, e),
        }),
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
    takes_files(folder).map_err(|e| TrainError::file(folder, e))
}

/// Tries to write into a folder that is there.
///
/// # Errors
/// Of making or removing the file.
pub(crate) fn takes_files(folder: &Path) -> io::Result<()> {
    // A name of its own, as two commands may write into one folder.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let probe = unfinished(&folder.join(format!("probe-{}-{now}", std::process::id())));
    open_unfinished(&probe).and_then(|_| fs::remove_file(&probe))
}

/// Removes a file of an earlier run that would be wrong beside the new ones.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(TrainError::file(path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder of an earlier run, with all that is in it.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn remove_folder_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(TrainError::file(path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_would_lie_under_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_parent(&file).is_ok() && make_parent(&folder.path().join("a/b")).is_ok());
        for place in ["b", "b/c"] {
            let said = make_parent(&file.join(place)).unwrap_err().to_string();
            assert!(said.ends_with("lies under a file; name a place in a folder"), "{said}");
        }
    }
}
