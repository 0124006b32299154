//! Unfinished training of an autoencoder, in one file: weights, moments and progress.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::Settings;
use super::train::Ended;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::hash::Fingerprint;
use crate::interrupt::{Control, SAVE_EVERY};
use crate::model::optimizer::{Adagrad, AdamW};
use crate::model::params::{Params, to_vec};
use crate::tensors::{self, Header, Notes, Values, f32_blocks};

/// Raised when training computes otherwise, so that no run mixes two ways, and when the file is
/// written otherwise.
const FORMAT: &str = "tigret/tokenizer-state/6";
const WEIGHTS: &str = "weights";
const MOMENTS: [&str; 2] = ["first_moment", "second_moment"];

/// The optimiser of the settings.
#[derive(Debug)]
pub(super) enum Optimizer {
    AdamW(AdamW),
    Adagrad(Adagrad),
}

impl Optimizer {
    /// One step with the gradient of the flat buffer.
    pub(super) fn step(&mut self, params: &Params, gradient: Tensor, rate: f64) {
        match self {
            Self::AdamW(adamw) => adamw.step(params, gradient, rate, f64::INFINITY),
            Self::Adagrad(adagrad) => adagrad.step(params, &gradient, rate),
        }
    }

    /// What it remembers, and its number of steps where that matters.
    fn state(&self) -> (Vec<&Tensor>, i32) {
        match self {
            Self::AdamW(adamw) => {
                let (first, second, steps) = adamw.state();
                (vec![first, second], steps)
            }
            Self::Adagrad(adagrad) => (vec![adagrad.state()], 0),
        }
    }

    fn load_state(&mut self, moments: &[Tensor], steps: i32) {
        match (self, moments) {
            (Self::AdamW(adamw), [first, second]) => adamw.load_state(first, second, steps),
            (Self::Adagrad(adagrad), [sum]) => adagrad.load_state(sum),
            _ => {}
        }
    }
}

/// How far training has come, at the end of an epoch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Epochs done.
    pub(super) epoch: usize,
    /// Seconds of all sessions.
    pub(super) seconds: f64,
    /// The epoch after which training ends, once that is known.
    pub(super) end: Option<usize>,
    /// Why, where it was not known from the start.
    pub(super) ended: Option<Ended>,
    /// Mean reconstruction error of each epoch, finite.
    pub(super) history: Vec<f64>,
    /// Lines of the log.
    pub(super) log: Vec<String>,
    /// The quantisation term of the last line.
    pub(super) logged_quantisation: Option<f64>,
    /// Whether the log has said why the loss rises.
    pub(super) explained: bool,
    /// Codewords moved since the last line.
    pub(super) revived: usize,
}

/// Weights and moments as they were, on their device.
#[derive(Debug)]
pub(super) struct Snapshot {
    weights: Tensor,
    moments: Vec<Tensor>,
    steps: i32,
}

impl Snapshot {
    fn of(params: &Params, optimizer: &Optimizer) -> Self {
        tch::no_grad(|| {
            let (moments, steps) = optimizer.state();
            Self {
                weights: params.flat().detach().copy(),
                moments: moments.into_iter().map(Tensor::copy).collect(),
                steps,
            }
        })
    }
}

/// Keeps the state of one training where a [`Control`] says so.
#[derive(Debug)]
pub struct Keeper<'a> {
    control: Control<'a>,
    /// Tells trainings apart: settings, vectors, kind of device.
    key: String,
    saved: Instant,
}

impl<'a> Keeper<'a> {
    /// For the training of these settings on these vectors on this kind of device.
    pub fn new(
        control: Control<'a>,
        settings: &Settings,
        vectors: &Vectors,
        device: Device,
    ) -> Self {
        let mut key = Fingerprint::default();
        key.add(FORMAT);
        key.add(format!("{settings:?} {} {}", device.is_cuda(), vectors.dimensions));
        f32_blocks(&vectors.data).for_each(|block| key.add(block));
        Self { control, key: key.end(), saved: Instant::now() }
    }

    /// Keeps nothing and stops nothing.
    pub fn none() -> Self {
        Self { control: Control::none(), key: String::new(), saved: Instant::now() }
    }

