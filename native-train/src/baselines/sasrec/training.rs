//! Training SASRec: every position of a sequence predicts the item after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::network::{Network, cross_entropy};
use super::{SasRec, Settings};
use crate::baselines;
use crate::data::Dataset;
use crate::error::{Result, TrainError};
use crate::evaluate::{Protocol, Split};
use crate::hash::hex;
use crate::metrics::Metrics;
use crate::model::Params;
use crate::model::checkpoint::{read_tensors, write_tensors};
use crate::model::optimizer::AdamW;
use crate::random;
use crate::train::driver::{self, Files, Job, Limits, Plan};
use crate::train::samples::{Batching, Sample, Sampler, training_samples};
use crate::train::state;

/// What a folder holds of earlier trainings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    Nothing,
    /// A training with other settings or of other data, which a new one replaces.
    Other,
    /// This training after so many steps, to go on from.
    Unfinished {
        /// Steps done.
        steps: u64,
    },
    /// This training, at its end.
    Finished,
}

/// A trained SASRec, and how its training went.
#[derive(Debug)]
pub struct Trained {
    /// The best by validation NDCG@10.
    pub model: SasRec,
    /// Seconds of training and validation, over all sessions.
    pub seconds: f64,
    /// Passes over the sequences until the best validation.
    pub best_epoch: f64,
    /// The best validation.
    pub validation: Metrics,
}

/// How to begin again.
const AGAIN: &str = "remove the folder of SASRec, and it is trained anew";

/// Raised when the same settings and data come to train another model, and with it the revision of
/// the step `evaluate`.
const REVISION: u32 = 3;

/// What a training follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    /// [`REVISION`] of the program that trains.
    revision: u32,
    settings: Settings,
    /// Of the items and of the sequences without their test items.
    data: String,
}

impl Identity {
    fn new(dataset: &Dataset, settings: Settings) -> Self {
        let mut hash = Sha256::new();
        hash.update((dataset.items.len() as u64).to_le_bytes());
        for sequence in &dataset.sequences {
            let (seen, _) = sequence.test();
            hash.update((seen.len() as u64).to_le_bytes());
            for item in seen {
                hash.update(item.to_le_bytes());
            }
        }
        Self { revision: REVISION, settings, data: hex(hash) }
    }
}

fn files(folder: &Path) -> Files {
    Files {
        folder: folder.to_owned(),
        log: folder.join("train.jsonl"),
        tensorboard: folder.join("tensorboard"),
        begun_by: None,
    }
}

/// What a folder holds of a training with these settings, data and budget.
///
/// # Errors
/// [`TrainError::File`] for a state that cannot be read.
pub fn earlier(
    folder: &Path,
    dataset: &Dataset,
    settings: Settings,
    budget: Option<Duration>,
) -> Result<Earlier> {
    let progress = state::progress::<Value>(folder, AGAIN).map_err(|e| match e {
        TrainError::File { path, reason } if !reason.contains(AGAIN) => {
            TrainError::file(path, format!("{reason}; {AGAIN}"))
        }
        other => other,
    })?;
    let Some(progress) = progress else { return Ok(Earlier::Nothing) };
    // What another version wrote cannot be read as ours.
    let identity: Option<Identity> = serde_json::from_value(progress.identity.clone()).ok();
    if identity != Some(Identity::new(dataset, settings)) {
        return Ok(Earlier::Other);
    }
    let over = budget.is_some_and(|budget| progress.seconds >= budget.as_secs_f64());
    let end = plan(settings, samples(dataset).len()).end(&progress, over);
    // Without a best model (interrupted in the first epoch) there is nothing to use.
    Ok(if end.is_some() && progress.best.is_some() {
        Earlier::Finished
    } else {
        Earlier::Unfinished { steps: progress.step }
    })
}

