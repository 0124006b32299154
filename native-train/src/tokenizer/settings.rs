//! What can be chosen about a tokenizer.

use clap::ValueEnum;
use serde::Serialize;

use super::autoencoder::Gradient;

/// How items get their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Residual-quantised autoencoder (paper, section 3.1).
    RqVae,
    /// Autoencoder whose latent vector is cut into parts, a codebook each: no hierarchy.
    VqVae,
    /// Residual k-means on the content vectors themselves, without an autoencoder.
    RqKmeans,
    /// A tree of k-means: each cluster is clustered again.
    HierarchicalKmeans,
    /// Locality-sensitive hashing: the sides of random hyperplanes (paper, section 4.2).
    Lsh,
    /// Codes drawn from the item's id, without content (paper, section 4.2).
    Random,
    /// Optimised product quantisation (Ge et al. 2013): a learned rotation, then parts.
    Opq,
}

impl Method {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::RqVae => "rq-vae",
            Self::VqVae => "vq-vae",
            Self::RqKmeans => "rq-kmeans",
            Self::HierarchicalKmeans => "hierarchical-kmeans",
            Self::Lsh => "lsh",
            Self::Random => "random",
            Self::Opq => "opq",
        }
    }

    /// Whether codes are those of the nearest centres of k-means.
    pub fn is_kmeans(self) -> bool {
        matches!(self, Self::RqKmeans | Self::HierarchicalKmeans | Self::Opq)
    }

    /// Whether an autoencoder is trained.
    pub fn has_autoencoder(self) -> bool {
        matches!(self, Self::RqVae | Self::VqVae)
    }
}

/// What is done to the vectors first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Nothing.
    None,
    /// The mean is subtracted.
    Center,
    /// The mean is subtracted, and all numbers are divided by one factor, so that their variance
    /// is 1 on average: angles and the relative weight of dimensions stay.
    Scale,
    /// The mean is subtracted, and each dimension is divided by its own deviation.
    Standardize,
}

/// Which optimiser trains the autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW.
    Adamw,
    /// Adagrad, as in the paper.
    Adagrad,
}

/// When training ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Epochs {
    /// After this many passes over the items.
    Exactly(usize),
    /// When the reconstruction no longer gets better, at the latest after this many.
    UntilConverged(usize),
}

impl Epochs {
    /// The most there can be.
    pub fn most(self) -> usize {
        match self {
            Self::Exactly(epochs) | Self::UntilConverged(epochs) => epochs,
        }
    }
}

/// Settings of the autoencoder's training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Autoencoder {
    /// Hidden widths of the encoder; the decoder mirrors them.
    pub hidden: Vec<i64>,
    /// Width of a codeword.
    pub codeword: i64,
    /// Optimiser.
    pub optimizer: OptimizerKind,
    /// Learning rate.
    pub learning_rate: f64,
    /// Items a step.
    pub batch: usize,
    /// Passes over the items.
    pub epochs: Epochs,
    /// Weight of the commitment term.
    pub beta: f64,
    /// How the gradient passes the quantisation.
    pub gradient: Gradient,
    /// Whether codewords that no item chose in an epoch move onto residuals.
    pub revive: bool,
}

/// Settings of a tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// How items get their codes.
    pub method: Method,
    /// Codes of each level, without the collision level.
    pub sizes: Vec<u32>,
    /// What is done to the vectors first.
    pub normalise: Normalise,
    /// Whether the last level's codewords are shared out evenly (Sinkhorn).
    pub balance_last: bool,
    /// Of the methods with an autoencoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<Autoencoder>,
    /// How many of a vector's numbers, the last ones, were learned from interactions.
    pub learned: usize,
    /// Whether `embed --normalize` has brought the other numbers to length 1: it does not see those of
    /// new items.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unit_length: bool,
    /// Seed of everything random.
    pub seed: u64,
}
