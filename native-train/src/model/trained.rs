//! A trained model in memory.

use std::path::Path;

use tch::Device;
use tigret_infer::{T5Config, TokenLayout};

use super::checkpoint::{self, HostWeights};
use super::params::Views;
use super::{Params, Provenance, T5};
use crate::error::{Result, TrainError};

/// A model and the weights to run it with.
#[derive(Debug)]
pub struct TrainedModel {
    /// The network.
    pub model: T5,
    /// Its weights.
    pub weights: Views,
}

impl TrainedModel {
    /// Reads a checkpoint folder, onto `device`, for semantic IDs of this layout; `fits` tells whether
    /// a model that says what it was trained on goes with them.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that is missing or wrong, and for a model that does not go
    /// with these semantic IDs.
    pub fn load(
        folder: &Path,
        layout: &TokenLayout,
        fits: impl FnOnce(&Provenance) -> bool,
        device: Device,
    ) -> Result<Self> {
        let (config, weights, trained_on) = checkpoint::load(folder, checkpoint::TRAIN)?;
        check_ids(folder, trained_on.as_ref(), fits)?;
        if config.vocab_size < layout.vocab_size() {
            return Err(TrainError::file(
                folder,
                "has a smaller vocabulary than tokens.json; train again after `tigret tokenize`",
            ));
        }
        Self::new(config, &weights, device).map_err(|e| TrainError::file(folder, e))
    }

    /// From weights by name.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for a weight that is missing or has another shape.
    pub fn new(config: T5Config, weights: &HostWeights, device: Device) -> Result<Self> {
        let model = T5::new(config);
        let specs = model.specs();
        // First of all: memory is taken for what the configuration says, which may be anything.
        specs.iter().try_for_each(|spec| spec.values(weights).map(drop))?;
        let mut params = Params::new(specs, 0, device);
        params.load(weights)?;
        let weights = tch::no_grad(|| params.views());
        Ok(Self { model, weights })
    }
}

/// Refuses a model that was trained on other semantic IDs than the run's, with which `fits` tells
/// whether it goes: its tokens would mean other items. A model that does not say is taken.
///
/// # Errors
/// [`TrainError::File`].
pub fn check_model(folder: &Path, fits: impl FnOnce(&Provenance) -> bool) -> Result<()> {
    check_ids(folder, checkpoint::trained_on(folder, checkpoint::TRAIN)?.as_ref(), fits)
}

/// [`check_model`] of what a model says.
pub(crate) fn check_ids(
    folder: &Path,
    trained_on: Option<&Provenance>,
    fits: impl FnOnce(&Provenance) -> bool,
) -> Result<()> {
    match trained_on {
        Some(trained_on) if !fits(trained_on) => Err(TrainError::file(
            folder,
            "was trained on other semantic IDs than the run has now; train again, or restore the \
             catalog.json, tokens.json, tokenizer.json and tokenizer.safetensors of its training",
        )),
        _ => Ok(()),
    }
}
