//! The state of a training in `last.safetensors` of its folder (or several files and an index): weights,
//! moments and progress together, so that they can never disagree.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::evaluate::Metrics;
use crate::files::remove_if_there;
use crate::model::Params;
use crate::model::checkpoint::{self, HostWeights, read_notes, read_tensors, write_tensors};
use crate::model::optimizer::AdamW;
use crate::tensors::Notes;

/// Names the state's files.
const STEM: &str = "last";
const HINT: &str = "there is nothing to resume; train without --resume";
const FIRST: &str = "first_moment/";
const SECOND: &str = "second_moment/";

/// How far a training with settings `S` has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress<S> {
    /// What the run was started with.
    pub(crate) settings: S,
    /// Steps done.
    pub(crate) step: u64,
    /// Seconds spent in training, over all sessions.
    pub(crate) seconds: f64,
    /// The best validation so far and its step.
    pub(crate) best: Option<(u64, Metrics)>,
    /// Validations since the best.
    pub(crate) validations_without_gain: u32,
}

/// Writes the whole state into a folder.
pub(crate) fn save<S: Serialize>(
    folder: &Path,
    params: &Params,
    optimizer: &AdamW,
    progress: &Progress<S>,
) -> Result<()> {
    let mut tensors = params.to_host();
    let (first, second, _) = optimizer.state();
    for (prefix, moment) in [(FIRST, first), (SECOND, second)] {
        let named = params.by_name(moment).into_iter();
        tensors.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    let json = serde_json::to_string(progress).map_err(|e| TrainError::file(folder, e))?;
    write_tensors(folder, STEM, &tensors, Notes::from([("progress".to_owned(), json)]))
}

/// How far the training in a folder has come, `None` where there is none. Reads no weights.
pub(crate) fn progress<S: DeserializeOwned>(folder: &Path) -> Result<Option<Progress<S>>> {
    let is_there = |ending: &str| folder.join(format!("{STEM}.{ending}")).exists();
    if !is_there("safetensors") && !is_there("safetensors.index.json") {
        return Ok(None);
    }
    parse(folder, &read_notes(folder, STEM, HINT)?).map(Some)
}

/// What [`save`] wrote: tensors for [`restore`], and how far the training had come.
pub(crate) fn read<S: DeserializeOwned>(folder: &Path) -> Result<(HostWeights, Progress<S>)> {
    let (tensors, notes) = read_tensors(folder, STEM, HINT)?;
    Ok((tensors, parse(folder, &notes)?))
}

fn parse<S: DeserializeOwned>(folder: &Path, notes: &Notes) -> Result<Progress<S>> {
    let wrong = |reason: String| TrainError::file(folder, reason);
    notes
        .get("progress")
        .ok_or_else(|| wrong("holds no training state: no `progress`".into()))
        .and_then(|json| {
            let not_ours = |e| wrong(format!("holds another state ({e}); train without --resume"));
            serde_json::from_str(json).map_err(not_ours)
        })
}

/// Seconds that the training in a folder has taken so far, over all sessions; `None` where there is
/// none that could be taken up.
pub fn seconds_spent(folder: &Path) -> Option<f64> {
    let progress = progress::<serde_json::Value>(folder).ok()??;
    Some(progress.seconds)
}

/// Forgets the training in a folder: it cannot be taken up any more.
///
/// # Errors
/// [`TrainError::File`].
pub fn forget(folder: &Path) -> Result<()> {
    checkpoint::files(folder, STEM)?.iter().try_for_each(|file| remove_if_there(file))
}

/// Puts the tensors of the state in a folder, as after `steps` steps, into `params` and `optimizer`.
pub(crate) fn restore(
    folder: &Path,
    mut tensors: HostWeights,
    steps: u64,
    params: &mut Params,
    optimizer: &mut AdamW,
) -> Result<()> {
    let wrong = |reason: String| TrainError::file(folder, reason);
    let mut moment = |prefix: &str| {
        let named = tensors
            .extract_if(.., |name, _| name.starts_with(prefix))
            .map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor))
            .collect();
        let flat = params.flat_of(&named).map_err(|e| wrong(format!("{prefix}: {e}")))?;
        Ok::<_, TrainError>(flat.to_device(params.flat().device()))
    };
    let (first, second) = (moment(FIRST)?, moment(SECOND)?);
    params.load(&tensors).map_err(|e| wrong(e.to_string()))?;
    optimizer.load_state(&first, &second, steps as i32);
    Ok(())
}