/// Trains, or goes on with, or takes the training of these settings that `folder` holds.
///
/// `last.safetensors` is the state to go on from, `model.safetensors` the best weights, and
/// `train.jsonl` the log. A training that was interrupted gives the weights of one that was not.
///
/// # Errors
/// [`TrainError`] for settings out of range, nothing to train on, files, a loss that is not a
/// number, and [`TrainError::Interrupted`].
pub fn train(
    folder: &Path,
    dataset: &Dataset,
    settings: Settings,
    device: Device,
    limits: Limits<'_>,
) -> Result<Trained> {
    settings.validate()?;
    let mut trainer = Trainer::new(folder, dataset, settings, device)?;
    let found = earlier(folder, dataset, settings, limits.budget)?;
    if found != Earlier::Finished {
        let resume = matches!(found, Earlier::Unfinished { .. });
        let before = if resume { state::progress::<Identity>(folder, AGAIN)? } else { None };
        let spent = before.map_or(0.0, |progress| progress.seconds);
        let left = |budget: Duration| budget.saturating_sub(Duration::from_secs_f64(spent));
        let limits = Limits { budget: limits.budget.map(left), ..limits };
        driver::drive(&mut trainer, &files(folder), resume, limits)?;
    }
    let progress = state::progress::<Identity>(folder, AGAIN)?;
    let progress = progress.ok_or_else(|| TrainError::file(folder, AGAIN))?;
    let (step, validation) = progress.best.unwrap_or_default();
    let (weights, _) = read_tensors(folder, BEST, AGAIN)?;
    trainer.params.load(&weights).map_err(|e| TrainError::file(folder, e))?;
    Ok(Trained {
        model: trainer.model(),
        seconds: progress.seconds,
        best_epoch: step as f64 / trainer.plan().steps_per_epoch as f64,
        validation,
    })
}

/// Each training sequence once: its last prefix, of which every position is trained.
fn samples(dataset: &Dataset) -> Vec<Sample> {
    let whole = |sample: &Sample| {
        let train = dataset.sequences[sample.sequence as usize].train();
        sample.target as usize + 1 == train.len()
    };
    training_samples(dataset).into_iter().filter(whole).collect()
}

fn plan(settings: Settings, samples: usize) -> Plan {
    let steps_per_epoch = samples.div_ceil(settings.batch as usize).max(1) as u64;
    Plan {
        steps_per_epoch,
        epochs: settings.epochs.into(),
        validate_every: steps_per_epoch,
        patience: settings.patience,
        ema: settings.ema,
        rate_option: "--sasrec-learning-rate",
    }
}

struct Trainer<'a> {
    folder: PathBuf,
    dataset: &'a Dataset,
    identity: Identity,
    device: Device,
    network: Network,
    params: Params,
    optimizer: AdamW,
    sampler: Sampler,
}

/// The stem of the best weights' file.
const BEST: &str = "model";

/// Largest norm of the gradient: rarely reached, it takes the edge off a bad batch.
const CLIP: f64 = 1.0;

impl<'a> Trainer<'a> {
    fn new(
        folder: &Path,
        dataset: &'a Dataset,
        settings: Settings,
        device: Device,
    ) -> Result<Self> {
        let samples = samples(dataset);
        if samples.is_empty() {
            return Err(TrainError::usage(
                "no sequence has two training items, so there is nothing to train SASRec on; \
                 sequences need at least 4 items (lower --k-core, or bring more data)",
            ));
        }
        let network = settings.network(dataset.items.len());
        let params = Params::new(network.specs(), settings.seed, device);
        let optimizer = AdamW::new(&params, settings.weight_decay);
        let (longest, size) = (settings.max_items as usize, settings.batch as usize);
        let batching = Batching::Samples;
        let sampler = Sampler::new(samples, longest, size, batching, settings.seed, device);
        let identity = Identity::new(dataset, settings);
        let folder = folder.to_owned();
        Ok(Self { folder, dataset, identity, device, network, params, optimizer, sampler })
    }

    /// The network with the weights as they are.
    fn model(&self) -> SasRec {
        SasRec { network: self.network, weights: tch::no_grad(|| self.params.views()) }
    }

