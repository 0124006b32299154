//! Training TIGER: what a step, a validation and a checkpoint are; `train/driver.rs` runs them.

use std::path::Path;

use indicatif::ProgressBar;
use tch::{Device, Tensor};

use super::batch::{Batch, Draws, GPU_BATCH, MICRO_BATCH, Resident};
use super::driver::{self, Files, Job, Limits, Outcome, Plan};
use super::loss::loss;
use super::record::Training;
use super::samples::{Sampler, training_samples};
use super::settings::{Identity, OptimizerKind, Options, Settings};
use super::state;
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Split, rank_targets};
use crate::files::remove_if_there;
use crate::metrics::Metrics;
use crate::model::checkpoint::HostWeights;
use crate::model::dropout::Dropout;
use crate::model::optimizer::AdamW;
use crate::model::params::Views;
use crate::model::{Params, T5, checkpoint};
use crate::random;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::tokenizer::quantizer_file::Origin;
use crate::workers;

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
    sampler: Sampler,
    resident: Resident,
    origin: Option<Origin>,
    begun_by: Option<String>,
}

impl<'a> Trainer<'a> {
    /// With initial weights, and the samples of the data set.
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
        let Options { batch, batching, optimizer, weight_decay, seed, .. } = settings.options;
        let params = Params::new(model.specs(), seed, device);
        let adamw = AdamW::new(&params, weight_decay);
        let optimizer = match optimizer {
            OptimizerKind::Adamw => adamw,
            OptimizerKind::ScaledAdamw => adamw.scaled_by_weights(&params),
        };
        let resident = Resident::new(dataset, ids, &samples, device);
        let max_items = ids.layout.max_items;
        let sampler = Sampler::new(samples, max_items, batch, batching, seed, device);
        let identity = Identity::new(settings, dataset, ids);
        Ok(Self {
            run,
            dataset,
            ids,
            identity,
            device,
            model,
            params,
            optimizer,
            sampler,
            resident,
            origin: Origin::of(run, ids),
            begun_by: None,
        })
    }

    /// Lets the state say what has begun the training, or lets it go on: [`super::begun`] tells.
    #[must_use]
    pub fn begun_by(self, begun_by: Option<String>) -> Self {
        Self { begun_by, ..self }
    }

    /// By which options it is longer than the training in the run was to be, if it can go on from that.
    pub fn longer(&self) -> Option<String> {
        let before = state::progress::<Identity>(&self.run.model(), state::AGAIN).ok()??.identity;
        if self.differs(&before).is_some() {
            return None;
        }
        let (before, now) = (before.settings.options, self.options());
        let longer = [
            ("epochs", before.epochs, now.epochs),
            ("patience", before.patience.into(), now.patience.into()),
        ];
        let longer = longer.into_iter().filter(|(_, before, now)| now > before);
        let longer = longer.map(|(option, before, now)| format!("--{option} {now}, was {before}"));
        Some(longer.collect::<Vec<_>>().join(", ")).filter(|longer| !longer.is_empty())
    }

    fn options(&self) -> &Options {
        &self.identity.settings.options
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.params.count()
    }

    /// Number of samples of an epoch.
    pub fn samples(&self) -> usize {
        self.sampler.samples.len()
    }

    /// Trains until the epochs, the patience or the time of `limits` is used up, or it is
    /// interrupted.
    ///
    /// The whole state is written to `model/last.safetensors` with each better model, every half
    /// minute, after most validations and at the end, the best model by NDCG@10 to
    /// `model/model.safetensors`. With `resume`, the run goes on from the state as if it had not
    /// stopped: batches and dropout follow from the seed and the step alone.
    ///
    /// # Errors
    /// [`TrainError`] for files, for a loss that is not a number, and [`TrainError::Interrupted`].
    pub fn train(&mut self, resume: bool, limits: Limits<'_>) -> Result<Outcome> {
        let files = Files {
            folder: self.run.model(),
            log: self.run.train_log(),
            tensorboard: self.run.tensorboard(),
            begun_by: self.begun_by.clone(),
        };
        driver::drive(self, &files, resume, limits)
    }

    /// Steps of a pass over all samples.
    pub fn steps_per_epoch(&self) -> u64 {
        self.sampler.steps_per_epoch()
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
        self.save_with(folder, None)
    }

    fn save_with(&self, folder: &Path, training: Option<&Training>) -> Result<()> {
        let Identity { settings, trained_on, .. } = &self.identity;
        let notes = training.map(Training::note);
        checkpoint::save(folder, &settings.config, &self.weights(), Some(trained_on), notes)
    }

    /// What gave the semantic IDs, if the run says so.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The weights as they are now, without gradients.
    pub fn views(&self) -> Views {
        tch::no_grad(|| self.params.views())
    }

    /// The batch of a step, as training makes it.
    pub fn batch(&mut self, step: u64) -> Batch {
        self.parts(step, usize::MAX).remove(0)
    }

    /// [`Trainer::batch`] in the parts that are computed one by one.
    fn micro_batches(&mut self, step: u64) -> Vec<Batch> {
        self.parts(step, if self.device == Device::Cpu { MICRO_BATCH } else { GPU_BATCH })
    }

    /// The batch of a step in parts of `size` samples.
    fn parts(&mut self, step: u64, size: usize) -> Vec<Batch> {
        let Options { seed, drop_user, drop_items, unlikelihood, .. } = *self.options();
        let draws = Draws { drop_user, drop_items, unlikelihood };
        let (chosen, index) = self.sampler.of_step(step);
        let size = size.min(chosen.len());
        let indices = index.split(size as i64, 0);
        random::seeded(driver::step_seed(seed, step), || {
            let parts = chosen.chunks(size).zip(&indices);
            parts.map(|(chosen, index)| self.resident.batch(chosen, index, draws)).collect()
        })
    }

    /// One optimiser step, counted from 0; returns the loss, still on the device, and the number
    /// of samples.
    pub fn step(&mut self, step: u64) -> (Tensor, usize) {
        let micro_batches = self.micro_batches(step);
        let samples = micro_batches.iter().map(Batch::rows).sum();
        let Options { seed, clip, .. } = *self.options();
        let (loss, gradient) = self.gradient(micro_batches, driver::step_seed(seed, step));
        let rate = self.learning_rate(step);
        self.optimizer.step(&self.params, gradient, rate, clip);
        (loss, samples)
    }

    /// The mean loss of some micro-batches' samples and its gradient by the flat buffer.
    fn gradient(&self, micro_batches: Vec<Batch>, seed: u64) -> (Tensor, Tensor) {
        let samples: usize = micro_batches.iter().map(Batch::rows).sum();
        let jobs =
            micro_batches.into_iter().enumerate().map(|job| (job, self.params.replica())).collect();
        let Self { model, identity, .. } = self;
        let Settings { config, precision, .. } = &identity.settings;
        let pass = |((number, batch), params): ((usize, Batch), Params)| {
            let dropout = Dropout::new(config.dropout_rate, micro_batch_seed(seed, number));
            let weights = params.views_in(precision.kind());
            let share = batch.rows() as f64 / samples as f64;
            let loss = loss(model, &weights, &batch, Some(&dropout)) * share;
            let gradient = params.backward(&loss);
            (loss.detach(), gradient)
        };
        let mut sum = None;
        // In a fixed order, whichever is ready first: a sum of floats depends on it.
        workers::backwards(self.device, jobs, pass, |(loss, gradient)| match &mut sum {
            None => sum = Some((loss, gradient)),
            Some((losses, gradients)) => {
                *losses += loss;
                *gradients += gradient;
            }
        });
        sum.expect("no batch is empty, so it has a micro-batch")
    }

    /// Evenly spread over the data set, so that every run validates on the same users.
    fn validation_users(&self) -> Vec<&'a Sequence> {
        self.dataset.spread(self.options().validation_users.max(1))
    }
}

