//! The training loop: batches, steps, validation, checkpoints.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;

use super::samples::{Batch, Batching, Epoch, Resident, Sample, epoch_batches, training_samples};
use super::schedule::learning_rate;
use super::state::{self, Progress};
use super::tensorboard::EventWriter;
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Metrics, Split, rank_targets};
use crate::model::checkpoint::HostWeights;
use crate::model::optimizer::AdamW;
use crate::model::params::Views;
use crate::model::{Params, T5, checkpoint};
use crate::run_dir::{RunDir, write_atomically};
use crate::tokenizer::SemanticIds;

/// What the matrix products of training compute in; everything else is `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats.
    Bf16,
}

impl Precision {
    /// The faster one on a device: CUDA has matrix units for `bf16`, most CPUs have not.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::Bf16 } else { Self::F32 }
    }

    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// Settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub config: T5Config,
    /// Samples a step, in the mean.
    pub batch: usize,
    /// How samples are shared out to steps.
    pub batching: Batching,
    /// What matrix products compute in.
    pub precision: Precision,
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
    resident: Resident,
    epoch: Option<(u64, Epoch, Tensor)>,
}

/// A killed run loses at most this much work, and what the last reading of the loss took.
const SAVE_EVERY: Duration = Duration::from_secs(120);

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
        let resident = Resident::new(dataset, ids, &samples, device);
        Ok(Self {
            run,
            dataset,
            ids,
            settings,
            device,
            model,
            params,
            optimizer,
            samples,
            resident,
            epoch: None,
        })
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
    /// `model/last.safetensors` holds the whole state after each validation, every two minutes and
    /// at the end; `model/model.safetensors` the best model by NDCG@10. With `resume`, the state is taken up
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
        let folder = self.run.model();
        let mut state = Progress {
            settings: self.settings.clone(),
            step: 0,
            seconds: 0.0,
            best: None,
            validations_without_gain: 0,
        };
        if resume {
            state = state::load(&folder, &mut self.params, &mut self.optimizer)?;
            if state.settings != self.settings {
                return Err(TrainError::file(
                    &folder,
                    "was trained with other settings; give the same ones or train without --resume",
                ));
            }
        }
        let mut log = self.open_log(state.step)?;
        let mut events = EventWriter::create(&self.run.tensorboard(), state.step)?;
        let validation: Vec<&Sequence> = self.validation_users();
        let total = self.steps_per_epoch() * self.settings.epochs;
        progress.set_length(total);
        progress.set_position(state.step);
        progress.set_message("training");

        let (begin, before) = (Instant::now(), state.seconds);
        let mut training = Duration::ZERO;
        let (mut window, mut window_samples) = (Instant::now(), 0usize);
        let mut trained_samples = 0usize;
        let mut losses = Tensor::zeros([], (Kind::Float, self.device));
        let mut losses_since = 0u32;
        let mut saved = Instant::now();
        let mut stopped = "all epochs are done";
        while state.step < total {
            let epoch = state.step / self.steps_per_epoch();
            let (loss, samples) = self.step(state.step);
            losses += loss;
            losses_since += 1;
            window_samples += samples;
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
                    "the loss is not a number at step {}; the last good state is in {}; lower \
                     --learning-rate and train again",
                    state.step,
                    folder.display()
                )));
            }
            let samples_per_second = window_samples as f64 / window.elapsed().as_secs_f64();
            training += window.elapsed();
            trained_samples += std::mem::take(&mut window_samples);
            let metrics = (validate && !stop).then(|| self.validate(&validation));
            state.seconds = before + begin.elapsed().as_secs_f64();
            let Settings { learning_rate: peak, warmup, .. } = self.settings;
            let line = LogLine {
                step: state.step,
                epoch,
                seconds: state.seconds,
                loss,
                learning_rate: learning_rate(peak, warmup, state.step - 1),
                samples_per_second,
                validation: metrics,
            };
            line.write(&mut log).map_err(|e| TrainError::file(self.run.train_log(), e))?;
            line.draw(&mut events).map_err(|e| TrainError::file(self.run.tensorboard(), e))?;
            if let Some(metrics) = metrics {
                if state.best.is_none_or(|(_, best)| metrics.ndcg_10 > best.ndcg_10) {
                    state.best = Some((state.step, metrics));
                    state.validations_without_gain = 0;
                    let weights = self.params.to_host();
                    checkpoint::save(&folder, &self.settings.config, &weights)?;
                } else {
                    state.validations_without_gain += 1;
                }
            }
            if let Some((_, best)) = state.best {
                progress.set_message(format!("loss {loss:.3} NDCG@10 {:.4}", best.ndcg_10));
            }
            if metrics.is_some() || stop || saved.elapsed() >= SAVE_EVERY {
                state::save(&folder, &self.params, &self.optimizer, &state)?;
                saved = Instant::now();
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

    /// Steps of a pass over all samples.
    pub fn steps_per_epoch(&self) -> u64 {
        self.samples.len().div_ceil(self.settings.batch) as u64
    }

    /// The network.
    pub fn model(&self) -> &T5 {
        &self.model
    }

    /// The weights as they are now, on the host.
    pub fn weights(&self) -> HostWeights {
        self.params.to_host()
    }

    /// The weights as they are now, without gradients.
    pub fn views(&self) -> Views {
        tch::no_grad(|| self.params.views())
    }

    /// The samples of a step, on the host and as an index on the device (`[batch]`, `i64`).
    fn samples_of(&mut self, step: u64) -> (&[u32], Tensor) {
        let epoch = step / self.steps_per_epoch();
        let at = (step % self.steps_per_epoch()) as usize;
        if self.epoch.as_ref().is_none_or(|(loaded, ..)| *loaded != epoch) {
            self.epoch = None;
        }
        let Settings { batch, batching, seed, .. } = self.settings;
        let (_, plan, order) = self.epoch.get_or_insert_with(|| {
            let max_items = self.ids.layout.max_items;
            let plan = epoch_batches(&self.samples, max_items, batch, batching, seed, epoch);
            let order: Vec<i64> = plan.order.iter().map(|&i| i64::from(i)).collect();
            (epoch, plan, Tensor::from_slice(&order).to_device(self.device))
        });
        let range = plan.batches[at].clone();
        (&plan.order[range.clone()], order.narrow(0, range.start as i64, range.len() as i64))
    }

    /// The batch of a step, as training makes it.
    pub fn batch(&mut self, step: u64) -> Batch {
        // All randomness of a step follows from the seed and the step, so that a resumed run
        // draws what an uninterrupted one would have drawn.
        let seed = self.settings.seed ^ (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        tch::manual_seed(seed as i64);
        let (chosen, index) = self.samples_of(step);
        let chosen = chosen.to_vec();
        self.resident.batch(&chosen, &index, self.settings.drop_user)
    }

    /// One optimiser step, counted from 0; returns the loss, still on the device, and the number
    /// of samples.
    pub fn step(&mut self, step: u64) -> (Tensor, usize) {
        let batch = self.batch(step);
        let weights = self.params.views_in(self.settings.precision.kind());
        let loss = loss(&self.model, &weights, &batch, true);
        loss.backward();
        let rate = learning_rate(self.settings.learning_rate, self.settings.warmup, step);
        self.optimizer.step(&self.params, rate, self.settings.clip);
        (loss.detach(), batch.labels.size()[0] as usize)
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

    /// The log, without the lines of steps that are done again since they were not saved.
    fn open_log(&self, done: u64) -> Result<fs::File> {
        let path = self.run.train_log();
        let old = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(TrainError::file(path, e)),
        };
        let step = |line: &&str| {
            let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
            value.and_then(|value| value["step"].as_u64()).is_some_and(|step| step <= done)
        };
        write_atomically(&path, |file| {
            old.lines().take_while(step).try_for_each(|line| writeln!(file, "{line}"))
        })?;
        fs::OpenOptions::new().append(true).open(&path).map_err(|e| TrainError::file(path, e))
    }
}

impl LogLine {
    fn write(&self, log: &mut fs::File) -> std::io::Result<()> {
        let line = serde_json::to_string(self).map_err(std::io::Error::from)?;
        writeln!(log, "{line}")
    }

    fn draw(&self, events: &mut EventWriter) -> std::io::Result<()> {
        events.scalars(
            self.step,
            &[
                ("train/loss", self.loss),
                ("train/learning_rate", self.learning_rate),
                ("train/samples_per_second", self.samples_per_second),
            ],
        )?;
        let Some(metrics) = self.validation else { return Ok(()) };
        events.scalars(
            self.step,
            &[
                ("validation/recall@5", metrics.recall_5),
                ("validation/ndcg@5", metrics.ndcg_5),
                ("validation/recall@10", metrics.recall_10),
                ("validation/ndcg@10", metrics.ndcg_10),
            ],
        )
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
