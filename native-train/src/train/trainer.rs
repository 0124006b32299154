//! Training TIGER: what a step, a validation and a checkpoint are; `train/driver.rs` runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;

use super::driver::{self, Control, Files, Job, Outcome, Plan};
use super::samples::{Batch, Batching, Epoch, Resident, Sample, epoch_batches, training_samples};
use super::schedule::Schedule;
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Metrics, Protocol, Split, rank_targets};
use crate::files::remove_if_there;
use crate::model::checkpoint::HostWeights;
use crate::model::dropout::Dropout;
use crate::model::optimizer::AdamW;
use crate::model::params::Views;
use crate::model::{Params, Provenance, T5, checkpoint};
use crate::random;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::workers;

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

/// Which optimiser trains the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// AdamW whose updates are scaled by the size of the weight, as Adafactor's are.
    ScaledAdamw,
    /// AdamW.
    Adamw,
}

impl OptimizerKind {
    fn of_before() -> Self {
        Self::Adamw
    }

    /// Most bytes that a step of `batch` samples holds for each weight on a CPU, beside what its
    /// samples need.
    pub fn bytes_a_weight(self, batch: usize) -> u64 {
        // The weight, its gradient, two moments, whether it decays, and which weight it belongs to.
        let (held, update) = match self {
            Self::ScaledAdamw => (24, 8),
            Self::Adamw => (20, 4),
        };
        // Each pass has a gradient of its own, in parts and joined, before it is added.
        let passes = (tch::get_num_threads().max(1) as u64).min(batch.div_ceil(SHARD) as u64);
        held + (8 * passes).max(update)
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
    /// Which optimiser.
    // Absent from states of before there was a choice, as the schedule is.
    #[serde(default = "OptimizerKind::of_before")]
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps to the peak.
    pub warmup: u64,
    /// How the rate falls from there.
    #[serde(default)]
    pub schedule: Schedule,
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

/// What a training follows from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    #[serde(flatten)]
    settings: Settings,
    // Absent from states of before they were noted.
    trained_on: Option<Provenance>,
    max_items: Option<usize>,
}

/// Samples whose gradient one thread of a CPU computes at a time. A constant, so that the weights do
/// not depend on the number of threads; small enough for a cache, large enough for matrix products.
const SHARD: usize = 32;

/// A model in training.
pub struct Trainer<'a> {
    run: &'a RunDir,
    dataset: &'a Dataset,
    ids: &'a SemanticIds,
    identity: Identity,
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
        let optimizer = match settings.optimizer {
            OptimizerKind::Adamw => optimizer,
            OptimizerKind::ScaledAdamw => optimizer.scaled_by_weights(&params),
        };
        let resident = Resident::new(dataset, ids, &samples, device);
        let identity = Identity {
            settings,
            trained_on: Some(Provenance::new(dataset, ids)),
            max_items: Some(ids.layout.max_items),
        };
        Ok(Self {
            run,
            dataset,
            ids,
            identity,
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
    /// `model/last.safetensors` holds the whole state of each better model, of every half minute, of
    /// most validations and of the end; `model/model.safetensors` the best by NDCG@10. With `resume`, the
    /// state is taken up and the run goes on as if it had not stopped: batches and dropout follow
    /// from the seed and the step alone.
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
        self.samples.len().div_ceil(self.identity.settings.batch) as u64
    }

    /// The network.
    pub fn model(&self) -> &T5 {
        &self.model
    }

    /// The weights as they are now, on the host.
    pub fn weights(&self) -> HostWeights {
        self.params.to_host()
    }

    /// Writes the model as it is now into a folder.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let Identity { settings, trained_on, .. } = &self.identity;
        checkpoint::save(folder, &settings.config, &self.weights(), trained_on.as_ref())
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
        let Settings { batch, batching, seed, .. } = self.identity.settings;
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
        self.parts(step, usize::MAX).remove(0)
    }

    /// [`Trainer::batch`] in the parts that are computed one by one.
    fn shards(&mut self, step: u64) -> Vec<Batch> {
        self.parts(step, if self.device == Device::Cpu { SHARD } else { usize::MAX })
    }

