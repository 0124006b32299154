//! SASRec (Kang and McAuley 2018) with cross-entropy over the whole catalogue in place of the
//! paper's one sampled negative: the same network, far stronger figures (Klenitskiy and Vasilev
//! 2023), and so the one to compare with.

mod network;
mod training;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::Baseline;
use crate::error::{Result, TrainError, check_range};
use crate::model::padding::pad_left;
use crate::model::params::{Views, to_vec};
use network::{Histories, Network};

pub use crate::train::Control;
pub use training::{Earlier, Trained, earlier, train};

/// Settings. A training is the same only if all of them are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "SASRec")]
pub struct Settings {
    /// Width of embeddings and layers.
    #[arg(id = "sasrec-dim", long, value_name = "D", default_value_t = Settings::DEFAULT.dim)]
    pub dim: u32,
    /// Layers.
    #[arg(id = "sasrec-layers", long, value_name = "N", default_value_t = Settings::DEFAULT.layers)]
    pub layers: u32,
    /// Heads of attention; they share the width.
    #[arg(id = "sasrec-heads", long, value_name = "N", default_value_t = Settings::DEFAULT.heads)]
    pub heads: u32,
    /// Dropout.
    #[arg(id = "sasrec-dropout", long, allow_negative_numbers = true, value_name = "P",
          default_value_t = Settings::DEFAULT.dropout)]
    pub dropout: f64,
    /// Items of a history that are read, the latest ones.
    #[arg(id = "sasrec-max-items", long, value_name = "N",
          default_value_t = Settings::DEFAULT.max_items)]
    pub max_items: u32,
    /// Sequences a step.
    #[arg(id = "sasrec-batch", long, value_name = "N", default_value_t = Settings::DEFAULT.batch)]
    pub batch: u32,
    /// Passes over the sequences at most.
    #[arg(id = "sasrec-epochs", long, value_name = "N", default_value_t = Settings::DEFAULT.epochs)]
    pub epochs: u32,
    /// Learning rate.
    #[arg(id = "sasrec-learning-rate", long, allow_negative_numbers = true, value_name = "R",
          default_value_t = Settings::DEFAULT.learning_rate)]
    pub learning_rate: f64,
    /// Weight decay of AdamW, on embeddings and matrices.
    #[arg(id = "sasrec-weight-decay", long, allow_negative_numbers = true, value_name = "W",
          default_value_t = Settings::DEFAULT.weight_decay)]
    pub weight_decay: f64,
    /// Epochs without a better validation NDCG@10 before training stops.
    #[arg(id = "sasrec-patience", long, value_name = "N", default_value_t = Settings::DEFAULT.patience)]
    pub patience: u32,
    /// Seed of everything random.
    #[arg(id = "sasrec-seed", long, value_name = "SEED", default_value_t = Settings::DEFAULT.seed)]
    pub seed: u64,
}

impl Settings {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        dim: 64,
        layers: 2,
        heads: 2,
        dropout: 0.5,
        max_items: 50,
        batch: 128,
        epochs: 200,
        learning_rate: 1e-3,
        weight_decay: 0.0,
        patience: 10,
        seed: 0,
    };

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`TrainError::Usage`] naming the option.
    pub fn validate(&self) -> Result<()> {
        for (name, value, most) in [
            ("--sasrec-dim", self.dim, 4096),
            ("--sasrec-layers", self.layers, 64),
            ("--sasrec-heads", self.heads, 256),
            ("--sasrec-max-items", self.max_items, 4096),
            ("--sasrec-batch", self.batch, 65_536),
            ("--sasrec-epochs", self.epochs, 1_000_000),
            ("--sasrec-patience", self.patience, 1_000_000),
        ] {
            check_range(name, f64::from(value), 1.0..=f64::from(most))?;
        }
        check_range("--sasrec-dropout", self.dropout, 0.0..=0.95)?;
        check_range("--sasrec-learning-rate", self.learning_rate, 1e-9..=10.0)?;
        check_range("--sasrec-weight-decay", self.weight_decay, 0.0..=10.0)?;
        if !self.dim.is_multiple_of(self.heads) {
            return Err(TrainError::usage(format!(
                "--sasrec-dim {} cannot be shared by --sasrec-heads {}; it must be a multiple",
                self.dim, self.heads
            )));
        }
        Ok(())
    }

    fn network(&self, items: usize) -> Network {
        Network {
            items: items as i64,
            positions: self.max_items.into(),
            width: self.dim.into(),
            layers: self.layers as usize,
            heads: self.heads.into(),
            dropout: self.dropout,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A network with its weights.
#[derive(Debug)]
pub struct SasRec {
    network: Network,
    weights: Views,
}

impl SasRec {
    fn device(&self) -> Device {
        self.network.embeddings(&self.weights).device()
    }
}

impl Baseline for SasRec {
    fn items(&self) -> usize {
        self.network.items as usize
    }

    /// The logits of the next item. Without a history there is nothing to attend to, and all are 0.
    fn scores(&self, histories: &[&[u32]]) -> Vec<f32> {
        let _guard = tch::no_grad_guard();
        let rows: Vec<Vec<u32>> = histories.iter().map(|history| self.latest(history)).collect();
        if rows.iter().all(Vec::is_empty) {
            return vec![0.0; rows.len() * self.items()];
        }
        let histories = self.network.histories(&rows, self.device());
        let hidden = self.network.forward(&self.weights, &histories, false).select(1, -1);
        // The last column is an item, or padding where there is no history.
        let hidden = hidden * histories.keep.select(1, -1).unsqueeze(1);
        to_vec(&hidden.matmul(&self.network.embeddings(&self.weights).tr()))
    }
}

impl SasRec {
    fn latest(&self, history: &[u32]) -> Vec<u32> {
        history[history.len().saturating_sub(self.network.positions as usize)..].to_vec()
    }
}

impl Network {
    /// Rows of at most `positions` items as a batch.
    fn histories(&self, rows: &[Vec<u32>], device: Device) -> Histories {
        let (items, keep) = pad_left(rows, 0, device);
        Histories { items, keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let default = Settings::DEFAULT;
        assert!(default.validate().is_ok());
        for (settings, option) in [
            (Settings { dim: 0, ..default }, "--sasrec-dim 0"),
            (Settings { dim: 64, heads: 3, ..default }, "--sasrec-heads 3"),
            (Settings { dropout: 1.0, ..default }, "--sasrec-dropout 1"),
            (Settings { learning_rate: f64::NAN, ..default }, "--sasrec-learning-rate NaN"),
            (Settings { patience: 0, ..default }, "--sasrec-patience 0"),
        ] {
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
