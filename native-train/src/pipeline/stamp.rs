//! When a step counts as done: its options, the program and the content of its inputs are what
//! they were when it last finished, and what it wrote is still there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::arguments::Call;
use super::file_hashes::FileHashes;
use super::step::Step;
use crate::error::Result;
use crate::files::{make_parent, remove_if_there, write_json};
use crate::hash::hex;
use crate::run_dir::RunDir;

/// All that decides what a step makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The step.
    pub step: Step,
    /// [`Step::revision`].
    pub revision: u32,
    /// [`Call::options`].
    pub options: BTreeMap<String, Vec<String>>,
    /// SHA-256 of each input, by its path in the run directory or the option that names it.
    pub inputs: BTreeMap<String, String>,
}

impl Key {
    /// The key of a call as things stand.
    ///
    /// # Errors
    /// [`crate::TrainError::File`] for an input that cannot be read.
    pub fn new(call: &Call, run: &RunDir, hashes: &mut FileHashes) -> Result<Self> {
        let mut inputs = BTreeMap::new();
        for path in call.step.reads(run) {
            if let Some(hash) = hashes.of(&path)? {
                inputs.insert(name(&path, run), hash);
            }
        }
        for (option, path) in &call.files {
            // A file that is missing is the verb's to report.
            if let Some(hash) = hashes.of(path)? {
                inputs.insert(format!("--{option}"), hash);
            }
        }
        let (step, options) = (call.step, call.options.clone());
        Ok(Self { step, revision: step.revision(), options, inputs })
    }

    /// A name for the key: equal keys have the same, and others another.
    pub fn id(&self) -> String {
        // Our own types have string keys and no failing serialisers.
        let text = serde_json::to_string(self).unwrap_or_default();
        let hash = hex(Sha256::new_with_prefix(text));
        format!("{}-{}", self.step, &hash[..20])
    }

    /// What is other than it was, in words; `None` if nothing is.
    fn difference(&self, earlier: &Self) -> Option<String> {
        if self.revision != earlier.revision {
            return Some("this program computes it in another way".into());
        }
        let changed = |now: &BTreeMap<String, String>, then: &BTreeMap<String, String>| {
            now.keys().chain(then.keys()).find(|key| now.get(*key) != then.get(*key)).cloned()
        };
        if let Some(input) = changed(&self.inputs, &earlier.inputs) {
            return Some(format!("{input} has changed"));
        }
        let mut options = self.options.keys().chain(earlier.options.keys());
        let option =
            options.find(|&option| self.options.get(option) != earlier.options.get(option))?;
        let told = |key: &Self| match key.options.get(option) {
            Some(values) => values.join(","),
            None => "not given".into(),
        };
        Some(format!("--{option} is {}, was {}", told(self), told(earlier)))
    }
}

/// A step that finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// What it was made of.
    pub key: Key,
    /// SHA-256 of each file that it wrote, by its path in the run directory or its whole path.
    pub outputs: BTreeMap<String, String>,
    /// What it took.
    pub seconds: f64,
    /// What it printed.
    pub result: Value,
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Nothing is to be done.
    Done(Box<Stamp>),
    /// It began with this very key and did not come to its end.
    Unfinished,
    /// It has to be done, for this reason.
    Due(String),
}

/// How a step with this key stands in a run.
///
/// # Errors
/// [`crate::TrainError::File`] for an output that cannot be read.
pub fn state(key: &Key, run: &RunDir, hashes: &mut FileHashes) -> Result<State> {
    if let Some(begun) = read::<Key>(&run.started(key.step.verb())) {
        return Ok(match key.difference(&begun) {
            None => State::Unfinished,
            Some(why) => State::Due(format!("was interrupted and begins anew: {why}")),
        });
    }
    let Some(stamp) = read::<Stamp>(&run.stamp(key.step.verb())) else {
        return Ok(State::Due("not done yet".into()));
    };
    if let Some(difference) = key.difference(&stamp.key) {
        return Ok(State::Due(difference));
    }
    for (output, hash) in &stamp.outputs {
        match hashes.of(&run.root().join(output))? {
            None => return Ok(State::Due(format!("{output} is gone"))),
            Some(now) if now != *hash => {
                return Ok(State::Due(format!("{output} is not what it wrote")));
            }
            Some(_) => {}
        }
    }
    Ok(State::Done(Box::new(stamp)))
}

/// Notes that a step begins: until [`finish`] it does not count as done, and training, which can
/// be taken up, counts as unfinished.
///
/// # Errors
/// [`crate::TrainError::File`].
pub fn begin(key: &Key, run: &RunDir) -> Result<()> {
    remove_if_there(&run.stamp(key.step.verb()))?;
    match key.step {
        Step::Train => write(&run.started(key.step.verb()), key),
        _ => Ok(()),
    }
}

/// Notes that a step came to its end.
///
/// # Errors
/// [`crate::TrainError::File`].
pub fn finish(stamp: &Stamp, run: &RunDir) -> Result<()> {
    write(&run.stamp(stamp.key.step.verb()), stamp)?;
    forget_unfinished(stamp.key.step, run)
}

/// Forgets that a step began: it came to its end, or something else has taken the place of its
/// unfinished work.
///
/// # Errors
/// [`crate::TrainError::File`].
pub fn forget_unfinished(step: Step, run: &RunDir) -> Result<()> {
    remove_if_there(&run.started(step.verb()))
}

/// The files that a call wrote, with their hashes.
///
/// # Errors
/// [`crate::TrainError::File`] for one that cannot be read.
pub fn outputs(
    call: &Call,
    run: &RunDir,
    hashes: &mut FileHashes,
) -> Result<BTreeMap<String, String>> {
    let mut outputs = BTreeMap::new();
    for path in call.step.writes(run).iter().chain(&call.out) {
        if let Some(hash) = hashes.of(path)? {
            outputs.insert(name(path, run), hash);
        }
    }
    Ok(outputs)
}

/// A path as it stands in stamps.
fn name(path: &Path, run: &RunDir) -> String {
    path.strip_prefix(run.root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// What stands in a file, or nothing where it is missing, broken or of an older form.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    make_parent(path)?;
    write_json(path, value)
}