/// The seed of what is random within a micro-batch, by its number.
fn micro_batch_seed(step_seed: u64, number: usize) -> u64 {
    step_seed ^ (number as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03)
}

impl Job for Trainer<'_> {
    type Identity = Identity;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn differs(&self, before: &Identity) -> Option<String> {
        self.identity.differs(before, self.dataset, self.ids)
    }

    fn plan(&self) -> Plan {
        Plan {
            steps_per_epoch: self.steps_per_epoch(),
            epochs: self.options().epochs,
            validate_every: self.identity.settings.validate_every,
            patience: self.options().patience,
            ema: self.options().ema,
            rate_option: "--learning-rate",
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        let Options { schedule, learning_rate, warmup, .. } = *self.options();
        schedule.rate(learning_rate, warmup, self.plan().steps(), step)
    }

    fn step(&mut self, step: u64) -> (Tensor, usize) {
        Trainer::step(self, step)
    }

    fn validate(&self) -> Metrics {
        let settings = evaluate::Settings::of(Split::Validation, self.options().validation_beams);
        let hidden = ProgressBar::hidden();
        let (views, users) = (self.views(), self.validation_users());
        rank_targets(&self.model, &views, self.ids, &users, settings, &hidden).metrics()
    }

    fn save_best(&self, steps: u64) -> Result<()> {
        // Its figures are those of the model that is replaced.
        remove_if_there(&self.run.evaluation())?;
        let Settings { precision, validate_every, options, .. } = self.identity.settings;
        let semantic_ids = self.origin.clone();
        let training = Training { semantic_ids, steps, precision, validate_every, options };
        self.save_with(&self.run.model(), Some(&training))
    }

    fn weights(&self) -> (&Params, &AdamW) {
        (&self.params, &self.optimizer)
    }

    fn weights_mut(&mut self) -> (&mut Params, &mut AdamW) {
        (&mut self.params, &mut self.optimizer)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::data::testing;
    use crate::device::testing::{cosine, on_cpu_and_cuda};
    use crate::model::params::to_vec;
    use crate::model::presets::Preset;
    use crate::train::Precision;
    use crate::train::samples::Batching;
    use crate::train::schedule::Schedule;
    use crate::workers::testing::with_threads;
    use tigret_infer::{T5Config, TokenLayout};

    /// A data set of 70 samples and IDs for it.
    pub(crate) fn data() -> (Dataset, SemanticIds) {
        let sequences: Vec<Vec<u32>> =
            (0..20).map(|user| (0..6 + user % 2).map(|i| (7 * i + user) % 20).collect()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = testing::dataset(20, &sequences);
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        let layout = TokenLayout::contiguous(&[5, 4, 2], 6, 4);
        let ids = SemanticIds::new(&dataset.items, layout, &codes).unwrap();
        (dataset, ids)
    }

    pub(in crate::train) const OPTIONS: Options = Options {
        batch: 70,
        epochs: 1,
        optimizer: OptimizerKind::Adamw,
        learning_rate: 1e-3,
        warmup: 1,
        weight_decay: 0.0,
        // Always acts, so that its norm counts.
        clip: 1e-3,
        patience: 1,
        validation_users: 1,
        validation_beams: 1,
        seed: 5,
        ..Options::DEFAULT
    };

    pub(in crate::train) fn settings(
        ids: &SemanticIds,
        dropout_rate: f64,
        options: Options,
    ) -> Settings {
        let config = T5Config { dropout_rate, ..Preset::Tiny.config(&ids.layout) };
        Settings { config, precision: Precision::F32, validate_every: 1, options }
    }

    #[test]
    fn a_batch_in_micro_batches_has_the_loss_and_the_gradient_of_the_batch() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let settings = settings(&ids, 0.0, OPTIONS);
        let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
        let micro_batches = trainer.micro_batches(0);
        let rows: Vec<usize> = micro_batches.iter().map(Batch::rows).collect();
        assert_eq!(rows.iter().sum::<usize>(), trainer.samples());
        assert!(rows.len() > 1 && rows.iter().any(|&r| r != rows[0]), "{rows:?}");
        let whole = trainer.batch(0);
        let expected_loss = loss(&trainer.model, &trainer.params.views(), &whole, None);
        let expected = to_vec(&trainer.params.backward(&expected_loss));
        let (loss, gradient) = trainer.gradient(micro_batches, 0);
        assert!((to_vec(&loss)[0] - to_vec(&expected_loss)[0]).abs() < 1e-5);
        let largest = expected.iter().fold(0.0f32, |most, g| most.max(g.abs()));
        for (found, expected) in to_vec(&gradient).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 * largest, "{found} and {expected}");
        }
    }

    #[test]
    fn training_sees_no_held_out_item_and_validation_nothing_of_the_test() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let trained = |dataset: &Dataset| {
            let options = Options { validation_users: 20, validation_beams: 20, ..OPTIONS };
            let settings = settings(&ids, 0.1, options);
            let mut trainer = Trainer::new(&run, dataset, &ids, settings, Device::Cpu).unwrap();
            let _ = trainer.step(0);
            (trainer.weights(), trainer.validate())
        };
        // Each user's item of this place from the end is another one.
        let with_others = |place: usize| {
            let mut other = dataset.clone();
            for sequence in &mut other.sequences {
                let at = sequence.items.len() - place;
                sequence.items[at] = (sequence.items[at] + 1) % 20;
            }
            other
        };
        let (weights, figures) = trained(&dataset);
        let (of_other_test, figures_of_other_test) = trained(&with_others(1));
        assert!(of_other_test == weights);
        assert_eq!(figures_of_other_test, figures);
        let (of_other_validation, figures_of_other_validation) = trained(&with_others(2));
        assert!(of_other_validation == weights);
        assert_ne!(figures_of_other_validation, figures);
    }

    #[test]
    fn every_option_of_training_acts() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let trained = |options: Options| {
            let settings = settings(&ids, 0.1, options);
            let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
            for step in 0..3 {
                let _ = trainer.step(step);
            }
            trainer.weights()
        };
        let base = Options { batch: 10, epochs: 2, warmup: 2, ..OPTIONS };
        let weights = trained(base);
        assert!(trained(base) == weights, "the same again");
        for (name, other) in [
            ("batch", Options { batch: 12, ..base }),
            ("batching", Options { batching: Batching::Tokens, ..base }),
            ("optimizer", Options { optimizer: OptimizerKind::ScaledAdamw, ..base }),
            ("learning_rate", Options { learning_rate: 2e-3, ..base }),
            ("warmup", Options { warmup: 3, ..base }),
            ("schedule", Options { schedule: Schedule::Linear, ..base }),
            ("weight_decay", Options { weight_decay: 0.5, ..base }),
            ("clip", Options { clip: 10.0, ..base }),
            ("drop_user", Options { drop_user: 0.7, ..base }),
            ("drop_items", Options { drop_items: 0.5, ..base }),
            ("unlikelihood", Options { unlikelihood: 0.5, ..base }),
            ("seed", Options { seed: 6, ..base }),
        ] {
            assert!(trained(other) != weights, "{name} has no effect");
        }
    }

    #[test]
    fn the_start_and_the_order_of_the_samples_follow_from_the_seed() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let [one, other] = [5, 6].map(|seed| {
            let settings = settings(&ids, 0.1, Options { seed, batch: 35, ..OPTIONS });
            let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
            (trainer.weights(), trainer.sampler.of_step(0).0.to_vec())
        });
        assert!(one.0 != other.0, "the weights start alike");
        assert_ne!(one.1, other.1, "the samples come in the same order");
    }

    #[test]
    fn no_two_micro_batches_of_a_training_draw_by_the_same_seed() {
        let of_step = |step| {
            let seed = driver::step_seed(5, step);
            (0..8).map(move |number| micro_batch_seed(seed, number))
        };
        assert_eq!((0..50).flat_map(of_step).collect::<HashSet<u64>>().len(), 50 * 8);
    }

    #[test]
    fn the_learning_rate_follows_its_schedule_over_the_steps_of_all_epochs() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let schedule = Schedule::Linear;
        let options = Options { batch: 35, epochs: 5, warmup: 2, schedule, ..OPTIONS };
        let settings = settings(&ids, 0.1, options);
        let trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
        assert_eq!(trainer.samples(), 70);
        for step in 0..10 {
            assert_eq!(trainer.learning_rate(step), schedule.rate(1e-3, 2, 10, step), "{step}");
        }
    }

    /// Loss and gradient by weight of the first step, without dropout.
    fn first_step(device: Device, precision: Precision) -> (f32, Vec<(String, Vec<f32>)>) {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let options = Options { drop_user: 0.0, unlikelihood: 0.5, ..OPTIONS };
        let settings = Settings { precision, ..settings(&ids, 0.0, options) };
        let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device).unwrap();
        let mut micro_batches = trainer.micro_batches(0);
        // A device draws by itself, so the past items are these in place of what it drew: those that
        // differ from the target in the last code, if at all.
        let last = ids.layout.levels.last().expect("there is a level");
        for batch in &mut micro_batches {
            let past = batch.past.as_mut().expect("unlikelihood was asked for");
            past.labels = batch.labels.copy();
            let _ = past.labels.select(1, -1).fill_(i64::from(last.offset));
        }
        let (loss, gradient) = trainer.gradient(micro_batches, 0);
        let gradient = trainer.params.by_name(&gradient).into_iter();
        (to_vec(&loss)[0], gradient.map(|(name, (_, values))| (name, values)).collect())
    }

    #[test]
    fn cuda_computes_the_loss_and_the_gradient_of_the_cpu() {
        let (expected_loss, expected) = first_step(Device::Cpu, Precision::F32);
        on_cpu_and_cuda(|device| {
            // TF32 is off, so `f32` differs by the order of sums alone.
            for (precision, loss_off, least_cosine) in
                [(Precision::F32, 1e-4, 0.999_99), (Precision::Bf16, 2e-2, 0.98)]
            {
                let (loss, found) = first_step(device, precision);
                assert!((loss - expected_loss).abs() < loss_off, "{loss}, not {expected_loss}");
                for ((name, expected), (_, found)) in expected.iter().zip(&found) {
                    let at = format!("{name} in {precision:?} on {device:?}");
                    assert!(norm(expected) > 0.0, "{name} has no gradient");
                    let cosine = cosine(expected, found);
                    assert!(cosine > least_cosine, "{at}: cosine {cosine}");
                    let longer = norm(found) / norm(expected);
                    assert!((longer - 1.0).abs() < 0.1, "{at}: {longer} times as long");
                }
            }
        });
    }

    #[test]
    fn cuda_takes_the_steps_of_the_cpu() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        let train = |device, optimizer| {
            let options = Options {
                optimizer,
                learning_rate: if optimizer == OptimizerKind::Adamw { 1e-3 } else { 0.03 },
                weight_decay: 0.05,
                drop_user: 0.0,
                ..OPTIONS
            };
            let settings = settings(&ids, 0.0, options);
            let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device).unwrap();
            let losses: Vec<f32> = (0..6).map(|_| to_vec(&trainer.step(0).0)[0]).collect();
            (losses, trainer.weights())
        };
        for optimizer in [OptimizerKind::Adamw, OptimizerKind::ScaledAdamw] {
            let (expected, weights) = train(Device::Cpu, optimizer);
            assert!(expected[5] < expected[0] - 0.05, "{expected:?}");
            on_cpu_and_cuda(|device| {
                let (losses, found) = train(device, optimizer);
                for (found, expected) in losses.iter().zip(&expected) {
                    assert!((found - expected).abs() < 5e-3, "{losses:?}, not {expected}");
                }
                for ((name, (_, expected)), (_, found)) in weights.iter().zip(found.values()) {
                    let cosine = cosine(expected, found);
                    assert!(cosine > 0.999, "{name} by {optimizer:?} on {device:?}: {cosine}");
                }
            });
        }
    }

    #[test]
    fn a_training_that_was_stopped_ends_as_one_that_was_not_on_cpu_and_cuda() {
        let (dataset, ids) = data();
        let trained = |device, stop: bool| {
            let folder = tempfile::tempdir().unwrap();
            let run = RunDir::named(folder.path());
            let options = Options {
                batch: 35,
                optimizer: OptimizerKind::ScaledAdamw,
                unlikelihood: 0.5,
                ema: 0.9,
                ..OPTIONS
            };
            let mut resume = false;
            let mut train = |epochs, interrupted, budget| {
                let options = Options { epochs, patience: 93 + epochs as u32, ..options };
                let settings = Settings { validate_every: 3, ..settings(&ids, 0.1, options) };
                let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device).unwrap();
                let hidden = ProgressBar::hidden();
                let limits = Limits { budget, interrupted: &|| interrupted, progress: &hidden };
                let outcome = trainer.train(resume, limits);
                resume = true;
                assert_eq!(outcome.is_err(), interrupted, "{outcome:?}");
                trainer.weights()
            };
            if stop {
                // After the first step, after one more, and when the time is up, after a third.
                train(3, true, None);
                train(3, true, None);
                train(3, false, Some(Duration::ZERO));
                // And at the end of what were to be all epochs.
                train(3, false, None);
            }
            train(6, false, None)
        };
        on_cpu_and_cuda(|device| {
            let whole = trained(device, false);
            assert!(trained(device, false) == whole, "the same again on {device:?}");
            assert!(trained(device, true) == whole, "stopped on {device:?}");
        });
    }

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn weights_do_not_depend_on_the_number_of_threads() {
        let (dataset, ids) = data();
        let run = RunDir::named("unused");
        for optimizer in [OptimizerKind::Adamw, OptimizerKind::ScaledAdamw] {
            let trained = with_threads([1, 2, 3], || {
                let settings = settings(&ids, 0.1, Options { optimizer, ..OPTIONS });
                let mut trainer =
                    Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
                let losses = [0, 0, 0].map(|step| to_vec(&trainer.step(step).0));
                (losses, trainer.weights())
            });
            let [(losses, _), ..] = &trained;
            assert!(losses[2] < losses[0], "{losses:?}");
            assert!(trained[1] == trained[0] && trained[2] == trained[0]);
        }
    }
}
