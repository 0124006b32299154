//! The loop that every training of a recommender goes through, TIGER's and a baseline's: steps,
//! log, validation, early stopping, checkpoints.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use tch::{Device, Kind, Tensor};

use super::log::{LogLine, Logs};
use super::state::{self, Progress};
use crate::error::{Result, TrainError};
use crate::files::check_writable;
use crate::interrupt::{SAVE_EVERY, WORK_PER_SAVE, goes_on_from};
use crate::metrics::Metrics;
use crate::model::Params;
use crate::model::average::Average;
use crate::model::optimizer::AdamW;

/// What is trained.
pub(crate) trait Job {
    /// What the run follows from.
    type Identity: Clone + Serialize + DeserializeOwned;

    fn identity(&self) -> &Self::Identity;

    /// Why a run that followed from `before` cannot be taken up, if so.
    fn differs(&self, before: &Self::Identity) -> Option<String>;

    fn plan(&self) -> Plan;

    /// Learning rate of a step, counted from 0.
    fn learning_rate(&self, step: u64) -> f64;

    /// One optimiser step, counted from 0; returns the loss, `[]`, still on the device, and the
    /// number of samples. Its randomness follows from [`step_seed`] alone.
    fn step(&mut self, step: u64) -> (Tensor, usize);

    /// The figures that decide which model is the best, and when to stop.
    fn validate(&self) -> Metrics;

    /// Writes the weights as they are after so many steps as the best so far.
    fn save_best(&self, steps: u64) -> Result<()>;

    fn weights(&self) -> (&Params, &AdamW);

    fn weights_mut(&mut self) -> (&mut Params, &mut AdamW);
}

/// How long to train, and how often to validate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) steps_per_epoch: u64,
    /// Passes over the samples at most.
    pub(crate) epochs: u64,
    /// Steps between validations.
    pub(crate) validate_every: u64,
    /// Validations without a better NDCG@10 before the run stops.
    pub(crate) patience: u32,
    /// Decay of the moving average of the weights, which is validated and kept in their place; 0 for
    /// none.
    pub(crate) ema: f64,
    /// The option that sets the learning rate, for the message on a loss that is not a number.
    pub(crate) rate_option: &'static str,
}

impl Plan {
    pub(crate) fn steps(&self) -> u64 {
        self.steps_per_epoch * self.epochs
    }

    fn validates_after(&self, steps: u64) -> bool {
        steps.is_multiple_of(self.validate_every) || steps == self.steps()
    }

    /// Why a training that has come this far ends, if it does; `over` tells that its time is up.
    pub(crate) fn end<S>(&self, state: &Progress<S>, over: bool) -> Option<Stopped> {
        if state.validations_without_gain >= self.patience {
            Some(Stopped::Patience)
        } else if over {
            Some(Stopped::Budget)
        } else {
            (state.step >= self.steps()).then_some(Stopped::Epochs)
        }
    }
}

/// Where a training keeps its state, its log, and the log for TensorBoard.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) tensorboard: PathBuf,
    /// What begins a training, or lets it go on, where that is not the user.
    pub(crate) begun_by: Option<String>,
}

/// What may end a training before its epochs and its patience do, and what counts its steps.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Most time in training.
    pub budget: Option<Duration>,
    /// Asked after each step; once true, the training saves its state and ends.
    pub interrupted: &'a dyn Fn() -> bool,
    /// Counts steps.
    pub progress: &'a ProgressBar,
}

/// Why a run stopped; a sentence in text and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All epochs are done.
    Epochs,
    /// The patience is used up.
    Patience,
    /// The time is used up.
    Budget,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epochs => "all epochs are done",
            Self::Patience => "validation NDCG@10 has stopped rising",
            Self::Budget => "the time is used up",
        })
    }
}

impl Serialize for Stopped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Why it stopped.
    pub stopped: Stopped,
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

/// Steps between two readings of the loss: a reading waits for the device.
const LOG_EVERY: u64 = 50;

