//! Training the autoencoder of RQ-VAE and VQ-VAE.

use std::time::Instant;

use indicatif::ProgressBar;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::autoencoder::{CODEBOOKS, Quantise, Shape, initialise_codebooks, pass};
use super::settings::{Autoencoder, Epochs, OptimizerKind, Settings};
use super::state::{Keeper, Optimizer, Progress};
use super::stats::LevelUse;
use crate::error::{Result, TrainError};
use crate::interrupt::goes_on_from;
use crate::model::optimizer::{Adagrad, AdamW};
use crate::model::params::{Params, to_vec};

/// One line of the log `tokenizer.jsonl`.
#[derive(Debug, Serialize)]
struct LogLine {
    /// Passes over the items so far.
    epoch: usize,
    /// Sum of the two terms below.
    loss: f64,
    /// Mean of `||x - x_hat||^2` over the epoch, of the normalised vectors.
    reconstruction: f64,
    /// Mean of the codebook and commitment terms.
    quantisation: f64,
    /// Use of each level's codewords in the epoch.
    levels: Vec<LevelUse>,
    /// Codewords that were moved since the last line because no item chose them.
    revived: usize,
    /// What a reader of the log should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Why a training came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All epochs that were asked for are done.
    Epochs,
    /// The reconstruction no longer got better.
    Converged,
    /// It got no better either, and is hardly better than the mean of all vectors.
    MeanAlone,
    /// It was worse than in the first epoch.
    Diverged,
    /// As many epochs as are allowed were not enough.
    TooFewEpochs,
}

/// How a training went.
#[derive(Debug)]
pub struct Trained {
    /// Lines of JSON for `tokenizer.jsonl`, one an epoch or fewer: `epoch`, `loss`, its terms, use of
    /// the codewords.
    pub log: Vec<String>,
    /// Epochs that were run.
    pub epochs: usize,
    /// Why there were no more.
    pub ended: Ended,
    /// Seconds of training, over all sessions.
    pub seconds: f64,
    /// Those of them that earlier sessions took.
    pub earlier: f64,
    /// Floating-point operations of an epoch's matrix products, forward and backward.
    pub flop_per_epoch: f64,
}

const RISE: &str = "the quantisation loss rises at first: k-means fits the codewords to an \
                    untrained encoder whose latent vectors are short, and the encoder then \
                    spreads them out; watch the reconstruction";

/// Lines of the log at most.
const LOG_LINES: usize = 1000;
/// Epochs over which the reconstruction is averaged to see whether it still falls.
const WINDOW: usize = 25;
/// Relative fall from one window to the next below which training has converged, and rise above the
/// first epoch beyond which it diverges.
const CONVERGED: f64 = 0.01;
/// Share of the vectors' variance above which a decoder answers with their mean and little else: a
/// start that may be flat for hundreds of steps, and no convergence.
const MEAN_ALONE: f64 = 0.9;
/// Steps after which it will not learn more.
const STEPS_AT_MEAN: usize = 3000;
/// Points for each codeword that k-means starts from. The paper takes those of the first batch, so
/// that its start depends more on chance.
const POINTS_PER_CODEWORD: usize = 64;

/// What one epoch left.
struct Epoch {
    reconstruction: f64,
    quantisation: f64,
    /// Items of each row of the codebooks.
    counts: Vec<f32>,
    /// What each level quantised in the last batch, `[batch, levels, codeword]`.
    targets: Tensor,
}

