//! SASRec (Kang and McAuley 2018) with cross-entropy over the whole catalogue in place of the
//! paper's one sampled negative: the same network, far stronger figures (Klenitskiy and Vasilev
//! 2023), and so the one to compare with.

mod network;
mod training;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Baseline, ranks_by};
use crate::error::{Result, TrainError, check_range};
use crate::model::padding::pad_left;
use crate::model::params::{Views, to_vec};
use network::{Histories, Network};

pub use crate::train::Limits;
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
    /// Decay of a moving average of the weights, which is validated and kept in their place; 0 for none.
    #[arg(id = "sasrec-ema", long, allow_negative_numbers = true, value_name = "DECAY",
          default_value_t = Settings::DEFAULT.ema)]
    pub ema: f64,
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
        ema: 0.999,
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
        check_range("--sasrec-ema", self.ema, 0.0..=0.999_999)?;
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
        to_vec(&self.logits(histories))
    }

    fn ranks(
        &self,
        histories: &[&[u32]],
        targets: &[u32],
        excluded: &[&[u32]],
    ) -> Vec<Option<usize>> {
        let logits = self.logits(histories);
        match self.device() {
            Device::Cpu => ranks_by(&to_vec(&logits), self.items(), targets, excluded),
            _ => ranks_on_device(&logits, targets, excluded),
        }
    }
}

impl SasRec {
    /// `[histories, items]`.
    fn logits(&self, histories: &[&[u32]]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let rows: Vec<Vec<u32>> = histories.iter().map(|history| self.latest(history)).collect();
        if rows.iter().all(Vec::is_empty) {
            let shape = [rows.len() as i64, self.network.items];
            return Tensor::zeros(shape, (Kind::Float, self.device()));
        }
        let histories = self.network.histories(&rows, self.device());
        let hidden = self.network.forward(&self.weights, &histories, false).select(1, -1);
        // The last column is an item, or padding where there is no history.
        let hidden = hidden * histories.keep.select(1, -1).unsqueeze(1);
        hidden.matmul(&self.network.embeddings(&self.weights).tr())
    }

    fn latest(&self, history: &[u32]) -> Vec<u32> {
        history[history.len().saturating_sub(self.network.positions as usize)..].to_vec()
    }
}

/// [`Baseline::ranks`] of logits `[histories, items]`, counted where they lie: one number of each
/// history is read back.
fn ranks_on_device(logits: &Tensor, targets: &[u32], excluded: &[&[u32]]) -> Vec<Option<usize>> {
    let device = logits.device();
    let rows = targets.len() as i64;
    let on_device = |values: Vec<i64>| Tensor::from_slice(&values).to_device(device);
    let target = on_device(targets.iter().map(|&item| item.into()).collect()).view([rows, 1]);
    let score = logits.gather(1, &target, false);
    let items = Tensor::arange(logits.size()[1], (Kind::Int64, device));
    // Ties go to the smaller index. What is no number is not behind anything: a model whose scores are
    // none must not look perfect.
    let tied = logits.eq_tensor(&score).logical_and(&items.ge_tensor(&target));
    let mut ahead = logits.lt_tensor(&score).logical_or(&tied).logical_not();
    let longest = excluded.iter().map(|items| items.len()).max().unwrap_or(0);
    if longest > 0 {
        // Filled up with the target, which does not count as ahead of itself.
        let fill = |(items, &target): (&&[u32], &u32)| -> Vec<i64> {
            let items = items.iter().copied().chain(std::iter::repeat(target));
            items.take(longest).map(i64::from).collect()
        };
        let index = on_device(excluded.iter().zip(targets).flat_map(fill).collect());
        ahead = ahead.scatter_value(1, &index.view([rows, longest as i64]), 0);
    }
    let counts = to_vec(&ahead.sum_dim_intlist([1].as_slice(), false, Kind::Int64));
    let ranks = counts.into_iter().zip(targets).zip(excluded);
    ranks
        .map(|((rank, target), excluded)| (!excluded.contains(target)).then_some(rank as usize))
        .collect()
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
    use crate::device::testing::on_cpu_and_cuda;

    #[test]
    fn ranks_counted_on_a_device_are_those_of_the_scores_on_cpu_and_cuda() {
        let scores = [[0.0, 2.0, -0.0, f32::NEG_INFINITY, 2.0, -1.0]; 4].concat();
        let all: [&[u32]; 4] = [&[], &[1, 5, 1, 3], &[0, 4], &[2]];
        on_cpu_and_cuda(|device| {
            let logits = Tensor::from_slice(&scores).view([4, 6]).to_device(device);
            for target in 0..6 {
                for excluded in [all, [&[][..]; 4]] {
                    let expected = ranks_by(&scores, 6, &[target; 4], &excluded);
                    assert_eq!(ranks_on_device(&logits, &[target; 4], &excluded), expected);
                }
            }
            // Scores that are no numbers put nothing in front.
            let broken = Tensor::from_slice(&[f32::NAN; 6]).view([1, 6]).to_device(device);
            assert!(ranks_on_device(&broken, &[2], &[&[]])[0] >= Some(5));
        });
    }

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