/// The seed of a step: all its randomness follows from the run's seed and the step, so that a
/// resumed run draws what an uninterrupted one would have drawn.
pub(crate) fn step_seed(seed: u64, step: u64) -> u64 {
    seed ^ (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Trains until the epochs, the patience or the budget is used up, or it is interrupted. The state
/// is written with each better model, after validations, every half minute and at the end; with
/// `resume` it is taken up first.
///
/// # Errors
/// [`TrainError`] for files, for a state of other settings, for a loss that is not a number, and
/// [`TrainError::Interrupted`].
pub(crate) fn drive<J: Job>(
    job: &mut J,
    files: &Files,
    resume: bool,
    limits: Limits<'_>,
) -> Result<Outcome> {
    let mut training = Training::begin(job, files, resume, limits)?;
    // A state that is taken up may be one that had come to its end.
    let mut end = training.plan.end(&training.state, false);
    loop {
        if let Some(stopped) = end {
            return Ok(training.outcome(stopped));
        }
        end = training.step()?;
    }
}

/// A training under way.
struct Training<'a, J: Job> {
    job: &'a mut J,
    files: &'a Files,
    limits: Limits<'a>,
    plan: Plan,
    state: Progress<J::Identity>,
    average: Option<Average>,
    /// None before the first reading of a training from nothing.
    logs: Option<Logs<'a>>,
    saver: Saver<'a>,
    meter: Meter,
    /// When this call began, and the seconds of those before it.
    begin: Instant,
    before: f64,
}

impl<'a, J: Job> Training<'a, J> {
    fn begin(job: &'a mut J, files: &'a Files, resume: bool, limits: Limits<'a>) -> Result<Self> {
        let folder = &files.folder;
        let plan = job.plan();
        let mut average = (plan.ema > 0.0).then(|| Average::new(job.weights().0, plan.ema));
        let state =
            if resume { taken_up(job, &mut average, files)? } else { from_nothing(job, files) };
        check_writable(folder)?;
        let logs = if resume { Some(Logs::open(files, state.step)?) } else { None };
        limits.progress.set_length(plan.steps());
        goes_on_from(limits.progress, state.step);
        limits.progress.set_message("training");
        Ok(Self {
            plan,
            average,
            logs,
            saver: Saver::new(folder, resume),
            meter: Meter::new(job.weights().0.flat().device()),
            begin: Instant::now(),
            before: state.seconds,
            job,
            files,
            limits,
            state,
        })
    }

    /// One optimiser step, and what is due after it; returns why the training ends, if it does.
    fn step(&mut self) -> Result<Option<Stopped>> {
        let (loss, samples) = self.job.step(self.state.step);
        self.meter.add(&loss, samples);
        self.state.step += 1;
        if let Some(average) = &mut self.average {
            average.add(self.job.weights().0, self.state.step);
        }
        self.limits.progress.inc(1);

        let over = self.limits.budget.is_some_and(|budget| self.begin.elapsed() >= budget);
        let stop = (self.limits.interrupted)();
        let validate = over || self.plan.validates_after(self.state.step);
        if !(validate || stop || self.state.step.is_multiple_of(LOG_EVERY)) {
            return Ok(None);
        }
        let (loss, samples_per_second) = self.meter.read();
        if !loss.is_finite() {
            return Err(not_a_number(self.state.step, &self.plan, &self.saver));
        }
        self.logs()?;
        // Also when interrupted: a validation left out would change what is best, and when to stop.
        let validation = validate.then(|| self.with_average(|job| job.validate()));
        self.log(loss, samples_per_second, validation)?;
        let better = self.is_better(validation)?;
        if let Some((_, best)) = self.state.best {
            let message = format!("loss {loss:.3} NDCG@10 {:.4}", best.ndcg_10);
            self.limits.progress.set_message(message);
        }
        let end = self.plan.end(&self.state, over);
        // The best model is never without the state that tells of it.
        if better || end.is_some() || stop || self.saver.is_due(validate) {
            self.saver.save(self.job, self.average.as_ref(), &self.state)?;
        }
        if stop {
            return Err(TrainError::Interrupted);
        }
        self.meter.go_on();
        Ok(end)
    }

    /// Opens the logs of a training from nothing once, and removes the state of the one before it:
    /// together, and no sooner than this training is seen to work; the state last, so that it stays
    /// where there can be no log.
    fn logs(&mut self) -> Result<&mut Logs<'a>> {
        match &mut self.logs {
            Some(logs) => Ok(logs),
            none => {
                let logs = Logs::open(self.files, 0)?;
                state::forget(&self.files.folder)?;
                Ok(none.insert(logs))
            }
        }
    }

    fn log(
        &mut self,
        loss: f64,
        samples_per_second: f64,
        validation: Option<Metrics>,
    ) -> Result<()> {
        self.state.seconds = self.before + self.begin.elapsed().as_secs_f64();
        let step = self.state.step;
        let line = LogLine {
            step,
            epoch: (step - 1) / self.plan.steps_per_epoch,
            seconds: self.state.seconds,
            loss,
            learning_rate: self.job.learning_rate(step - 1),
            samples_per_second,
            validation,
        };
        self.logs()?.add(&line)
    }

    /// What comes of the average of the weights, if there is one, in their place.
    fn with_average<T>(&mut self, task: impl FnOnce(&J) -> T) -> T {
        let mut swap = || {
            if let Some(average) = &mut self.average {
                average.swap(self.job.weights().0);
            }
        };
        swap();
        let result = task(self.job);
        swap();
        result
    }

    /// Whether this validation is the best so far, whose model is written.
    fn is_better(&mut self, validation: Option<Metrics>) -> Result<bool> {
        let step = self.state.step;
        // Not that after the last step: a longer training has none there.
        let is_planned = step.is_multiple_of(self.plan.validate_every);
        let better = validation.is_some_and(|metrics| self.state.validated(metrics, is_planned));
        if better {
            self.with_average(|job| job.save_best(step))?;
        }
        Ok(better)
    }

    fn outcome(self, stopped: Stopped) -> Outcome {
        match stopped {
            Stopped::Epochs => self.limits.progress.finish(),
            // What was left out is not done.
            Stopped::Patience | Stopped::Budget => self.limits.progress.abandon(),
        }
        let (best_step, best) = self.state.best.unwrap_or_default();
        Outcome {
            stopped,
            steps: self.state.step,
            seconds: self.state.seconds,
            samples_per_second: self.meter.samples_per_second(),
            best_step,
            best,
        }
    }
}

