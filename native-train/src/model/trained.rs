//! A trained model in memory.

use std::path::Path;

use tch::Device;
use tigret_infer::T5Config;

use super::checkpoint::{self, HostWeights};
use super::params::Views;
use super::{Params, T5};
use crate::data::Dataset;
use crate::error::{Result, TrainError};
use crate::tokenizer::SemanticIds;

/// A model and the weights to run it with.
#[derive(Debug)]
pub struct TrainedModel {
    /// The network.
    pub model: T5,
    /// Its weights.
    pub weights: Views,
}

impl TrainedModel {
    /// Reads a checkpoint folder, onto `device`.
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that is missing or wrong, and for a model that does not go
    /// with these semantic IDs.
    pub fn load(
        folder: &Path,
        dataset: &Dataset,
        ids: &SemanticIds,
        device: Device,
    ) -> Result<Self> {
        ids.check_model(folder, dataset)?;
        let (config, weights) = checkpoint::load(folder)?;
        if config.vocab_size < ids.layout.vocab_size() {
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
        let mut params = Params::new(model.specs(), 0, device);
        params.load(weights)?;
        let weights = tch::no_grad(|| params.views());
        Ok(Self { model, weights })
    }
}
