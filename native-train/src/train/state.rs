//! The state of a training in `last.safetensors` of its folder (or several files and an index): weights,
//! their average, moments and progress together, so that they can never disagree.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::files::remove_if_there;
use crate::metrics::Metrics;
use crate::model::Params;
use crate::model::average::Average;
use crate::model::checkpoint::{self, HostWeights, read_notes, read_tensors, write_tensors};
use crate::model::optimizer::AdamW;
use crate::tensors::Notes;

/// Names the state's files.
const STEM: &str = "last";
const HINT: &str = "there is nothing to resume; train without --resume";

/// How to begin a training of TIGER again.
pub(super) const AGAIN: &str =
    "begin again: train without --resume, or call `tigret run` with --from train --force";
const FIRST: &str = "first_moment/";
const SECOND: &str = "second_moment/";
const AVERAGE: &str = "average/";

/// How far a training with identity `I` has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress<I> {
    /// What the run follows from.
    #[serde(rename = "settings")]
    pub(crate) identity: I,
    /// Steps done.
    pub(crate) step: u64,
    /// What began it, or let it go on, where that was not the user: the key of `tigret run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun_by: Option<String>,
    /// Seconds spent in training, over all sessions.
    pub(crate) seconds: f64,
    /// The best validation so far and its step.
    pub(crate) best: Option<(u64, Metrics)>,
    /// Validations since the best.
    pub(crate) validations_without_gain: u32,
}

impl<I> Progress<I> {
    /// Counts a validation after the steps done. Returns whether it is the best so far.
    ///
    /// One that is not planned, since the time is used up, takes no patience: a training in pieces
    /// would have less of it than one in one piece.
    pub(crate) fn validated(&mut self, metrics: Metrics, is_planned: bool) -> bool {
        let better = self.best.is_none_or(|(_, best)| metrics.ndcg_10 > best.ndcg_10);
        if better {
            self.best = Some((self.step, metrics));
            self.validations_without_gain = 0;
        } else {
            self.validations_without_gain += u32::from(is_planned);
        }
        better
    }
}

/// Writes the whole state into a folder.
pub(crate) fn save<I: Serialize>(
    folder: &Path,
    params: &Params,
    optimizer: &AdamW,
    average: Option<&Average>,
    progress: &Progress<I>,
) -> Result<()> {
    let mut tensors = params.to_host();
    let (first, second, _) = optimizer.state();
    let average = average.map(|average| (AVERAGE, average.flat()));
    for (prefix, flat) in [(FIRST, first), (SECOND, second)].into_iter().chain(average) {
        let named = params.by_name(flat).into_iter();
        tensors.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    let json = serde_json::to_string(progress).map_err(|e| TrainError::file(folder, e))?;
    write_tensors(folder, STEM, &tensors, Notes::from([("progress".to_owned(), json)]))
}

/// How far the training in a folder has come, `None` where there is none. Reads no weights. `again`
/// says how to begin again where the state is of no use.
pub(crate) fn progress<I: DeserializeOwned>(
    folder: &Path,
    again: &str,
) -> Result<Option<Progress<I>>> {
    let is_there = |ending: &str| folder.join(format!("{STEM}.{ending}")).exists();
    if !is_there("safetensors") && !is_there("safetensors.index.json") {
        return Ok(None);
    }
    parse(folder, &read_notes(folder, STEM, HINT)?, again).map(Some)
}

/// What [`save`] wrote: tensors for [`restore`], and how far the training had come.
pub(crate) fn read<I: DeserializeOwned>(folder: &Path) -> Result<(HostWeights, Progress<I>)> {
    let (tensors, notes) = read_tensors(folder, STEM, HINT)?;
    Ok((tensors, parse(folder, &notes, AGAIN)?))
}

fn parse<I: DeserializeOwned>(folder: &Path, notes: &Notes, again: &str) -> Result<Progress<I>> {
    let wrong = |reason: String| TrainError::file(folder, reason);
    let progress: Progress<I> = notes
        .get("progress")
        .ok_or_else(|| wrong("holds no training state: no `progress`".into()))
        .and_then(|json| {
            let of_another_version =
                |e| wrong(format!("holds the state of another version of Tigret ({e}); {again}"));
            serde_json::from_str(json).map_err(of_another_version)
        })?;
    let Progress { step, seconds, .. } = progress;
    if i32::try_from(step).is_err() || Duration::try_from_secs_f64(seconds).is_err() {
        return Err(wrong(format!(
            "holds a damaged state (step {step} after {seconds:?} seconds); {again}"
        )));
    }
    Ok(progress)
}

/// A training that could be taken up.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// What began it, or let it go on, where that was not the user: the key of `tigret run`.
    pub by: Option<String>,
    /// Steps that it has done.
    pub steps: u64,
    /// Seconds that it has taken so far, over all sessions.
    pub seconds: f64,
}

/// The training in a folder; `None` where there is none that could be taken up.
pub fn begun(folder: &Path) -> Option<Begun> {
    let progress = progress::<serde_json::Value>(folder, AGAIN).ok()??;
    // The best model so far is not in the state.
    let has_model = || {
        let weights = checkpoint::files(folder, checkpoint::MODEL);
        weights.is_ok_and(|files| !files.is_empty()) && folder.join("config.json").exists()
    };
    (progress.best.is_none() || has_model()).then_some(Begun {
        by: progress.begun_by,
        steps: progress.step,
        seconds: progress.seconds,
    })
}

/// Removes the state of the training in a folder: it cannot be taken up any more.
///
/// # Errors
/// [`TrainError::File`].
pub fn forget(folder: &Path) -> Result<()> {
    checkpoint::files(folder, STEM)?.iter().try_for_each(|file| remove_if_there(file))
}

/// Puts the tensors of the state in a folder, as after `steps` steps, into `params`, `optimizer` and
/// `average`.
pub(crate) fn restore(
    folder: &Path,
    mut tensors: HostWeights,
    steps: u64,
    params: &mut Params,
    optimizer: &mut AdamW,
    average: Option<&mut Average>,
) -> Result<()> {
    let wrong = |reason: String| TrainError::file(folder, reason);
    let mut of_buffer = |prefix: &str| {
        let named = tensors
            .extract_if(.., |name, _| name.starts_with(prefix))
            .map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor))
            .collect();
        let flat = params.flat_of(&named).map_err(|e| wrong(format!("{prefix}: {e}")))?;
        Ok::<_, TrainError>(flat.to_device(params.flat().device()))
    };
    let (first, second) = (of_buffer(FIRST)?, of_buffer(SECOND)?);
    if let Some(average) = average {
        average.load(&of_buffer(AVERAGE)?);
    }
    params.load(&tensors).map_err(|e| wrong(e.to_string()))?;
    optimizer.load_state(&first, &second, steps as i32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_planned_validations_use_up_the_patience() {
        let metrics = |ndcg_10| Metrics { ndcg_10, ..Metrics::default() };
        let mut progress = Progress {
            identity: (),
            step: 1,
            begun_by: None,
            seconds: 0.0,
            best: None,
            validations_without_gain: 0,
        };
        assert!(progress.validated(metrics(0.5), false));
        assert!(!progress.validated(metrics(0.4), false));
        assert_eq!(progress.validations_without_gain, 0);
        assert!(!progress.validated(metrics(0.4), true));
        assert_eq!(progress.validations_without_gain, 1);
        progress.step = 2;
        assert!(progress.validated(metrics(0.6), false));
        assert_eq!((progress.validations_without_gain, progress.best.unwrap().0), (0, 2));
    }
}