/// The start of a training.
fn from_nothing<J: Job>(job: &J, files: &Files) -> Progress<J::Identity> {
    Progress {
        identity: job.identity().clone(),
        step: 0,
        begun_by: files.begun_by.clone(),
        seconds: 0.0,
        best: None,
        validations_without_gain: 0,
    }
}

/// Restores the weights and moments of the last save; returns how far the training had come.
fn taken_up<J: Job>(
    job: &mut J,
    average: &mut Option<Average>,
    files: &Files,
) -> Result<Progress<J::Identity>> {
    let folder = &files.folder;
    let (tensors, before) = state::read(folder)?;
    if let Some(what) = job.differs(&before.identity) {
        return Err(TrainError::file(
            folder,
            format!("was trained {what}; give the same, or {}", state::AGAIN),
        ));
    }
    let (params, optimizer) = job.weights_mut();
    state::restore(folder, tensors, before.step, params, optimizer, average.as_mut())?;
    let is_others = files.begun_by.is_some() && files.begun_by != before.begun_by;
    let begun_by = files.begun_by.clone().or(before.begun_by);
    let progress = Progress { identity: job.identity().clone(), begun_by, ..before };
    if is_others {
        // Before a better model is put in place, which would else belong to nothing that is known.
        let (params, optimizer) = job.weights();
        state::save(folder, params, optimizer, average.as_ref(), &progress)?;
    }
    Ok(progress)
}

fn not_a_number(step: u64, plan: &Plan, saver: &Saver<'_>) -> TrainError {
    let good = match saver.kept {
        true => format!("the last good state is in {}; ", saver.folder.display()),
        false => String::new(),
    };
    TrainError::usage(format!(
        "the loss is not a number at step {step}; {good}lower {} and train again",
        plan.rate_option
    ))
}

/// Writes the state of a training.
struct Saver<'a> {
    folder: &'a Path,
    /// Whether the folder has a state of this training.
    kept: bool,
    /// When the last save ended, and how long it took.
    saved: Instant,
    took: Duration,
}

impl<'a> Saver<'a> {
    fn new(folder: &'a Path, kept: bool) -> Self {
        Self { folder, kept, saved: Instant::now(), took: Duration::ZERO }
    }

    /// Whether a kill would lose work that is worth a save: a state of the paper's sizes is up to 77 MB, and a
    /// GPU's epoch, after which it validates, takes seconds.
    fn is_due(&self, validated: bool) -> bool {
        let since = self.saved.elapsed();
        since >= SAVE_EVERY || (validated && since >= self.took * WORK_PER_SAVE)
    }

    fn save<J: Job>(
        &mut self,
        job: &J,
        average: Option<&Average>,
        state: &Progress<J::Identity>,
    ) -> Result<()> {
        let (params, optimizer) = job.weights();
        let begin = Instant::now();
        state::save(self.folder, params, optimizer, average, state)?;
        self.kept = true;
        self.saved = Instant::now();
        self.took = self.saved - begin;
        Ok(())
    }
}