/// Trains weights and codebooks, by `settings` of the `whole` tokenizer, on normalised vectors
/// `[items, input]`, which lie on the device that computes.
///
/// In the last tenth of the epochs the learning rate falls to zero and no codeword is moved, so
/// that all settle. Each epoch's shuffling follows from the seed and the epoch, so training that
/// was taken up from `keeper`'s state ends with the weights of one that was not interrupted, bit
/// for bit.
///
/// # Errors
/// [`TrainError::Usage`] for a loss that is not a number; [`TrainError::Interrupted`] after the
/// state is saved, [`TrainError::File`] when it cannot be.
pub fn train(
    shape: &Shape,
    whole: &Settings,
    settings: &Autoencoder,
    data: &Tensor,
    keeper: &mut Keeper<'_>,
    progress: &ProgressBar,
) -> Result<(Params, Trained)> {
    let mut training = Training::new(shape, whole, settings, data);
    progress.set_message(if shape.residual { "RQ-VAE" } else { "VQ-VAE" });
    let mut state = match keeper.load(&training.params, &mut training.optimizer) {
        Some(state) => state,
        None => {
            training.start(whole.seed);
            let end = match settings.epochs {
                Epochs::Exactly(epochs) => Some(epochs),
                Epochs::UntilConverged(_) => None,
            };
            Progress { end, ..Progress::default() }
        }
    };
    let most = settings.epochs.most();
    let show = |state: &Progress| {
        progress.set_length(state.end.unwrap_or(most) as u64);
        progress.set_position(state.epoch as u64);
    };
    show(&state);
    goes_on_from(progress, state.epoch as u64);
    let mut rng = ChaCha8Rng::seed_from_u64(whole.seed);
    let (begin, before) = (Instant::now(), state.seconds);
    while state.epoch < state.end.unwrap_or(most) {
        let tail = settle(state.end.unwrap_or(most), state.epoch);
        rng.set_stream(state.epoch as u64 + 1);
        rng.set_word_pos(0);
        let kept = keeper.snapshot(&training.params, &training.optimizer);
        let Some(epoch) = training.epoch(tail, &mut rng, keeper) else {
            // The epoch is begun again, from what it began with.
            keeper.save(kept, &state)?;
            return Err(TrainError::Interrupted);
        };
        if !(epoch.reconstruction + epoch.quantisation).is_finite() {
            return Err(TrainError::usage(format!(
                "the loss of the tokenizer is not a number in epoch {}; lower --learning-rate",
                state.epoch
            )));
        }
        if settings.revive && tail == 1.0 {
            state.revived += training.revive(&epoch, &mut rng);
        }
        state.seconds = before + begin.elapsed().as_secs_f64();
        conclude(&training, &epoch, most, &mut state)?;
        show(&state);
        if keeper.is_due() {
            keeper.save(keeper.snapshot(&training.params, &training.optimizer), &state)?;
        }
    }
    // What follows may fail, to be repeated with other options that do not concern training.
    keeper.save(keeper.snapshot(&training.params, &training.optimizer), &state)?;
    progress.finish_and_clear();
    let ended = state.ended.unwrap_or(match settings.epochs {
        Epochs::Exactly(_) => Ended::Epochs,
        Epochs::UntilConverged(_) if training.knows_the_mean_alone(&state.history) => {
            Ended::MeanAlone
        }
        Epochs::UntilConverged(_) => Ended::TooFewEpochs,
    });
    let Progress { log, epoch: epochs, seconds, .. } = state;
    let flop_per_epoch = shape.flop_per_item() * data.size()[0] as f64;
    let earlier = before;
    let trained = Trained { log, epochs, ended, seconds, earlier, flop_per_epoch };
    Ok((training.params, trained))
}

/// What an epoch works on.
struct Training<'a> {
    shape: &'a Shape,
    settings: &'a Autoencoder,
    how: Quantise,
    data: &'a Tensor,
    /// Mean squared distance of an item to the mean of all.
    variance: f64,
    params: Params,
    optimizer: Optimizer,
}

impl<'a> Training<'a> {
    fn new(
        shape: &'a Shape,
        whole: &Settings,
        settings: &'a Autoencoder,
        data: &'a Tensor,
    ) -> Self {
        let params = Params::new(shape.specs(), whole.seed, data.device());
        let optimizer = match settings.optimizer {
            OptimizerKind::Adamw => Optimizer::AdamW(AdamW::new(&params, 0.0)),
            OptimizerKind::Adagrad => Optimizer::Adagrad(Adagrad::new(&params)),
        };
        let &Autoencoder { beta, gradient, .. } = settings;
        let how = Quantise { beta, gradient, balance_last: whole.balance_last };
        let mean = data.mean_dim([0].as_slice(), true, Kind::Float);
        let variance = (data - mean).square().sum(Kind::Double).double_value(&[]);
        let variance = variance / data.size()[0] as f64;
        Self { shape, settings, how, data, variance, params, optimizer }
    }

