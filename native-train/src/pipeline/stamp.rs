//! When a step counts as done: its options, the program and the content of its inputs are what
//! they were when it last finished, and what it wrote is still there.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
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
use crate::train;

/// The option that limits how long a training may take, over all calls.
pub(super) const MAX_MINUTES: &str = "max-minutes";

/// All that decides what a step makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// The step.
    pub step: Step,
    /// [`Step::revision`].
    pub revision: u32,
    /// [`Call::options`].
    pub options: BTreeMap<String, Vec<String>>,
    /// [`Call::defaults`]: one of which an earlier key does not know is of a newer version, which without
    /// it makes what the earlier one made.
    #[serde(skip)]
    defaults: BTreeSet<String>,
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
        let Call { step, options, defaults, .. } = call.clone();
        Ok(Self { step, revision: step.revision(), options, defaults, inputs })
    }

    /// A name for the key: keys between which there is no difference have the same, of whichever
    /// version they are.
    pub fn id(&self) -> String {
        let mut given = self.clone();
        given.options.retain(|option, _| !self.defaults.contains(option));
        let hash = hex(Sha256::new_with_prefix(given.text()));
        format!("{}-{}", self.step, &hash[..20])
    }

    /// The whole key, as [`state`] reads it.
    pub fn text(&self) -> String {
        // Our own types have string keys and no failing serialisers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether a training that `earlier` began is the beginning of one with this key: nothing is other
    /// than how long it may take, which is no less than before, or more than the `minutes` that it has
    /// taken.
    fn continues(&self, earlier: &Self, minutes: f64) -> bool {
        let number = |key: &Self, option: &str| -> Option<f64> {
            key.options.get(option)?.first()?.parse().ok()
        };
        // The rates of a linear schedule follow from the epochs.
        let is_linear = self.options.get("schedule").is_some_and(|values| values == &["linear"]);
        let lengths = if is_linear { &["patience"][..] } else { &["patience", "epochs"] };
        let apart = |key: &Self| {
            let mut key = key.clone();
            key.options.retain(|option, _| option != MAX_MINUTES && !lengths.contains(&&**option));
            key
        };
        let limit = |key: &Self| number(key, MAX_MINUTES).unwrap_or(f64::INFINITY);
        apart(self).difference(&apart(earlier)).is_none()
            && (minutes < limit(self) || limit(earlier) <= limit(self))
            && lengths.iter().all(|option| number(self, option) >= number(earlier, option))
    }

    /// What is other than it was, in words; `None` if nothing is.
    pub(super) fn difference(&self, earlier: &Self) -> Option<String> {
        if self.revision != earlier.revision {
            return Some("this program computes it in another way".into());
        }
        let changed = |now: &BTreeMap<String, String>, then: &BTreeMap<String, String>| {
            now.keys().chain(then.keys()).find(|key| now.get(*key) != then.get(*key)).cloned()
        };
        if let Some(input) = changed(&self.inputs, &earlier.inputs) {
            return Some(format!("{input} has changed"));
        }
        let is_new = |option: &String| {
            self.defaults.contains(option) && !earlier.options.contains_key(option)
        };
        let mut options = self.options.keys().chain(earlier.options.keys());
        let option = options.find(|&option| {
            self.options.get(option) != earlier.options.get(option) && !is_new(option)
        })?;
        let told = |key: &Self| match key.options.get(option) {
            Some(values) => values.join(","),
            None => "not given".into(),
        };
        Some(format!("--{option} is {}, was {}", told(self), told(earlier)))
    }
}

/// A step that finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone)]
pub enum State {
    /// Nothing is to be done.
    Done(Box<Stamp>),
    /// It began as one of this key and can go on, for this reason.
    Unfinished(String),
    /// It was done, and the training has gone on from there since.
    Further,
    /// It was done, and the files are not those that it wrote any more, for this reason.
    Outdated(String),
    /// It has to be done, for this reason.
    Due(String),
}

/// How a step with this key stands in a run.
///
/// # Errors
/// [`crate::TrainError::File`] for an output that cannot be read.
pub fn state(key: &Key, run: &RunDir, hashes: &mut FileHashes) -> Result<State> {
    let stamp = read::<Stamp>(&run.stamp(key.step.verb()));
    let begun = begun(key.step, run);
    let difference = stamp.as_ref().and_then(|stamp| key.difference(&stamp.key));
    // What another key has made is looked at only where a training could go on from it.
    let of_interest = stamp.as_ref().filter(|_| difference.is_none() || begun.is_some());
    let outdated = of_interest.map(|stamp| stamp.outdated(run, hashes)).transpose()?.flatten();
    // How far the state is beyond the end of what has finished; `None` where it is another training's.
    let beyond = stamp.as_ref().zip(begun.as_ref()).and_then(|(stamp, begun)| {
        // This one knows its defaults.
        let of_stamp = if difference.is_none() { key } else { &stamp.key };
        let is_its = of_stamp.difference(&begun.key).is_none();
        is_its.then(|| Some(begun.steps.cmp(&stamp.result["steps"].as_u64()?))).flatten()
    });
    if let (Some(stamp), None) = (&stamp, &difference) {
        return Ok(match outdated {
            None => State::Done(Box::new(stamp.clone())),
            Some(_) if beyond.is_some_and(Ordering::is_gt) => State::Further,
            Some(why) => State::Outdated(why),
        });
    }
    let of_state = match &begun {
        None => None,
        Some(begun) => match key.difference(&begun.key) {
            None => return Ok(State::Unfinished("was interrupted".into())),
            // From its end only with the model that it wrote.
            Some(why)
                if key.continues(&begun.key, begun.minutes)
                    && (outdated.is_none() || beyond != Some(Ordering::Equal)) =>
            {
                return Ok(State::Unfinished(why));
            }
            why => why,
        },
    };
    Ok(State::Due(match (difference, of_state) {
        // Beside a stamp it may be the state of what has finished.
        (Some(why), _) => why,
        (None, Some(why)) => format!("was interrupted and begins anew: {why}"),
        (None, None) => "not done yet".into(),
    }))
}