/// Loss and speed. The loss stays on the device until it is read.
struct Meter {
    /// Sum of the losses since the last reading.
    losses: Tensor,
    steps: u32,
    samples: usize,
    since: Instant,
    /// Of all readings.
    all_samples: usize,
    all_time: Duration,
}

impl Meter {
    fn new(device: Device) -> Self {
        Self {
            losses: Tensor::zeros([], (Kind::Float, device)),
            steps: 0,
            samples: 0,
            since: Instant::now(),
            all_samples: 0,
            all_time: Duration::ZERO,
        }
    }

    /// Counts a step.
    fn add(&mut self, loss: &Tensor, samples: usize) {
        self.losses += loss;
        self.steps += 1;
        self.samples += samples;
    }

    /// The mean loss and the samples a second since the last reading; waits for the device.
    fn read(&mut self) -> (f64, f64) {
        let loss = self.losses.double_value(&[]) / f64::from(self.steps);
        let (samples, time) = (std::mem::take(&mut self.samples), self.since.elapsed());
        self.losses = self.losses.zeros_like();
        self.steps = 0;
        self.all_samples += samples;
        self.all_time += time;
        (loss, samples as f64 / time.as_secs_f64())
    }

    /// Leaves out the time since the reading, which a validation or a save took.
    fn go_on(&mut self) {
        self.since = Instant::now();
    }