    /// Whether the last window is hardly below the error of the mean of all vectors.
    fn knows_the_mean_alone(&self, history: &[f64]) -> bool {
        last_window(history) > MEAN_ALONE * self.variance
    }

    /// Steps of an epoch.
    fn steps(&self) -> usize {
        let items = self.data.size()[0] as usize;
        items.div_ceil(even_batch(items, self.settings.batch))
    }

    /// Starts the codebooks by k-means on a random part of the data.
    fn start(&self, seed: u64) {
        let items = self.data.size()[0] as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<i64> = (0..items as i64).collect();
        order.shuffle(&mut rng);
        let largest = self.shape.sizes.iter().copied().max().unwrap_or(1) as usize;
        let first = self.settings.batch.max(POINTS_PER_CODEWORD * largest).min(items);
        let first = Tensor::from_slice(&order[..first]).to_device(self.data.device());
        initialise_codebooks(
            self.shape,
            &self.params,
            &self.data.index_select(0, &first),
            &mut rng,
        );
    }

    /// Runs an epoch with the learning rate times `tail`; `None` when it was interrupted.
    fn epoch(&mut self, tail: f64, rng: &mut impl Rng, keeper: &Keeper<'_>) -> Option<Epoch> {
        let device = self.data.device();
        let mut order: Vec<i64> = (0..self.data.size()[0]).collect();
        order.shuffle(rng);
        let shuffled = Tensor::from_slice(&order).to_device(device);
        // Kept on the device until the epoch ends: nothing is read back in a step.
        let (mut terms, mut rows) = (Vec::new(), Vec::new());
        let mut targets = Tensor::new();
        let size = even_batch(order.len(), self.settings.batch);
        for index in shuffled.split(size as i64, 0) {
            if keeper.interrupted() {
                return None;
            }
            let x = self.data.index_select(0, &index);
            let step = pass(self.shape, &self.params.views(), &x, self.how);
            let gradient = self.params.backward(&(&step.reconstruction + &step.quantisation));
            self.optimizer.step(&self.params, gradient, self.settings.learning_rate * tail);
            terms.extend([step.reconstruction.detach(), step.quantisation.detach()]);
            rows.push(step.choice.rows.view([-1]));
            targets = step.choice.targets;
        }
        let rows = Tensor::cat(&rows, 0);
        let ones = Tensor::ones(rows.size(), (Kind::Float, device));
        let codewords = self.shape.sizes.iter().sum::<i64>();
        let counts = Tensor::zeros([codewords], (Kind::Float, device)).index_add(0, &rows, &ones);
        let figures = to_vec(&Tensor::cat(&[counts, Tensor::stack(&terms, 0)], 0));
        let (counts, terms) = figures.split_at(codewords as usize);
        let (mut reconstruction, mut quantisation) = (0.0, 0.0);
        for (batch, terms) in order.chunks(size).zip(terms.chunks_exact(2)) {
            let share = batch.len() as f64 / order.len() as f64;
            reconstruction += f64::from(terms[0]) * share;
            quantisation += f64::from(terms[1]) * share;
        }
        Some(Epoch { reconstruction, quantisation, counts: counts.to_vec(), targets })
    }

    /// Moves codewords that no item of the epoch chose onto what their level quantised in its last
    /// batch, so that no codebook collapses. Returns how many.
    fn revive(&self, epoch: &Epoch, rng: &mut impl Rng) -> usize {
        let views = tch::no_grad(|| self.params.views());
        let mut revived = 0;
        for (level, counts) in by_level(self.shape, &epoch.counts).enumerate() {
            let unused = counts.iter().zip(0..).filter(|(count, _)| **count == 0.0);
            let dead: Vec<i64> = unused.map(|(_, row)| row).collect();
            if dead.is_empty() {
                continue;
            }
            let targets = epoch.targets.select(1, level as i64);
            let candidates = targets.size()[0];
            let chosen: Vec<i64> = dead.iter().map(|_| rng.random_range(0..candidates)).collect();
            let on_device = |index: &[i64]| Tensor::from_slice(index).to_device(targets.device());
            tch::no_grad(|| {
                let points = targets.index_select(0, &on_device(&chosen));
                let mut codebook = self.shape.of_level(views.get(CODEBOOKS), level);
                let _ = codebook.index_copy_(0, &on_device(&dead), &points);
            });
            revived += dead.len();
        }
        revived
    }
}