    /// The loss of a batch of samples, and a scalar with its gradient.
    fn loss(&self, chosen: &[u32], train: bool) -> (Tensor, Tensor) {
        let most = self.network.positions as usize;
        let (rows, targets): (Vec<Vec<u32>>, Vec<Vec<u32>>) = chosen
            .iter()
            .map(|&index| {
                let Sample { sequence, target } = self.sampler.samples[index as usize];
                let items = self.dataset.sequences[sequence as usize].train();
                let first = (target as usize).saturating_sub(most);
                let last = target as usize;
                (items[first..last].to_vec(), items[first + 1..=last].to_vec())
            })
            .unzip();
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        let positions: Vec<i64> = rows
            .iter()
            .enumerate()
            .flat_map(|(row, items)| (row + 1) * length - items.len()..(row + 1) * length)
            .map(|position| position as i64)
            .collect();
        let targets: Vec<i64> = targets.iter().flatten().map(|&item| item.into()).collect();
        let on_device = |values: &[i64]| Tensor::from_slice(values).to_device(self.device);
        let weights = self.params.views();
        let histories = self.network.histories(&rows, self.device);
        let hidden = self
            .network
            .forward(&weights, &histories, train)
            .view([-1, self.network.width])
            .index_select(0, &on_device(&positions));
        cross_entropy(&hidden, self.network.embeddings(&weights), &on_device(&targets))
    }
}

impl Job for Trainer<'_> {
    type Identity = Identity;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn differs(&self, before: &Identity) -> Option<String> {
        if before.settings != self.identity.settings {
            return Some("with other settings".to_owned());
        }
        (before.data != self.identity.data).then(|| "on other sequences".to_owned())
    }

    fn plan(&self) -> Plan {
        plan(self.identity.settings, self.sampler.samples.len())
    }

    fn learning_rate(&self, _step: u64) -> f64 {
        self.identity.settings.learning_rate
    }

    fn step(&mut self, step: u64) -> (Tensor, usize) {
        let chosen = self.sampler.of_step(step).0.to_vec();
        let seed = driver::step_seed(self.identity.settings.seed, step);
        let (loss, carrier) = random::seeded(seed, || self.loss(&chosen, true));
        let gradient = self.params.backward(&carrier);
        self.optimizer.step(&self.params, gradient, self.learning_rate(step), CLIP);
        (loss, chosen.len())
    }

    fn validate(&self) -> Metrics {
        let hidden = ProgressBar::hidden();
        let protocol = Protocol::of(Split::Validation);
        baselines::evaluate(&self.model(), self.dataset, protocol, &hidden)
    }

    fn save_best(&self, _: u64) -> Result<()> {
        write_tensors(&self.folder, BEST, &self.params.to_host(), BTreeMap::new())
    }

    fn weights(&self) -> (&Params, &AdamW) {
        (&self.params, &self.optimizer)
    }

    fn weights_mut(&mut self) -> (&mut Params, &mut AdamW) {
        (&mut self.params, &mut self.optimizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::dataset;
    use crate::device::testing::on_cpu_and_cuda;
    use crate::model::params::to_vec;

    #[test]
    fn steps_and_validation_of_the_cpu_and_of_cuda_are_alike() {
        let sequences: Vec<Vec<u32>> =
            (0..40).map(|user| (0..7 + user % 4).map(|i| (3 * i + user) % 30).collect()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = dataset(30, &sequences);
        let settings = Settings { dim: 16, dropout: 0.0, batch: 16, ..Settings::DEFAULT };
        let train = |device| {
            let mut trainer = Trainer::new(Path::new(""), &dataset, settings, device).unwrap();
            let losses: Vec<f32> = (0..30).map(|step| to_vec(&trainer.step(step).0)[0]).collect();
            (losses, trainer.validate().ndcg_10)
        };
        let (expected, ndcg) = train(Device::Cpu);
        assert!(expected[29] < 0.95 * expected[0], "{expected:?}");
        on_cpu_and_cuda(|device| {
            let (losses, found) = train(device);
            for (found, expected) in losses.iter().zip(&expected) {
                assert!((found / expected - 1.0).abs() < 0.01, "{losses:?}, not {expected}");
            }
            assert!((found - ndcg).abs() < 0.05, "NDCG@10 {found}, not {ndcg}");
        });
    }
}