    fn samples_per_second(&self) -> f64 {
        self.all_samples as f64 / self.all_time.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use serde_json::Value;

    use super::*;
    use crate::model::params::{Init, Spec, to_vec};

    /// A weight that is the number of steps done, and validations that are told beforehand.
    struct Counting {
        params: Params,
        optimizer: AdamW,
        plan: Plan,
        ndcg: Vec<f64>,
        validated: Cell<usize>,
        /// The steps after which the weights were kept, and what they were.
        kept: RefCell<Vec<(u64, f32)>>,
    }

    impl Counting {
        fn new(plan: Plan, ndcg: &[f64]) -> Self {
            let spec = Spec::new("w".to_owned(), vec![1], Init::Constant(0.0));
            let params = Params::new(vec![spec], 0, Device::Cpu);
            Self {
                optimizer: AdamW::new(&params, 0.0),
                params,
                plan,
                ndcg: ndcg.to_vec(),
                validated: Cell::default(),
                kept: RefCell::default(),
            }
        }

        fn weight(&self) -> f32 {
            to_vec(self.params.flat())[0]
        }

        /// Trains from nothing; returns what it came to and the log.
        fn trained(&mut self) -> (Outcome, Vec<Value>) {
            let at = tempfile::tempdir().unwrap();
            let outcome = self.trained_in(at.path(), false, None);
            let log = std::fs::read_to_string(at.path().join("log")).unwrap();
            (outcome, log.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
        }

        fn trained_in(&mut self, at: &Path, resume: bool, begun_by: Option<&str>) -> Outcome {
            let files = Files {
                folder: at.join("model"),
                log: at.join("log"),
                tensorboard: at.join("tensorboard"),
                begun_by: begun_by.map(str::to_owned),
            };
            let hidden = ProgressBar::hidden();
            let limits = Limits { budget: None, interrupted: &|| false, progress: &hidden };
            drive(self, &files, resume, limits).unwrap()
        }
    }

    impl Job for Counting {
        type Identity = ();

        fn identity(&self) -> &() {
            &()
        }

        fn differs(&self, (): &()) -> Option<String> {
            None
        }

        fn plan(&self) -> Plan {
            self.plan
        }

        fn learning_rate(&self, step: u64) -> f64 {
            0.25 * step as f64
        }

        fn step(&mut self, step: u64) -> (Tensor, usize) {
            let _ = tch::no_grad(|| self.params.flat().detach().fill_(step as f64 + 1.0));
            (Tensor::from(step as f32), 1)
        }

        fn validate(&self) -> Metrics {
            let at = self.validated.replace(self.validated.get() + 1);
            Metrics {
                ndcg_10: self.ndcg[at],
                recall_10: self.weight().into(),
                ..Metrics::default()
            }
        }

        fn save_best(&self, steps: u64) -> Result<()> {
            self.kept.borrow_mut().push((steps, self.weight()));
            Ok(())
        }

        fn weights(&self) -> (&Params, &AdamW) {
            (&self.params, &self.optimizer)
        }

        fn weights_mut(&mut self) -> (&mut Params, &mut AdamW) {
            (&mut self.params, &mut self.optimizer)
        }
    }

    const PLAN: Plan = Plan {
        steps_per_epoch: 10,
        epochs: 9,
        validate_every: 4,
        patience: 2,
        ema: 0.0,
        rate_option: "--learning-rate",
    };

    #[test]
    fn the_best_model_is_kept_and_patience_ends_a_training_that_gets_no_better() {
        // As good is no better.
        let mut job = Counting::new(PLAN, &[0.1, 0.3, 0.2, 0.3]);
        let (outcome, log) = job.trained();
        assert_eq!((outcome.stopped, outcome.steps), (Stopped::Patience, 16));
        assert_eq!((outcome.best_step, outcome.best.ndcg_10), (8, 0.3));
        assert_eq!(*job.kept.borrow(), [(4, 4.0), (8, 8.0)]);
        let of = |key: &str| -> Vec<f64> {
            log.iter().map(|line| line[key].as_f64().unwrap()).collect()
        };
        assert_eq!(of("step"), [4.0, 8.0, 12.0, 16.0]);
        assert_eq!(of("epoch"), [0.0, 0.0, 1.0, 1.0]);
        // The mean of the steps since the last line, and the rate of the step that was last.
        assert_eq!(of("loss"), [1.5, 5.5, 9.5, 13.5]);
        assert_eq!(of("learning_rate"), [0.75, 1.75, 2.75, 3.75]);
        assert_eq!(log[2]["validation"]["ndcg@10"], 0.2);
    }

    #[test]
    fn a_training_that_has_ended_goes_on_with_more_epochs_as_if_it_had_had_them() {
        let at = tempfile::tempdir().unwrap();
        let begun_by = || {
            let progress = state::progress::<()>(&at.path().join("model"), "").unwrap().unwrap();
            progress.begun_by
        };
        let mut job = Counting::new(Plan { epochs: 1, ..PLAN }, &[0.1, 0.3, 0.2]);
        let outcome = job.trained_in(at.path(), false, Some("one"));
        assert_eq!((outcome.stopped, outcome.steps), (Stopped::Epochs, 10));
        // By hand nothing is left to do, and it stays whose it is.
        let outcome = job.trained_in(at.path(), true, None);
        assert_eq!((outcome.stopped, begun_by().as_deref()), (Stopped::Epochs, Some("one")));
        // The validation after the tenth step took no patience: a longer training has none there.
        let mut job = Counting::new(Plan { epochs: 2, ..PLAN }, &[0.25, 0.4, 0.2]);
        let outcome = job.trained_in(at.path(), true, Some("two"));
        assert_eq!((outcome.stopped, outcome.steps), (Stopped::Epochs, 20));
        assert_eq!(*job.kept.borrow(), [(16, 16.0)]);
        assert_eq!(begun_by().as_deref(), Some("two"));
    }

    #[test]
    fn a_training_that_is_never_due_for_a_validation_is_validated_at_its_end() {
        let mut job = Counting::new(Plan { validate_every: 1000, ..PLAN }, &[0.1]);
        let (outcome, log) = job.trained();
        assert_eq!((outcome.stopped, outcome.steps), (Stopped::Epochs, 90));
        assert_eq!(*job.kept.borrow(), [(90, 90.0)]);
        let steps: Vec<(&Value, bool)> =
            log.iter().map(|line| (&line["step"], line["validation"].is_object())).collect();
        assert_eq!(steps, [(&Value::from(50), false), (&Value::from(90), true)]);
    }

    #[test]
    fn the_average_is_validated_and_kept_and_training_goes_on_from_the_weights() {
        let mut job = Counting::new(Plan { ema: 0.25, ..PLAN }, &[0.1, 0.3, 0.2, 0.3]);
        let (outcome, _) = job.trained();
        let mut expected = 0.0f64;
        let averages: Vec<f64> = (1..=8u32)
            .map(|step| {
                let step = f64::from(step);
                expected += (1.0 - 0.25f64.min((1.0 + step) / (10.0 + step))) * (step - expected);
                expected
            })
            .collect();
        let kept = job.kept.borrow();
        for (&(step, found), at) in kept.iter().zip([4, 8]) {
            assert_eq!(step, at);
            let expected = averages[at as usize - 1];
            assert!((f64::from(found) - expected).abs() < 1e-5, "{found}, not {expected}");
        }
        assert_eq!((kept.len(), outcome.best.recall_10 as f32), (2, kept[1].1), "validated");
        assert_eq!(job.weight(), 16.0);
    }
}