/// Items of a batch, at most `most`, so that an epoch's batches are nearly equal. Were all but the last
/// one of `most` items, the last could hold a single one: its gradient would count for as much as that
/// of a thousand, and every dead codeword would be moved onto it.
fn even_batch(items: usize, most: usize) -> usize {
    items.div_ceil(items.div_ceil(most).max(1)).max(1)
}

/// Records an epoch: whether training has converged, and a line of the log now and then.
fn conclude(
    training: &Training<'_>,
    epoch: &Epoch,
    most: usize,
    state: &mut Progress,
) -> Result<()> {
    let shape = training.shape;
    let &Epoch { reconstruction, quantisation, ref counts, .. } = epoch;
    state.history.push(reconstruction);
    // A rate that falls since the last epoch allowed is near makes any error fall less.
    let is_at_full_rate = settle(most, state.epoch) == 1.0;
    state.epoch += 1;
    let mut note = None;
    let diverges = diverges(&state.history);
    let knows_the_mean_alone = training.knows_the_mean_alone(&state.history);
    let has_just_begun = knows_the_mean_alone && state.epoch * training.steps() < STEPS_AT_MEAN;
    let is_over = no_longer_falls(&state.history) && (diverges || !has_just_begun);
    if state.end.is_none() && is_at_full_rate && is_over {
        let (ended, why) = if diverges {
            let why = "the reconstruction error is above that of the first epoch: a lower learning rate \
                       is needed";
            (Ended::Diverged, why.to_owned())
        } else if knows_the_mean_alone {
            let why = "the reconstruction is hardly better than the mean of all vectors: a lower \
                       learning rate, or another --normalize, may help";
            (Ended::MeanAlone, why.to_owned())
        } else {
            let why = format!(
                "converged: over {WINDOW} epochs the reconstruction error fell by less than {} %; \
                 the learning rate now falls to zero",
                100.0 * CONVERGED
            );
            (Ended::Converged, why)
        };
        state.end = Some((state.epoch + state.epoch.div_ceil(9)).min(most));
        state.ended = Some(ended);
        note = Some(why);
    }
    if !state.explained && state.logged_quantisation.is_some_and(|before| quantisation > before) {
        state.explained = true;
        note = note.or_else(|| Some(RISE.to_owned()));
    }
    let log_every = most.div_ceil(LOG_LINES);
    if state.epoch == 1 || state.epoch.is_multiple_of(log_every) || note.is_some() {
        let line = LogLine {
            epoch: state.epoch,
            loss: reconstruction + quantisation,
            reconstruction,
            quantisation,
            levels: by_level(shape, counts).map(LevelUse::from_counts).collect(),
            revived: std::mem::take(&mut state.revived),
            note,
        };
        state.log.push(serde_json::to_string(&line).map_err(TrainError::usage)?);
        state.logged_quantisation = Some(quantisation);
    }
    Ok(())
}

/// Counts, one for each row of the codebooks, split by level.
fn by_level<'a>(shape: &'a Shape, mut counts: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
    shape.sizes.iter().map(move |&size| {
        let (level, rest) = counts.split_at(size as usize);
        counts = rest;
        level
    })
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

/// Whether the last window is above the first epoch, and not only by chance.
fn diverges(history: &[f64]) -> bool {
    history.first().is_some_and(|first| last_window(history) > (1.0 + CONVERGED) * first)
}

