//! The state of a training run in `last.safetensors`: weights, moments and progress in one file,
//! so that they can never disagree.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::trainer::Settings;
use crate::error::{Result, TrainError};
use crate::evaluate::Metrics;
use crate::model::Params;
use crate::model::checkpoint::{read_tensors, write_tensors};
use crate::model::optimizer::AdamW;
use crate::model::params::to_vec;

const FIRST: &str = "optimizer.first_moment";
const SECOND: &str = "optimizer.second_moment";

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

/// Writes the whole state.
pub(super) fn save(
    path: &Path,
    params: &Params,
    optimizer: &AdamW,
    progress: &Progress,
) -> Result<()> {
    let mut tensors = params.to_host();
    let (first, second, _) = optimizer.state();
    tensors.insert(FIRST.into(), (vec![params.len()], to_vec(first)));
    tensors.insert(SECOND.into(), (vec![params.len()], to_vec(second)));
    let json = serde_json::to_string(progress).map_err(|e| TrainError::file(path, e))?;
    write_tensors(path, &tensors, HashMap::from([("progress".to_owned(), json)]))
}

/// Reads what [`save`] wrote into `params` and `optimizer`.
pub(super) fn load(path: &Path, params: &mut Params, optimizer: &mut AdamW) -> Result<Progress> {
    let (mut tensors, metadata) =
        read_tensors(path, "there is nothing to resume; train without --resume")?;
    let progress: Progress = metadata
        .get("progress")
        .ok_or_else(|| TrainError::file(path, "is not a training state: no `progress`"))
        .and_then(|json| serde_json::from_str(json).map_err(|e| TrainError::file(path, e)))?;
    let mut moment = |name: &str| match tensors.remove(name) {
        Some((_, values)) if values.len() == params.len() => {
            Ok(Tensor::from_slice(&values).to_device(params.flat().device()))
        }
        _ => Err(TrainError::file(path, format!("`{name}` is missing or has another size"))),
    };
    let (first, second) = (moment(FIRST)?, moment(SECOND)?);
    params.load(&tensors).map_err(|e| TrainError::file(path, e))?;
    optimizer.load_state(&first, &second, progress.step as i32);
    Ok(progress)
}
