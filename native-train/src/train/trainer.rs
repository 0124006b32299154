//! The training loop: batches, steps, validation, checkpoints.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;

use super::samples::{Batch, Batcher, Sample, epoch_batches, training_samples};
use super::schedule::learning_rate;
use super::state::{self, Progress};
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Metrics, Split, rank_targets};
use crate::model::optimizer::AdamW;
use crate::model::params::Views;
use crate::model::{Params, T5, checkpoint};
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;

/// Settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub config: T5Config,
    /// Samples a step.
    pub batch: usize,
    /// Passes over the samples at most.
    pub epochs: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps to the peak.
    pub warmup: u64,
    /// Weight decay of AdamW, on matrices.
    pub weight_decay: f64,
    /// Largest gradient norm.
    pub clip: f64,
    /// Probability that a sample's user token is dropped.
    pub drop_user: f64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Validations without a better NDCG@10 before the run stops.
    pub patience: u32,
    /// Users of a validation, drawn once.
    pub validation_users: usize,
    /// Beams of a validation.
    pub validation_beams: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Why it stopped.
    pub stopped: &'static str,
    /// Steps done.
    pub steps: u64,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Samples a second, validation not counted.
    pub samples_per_second: f64,
    /// The step of the best validation.
    pub best_step: u64,
    /// The best validation.
    pub best: Metrics,
}

#[derive(Debug, Serialize)]
struct LogLine {
    step: u64,
    epoch: u64,
    seconds: f64,
    loss: f64,
    learning_rate: f64,
    samples_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<Metrics>,
}

/// A model in training.
pub struct Trainer<'a> {
    run: &'a RunDir,
    dataset: &'a Dataset,
    ids: &'a SemanticIds,
    settings: Settings,
    device: Device,
    model: T5,
    params: Params,
    optimizer: AdamW,
    samples: Vec<Sample>,
}

/// Steps between two readings of the loss: a reading waits for the device.
const LOG_EVERY: u64 = 50;

impl<'a> Trainer<'a> {
    /// Gets ready: initial weights and the list of samples.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the data set has no training sample.
    pub fn new(
        run: &'a RunDir,
        dataset: &'a Dataset,
        ids: &'a SemanticIds,
        settings: Settings,
        device: Device,
    ) -> Result<Self> {
        let samples = training_samples(dataset);
        if samples.is_empty() {
            return Err(TrainError::usage(
                "no sequence has two training items, so there is nothing to train on; sequences \
                 need at least 4 items (lower --k-core, or bring more data)",
            ));
        }
        let model = T5::new(settings.config.clone());
        let params = Params::new(model.specs(), settings.seed, device);
        let optimizer = AdamW::new(&params, settings.weight_decay);
        Ok(Self { run, dataset, ids, settings, device, model, params, optimizer, samples })
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.params.len()
    }

