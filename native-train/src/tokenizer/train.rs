//! Training the autoencoder of RQ-VAE and VQ-VAE.

use indicatif::ProgressBar;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::autoencoder::{Quantise, Shape, codebook, initialise_codebooks, pass};
use super::settings::{Autoencoder, Epochs, OptimizerKind};
use super::stats::LevelUse;
use crate::error::{Result, TrainError};
use crate::model::optimizer::{Adagrad, AdamW};
use crate::model::params::{Params, to_vec};

/// One line of the log `tokenizer.jsonl`.
#[derive(Debug, Serialize)]
pub struct LogLine {
    /// Passes over the items so far.
    pub epoch: usize,
    /// Sum of the two terms below.
    pub loss: f64,
    /// Mean of `||x - x_hat||^2` over the epoch, of the normalised vectors.
    pub reconstruction: f64,
    /// Mean of the codebook and commitment terms.
    pub quantisation: f64,
    /// Use of each level's codewords in the epoch.
    pub levels: Vec<LevelUse>,
    /// Codewords that were moved since the last line because no item chose them.
    pub revived: usize,
    /// What a reader of the log should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What training leaves.
#[derive(Debug)]
pub struct Trained {
    /// Weights and codebooks.
    pub params: Params,
    /// A line an epoch, or fewer.
    pub log: Vec<LogLine>,
    /// Epochs that were run.
    pub epochs: usize,
    /// Whether training ended because the reconstruction no longer got better.
    pub converged: bool,
}

enum Optimizer {
    AdamW(AdamW),
    Adagrad(Adagrad),
}

const RISE: &str = "the quantisation loss rises at first: k-means fits the codewords to an \
                    untrained encoder whose latent vectors are short, and the encoder then \
                    spreads them out; watch the reconstruction";

/// Lines of the log at most.
const LOG_LINES: usize = 1000;
/// Epochs over which the reconstruction is averaged to see whether it still falls.
const WINDOW: usize = 25;
/// Relative fall from one window to the next below which training has converged.
const CONVERGED: f64 = 0.01;
/// Points a codeword that k-means starts from; the paper takes the first batch, which makes the
/// start more of a lottery.
const POINTS_PER_CODEWORD: usize = 64;

/// Trains on normalised vectors `[items, input]`, which lie on the device that computes.
///
/// In the last tenth of the epochs the learning rate falls to zero and no codeword is moved, so
/// that all settle. Each epoch's shuffling follows from the seed and the epoch.
///
/// # Errors
/// [`TrainError::Usage`] for a loss that is not a number.
pub fn train(
    shape: &Shape,
    settings: &Autoencoder,
    balance_last: bool,
    seed: u64,
    data: &Tensor,
    progress: &ProgressBar,
) -> Result<Trained> {
    let device = data.device();
    let items = data.size()[0] as usize;
    let params = Params::new(shape.specs(), seed, device);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<i64> = (0..items as i64).collect();
    order.shuffle(&mut rng);
    let largest = shape.sizes.iter().copied().max().unwrap_or(1) as usize;
    let first = settings.batch.max(POINTS_PER_CODEWORD * largest).min(items);
    let start = Tensor::from_slice(&order[..first]).to_device(device);
    initialise_codebooks(shape, &params, &data.index_select(0, &start), &mut rng);

    let how = Quantise { beta: settings.beta, gradient: settings.gradient, balance_last };
    let mut optimizer = match settings.optimizer {
        OptimizerKind::Adamw => Optimizer::AdamW(AdamW::new(&params, 0.0)),
        OptimizerKind::Adagrad => Optimizer::Adagrad(Adagrad::new(&params)),
    };
    let most = settings.epochs.most();
    let log_every = most.div_ceil(LOG_LINES);
    let mut log: Vec<LogLine> = Vec::new();
    let mut history: Vec<f64> = Vec::new();
    let mut end = match settings.epochs {
        Epochs::Exactly(epochs) => Some(epochs),
        Epochs::UntilConverged(_) => None,
    };
    let (mut converged, mut explained, mut revived) = (false, false, 0);
    progress.set_message(if shape.residual { "RQ-VAE" } else { "VQ-VAE" });
    let mut epoch = 0;
    while epoch < end.unwrap_or(most) {
        let tail = settle(end.unwrap_or(most), epoch);
        let rate = settings.learning_rate * tail;
        rng.set_stream(epoch as u64 + 1);
        rng.set_word_pos(0);
        order.shuffle(&mut rng);
        let shuffled = Tensor::from_slice(&order).to_device(device);
        let mut sums = Tensor::zeros([2], (Kind::Double, device));
        let mut used: Vec<Tensor> =
            shape.sizes.iter().map(|&size| Tensor::zeros([size], (Kind::Float, device))).collect();
        let mut targets = Vec::new();
        for index in shuffled.split(settings.batch as i64, 0) {
            let step = pass(shape, &params.views(), &data.index_select(0, &index), how);
            (&step.reconstruction + &step.quantisation).backward();
            match &mut optimizer {
                Optimizer::AdamW(adamw) => adamw.step(&params, rate, f64::INFINITY),
                Optimizer::Adagrad(adagrad) => adagrad.step(&params, rate),
            }
            let count = index.size()[0];
            let terms = Tensor::stack(&[step.reconstruction, step.quantisation], 0).detach();
            sums += terms * (count as f64 / items as f64);
            let ones = Tensor::ones([count], (Kind::Float, device));
            for (level, used) in used.iter_mut().enumerate() {
                let _ = used.index_add_(0, &step.codes.select(1, level as i64), &ones);
            }
            targets = step.targets;
        }
        if settings.revive && tail == 1.0 {
            revived += revive(&params, &used, &targets, &mut rng);
        }
        let (reconstruction, quantisation) = (sums.double_value(&[0]), sums.double_value(&[1]));
        if !(reconstruction + quantisation).is_finite() {
            return Err(TrainError::usage(format!(
                "the loss of the tokenizer is not a number in epoch {epoch}; lower --learning-rate"
            )));
        }
        history.push(reconstruction);
        epoch += 1;
        let mut note = None;
        if end.is_none() && no_longer_falls(&history) {
            converged = true;
            end = Some((epoch + epoch.div_ceil(9)).min(most));
            note = Some(format!(
                "converged: over {WINDOW} epochs the reconstruction error fell by less than {} %; \
                 the learning rate now falls to zero",
                100.0 * CONVERGED
            ));
            progress.set_length(end.unwrap_or(most) as u64);
        }
        if !explained && log.last().is_some_and(|line| quantisation > line.quantisation) {
            explained = true;
            note = note.or_else(|| Some(RISE.to_owned()));
        }
        if epoch == 1 || epoch.is_multiple_of(log_every) || note.is_some() {
            log.push(LogLine {
                epoch,
                loss: reconstruction + quantisation,
                reconstruction,
                quantisation,
                levels: used.iter().map(|counts| LevelUse::from_counts(&to_vec(counts))).collect(),
                revived: std::mem::take(&mut revived),
                note,
            });
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Trained { params, log, epochs: epoch, converged })
}

/// What the learning rate is multiplied with: 1, and in the last tenth a line down to 0.
fn settle(epochs: usize, epoch: usize) -> f64 {
    let tail = epochs.div_ceil(10);
    ((epochs - epoch) as f64 / (tail + 1) as f64).min(1.0)
}

/// Whether the mean of the last window is hardly below that of the one before.
fn no_longer_falls(history: &[f64]) -> bool {
    if history.len() < 2 * WINDOW || !history.len().is_multiple_of(WINDOW) {
        return false;
    }
    let (before, last) = history[history.len() - 2 * WINDOW..].split_at(WINDOW);
    last.iter().sum::<f64>() > (1.0 - CONVERGED) * before.iter().sum::<f64>()
}

/// Moves codewords that no item of the epoch chose onto what their level quantised in the last
/// batch, so that no codebook collapses. Returns how many.
fn revive(params: &Params, used: &[Tensor], targets: &[Tensor], rng: &mut impl Rng) -> usize {
    let views = tch::no_grad(|| params.views());
    let mut revived = 0;
    for (level, (used, targets)) in used.iter().zip(targets).enumerate() {
        let dead: Vec<i64> = to_vec(used)
            .iter()
            .zip(0..)
            .filter(|(count, _)| **count == 0.0)
            .map(|(_, code)| code)
            .collect();
        let candidates = targets.size()[0];
        if dead.is_empty() {
            continue;
        }
        let chosen: Vec<i64> = dead.iter().map(|_| rng.random_range(0..candidates)).collect();
        let on_device = |index: &[i64]| Tensor::from_slice(index).to_device(targets.device());
        tch::no_grad(|| {
            let points = targets.index_select(0, &on_device(&chosen));
            let mut codebook = views.get(&codebook(level)).shallow_clone();
            let _ = codebook.index_copy_(0, &on_device(&dead), &points);
        });
        revived += dead.len();
    }
    revived
}

/// A measured rate of the device: the f32 matrix product that training is held against, in FLOP/s.
pub fn matmul_rate(device: Device) -> f64 {
    let side = 1024;
    let a = Tensor::randn([side, side], (Kind::Float, device));
    let mut rates: Vec<f64> = (0..15)
        .map(|_| {
            let begin = std::time::Instant::now();
            // Reading a value back waits for the product.
            let _ = a.matmul(&a).double_value(&[0, 0]);
            2.0 * (side as f64).powi(3) / begin.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_falls_in_the_last_tenth_only() {
        let rates: Vec<f64> = (0..20).map(|epoch| settle(20, epoch)).collect();
        assert!(rates[..18].iter().all(|&rate| rate == 1.0));
        assert!(rates[18] > rates[19] && rates[19] > 0.0 && rates[18] < 1.0);
        assert_eq!(settle(1, 0), 0.5);
    }

    #[test]
    fn training_has_converged_when_a_window_is_like_the_one_before() {
        let falling: Vec<f64> = (0..100).map(|epoch| 0.99f64.powi(epoch)).collect();
        assert!((1..=100).all(|end| !no_longer_falls(&falling[..end])));
        let flat = [&falling[..50], &[0.6; 50]].concat();
        assert!(!no_longer_falls(&flat[..75]) && no_longer_falls(&flat));
    }
}
