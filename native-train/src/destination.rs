//! Where a file is written, and what it may replace.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Result, TrainError};
use crate::files::{DEVICE, FOLDER, takes_files, write_atomically};

/// Writes an output that the user names, as [`write_atomically`], but through a link.
///
/// # Errors
/// As [`destination`] and [`write_atomically`].
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    write_atomically(&destination(path)?, write)
}

/// The place of a file that is written to a path: the path itself, or what a link there leads to,
/// so that the link stays.
///
/// # Errors
/// [`TrainError::File`] where something lies that is no regular file: a folder, a device, a pipe,
/// or a link to nothing.
pub(crate) fn destination(path: &Path) -> Result<PathBuf> {
    let wrong = |reason: &str| Err(TrainError::file(path, reason));
    // What keeps a file from being made is said when it is made.
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(path.to_owned()) };
    match fs::metadata(path) {
        Ok(_) if there.is_file() => Ok(path.to_owned()),
        Ok(target) if target.is_file() => {
            path.canonicalize().map_err(|e| TrainError::file(path, e))
        }
        Ok(target) if target.is_dir() => wrong(FOLDER),
        Ok(_) => wrong(DEVICE),
        Err(_) => wrong("is a link to nothing; remove it, or choose another name"),
    }
}

/// Refuses to replace what lies at a path, unless nothing does, or an empty file, or one that
/// `is_ours`; `what` completes the message: why the existing file is not ours.
///
/// # Errors
/// [`TrainError::File`]; also where no file can be put ([`destination`]).
pub(crate) fn check_replaces(
    path: &Path,
    is_ours: impl FnOnce(File) -> bool,
    what: &str,
) -> Result<()> {
    let Ok(there) = fs::metadata(destination(path)?) else { return Ok(()) };
    // A name that a script has reserved loses nothing.
    if there.len() == 0 || File::open(path).is_ok_and(is_ours) {
        return Ok(());
    }
    Err(TrainError::file(
        path,
        format!("is there already and {what}; remove it, or choose another name"),
    ))
}

/// Refuses a path at which no file can be written, so that long work does not end with a result that
/// finds no place: the folder that would hold it, or the folders in between, is a file or takes none.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let place = destination(path)?;
    let is_there = |folder: &&Path| folder.as_os_str().is_empty() || fs::metadata(folder).is_ok();
    // The ancestors of a relative path end in an empty one, and of any other in the root.
    let Some(nearest) = place.ancestors().skip(1).find(is_there) else { return Ok(()) };
    let folder = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    let reason = if folder.is_dir() {
        match takes_files(folder) {
            Ok(()) => return Ok(()),
            Err(error) => {
                format!("cannot be written: {} takes no file ({error})", folder.display())
            }
        }
    } else {
        format!("cannot be written: {} is a file, not a folder", folder.display())
    };
    Err(TrainError::file(path, reason))
}

/// At most the first `length` bytes of a file.
///
/// # Errors
/// Of reading it.
pub(crate) fn start(file: &mut File, length: usize) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(length as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::unfinished;

    #[test]
    fn what_is_not_ours_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let ours = |mut file: File| start(&mut file, 4).is_ok_and(|start| start == b"ours");
        let check = || check_replaces(&path, ours, "is theirs").map_err(|e| e.to_string());
        assert_eq!(check(), Ok(()));
        for (text, expected) in [("", true), ("ours, longer", true), ("our", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(check().is_ok(), expected, "{text}");
        }
        let reason = "a: is there already and is theirs; remove it, or choose another name";
        assert!(check().unwrap_err().ends_with(reason));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(check().unwrap_err().ends_with("a: is a folder; name a file"));
    }

    #[test]
    fn a_place_that_no_file_can_get_is_refused_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("file"), "").unwrap();
        let check = |name: &str| check_place(&folder.join(name));
        assert!(check("new").is_ok() && check("new/deep/er").is_ok() && check("file").is_ok());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is left behind");
        for name in ["file/a", "file/b/c"] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.ends_with("file is a file, not a folder"), "{error}");
        }
        // Where even root can make none.
        if let Err(error) = check_place(Path::new("/proc/x")) {
            assert!(error.to_string().contains("/proc/x: cannot be written: /proc takes no file"));
        }
    }

    #[test]
    fn links_lead_to_their_file_and_devices_take_none() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (file, link) = (folder.join("file"), folder.join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        let refused = |path: &Path| destination(path).unwrap_err().to_string();
        assert!(refused(&link).contains("link: is a link to nothing"));
        fs::write(&file, "old").unwrap();
        assert_eq!(destination(&link).unwrap(), file);
        write(&link, |out| out.write_all(b"new")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        // What a run writes by itself is its own.
        let own = folder.join("own");
        std::os::unix::fs::symlink("file", &own).unwrap();
        write_atomically(&own, |out| out.write_all(b"newer")).unwrap();
        assert!(!own.is_symlink());
        assert_eq!([&own, &file].map(|f| fs::read_to_string(f).unwrap()), ["newer", "new"]);
        assert!(!unfinished(&file).exists());

        assert!(refused(Path::new("/dev/null")).contains("/dev/null: is a device or a pipe"));
        let pipe = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = write_atomically(&pipe, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("pipe: is a device or a pipe"), "{error}");
        assert!(!pipe.is_file());
    }
}
