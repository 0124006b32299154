//! Finished steps of many runs in one place: what one run has made, another with the same options
//! and inputs takes as a hard link.

use std::fs;
use std::path::{Path, PathBuf};

use super::file_hashes::FileHashes;
use super::stamp::{Key, Stamp};
use crate::error::{Result, TrainError};
use crate::files::{make_parent, read_json, remove_if_there, unfinished, write_json};
use crate::run_dir::RunDir;

/// A folder of finished steps.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Names the folder; it is made when the first step is kept.
    pub fn named(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What a step with this key wrote, if it is here and whole.
    ///
    /// # Errors
    /// [`TrainError::File`] when a file cannot be read.
    pub fn find(&self, key: &Key, hashes: &mut FileHashes) -> Result<Option<Stamp>> {
        let folder = self.root.join(key.id());
        let stamp = read_json::<Stamp>(&folder.join("stamp.json"), "");
        let Some(stamp) = stamp.ok().filter(|stamp| key.difference(&stamp.key).is_none()) else {
            return Ok(None);
        };
        for (name, hash) in &stamp.outputs {
            // A link is the same file: somebody may have written into it by way of a run.
            if hashes.of(&folder.join(name))?.as_ref() != Some(hash) {
                return Ok(None);
            }
        }
        Ok(Some(stamp))
    }

    /// Lays what [`Store::find`] found for a key into a run.
    ///
    /// # Errors
    /// [`TrainError::File`] when a file cannot be laid there.
    pub fn lay_into(&self, key: &Key, stamp: &Stamp, run: &RunDir) -> Result<()> {
        let folder = self.root.join(key.id());
        // What an earlier step of other options left may not belong to what comes.
        key.step.writes(run).iter().try_for_each(|path| remove_if_there(path))?;
        let mut names = stamp.outputs.keys();
        names.try_for_each(|name| lay(&folder.join(name), &run.root().join(name)))
    }

    /// Keeps what a step wrote into a run. What lies outside of the run is not kept, and then
    /// the step is not.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn keep(&self, stamp: &Stamp, run: &RunDir) -> Result<()> {
        if stamp.outputs.keys().any(|name| Path::new(name).is_absolute()) {
            return Ok(());
        }
        let folder = self.root.join(stamp.key.id());
        for name in stamp.outputs.keys() {
            lay(&run.root().join(name), &folder.join(name))?;
        }
        // Last, so that its presence says that the rest is there.
        write_json(&folder.join("stamp.json"), stamp)
    }
}

/// Links a file, or copies it where links cannot be, in place of what is there.
fn lay(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| TrainError::file(to, e);
    make_parent(to)?;
    let partial = unfinished(to);
    remove_if_there(&partial)?;
    fs::hard_link(from, &partial)
        .or_else(|_| fs::copy(from, &partial).map(|_| ()))
        .and_then(|()| fs::rename(&partial, to))
        .map_err(failed)?;
    // Renaming one link of a file over another of it does nothing and leaves both.
    remove_if_there(&partial)
}
