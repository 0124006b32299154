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
    let folder = &files.folder;
    let Limits { budget, interrupted, progress } = limits;
    let plan = job.plan();
    let mut state = if resume { taken_up(job, folder)? } else { from_nothing(job) };
    check_writable(folder)?;
    let mut logs = if resume { Some(Logs::open(files, state.step)?) } else { None };
    progress.set_length(plan.steps());
    goes_on_from(progress, state.step);
    progress.set_message("training");

    let (begin, before) = (Instant::now(), state.seconds);
    let mut meter = Meter::new(job.weights().0.flat().device());
    let mut saver = Saver::new(folder, resume);
    // A state that is taken up may be one that had come to its end.
    let mut end = plan.end(&state, false);
    let stopped = loop {
        if let Some(stopped) = end {
            break stopped;
        }
        let (loss, samples) = job.step(state.step);
        meter.add(&loss, samples);
        state.step += 1;
        progress.inc(1);

        let over = budget.is_some_and(|budget| begin.elapsed() >= budget);
        let stop = interrupted();
        let is_planned = plan.validates_after(state.step);
        let validate = over || is_planned;
        if !(validate || stop || state.step.is_multiple_of(LOG_EVERY)) {
            continue;
        }
        let (loss, samples_per_second) = meter.read();
        if !loss.is_finite() {
            return Err(not_a_number(state.step, &plan, &saver));
        }
        let logs = match &mut logs {
            Some(logs) => logs,
            none => {
                // Together, and no sooner than this training is seen to work; the state last, so
                // that it stays where there can be no log.
                let logs = Logs::open(files, 0)?;
                state::forget(folder)?;
                none.insert(logs)
            }
        };
        // Also when interrupted: a validation left out would change what is best, and when to stop.
        let validation = validate.then(|| job.validate());
        state.seconds = before + begin.elapsed().as_secs_f64();
        logs.add(&LogLine {
            step: state.step,
            epoch: (state.step - 1) / plan.steps_per_epoch,
            seconds: state.seconds,
            loss,
            learning_rate: job.learning_rate(state.step - 1),
            samples_per_second,
            validation,
        })?;
        let better = validation.is_some_and(|metrics| state.validated(metrics, is_planned));
        if better {
            job.save_best(state.step)?;
        }
        if let Some((_, best)) = state.best {
            progress.set_message(format!("loss {loss:.3} NDCG@10 {:.4}", best.ndcg_10));
        }
        end = plan.end(&state, over);
        // The best model is never without the state that tells of it.
        if better || end.is_some() || stop || saver.is_due(validate) {
            saver.save(job, &state)?;
        }
        if stop {
            return Err(TrainError::Interrupted);
        }
        meter.go_on();
    };
    match stopped {
        Stopped::Epochs => progress.finish(),
        // What was left out is not done.
        Stopped::Patience | Stopped::Budget => progress.abandon(),
    }
    let (best_step, best) = state.best.unwrap_or_default();
    Ok(Outcome {
        stopped,
        steps: state.step,
        seconds: state.seconds,
        samples_per_second: meter.samples_per_second(),
        best_step,
        best,
    })
}

/// The start of a training.
fn from_nothing<J: Job>(job: &J) -> Progress<J::Identity> {
    Progress {
        identity: job.identity().clone(),
        step: 0,
        seconds: 0.0,
        best: None,
        validations_without_gain: 0,
    }
}

/// Restores the weights and moments of the last save; returns how far the training had come.
fn taken_up<J: Job>(job: &mut J, folder: &Path) -> Result<Progress<J::Identity>> {
    let (tensors, before) = state::read(folder)?;
    if let Some(what) = job.differs(&before.identity) {
        return Err(TrainError::file(
            folder,
            format!("was trained {what}; give the same, or {}", state::AGAIN),
        ));
    }
    let (params, optimizer) = job.weights_mut();
    state::restore(folder, tensors, before.step, params, optimizer)?;
    Ok(Progress { identity: job.identity().clone(), ..before })
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

    /// Whether a kill would lose work that is worth a save: a state of the paper's sizes is 58 MB, and a
    /// GPU's epoch, after which it validates, takes seconds.
    fn is_due(&self, validated: bool) -> bool {
        let since = self.saved.elapsed();
        since >= SAVE_EVERY || (validated && since >= self.took * WORK_PER_SAVE)
    }

    fn save<J: Job>(&mut self, job: &J, state: &Progress<J::Identity>) -> Result<()> {
        let (params, optimizer) = job.weights();
        let begin = Instant::now();
        state::save(self.folder, params, optimizer, state)?;
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