    /// The file, where it holds anything else than unfinished work of this training; the first
    /// save will overwrite it.
    pub fn in_the_way(&self) -> Option<&'a Path> {
        let path = self.control.state.filter(|path| path.exists())?;
        self.open(path).is_none().then_some(path)
    }

    /// A state of this training without its tensors: the file, its header, the progress and the
    /// optimiser's steps.
    fn open(&self, path: &Path) -> Option<(BufReader<File>, Header, Progress, i32)> {
        let mut file = BufReader::new(File::open(path).ok()?);
        let header = Header::read(&mut file).ok()?;
        if header.note("key") != Some(&self.key) {
            return None;
        }
        let (progress, steps) = serde_json::from_str(header.note("progress")?).ok()?;
        Some((file, header, progress, steps))
    }

    /// Whether the training shall end.
    pub(super) fn interrupted(&self) -> bool {
        (self.control.interrupted)()
    }

    /// What [`Keeper::save`] would write now; `None` where nothing is kept.
    pub(super) fn snapshot(&self, params: &Params, optimizer: &Optimizer) -> Option<Snapshot> {
        self.control.state.map(|_| Snapshot::of(params, optimizer))
    }

    /// Whether the last state is old.
    pub(super) fn is_due(&self) -> bool {
        self.control.state.is_some() && self.saved.elapsed() > SAVE_EVERY
    }

    /// Writes a state.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn save(&mut self, snapshot: Option<Snapshot>, progress: &Progress) -> Result<()> {
        let (Some(path), Some(snapshot)) = (self.control.state, snapshot) else { return Ok(()) };
        let json = serde_json::to_string(&(progress, snapshot.steps))
            .map_err(|e| TrainError::file(path, e))?;
        let notes =
            Notes::from([("key".to_owned(), self.key.clone()), ("progress".to_owned(), json)]);
        let tensors: Vec<(&str, Vec<f32>)> = std::iter::once((WEIGHTS, &snapshot.weights))
            .chain(MOMENTS.into_iter().zip(&snapshot.moments))
            .map(|(name, tensor)| (name, to_vec(tensor)))
            .collect();
        let tensors =
            tensors.iter().map(|(name, values)| (*name, vec![values.len()], Values::F32(values)));
        tensors::write(path, tensors.collect(), notes)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Takes up unfinished training of the same settings and vectors. `None` where there is none;
    /// a broken file is none either.
    pub(super) fn load(&self, params: &Params, optimizer: &mut Optimizer) -> Option<Progress> {
        let (mut file, header, progress, steps) = self.open(self.control.state?)?;
        let mut take = |name: &str| {
            let values = header.read_f32s(&mut file, header.tensors.info(name)?).ok()?;
            (values.len() == params.count())
                .then(|| Tensor::from_slice(&values).to_device(params.flat().device()))
        };
        let weights = take(WEIGHTS)?;
        let count = optimizer.state().0.len();
        let moments: Vec<Tensor> = MOMENTS[..count].iter().map_while(|name| take(name)).collect();
        if moments.len() < count {
            return None;
        }
        tch::no_grad(|| params.flat().shallow_clone().copy_(&weights));
        optimizer.load_state(&moments, steps);
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use indicatif::ProgressBar;

    use super::*;
    use crate::device::testing::on_cpu_and_cuda;
    use crate::tokenizer::autoencoder::Gradient;
    use crate::tokenizer::settings::{Autoencoder, Epochs, Method, Normalise, OptimizerKind};
    use crate::tokenizer::{Fitted, fit};

    const ITEMS: usize = 300;
    const STEPS_PER_EPOCH: usize = 5;

    fn settings(method: Method, optimizer: OptimizerKind, epochs: Epochs) -> Settings {
        let autoencoder = Autoencoder {
            hidden: vec![16, 8],
            codeword: 4,
            optimizer,
            learning_rate: 1e-2,
            batch: ITEMS.div_ceil(STEPS_PER_EPOCH),
            epochs,
            beta: 0.25,
            gradient: Gradient::StraightThrough,
            revive: true,
        };
        Settings {
            method,
            // More codewords than items have use for, so that some are revived.
            sizes: vec![16, 4, 64],
            normalise: Normalise::None,
            balance_last: false,
            autoencoder: Some(autoencoder),
            learned: 0,
            unit_length: false,
            seed: 3,
        }
    }

    fn vectors() -> Vectors {
        let data = (0..ITEMS * 10).map(|i| ((i / 10 % 7) as f32 + (i % 10) as f32 * 1.7).sin());
        Vectors { dimensions: 10, data: data.map(|x| x + 0.1 * (x * 977.0).sin()).collect() }
    }

    /// Fits until `steps` steps have begun.
    fn fit_for(settings: &Settings, steps: usize, state: Option<&Path>) -> Result<Fitted> {
        fit_on(Device::Cpu, settings, steps, state)
    }

    fn fit_on(
        device: Device,
        settings: &Settings,
        steps: usize,
        state: Option<&Path>,
    ) -> Result<Fitted> {
        let begun = AtomicUsize::new(0);
        let interrupted = || begun.fetch_add(1, Ordering::Relaxed) >= steps;
        let control = Control { interrupted: &interrupted, state };
        let vectors = vectors();
        let mut keeper = Keeper::new(control, settings, &vectors, device);
        let ids = vec!["x"; ITEMS];
        fit(settings, &ids, &vectors, device, &mut keeper, &ProgressBar::hidden())
    }

    #[test]
    fn interrupted_training_ends_with_the_same_codes_on_cpu_and_cuda() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let settings = settings(Method::RqVae, OptimizerKind::Adamw, Epochs::Exactly(12));
        on_cpu_and_cuda(|device| {
            let whole = fit_on(device, &settings, usize::MAX, None).unwrap();
            let stopped = fit_on(device, &settings, 3 * STEPS_PER_EPOCH + 2, Some(&state));
            assert!(matches!(stopped, Err(TrainError::Interrupted)));
            let resumed = fit_on(device, &settings, usize::MAX, Some(&state)).unwrap();
            assert_eq!(resumed.quantizer, whole.quantizer, "{device:?}");
            assert_eq!(resumed.codes, whole.codes, "{device:?}");
            std::fs::remove_file(&state).unwrap();
        });
    }

    #[test]
    fn interrupted_training_ends_with_the_same_codes_bit_for_bit() {
        let kinds = [
            settings(Method::RqVae, OptimizerKind::Adamw, Epochs::Exactly(24)),
            settings(Method::VqVae, OptimizerKind::Adagrad, Epochs::Exactly(13)),
            settings(Method::RqVae, OptimizerKind::Adamw, Epochs::UntilConverged(300)),
        ];
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        for settings in kinds {
            let whole = fit_for(&settings, usize::MAX, None).unwrap();
            let log = &whole.training.as_ref().unwrap().log;
            assert!(log.iter().any(|line| !line.contains("\"revived\":0")), "some are revived");
            // At once, within the first epoch, at its end, within a later one, in the last ones.
            for first in [0, 3, STEPS_PER_EPOCH, 27, 58] {
                for steps in [first, first + 2 * STEPS_PER_EPOCH + 1] {
                    let stopped = fit_for(&settings, steps, Some(&state));
                    if steps < 13 * STEPS_PER_EPOCH {
                        let stopped = stopped.map(|_| ()).unwrap_err();
                        assert!(matches!(stopped, TrainError::Interrupted), "{stopped}");
                        assert!(state.exists());
                    }
                }
                let resumed = fit_for(&settings, usize::MAX, Some(&state)).unwrap();
                assert_eq!(resumed.codes, whole.codes, "{first}");
                assert_eq!(resumed.quantizer, whole.quantizer, "{first}");
                let training = resumed.training.unwrap();
                assert_eq!(training.log, *log, "{first}");
                std::fs::remove_file(&state).unwrap();
            }
        }
    }

    #[test]
    fn finished_training_is_not_repeated_and_other_training_is_not_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let settings = settings(Method::RqVae, OptimizerKind::Adamw, Epochs::Exactly(6));
        let done = fit_for(&settings, usize::MAX, Some(&state)).unwrap();
        // Not one step is begun again.
        assert_eq!(fit_for(&settings, 0, Some(&state)).unwrap().codes, done.codes);

        let in_the_way = |settings: &Settings, vectors: &Vectors| {
            let control = Control { state: Some(&state), ..Control::none() };
            Keeper::new(control, settings, vectors, Device::Cpu).in_the_way().is_some()
        };
        let (seed, other) = (Settings { seed: 4, ..settings.clone() }, {
            let mut other = vectors();
            other.data[7] += 1e-3;
            other
        });
        assert!(!in_the_way(&settings, &vectors()));
        assert!(in_the_way(&seed, &vectors()) && in_the_way(&settings, &other));
        let stopped = fit_for(&seed, 0, Some(&state)).map(|_| ()).unwrap_err();
        assert!(matches!(stopped, TrainError::Interrupted), "it begins anew: {stopped}");
        std::fs::write(&state, b"not a state").unwrap();
        assert!(in_the_way(&settings, &vectors()));
        assert_eq!(fit_for(&settings, usize::MAX, Some(&state)).unwrap().codes, done.codes);
    }
}
