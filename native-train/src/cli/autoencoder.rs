//! The options of `tigret tokenize` for the methods that train an autoencoder.

use crate::error::{Result, TrainError};
use crate::tokenizer::autoencoder::Gradient;
use crate::tokenizer::settings::{Autoencoder, Epochs, OptimizerKind};

const LATENT: u64 = 32;
const MAX_EPOCHS: u64 = 2000;
const BATCH: u64 = 1024;
const BETA: f64 = 0.25;

/// How the autoencoder of rq-vae and vq-vae is trained.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Autoencoder")]
pub(super) struct AutoencoderOptions {
    /// Width of a codeword.
    #[arg(long, value_name = "N", default_value_t = LATENT,
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    latent: u64,
    /// Hidden widths of the encoder; the decoder mirrors them.
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', default_value = "512,256,128",
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    hidden: Vec<u64>,
    /// Passes over the items [default: until the reconstruction no longer gets better].
    #[arg(long, value_name = "N", conflicts_with = "max_epochs",
          value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Most passes over the items while the reconstruction still gets better.
    #[arg(long, value_name = "N", default_value_t = MAX_EPOCHS,
          value_parser = clap::value_parser!(u64).range(1..))]
    max_epochs: u64,
    /// Items a step.
    #[arg(long, value_name = "N", default_value_t = BATCH,
          value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    batch: u64,
    /// Optimiser.
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adamw)]
    optimizer: OptimizerKind,
    /// Learning rate; 0.001 for adamw, 0.4 for adagrad (paper) if not given.
    #[arg(long, allow_negative_numbers = true, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Weight of the commitment term.
    #[arg(long, allow_negative_numbers = true, value_name = "BETA", default_value_t = BETA)]
    beta: f64,
    /// How the gradient passes the quantisation.
    #[arg(long, value_enum, default_value_t = Gradient::StraightThrough)]
    gradient: Gradient,
    /// Leave codewords that no item chose in an epoch where they are.
    #[arg(long)]
    no_revival: bool,
}

impl AutoencoderOptions {
    /// The options that are not at their defaults.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let options = [
            ("--latent", self.latent != LATENT),
            ("--hidden", self.hidden != [512, 256, 128]),
            ("--epochs", self.epochs.is_some()),
            ("--max-epochs", self.max_epochs != MAX_EPOCHS),
            ("--batch", self.batch != BATCH),
            ("--optimizer", self.optimizer != OptimizerKind::Adamw),
            ("--learning-rate", self.learning_rate.is_some()),
            ("--beta", self.beta != BETA),
            ("--gradient", self.gradient != Gradient::StraightThrough),
            ("--no-revival", self.no_revival),
        ];
        options.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
    }

    /// The settings that they are.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for a number that is not positive.
    pub(super) fn settings(&self) -> Result<Autoencoder> {
        let learning_rate = self.learning_rate.unwrap_or(match self.optimizer {
            OptimizerKind::Adamw => 1e-3,
            OptimizerKind::Adagrad => 0.4,
        });
        for (name, value) in [("--learning-rate", learning_rate), ("--beta", self.beta)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(TrainError::usage(format!("{name} {value} is not a positive number")));
            }
        }
        Ok(Autoencoder {
            hidden: self.hidden.iter().map(|&width| width as i64).collect(),
            codeword: self.latent as i64,
            optimizer: self.optimizer,
            learning_rate,
            batch: self.batch as usize,
            epochs: match self.epochs {
                Some(epochs) => Epochs::Exactly(epochs as usize),
                None => Epochs::UntilConverged(self.max_epochs as usize),
            },
            beta: self.beta,
            gradient: self.gradient,
            revive: !self.no_revival,
        })
    }
}