    /// The batch of a step in parts of `size` samples.
    fn parts(&mut self, step: u64, size: usize) -> Vec<Batch> {
        let Settings { seed, drop_user, .. } = self.identity.settings;
        let (chosen, index) = self.samples_of(step);
        let chosen = chosen.to_vec();
        let size = size.min(chosen.len());
        let indices = index.split(size as i64, 0);
        random::seeded(driver::step_seed(seed, step), || {
            let parts = chosen.chunks(size).zip(&indices);
            parts.map(|(chosen, index)| self.resident.batch(chosen, index, drop_user)).collect()
        })
    }

    /// One optimiser step, counted from 0; returns the loss, still on the device, and the number
    /// of samples.
    pub fn step(&mut self, step: u64) -> (Tensor, usize) {
        let shards = self.shards(step);
        let samples = shards.iter().map(Batch::rows).sum();
        let (loss, gradient) =
            self.gradient(shards, driver::step_seed(self.identity.settings.seed, step));
        let rate = self.learning_rate(step);
        self.optimizer.step(&self.params, gradient, rate, self.identity.settings.clip);
        (loss, samples)
    }

    /// The mean loss of some shards' samples and its gradient by the flat buffer.
    fn gradient(&self, shards: Vec<Batch>, seed: u64) -> (Tensor, Tensor) {
        let samples: usize = shards.iter().map(Batch::rows).sum();
        let jobs = shards.into_iter().enumerate().map(|job| (job, self.params.replica())).collect();
        let Self { model, identity, .. } = self;
        let Settings { config, precision, .. } = &identity.settings;
        let pass = |((number, shard), params): ((usize, Batch), Params)| {
            let dropout = Dropout::new(config.dropout_rate, shard_seed(seed, number));
            let weights = params.views_in(precision.kind());
            let share = shard.rows() as f64 / samples as f64;
            let loss = loss(model, &weights, &shard, Some(&dropout)) * share;
            let gradient = params.backward(&loss);
            (loss.detach(), gradient)
        };
        let mut sum = None;
        // In an order, whichever is ready first: a sum of floats depends on it.
        workers::backwards(self.device, jobs, pass, |(loss, gradient)| match &mut sum {
            None => sum = Some((loss, gradient)),
            Some((losses, gradients)) => {
                *losses += loss;
                *gradients += gradient;
            }
        });
        sum.expect("no batch is empty, so it has a shard")
    }

    /// Evenly spread over the file, so that every run validates on the same users.
    fn validation_users(&self) -> Vec<&'a Sequence> {
        let all = &self.dataset.sequences;
        let wanted = self.identity.settings.validation_users.clamp(1, all.len());
        (0..wanted).map(|i| &all[i * all.len() / wanted]).collect()
    }
}

/// The seed of what is random within a shard.
fn shard_seed(step_seed: u64, shard: usize) -> u64 {
    step_seed ^ (shard as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)
}

/// What was set otherwise, by the names of the options.
fn other_settings(before: &Settings, now: &Settings) -> Vec<String> {
    let named = |settings: &Settings| -> BTreeMap<String, Value> {
        let mut fields = match serde_json::to_value(settings) {
            Ok(Value::Object(fields)) => fields,
            // Our own settings are an object.
            _ => Map::new(),
        };
        if let Some(Value::Object(config)) = fields.remove("config") {
            // Both stacks have as many layers.
            fields.extend(config.into_iter().filter(|(name, _)| name != "num_decoder_layers"));
        }
        let option = |name: String| match name.as_str() {
            "num_layers" => "layers".to_owned(),
            "d_model" => "width".to_owned(),
            "num_heads" => "heads".to_owned(),
            "dropout_rate" => "dropout".to_owned(),
            _ => name.replace('_', "-"),
        };
        fields.into_iter().map(|(name, value)| (option(name), value)).collect()
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    };
    let (before, now) = (named(before), named(now));
    let options: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = options.into_iter().map(|option| (option, before.get(option), now.get(option)));
    differ
        .filter(|(_, then, now)| then != now)
        .map(|(option, then, now)| format!("--{option} {}, not {}", text(then), text(now)))
        .collect()
}

