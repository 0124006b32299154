//! The state of a training run in `model/last.safetensors` (or several files and an index): weights,
//! moments and progress together, so that they can never disagree.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::trainer::Settings;
use crate::error::{Result, TrainError};
use crate::evaluate::Metrics;
use crate::model::Params;
use crate::model::checkpoint::{read_tensors, write_tensors};
use crate::model::optimizer::AdamW;

/// Names the state's files.
const STEM: &str = "last";
const FIRST: &str = "first_moment/";
const SECOND: &str = "second_moment/";

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// What the run was started with.
    pub(super) settings: Settings,
    /// Steps done.
    pub(super) step: u64,
    /// Seconds spent in training, over all sessions.
    pub(super) seconds: f64,
    /// The best validation so far and its step.
    pub(super) best: Option<(u64, Metrics)>,
    /// Validations since the best.
    pub(super) validations_without_gain: u32,
}

/// Writes the whole state into a run's `model/`.
pub(super) fn save(
    folder: &Path,
    params: &Params,
    optimizer: &AdamW,
    progress: &Progress,
) -> Result<()> {
    let mut tensors = params.to_host();
    let (first, second, _) = optimizer.state();
    for (prefix, moment) in [(FIRST, first), (SECOND, second)] {
        let named = params.by_name(moment).into_iter();
        tensors.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    let json = serde_json::to_string(progress).map_err(|e| TrainError::file(folder, e))?;
    write_tensors(folder, STEM, &tensors, HashMap::from([("progress".to_owned(), json)]))
}

/// Reads what [`save`] wrote into `params` and `optimizer`.
pub(super) fn load(folder: &Path, params: &mut Params, optimizer: &mut AdamW) -> Result<Progress> {
    let (mut tensors, metadata) =
        read_tensors(folder, STEM, "there is nothing to resume; train without --resume")?;
    let wrong = |reason: String| TrainError::file(folder, reason);
    let progress: Progress = metadata
        .get("progress")
        .ok_or_else(|| wrong("holds no training state: no `progress`".into()))
        .and_then(|json| serde_json::from_str(json).map_err(|e| wrong(e.to_string())))?;
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
    optimizer.load_state(&first, &second, progress.step as i32);
    Ok(progress)
}
