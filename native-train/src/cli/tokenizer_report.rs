//! What `tigret tokenize` writes to `tokenizer.json` and prints.

use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::report::{Made, remarks_on_codes};
use crate::tokenizer::Settings;
use crate::tokenizer::collisions::Collisions;
use crate::tokenizer::stats::LevelUse;
use crate::tokenizer::train::{Ended, Trained};

/// What is written to `tokenizer.json` and printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) settings: Settings,
    /// What made the vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encoder: Option<String>,
    /// Weight of the vectors learned from interactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) collaborative: Option<f64>,
    pub(super) levels: Vec<LevelUse>,
    pub(super) collisions: Collisions,
    /// Items that share all codes and have the vector of another.
    #[serde(rename = "same_vector")]
    pub(super) alike: usize,
    /// Items that another codeword of the last level than the nearest separates from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) separated: Option<usize>,
    /// Share of the vectors' variance that the codes lose.
    pub(super) reconstruction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) training: Option<TrainingReport>,
    pub(super) seconds: f64,
}

/// What is told of the training of an autoencoder.
#[derive(Debug, Serialize)]
pub(super) struct TrainingReport {
    epochs: usize,
    converged: bool,
    ended: Ended,
    seconds: f64,
    /// Rate of the matrix products of training, and of one large product on the same device.
    gflop_per_second: f64,
    matmul_gflop_per_second: f64,
}

impl TrainingReport {
    /// Of a training on a device, whose rate is measured.
    pub(super) fn of(training: &Trained, device: Device) -> Self {
        let flop = training.flop_per_epoch * training.epochs as f64;
        Self {
            epochs: training.epochs,
            converged: training.ended == Ended::Converged,
            ended: training.ended,
            seconds: training.seconds,
            gflop_per_second: flop / training.seconds / 1e9,
            matmul_gflop_per_second: matmul_rate(device) / 1e9,
        }
    }
}

impl Report {
    /// The same for people; the collision level has `collision_size` codes.
    pub(super) fn text(&self, collision_size: usize) -> String {
        let mut text = String::from("level  codewords used  perplexity\n");
        for (number, level) in (1..).zip(&self.levels) {
            text += &format!(
                "{number:>5}  {:>8} of {:<4}  {:>9.1}\n",
                level.used, level.codewords, level.perplexity
            );
        }
        let c = &self.collisions;
        text += &format!(
            "{} of {} items ({:.1} %) are unique after {} levels; the largest group has {}\n",
            c.unique_items,
            c.items,
            100.0 * c.unique_items as f64 / c.items as f64,
            self.levels.len(),
            c.largest_group,
        );
        if let Some(separated) = self.separated {
            text += &format!("{separated} items took another last code, so as not to share all\n");
        }
        if let Some(lost) = self.reconstruction {
            text += &format!("the codes lose {:.1} % of the vectors' variance\n", 100.0 * lost);
        }
        if let Some(training) = &self.training {
            let why = match training.ended {
                Ended::Epochs => "the number asked for",
                Ended::Converged => "converged",
                Ended::MeanAlone => {
                    "not converged, hardly better than the mean of all vectors: lower \
                     --learning-rate, or try another --normalize"
                }
                Ended::Diverged => {
                    "stopped, since the reconstruction error rose: lower --learning-rate"
                }
                Ended::TooFewEpochs => "the most allowed, not converged: raise --max-epochs",
            };
            text += &format!(
                "{} epochs ({why}) in {:.0} s, {:.0} GFLOP/s (a large matrix product here: {:.0})\n",
                training.epochs,
                training.seconds,
                training.gflop_per_second,
                training.matmul_gflop_per_second
            );
        }
        let made = Made {
            method: Some(self.settings.method),
            lost: self.reconstruction,
            alike: self.alike,
        };
        for remark in remarks_on_codes(&self.levels, &self.collisions, collision_size, made) {
            text += &format!("look at: {remark}\n");
        }
        text + &format!("{:.1} s in all", self.seconds)
    }
}

/// A measured rate of the device: the f32 matrix product that training is held against, in FLOP/s.
fn matmul_rate(device: Device) -> f64 {
    // A few milliseconds, so that starting a kernel and reading back do not count.
    let side = if device.is_cuda() { 8192 } else { 1024 };
    let a = Tensor::ones([side, side], (Kind::Float, device));
    let mut rates: Vec<f64> = (0..15)
        .map(|_| {
            let begin = Instant::now();
            // Reading a value back waits for the product.
            let _ = a.matmul(&a).double_value(&[0, 0]);
            2.0 * (side as f64).powi(3) / begin.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