/// A training that could be taken up, as far as it has come.
struct Begun {
    /// With what `tigret run` began it, or let it go on.
    key: Key,
    steps: u64,
    minutes: f64,
}

/// The training in a run that could be taken up and of which `tigret run` knows.
fn begun(step: Step, run: &RunDir) -> Option<Begun> {
    let begun = (step == Step::Train).then(|| train::begun(&run.model()))??;
    let key = serde_json::from_str(&begun.by?).ok()?;
    Some(Begun { key, steps: begun.steps, minutes: begun.seconds / 60.0 })
}

impl Stamp {
    /// Why the files that lie in a run are not those that the step wrote, if so.
    pub(super) fn outdated(&self, run: &RunDir, hashes: &mut FileHashes) -> Result<Option<String>> {
        let is_not_its = |name: &str| Some(format!("{name} is not what it wrote"));
        for (output, hash) in &self.outputs {
            match hashes.of(&run.root().join(output))? {
                None => return Ok(Some(format!("{output} is gone"))),
                Some(now) if now != *hash => return Ok(is_not_its(output)),
                Some(_) => {}
            }
        }
        // What it need not write, and the same step with other options has.
        let written = self.key.step.writes(run).into_iter().filter(|path| path.exists());
        let mut names = written.map(|path| name(&path, run));
        Ok(names.find(|name| !self.outputs.contains_key(name)).and_then(|name| is_not_its(&name)))
    }
}

/// Notes that a step came to its end.
///
/// # Errors
/// [`crate::TrainError::File`].
pub fn finish(stamp: &Stamp, run: &RunDir) -> Result<()> {
    write(&run.stamp(stamp.key.step.verb()), stamp)
}

/// Before a step with this key begins from nothing: forgets that it came to its end with the same before,
/// and the state of a training that did; returns the stamp. Else what is interrupted now would count as
/// done, or a training with nothing left to train would go on.
///
/// A stamp of another key stays: it counts only as long as all that it tells of is there, and what the
/// verb refuses at once has changed nothing.
///
/// # Errors
/// [`crate::TrainError::File`].
pub fn forget(key: &Key, run: &RunDir) -> Result<Option<Stamp>> {
    let path = run.stamp(key.step.verb());
    let stamp = read::<Stamp>(&path).filter(|stamp| key.difference(&stamp.key).is_none());
    let Some(stamp) = stamp else { return Ok(None) };
    // The stamp last: without it the state would be taken for one that was interrupted.
    if begun(key.step, run).is_some_and(|begun| key.difference(&begun.key).is_none()) {
        train::forget(&run.model())?;
    }
    remove_if_there(&path)?;
    Ok(Some(stamp))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(options: &[(&str, &str)], defaults: &[&str]) -> Key {
        let options = options.iter().map(|&(name, value)| (name.into(), vec![value.into()]));
        Key {
            step: Step::Embed,
            revision: Step::Embed.revision(),
            options: options.collect(),
            defaults: defaults.iter().map(|&name| name.into()).collect(),
            inputs: BTreeMap::new(),
        }
    }

    #[test]
    fn an_option_that_a_newer_version_has_changes_nothing_until_somebody_gives_it() {
        let earlier = key(&[("seed", "0")], &["seed"]);
        let by_default = key(&[("seed", "0"), ("new", "1")], &["seed", "new"]);
        assert_eq!(by_default.difference(&earlier), None);
        assert_eq!(by_default.id(), earlier.id());
        let given = key(&[("seed", "0"), ("new", "1")], &["seed"]);
        assert_eq!(given.difference(&earlier).as_deref(), Some("--new is 1, was not given"));
        assert_ne!(given.id(), earlier.id());
        // Of one that both have, the values count.
        let other = key(&[("seed", "1")], &["seed"]);
        assert_eq!(other.difference(&earlier).as_deref(), Some("--seed is 1, was 0"));
    }

    #[test]
    fn a_step_is_done_as_long_as_what_it_wrote_is_there_and_nothing_else_of_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::named(folder.path());
        let hashes = || FileHashes::open(run.hashes());
        let key = key(&[], &[]);
        std::fs::write(run.vectors(), "vectors").unwrap();
        let hash = hashes().of(&run.vectors()).unwrap().unwrap();
        let outputs = BTreeMap::from([(name(&run.vectors(), &run), hash)]);
        finish(&Stamp { key: key.clone(), outputs, seconds: 1.0, result: Value::Null }, &run)
            .unwrap();
        let told = || match state(&key, &run, &mut hashes()).unwrap() {
            State::Done(_) => "done".to_owned(),
            State::Further => "trained further".to_owned(),
            State::Unfinished(why) | State::Outdated(why) | State::Due(why) => why,
        };
        assert_eq!(told(), "done");
        // As a step of other options leaves it that is killed before it writes the rest.
        std::fs::write(run.encoder(), "of another").unwrap();
        assert_eq!(told(), "encoder.safetensors is not what it wrote");
        std::fs::remove_file(run.encoder()).unwrap();
        assert_eq!(told(), "done");
        std::fs::write(run.vectors(), "others").unwrap();
        assert_eq!(told(), "vectors.safetensors is not what it wrote");
        std::fs::remove_file(run.vectors()).unwrap();
        assert_eq!(told(), "vectors.safetensors is gone");
    }
}
