//! What follows the transformer: pooling, linear layers, normalisation.

use candle_core::{Device, Tensor};
use candle_nn::{Linear, Module};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::folder::{Features, Pooling, Recipe, Step};
use super::weights::Weights;
use crate::error::{Result, TrainError};

/// The modules after the transformer.
pub(super) struct Head {
    poolings: Vec<Pooling>,
    layers: Vec<Layer>,
    /// Length of the vector that comes out.
    pub(super) dimensions: usize,
}

enum Layer {
    Dense(Linear, Activation),
    Normalise,
}

#[derive(Debug, Clone, Copy)]
enum Activation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Sigmoid,
}

#[derive(Debug, Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    /// A Python class path; sentence-transformers takes Tanh where there is none.
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
    #[serde(flatten)]
    features: Features,
}

fn yes() -> bool {
    true
}

impl Head {
    /// Loads the modules for token vectors of length `width`; what they hold goes into `hash`.
    ///
    /// # Errors
    /// [`TrainError::File`] for a missing file, what is not known here, or sizes that contradict
    /// each other.
    pub(super) fn load(
        recipe: &Recipe,
        width: usize,
        device: &Device,
        hash: &mut Sha256,
    ) -> Result<Self> {
        hash.update(format!("{:?}", recipe.poolings));
        let mut dimensions = width * recipe.poolings.len();
        let mut layers = Vec::with_capacity(recipe.steps.len());
        for step in &recipe.steps {
            let Step::Dense(folder) = step else {
                hash.update("normalise");
                layers.push(Layer::Normalise);
                continue;
            };
            let path = folder.join("config.json");
            let config: DenseConfig = crate::files::read_json(&path, "the folder is not complete")?;
            let wrong = |reason: String| TrainError::file(&path, reason);
            config.features.check().map_err(wrong)?;
            if config.use_residual {
                let reason = "adds what comes in (use_residual), which is not known here";
                return Err(wrong(reason.into()));
            }
            if config.in_features != dimensions {
                let found = config.in_features;
                return Err(wrong(format!("takes {found} features, but {dimensions} come in")));
            }
            if config.out_features == 0 {
                return Err(wrong("gives no features (out_features)".into()));
            }
            let activation = activation(config.activation_function.as_deref()).map_err(wrong)?;
            hash.update(format!("{activation:?}"));
            let (inputs, outputs) = (config.in_features, config.out_features);
            let linear = Weights::read(folder, device, hash)?.build(device, |vb| {
                let vb = vb.pp("linear");
                match config.bias {
                    true => candle_nn::linear(inputs, outputs, vb),
                    false => candle_nn::linear_no_bias(inputs, outputs, vb),
                }
            })?;
            layers.push(Layer::Dense(linear, activation));
            dimensions = outputs;
        }
        Ok(Self { poolings: recipe.poolings.clone(), layers, dimensions })
    }

    /// `[texts, dimensions]` of `[texts, tokens, width]`; every token counts.
    pub(super) fn forward(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        let length = tokens.dim(1)? as f64;
        let pooled = |pooling: &Pooling| match pooling {
            Pooling::Cls => tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous(),
            Pooling::Max => tokens.max(1),
            Pooling::Mean => tokens.sum(1)? / length,
            Pooling::MeanSqrtLength => tokens.sum(1)? / length.sqrt(),
        };
        let parts = self.poolings.iter().map(pooled).collect::<candle_core::Result<Vec<_>>>()?;
        let mut vectors = Tensor::cat(&parts, 1)?;
        for layer in &self.layers {
            vectors = match layer {
                Layer::Dense(linear, activation) => {
                    let vectors = linear.forward(&vectors)?;
                    match activation {
                        Activation::Identity => vectors,
                        Activation::Tanh => vectors.tanh()?,
                        Activation::Relu => vectors.relu()?,
                        Activation::Gelu => vectors.gelu_erf()?,
                        Activation::Sigmoid => candle_nn::ops::sigmoid(&vectors)?,
                    }
                }
                Layer::Normalise => {
                    // As torch.nn.functional.normalize: a zero vector stays.
                    let length = vectors.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
                    vectors.broadcast_div(&length)?
                }
            };
        }
        Ok(vectors)
    }
}

fn activation(path: Option<&str>) -> Result<Activation, String> {
    let name = path.map_or("Tanh", |path| path.rsplit('.').next().unwrap_or(path));
    match name {
        "Identity" => Ok(Activation::Identity),
        "Tanh" => Ok(Activation::Tanh),
        "ReLU" => Ok(Activation::Relu),
        "GELU" => Ok(Activation::Gelu),
        "Sigmoid" => Ok(Activation::Sigmoid),
        other => Err(format!(
            "has the activation \"{other}\"; Identity, Tanh, ReLU, GELU and Sigmoid are known"
        )),
    }
}