    /// Number of samples of an epoch.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Trains until the epochs, the patience or `budget` is used up, or `interrupted` is set.
    ///
    /// `model/last.safetensors` holds the whole state after each validation and at the end;
    /// `model/model.safetensors` the best model by NDCG@10. With `resume`, the state is taken up
    /// and the run goes on as if it had not stopped: batches and dropout follow from the seed and
    /// the step alone.
    ///
    /// # Errors
    /// [`TrainError`] for files, for a loss that is not a number, for `interrupted`.
    pub fn train(
        &mut self,
        resume: bool,
        budget: Option<Duration>,
        interrupted: &AtomicBool,
        progress: &ProgressBar,
    ) -> Result<Outcome> {
        let last = self.run.model().join("last.safetensors");
        fs::create_dir_all(self.run.model()).map_err(|e| TrainError::file(self.run.model(), e))?;
        let mut state = Progress {
            settings: self.settings.clone(),
            step: 0,
            seconds: 0.0,
            best: None,
            validations_without_gain: 0,
        };
        if resume {
            state = state::load(&last, &mut self.params, &mut self.optimizer)?;
            if state.settings != self.settings {
                return Err(TrainError::file(
                    &last,
                    "was trained with other settings; give the same ones or train without --resume",
                ));
            }
        }
        let mut log = self.open_log(resume)?;
        let validation: Vec<&Sequence> = self.validation_users();
        let steps_per_epoch = self.samples.len().div_ceil(self.settings.batch) as u64;
        let total = steps_per_epoch * self.settings.epochs;
        progress.set_length(total);
        progress.set_position(state.step);
        progress.set_message("training");

        let (begin, before) = (Instant::now(), state.seconds);
        let mut training = Duration::ZERO;
        let (mut window, mut window_samples) = (Instant::now(), 0usize);
        let mut trained_samples = 0usize;
        let mut losses = Tensor::zeros([], (Kind::Float, self.device));
        let mut losses_since = 0u32;
        let mut epoch_of_batches = None;
        let mut batches = Vec::new();
        let mut stopped = "all epochs are done";
        while state.step < total {
            let epoch = state.step / steps_per_epoch;
            if epoch_of_batches != Some(epoch) {
                batches = self.batches(epoch);
                epoch_of_batches = Some(epoch);
            }
            let chosen = &batches[(state.step % steps_per_epoch) as usize];
            losses += self.step(chosen, state.step);
            losses_since += 1;
            window_samples += chosen.len();
            state.step += 1;
            progress.inc(1);

            let last_step = state.step == total;
            let over = budget.is_some_and(|budget| begin.elapsed() >= budget);
            let stop = interrupted.load(Ordering::Relaxed);
            let validate =
                state.step.is_multiple_of(self.settings.validate_every) || last_step || over;
            if !(validate || stop || state.step.is_multiple_of(LOG_EVERY)) {
                continue;
            }
            let loss = losses.double_value(&[]) / f64::from(losses_since);
            losses = losses.zeros_like();
            losses_since = 0;
            if !loss.is_finite() {
                return Err(TrainError::usage(format!(
                    "the loss is not a number at step {}; the last good state is {}; lower \
                     --learning-rate and train again",
                    state.step,
                    last.display()
                )));
            }
            let samples_per_second = window_samples as f64 / window.elapsed().as_secs_f64();
            training += window.elapsed();
            trained_samples += std::mem::take(&mut window_samples);
            let metrics = (validate && !stop).then(|| self.validate(&validation));
            state.seconds = before + begin.elapsed().as_secs_f64();
            let line = LogLine {
                step: state.step,
                epoch,
                seconds: state.seconds,
                loss,
                learning_rate: learning_rate(
                    self.settings.learning_rate,
                    self.settings.warmup,
                    state.step - 1,
                ),
                samples_per_second,
                validation: metrics,
            };
            serde_json::to_writer(&mut log, &line)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(log))
                .map_err(|e| TrainError::file(self.run.train_log(), e))?;
            if let Some(metrics) = metrics {
                if state.best.is_none_or(|(_, best)| metrics.ndcg_10 > best.ndcg_10) {
                    state.best = Some((state.step, metrics));
                    state.validations_without_gain = 0;
                    let weights = self.params.to_host();
                    checkpoint::save(&self.run.model(), &self.settings.config, &weights)?;
                } else {
                    state.validations_without_gain += 1;
                }
            }
            if let Some((_, best)) = state.best {
                progress.set_message(format!("loss {loss:.3} NDCG@10 {:.4}", best.ndcg_10));
            }
            if metrics.is_some() || stop {
                state::save(&last, &self.params, &self.optimizer, &state)?;
            }
            if stop {
                return Err(TrainError::Interrupted);
            }
            if state.validations_without_gain >= self.settings.patience {
                stopped = "validation NDCG@10 has stopped rising";
                break;
            }
            if over {
                stopped = "the time is used up";
                break;
            }
            window = Instant::now();
        }
        progress.finish();
        let (best_step, best) = state.best.unwrap_or_default();
        Ok(Outcome {
            stopped,
            steps: state.step,
            seconds: state.seconds,
            samples_per_second: trained_samples as f64 / training.as_secs_f64().max(1e-9),
            best_step,
            best,
        })
    }

    /// The batches of an epoch, as indices of samples.
    pub fn batches(&self, epoch: u64) -> Vec<Vec<u32>> {
        let Settings { batch, seed, .. } = self.settings;
        epoch_batches(&self.samples, self.ids.layout.max_items, batch, seed, epoch)
    }

    /// The network.
    pub fn model(&self) -> &T5 {
        &self.model
    }

    /// The weights as they are now, without gradients.
    pub fn views(&self) -> Views {
        tch::no_grad(|| self.params.views())
    }

    /// One optimiser step on a batch of samples; returns the loss, still on the device.
    pub fn step(&mut self, chosen: &[u32], step: u64) -> Tensor {
        // All randomness of a step follows from the seed and the step, so that a resumed run
        // draws what an uninterrupted one would have drawn.
        let seed = self.settings.seed ^ (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        tch::manual_seed(seed as i64);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let samples: Vec<Sample> = chosen.iter().map(|&i| self.samples[i as usize]).collect();
        let batcher = Batcher { dataset: self.dataset, ids: self.ids, device: self.device };
        let batch = batcher.batch(&samples, self.settings.drop_user, &mut rng);
        let loss = loss(&self.model, &self.params.views(), &batch, true);
        loss.backward();
        let rate = learning_rate(self.settings.learning_rate, self.settings.warmup, step);
        self.optimizer.step(&self.params, rate, self.settings.clip);
        loss.detach()
    }

    fn validate(&self, sequences: &[&Sequence]) -> Metrics {
        let settings = evaluate::Settings {
            split: Split::Validation,
            beams: self.settings.validation_beams,
            batch: 128,
            user_token: true,
        };
        let views = tch::no_grad(|| self.params.views());
        let hidden = ProgressBar::hidden();
        Metrics::from_ranks(&rank_targets(
            &self.model,
            &views,
            self.ids,
            sequences,
            settings,
            &hidden,
        ))
    }

    /// Evenly spread over the file, so that every run validates on the same users.
    fn validation_users(&self) -> Vec<&'a Sequence> {
        let all = &self.dataset.sequences;
        let wanted = self.settings.validation_users.clamp(1, all.len());
        (0..wanted).map(|i| &all[i * all.len() / wanted]).collect()
    }

    fn open_log(&self, resume: bool) -> Result<fs::File> {
        let path = self.run.train_log();
        fs::OpenOptions::new()
            .create(true)
            .write(true)
            .append(resume)
            .truncate(!resume)
            .open(&path)
            .map_err(|e| TrainError::file(path, e))
    }
}

/// Mean cross-entropy of the labels over the whole vocabulary, teacher-forced.
pub fn loss(model: &T5, weights: &Views, batch: &Batch, train: bool) -> Tensor {
    let encoded = model.encode(weights, &batch.tokens, &batch.keep, train);
    let cross = model.cross_state(weights, &encoded, &batch.keep);
    let (rows, levels) = (batch.labels.size()[0], batch.labels.size()[1]);
    let start =
        batch.labels.narrow(1, 0, 1).full_like(f64::from(model.config().decoder_start_token_id));
    let inputs = Tensor::cat(&[start, batch.labels.narrow(1, 0, levels - 1)], 1);
    let logits = model.decode(weights, &inputs, &cross, train);
    logits.view([rows * levels, -1]).cross_entropy_for_logits(&batch.labels.view([rows * levels]))
}