impl Job for Trainer<'_> {
    type Settings = Identity;

    fn settings(&self) -> &Identity {
        &self.identity
    }

    fn differs(&self, before: &Identity) -> Option<String> {
        let Identity { settings, trained_on, max_items } = &self.identity;
        if let (Some(then), Some(now)) = (&before.trained_on, trained_on) {
            if !then.has_ids(&self.ids.layout, self.ids.of_items(self.dataset)) {
                return Some("on other semantic IDs".to_owned());
            }
            if !then.has_sequences(self.dataset) {
                return Some("on other sequences".to_owned());
            }
            if then != now {
                // Validations over more items cannot be compared with those of before.
                return Some("with fewer items".to_owned());
            }
        }
        let mut other = other_settings(&before.settings, settings);
        if let (Some(then), Some(now)) = (before.max_items, *max_items)
            && then != now
        {
            other.push(format!("`tigret tokenize --max-items {then}`, not {now}"));
        }
        (!other.is_empty()).then(|| format!("with other settings ({})", other.join(", ")))
    }

    fn plan(&self) -> Plan {
        Plan {
            steps_per_epoch: self.steps_per_epoch(),
            epochs: self.identity.settings.epochs,
            validate_every: self.identity.settings.validate_every,
            patience: self.identity.settings.patience,
            rate_option: "--learning-rate",
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        let Settings { schedule, learning_rate, warmup, .. } = self.identity.settings;
        schedule.rate(learning_rate, warmup, self.plan().steps(), step)
    }

    fn step(&mut self, step: u64) -> (Tensor, usize) {
        Trainer::step(self, step)
    }

    fn validate(&self) -> Metrics {
        let settings = evaluate::Settings {
            protocol: Protocol::of(Split::Validation),
            beams: self.identity.settings.validation_beams,
            batch: 128,
            user_token: true,
        };
        let hidden = ProgressBar::hidden();
        let (views, users) = (self.views(), self.validation_users());
        rank_targets(&self.model, &views, self.ids, &users, settings, &hidden).metrics()
    }

    fn save_best(&self) -> Result<()> {
        // It has the figures of the model that is replaced.
        remove_if_there(&self.run.evaluation())?;
        self.save(&self.run.model())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing;
    use crate::model::params::to_vec;
    use crate::model::presets::Preset;
    use tigret_infer::TokenLayout;

    /// A data set of 70 samples and IDs for it.
    fn data() -> (Dataset, SemanticIds) {
        let sequences: Vec<Vec<u32>> =
            (0..20).map(|user| (0..6 + user % 2).map(|i| (7 * i + user) % 20).collect()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = testing::dataset(20, &sequences);
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        let layout = TokenLayout::contiguous(&[5, 4, 2], 6, 4);
        let ids = SemanticIds::new(&dataset, layout, &codes).unwrap();
        (dataset, ids)
    }

    fn settings(ids: &SemanticIds, dropout_rate: f64) -> Settings {
        Settings {
            config: T5Config { dropout_rate, ..Preset::Tiny.config(&ids.layout) },
            batch: 70,
            batching: Batching::Samples,
            precision: Precision::F32,
            epochs: 1,
            optimizer: OptimizerKind::Adamw,
            learning_rate: 1e-3,
            warmup: 1,
            schedule: Schedule::InverseSqrt,
            weight_decay: 0.0,
            // Always acts, so that its norm counts.
            clip: 1e-3,
            drop_user: 0.2,
            validate_every: 1,
            patience: 1,
            validation_users: 1,
            validation_beams: 1,
            seed: 5,
        }
    }

    #[test]
    fn a_batch_in_shards_has_the_loss_and_the_gradient_of_the_batch() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let settings = settings(&ids, 0.0);
        let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
        let shards = trainer.shards(0);
        let rows: Vec<usize> = shards.iter().map(Batch::rows).collect();
        assert_eq!(rows.iter().sum::<usize>(), trainer.samples());
        assert!(rows.len() > 1 && rows.iter().any(|&r| r != rows[0]), "{rows:?}");
        let whole = trainer.batch(0);
        let expected_loss = loss(&trainer.model, &trainer.params.views(), &whole, None);
        let expected = to_vec(&trainer.params.backward(&expected_loss));
        let (loss, gradient) = trainer.gradient(shards, 0);
        assert!((to_vec(&loss)[0] - to_vec(&expected_loss)[0]).abs() < 1e-5);
        let largest = expected.iter().fold(0.0f32, |most, g| most.max(g.abs()));
        for (found, expected) in to_vec(&gradient).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 * largest, "{found} and {expected}");
        }
    }

    /// Loss and gradient by weight of the first step, without dropout.
    fn first_step(device: Device, precision: Precision) -> (f32, Vec<(String, Vec<f32>)>) {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let settings = Settings { precision, drop_user: 0.0, ..settings(&ids, 0.0) };
        let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device).unwrap();
        let shards = trainer.shards(0);
        let (loss, gradient) = trainer.gradient(shards, 0);
        let gradient = trainer.params.by_name(&gradient).into_iter();
        (to_vec(&loss)[0], gradient.map(|(name, (_, values))| (name, values)).collect())
    }

    #[test]
    fn cuda_computes_the_loss_and_the_gradient_of_the_cpu() {
        if !tch::Cuda::is_available() && std::env::var_os("TIGRET_REQUIRE_CUDA").is_none() {
            println!("skipped: libtorch sees no CUDA device");
            return;
        }
        let (expected_loss, expected) = first_step(Device::Cpu, Precision::F32);
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        // TF32 is off, so `f32` differs by the order of sums alone.
        for (precision, loss_off, least_cosine) in
            [(Precision::F32, 1e-4, 0.999_99), (Precision::Bf16, 2e-2, 0.98)]
        {
            let (loss, found) = first_step(Device::Cuda(0), precision);
            assert!((loss - expected_loss).abs() < loss_off, "{loss}, not {expected_loss}");
            for ((name, expected), (_, found)) in expected.iter().zip(&found) {
                let (of_both, of_expected, of_found) =
                    (dot(expected, found), dot(expected, expected), dot(found, found));
                assert!(of_expected > 0.0, "{name} has no gradient");
                let cosine = of_both / (of_expected * of_found).sqrt();
                let longer = (of_found / of_expected).sqrt();
                assert!(cosine > least_cosine, "{name} in {precision:?}: cosine {cosine}");
                assert!(
                    (longer - 1.0).abs() < 0.1,
                    "{name} in {precision:?}: {longer} times as long"
                );
            }
        }
    }

    #[test]
    fn a_state_of_before_provenance_was_noted_can_be_taken_up() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let settings = settings(&ids, 0.1);
        let trainer = Trainer::new(&run, &dataset, &ids, settings.clone(), Device::Cpu).unwrap();
        let read = |json: String| serde_json::from_str::<Identity>(&json).unwrap();
        let mut json = serde_json::to_value(&settings).unwrap();
        for choice in ["schedule", "optimizer"] {
            json.as_object_mut().unwrap().remove(choice).unwrap();
        }
        let before = read(json.to_string());
        assert_eq!(trainer.differs(&before), None);
        let same = || read(serde_json::to_string(&trainer.identity).unwrap());
        assert_eq!(trainer.differs(&same()), None);
        let optimizer = OptimizerKind::ScaledAdamw;
        let mut config = settings.config.clone();
        config.d_model = 32;
        let config = Settings { config, ..settings.clone() };
        for (other, said) in [
            (Settings { optimizer, ..settings.clone() }, "--optimizer scaled-adamw, not adamw"),
            (
                Settings { precision: Precision::Bf16, ..settings.clone() },
                "--precision bf16, not f32",
            ),
            (Settings { seed: 6, ..settings.clone() }, "--seed 6, not 5"),
            (Settings { seed: 6, epochs: 3, ..settings }, "--epochs 3, not 1, --seed 6, not 5"),
            (config, "--width 32, not 64"),
        ] {
            let other = Identity { settings: other, ..same() };
            assert_eq!(trainer.differs(&other), Some(format!("with other settings ({said})")));
        }
        let other = Identity { max_items: Some(2), ..same() };
        let said = "with other settings (`tigret tokenize --max-items 2`, not 4)".to_owned();
        assert_eq!(trainer.differs(&other), Some(said));
    }

    #[test]
    fn weights_do_not_depend_on_the_number_of_threads() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let threads = tch::get_num_threads();
        for optimizer in [OptimizerKind::Adamw, OptimizerKind::ScaledAdamw] {
            let mut trained = [1, 2, 3].map(|threads| {
                let settings = Settings { optimizer, ..settings(&ids, 0.1) };
                let mut trainer =
                    Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
                tch::set_num_threads(threads);
                let losses = [0, 0, 0].map(|step| to_vec(&trainer.step(step).0));
                (losses, trainer.weights())
            });
            tch::set_num_threads(threads);
            let first = trained[0].clone();
            assert!(first.0[2] < first.0[0], "{:?}", first.0);
            for other in &mut trained[1..] {
                assert!(*other == first);
            }
        }
    }
}
