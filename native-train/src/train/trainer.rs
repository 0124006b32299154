//! Training TIGER: what a step, a validation and a checkpoint are; `train/driver.rs` runs them.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;

use super::driver::{self, Control, Files, Job, Outcome, Plan};
use super::samples::{Batch, Batching, Epoch, Resident, Sample, epoch_batches, training_samples};
use super::schedule::learning_rate;
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Metrics, Split, rank_targets};
use crate::model::checkpoint::HostWeights;
use crate::model::dropout::Dropout;
use crate::model::optimizer::AdamW;
use crate::model::params::Views;
use crate::model::{Params, T5, checkpoint};
use crate::run_dir::RunDir;
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
    /// at the end; `model/model.safetensors` the best model by NDCG@10. With `resume`, the state is
    /// taken up and the run goes on as if it had not stopped: batches and dropout follow from the
    /// seed and the step alone.
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
        let files = Files {
            folder: self.run.model(),
            log: self.run.train_log(),
            tensorboard: self.run.tensorboard(),
        };
        driver::drive(self, &files, resume, Control { budget, interrupted, progress })
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
        driver::seed_step(self.settings.seed, step);
        let (chosen, index) = self.samples_of(step);
        let chosen = chosen.to_vec();
        self.resident.batch(&chosen, &index, self.settings.drop_user)
    }

    /// One optimiser step, counted from 0; returns the loss, still on the device, and the number
    /// of samples.
    pub fn step(&mut self, step: u64) -> (Tensor, usize) {
        let batch = self.batch(step);
        let weights = self.params.views_in(self.settings.precision.kind());
        let seed = driver::step_seed(self.settings.seed, step);
        let dropout = Dropout::new(self.settings.config.dropout_rate, seed);
        let loss = loss(&self.model, &weights, &batch, Some(&dropout));
        loss.backward();
        let rate = learning_rate(self.settings.learning_rate, self.settings.warmup, step);
        self.optimizer.step(&self.params, rate, self.settings.clip);
        (loss.detach(), batch.labels.size()[0] as usize)
    }

    /// Evenly spread over the file, so that every run validates on the same users.
    fn validation_users(&self) -> Vec<&'a Sequence> {
        let all = &self.dataset.sequences;
        let wanted = self.settings.validation_users.clamp(1, all.len());
        (0..wanted).map(|i| &all[i * all.len() / wanted]).collect()
    }
}

impl Job for Trainer<'_> {
    type Settings = Settings;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn plan(&self) -> Plan {
        Plan {
            steps_per_epoch: self.steps_per_epoch(),
            epochs: self.settings.epochs,
            validate_every: self.settings.validate_every,
            patience: self.settings.patience,
            rate_option: "--learning-rate",
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        learning_rate(self.settings.learning_rate, self.settings.warmup, step)
    }

    fn step(&mut self, step: u64) -> (Tensor, usize) {
        Trainer::step(self, step)
    }

    fn validate(&self) -> Metrics {
        let settings = evaluate::Settings {
            split: Split::Validation,
            beams: self.settings.validation_beams,
            batch: 128,
            user_token: true,
        };
        let hidden = ProgressBar::hidden();
        Metrics::from_ranks(&rank_targets(
            &self.model,
            &self.views(),
            self.ids,
            &self.validation_users(),
            settings,
            &hidden,
        ))
    }

    fn save_best(&self) -> Result<()> {
        checkpoint::save(&self.run.model(), &self.settings.config, &self.params.to_host())
    }

    fn weights(&self) -> (&Params, &AdamW) {
        (&self.params, &self.optimizer)
    }

    fn weights_mut(&mut self) -> (&mut Params, &mut AdamW) {
        (&mut self.params, &mut self.optimizer)
    }
}

/// Mean cross-entropy of the labels over the whole vocabulary, teacher-forced.
pub fn loss(model: &T5, weights: &Views, batch: &Batch, train: Option<&Dropout>) -> Tensor {
    let encoded = model.encode(weights, &batch.tokens, &batch.keep, train);
    let cross = model.cross_state(weights, &encoded, &batch.keep);
    let (rows, levels) = (batch.labels.size()[0], batch.labels.size()[1]);
    let start =
        batch.labels.narrow(1, 0, 1).full_like(f64::from(model.config().decoder_start_token_id));
    let inputs = Tensor::cat(&[start, batch.labels.narrow(1, 0, levels - 1)], 1);
    let logits = model.decode(weights, &inputs, &cross, train);
    logits.view([rows * levels, -1]).cross_entropy_for_logits(&batch.labels.view([rows * levels]))
}
