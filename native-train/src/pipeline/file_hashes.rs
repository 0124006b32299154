//! What is in a file or folder, as a hash; known hashes are kept by size and times, so that big
//! files are not read each time.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Result, TrainError};
use crate::files::{make_parent, read_json, write_json};
use crate::hash::hex;
use crate::run_dir::RunDir;

/// A file that changed this short ago may change again within the resolution of its time, so its
/// hash is not kept.
const YOUNG: Duration = Duration::from_secs(2);

/// Hashes of files, with a memory in a file of its own.
#[derive(Debug)]
pub struct FileHashes {
    memory: PathBuf,
    known: BTreeMap<String, Known>,
    changed: bool,
}

/// A hash, and what the file was like when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    /// The same of the last change of anything about the file: no program can set it, as those that
    /// copy or unpack a file do with the time above. Zero where the system does not tell.
    changed: u64,
    sha256: String,
}

impl FileHashes {
    /// With what an earlier command left in `memory`; a broken memory is none.
    pub fn open(memory: PathBuf) -> Self {
        let known = read_json(&memory, "").unwrap_or_default();
        Self { memory, known, changed: false }
    }

    /// The SHA-256, in hexadecimal, of a file, or of a folder's files with their names; `None`
    /// where there is neither.
    ///
    /// # Errors
    /// [`TrainError::File`] for what cannot be read.
    pub fn of(&mut self, path: &Path) -> Result<Option<String>> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
        if metadata.is_dir() {
            return self.of_folder(path).map(Some);
        }
        self.of_file(path, &metadata).map(Some)
    }

    /// Keeps what was learned for the next command.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        make_parent(&self.memory)?;
        write_json(&self.memory, &self.known)
    }

    fn of_folder(&mut self, folder: &Path) -> Result<String> {
        let failed = |e: std::io::Error| TrainError::file(folder, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_unstable();
        let mut hash = Sha256::new();
        for name in names {
            // A run that lies among the data is none of them, and changes with every command.
            if RunDir::is_at(&folder.join(&name)) {
                continue;
            }
            // What cannot be followed, such as a broken link, counts by its name.
            let content = self.of(&folder.join(&name))?.unwrap_or_default();
            hash.update(name.as_encoded_bytes());
            hash.update([0]);
            hash.update(content);
            hash.update([0]);
        }
        Ok(hex(hash))
    }

    fn of_file(&mut self, path: &Path, metadata: &Metadata) -> Result<String> {
        let failed = |e: std::io::Error| TrainError::file(path, e);
        let name = std::path::absolute(path).map_err(failed)?.to_string_lossy().into_owned();
        let now = state(metadata);
        if let Some(known) = self.known.get(&name)
            && (known.size, known.modified, known.changed) == now
        {
            return Ok(known.sha256.clone());
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block).map_err(failed)? {
                0 => break,
                read => hash.update(&block[..read]),
            }
        }
        let sha256 = hex(hash);
        let after = state(&file.metadata().map_err(failed)?);
        let (size, modified, changed) = now;
        let is_old = |time: u64| {
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_nanos(time));
            age.is_ok_and(|age| age > YOUNG)
        };
        if after == now && is_old(modified) && is_old(changed) {
            self.known.insert(name, Known { size, modified, changed, sha256: sha256.clone() });
            self.changed = true;
        }
        Ok(sha256)
    }
}

/// Size, time of the last write, and of the last change.
fn state(metadata: &Metadata) -> (u64, u64, u64) {
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    (metadata.len(), since.as_nanos() as u64, changed(metadata))
}

fn changed(metadata: &Metadata) -> u64 {
    // Of a file that runs share it is the time when another one took it up or gave it away.
    if metadata.nlink() > 1 {
        return 0;
    }
    let [seconds, nanos] = [metadata.ctime(), metadata.ctime_nsec()].map(|n| n.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    fn set_time(path: &Path, seconds: u64) {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn content_counts_and_a_known_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, memory) = (folder.path().join("f"), folder.path().join("m/hashes.json"));
        fs::write(&file, "abc").unwrap();
        set_time(&file, 1000);
        sleep(YOUNG + Duration::from_millis(100));
        let mut hashes = FileHashes::open(memory.clone());
        let first = hashes.of(&file).unwrap().unwrap();
        assert!(first.starts_with("ba7816bf"), "SHA-256 of abc: {first}");
        hashes.save().unwrap();
        let kept = fs::read_to_string(&memory).unwrap().replace(&first, "known");
        fs::write(&memory, kept).unwrap();
        let anew = || FileHashes::open(memory.clone()).of(&file).unwrap().unwrap();
        assert_eq!(anew(), "known");
        // Another content of the same size under the same time, as a program may set it.
        fs::write(&file, "abd").unwrap();
        set_time(&file, 1000);
        let second = anew();
        assert!(second != "known" && second != first);
        fs::write(&memory, "{").unwrap();
        assert_eq!(anew(), second);
        assert_eq!(hashes.of(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_young_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "abc").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let mut hashes = FileHashes::open(folder.path().join("m"));
        let first = hashes.of(&file).unwrap();
        fs::write(&file, "abd").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        assert_ne!(hashes.of(&file).unwrap(), first);
    }

    #[test]
    fn a_file_from_the_future_is_read_each_time() {
        // So it looks after the clock was set back: nothing says that it will not change again
        // at the same time.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let mut hashes = FileHashes::open(folder.path().join("m"));
        let mut of = |text: &str| {
            fs::write(&file, text).unwrap();
            set_time(&file, u64::from(u32::MAX));
            hashes.of(&file).unwrap()
        };
        assert_ne!(of("abc"), of("abd"));
    }

    #[test]
    fn a_folder_is_its_files_and_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join("d").join(name);
        fs::create_dir_all(at("sub")).unwrap();
        fs::write(at("a"), "1").unwrap();
        fs::write(at("sub/b"), "2").unwrap();
        let mut hashes = FileHashes::open(folder.path().join("m"));
        let mut of = || hashes.of(&folder.path().join("d")).unwrap().unwrap();
        let first = of();
        fs::write(at("sub/b"), "3").unwrap();
        let second = of();
        fs::rename(at("a"), at("c")).unwrap();
        let third = of();
        assert!(first != second && second != third);
        fs::rename(at("c"), at("a")).unwrap();
        assert_eq!(of(), second);
        // A run among the data is none of them.
        fs::create_dir_all(at("run/.tigret")).unwrap();
        fs::write(at("run/items.jsonl"), "4").unwrap();
        assert_eq!(of(), second);
    }
}