/// The mean of the last window, or of what there is of it; 0 of nothing.
fn last_window(history: &[f64]) -> f64 {
    let last = &history[history.len().saturating_sub(WINDOW)..];
    last.iter().sum::<f64>() / last.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::autoencoder::Gradient;
    use super::super::settings::{Method, Normalise};
    use super::*;

    #[test]
    fn the_learning_rate_falls_in_the_last_tenth_only() {
        let rates: Vec<f64> = (0..20).map(|epoch| settle(20, epoch)).collect();
        assert!(rates[..18].iter().all(|&rate| rate == 1.0));
        assert!(rates[18] > rates[19] && rates[19] > 0.0 && rates[18] < 1.0);
        assert_eq!(settle(1, 0), 0.5);
    }

    #[test]
    fn one_item_more_than_a_batch_makes_two_of_like_size() {
        assert_eq!([1, 1023, 1024].map(|items| even_batch(items, 1024)), [1, 1023, 1024]);
        assert_eq!([1025, 2049, 12_101].map(|items| even_batch(items, 1024)), [513, 683, 1009]);
        for items in 1..3000 {
            let size = even_batch(items, 64);
            let last = items - (items - 1) / size * size;
            assert!(size <= 64 && items.div_ceil(size) == items.div_ceil(64));
            assert!(last + items.div_ceil(size) > size, "{items}: {last} after {size}");
        }
    }

    /// How a training of at most so many epochs stands after `epochs` with the same error: two items,
    /// whose variance is 1, in a batch.
    fn concluded(most: usize, epochs: usize, reconstruction: f64) -> Option<(Ended, usize)> {
        let shape =
            Shape { input: 1, hidden: Vec::new(), codeword: 1, sizes: vec![1], residual: true };
        let settings = Autoencoder {
            hidden: Vec::new(),
            codeword: 1,
            optimizer: OptimizerKind::Adamw,
            learning_rate: 1e-3,
            batch: 2,
            epochs: Epochs::UntilConverged(most),
            beta: 0.25,
            gradient: Gradient::StraightThrough,
            revive: true,
        };
        let whole = Settings {
            method: Method::RqVae,
            sizes: vec![1],
            normalise: Normalise::None,
            unit_length: false,
            balance_last: false,
            autoencoder: Some(settings.clone()),
            learned: 0,
            seed: 0,
        };
        let data = Tensor::from_slice(&[0.0f32, 2.0]).view([2, 1]);
        let training = Training::new(&shape, &whole, &settings, &data);
        let epoch = Epoch {
            reconstruction,
            quantisation: 0.0,
            counts: vec![1.0],
            targets: Tensor::zeros([1, 1, 1], (Kind::Float, tch::Device::Cpu)),
        };
        let mut state = Progress::default();
        for _ in 0..epochs {
            conclude(&training, &epoch, most, &mut state).unwrap();
        }
        state.ended.zip(state.end)
    }

    #[test]
    fn a_training_that_runs_out_of_epochs_has_not_converged() {
        let epochs = 2 * WINDOW;
        assert_eq!(concluded(epochs, epochs, 0.5), None);
        let end = epochs + epochs.div_ceil(9);
        assert_eq!(concluded(4 * WINDOW, epochs, 0.5), Some((Ended::Converged, end)));
    }

    #[test]
    fn a_decoder_that_knows_the_mean_alone_goes_on_for_long_and_has_not_converged() {
        let most = 2 * STEPS_AT_MEAN;
        assert_eq!(concluded(most, STEPS_AT_MEAN - 1, 0.95), None);
        let end = STEPS_AT_MEAN + STEPS_AT_MEAN.div_ceil(9);
        assert_eq!(concluded(most, STEPS_AT_MEAN, 0.95), Some((Ended::MeanAlone, end)));
    }

    #[test]
    fn training_has_converged_when_a_window_is_like_the_one_before() {
        let falling: Vec<f64> = (0..100).map(|epoch| 0.99f64.powi(epoch)).collect();
        assert!((1..=100).all(|end| !no_longer_falls(&falling[..end])));
        let flat = [&falling[..50], &[0.6; 50]].concat();
        assert!(!no_longer_falls(&flat[..75]) && no_longer_falls(&flat));
        assert!(!diverges(&flat) && !diverges(&falling) && !diverges(&[]));
        // It does not fall either, which is no convergence.
        let rising: Vec<f64> = (0..50).map(|epoch| 1.01f64.powi(epoch)).collect();
        assert!(no_longer_falls(&rising) && diverges(&rising));
    }
}
