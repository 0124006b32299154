//! Training an RQ-VAE and reading off the codes.

use std::collections::HashMap;

use indicatif::ProgressBar;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::rqvae::{Shape, initialise_codebooks, pass};
use super::stats::{Collisions, LevelUse, collisions, level_use};
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::model::checkpoint::write_tensors;
use crate::model::optimizer::{Adagrad, AdamW};
use crate::model::params::{Params, to_vec};
use crate::run_dir::{RunDir, write_atomically};

/// Which optimiser trains the RQ-VAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW.
    Adamw,
    /// Adagrad, as in the paper.
    Adagrad,
}

/// Settings of the RQ-VAE's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes.
    pub shape: Shape,
    /// Optimiser.
    pub optimizer: OptimizerKind,
    /// Learning rate.
    pub learning_rate: f64,
    /// Items a step.
    pub batch: usize,
    /// Passes over the items.
    pub epochs: usize,
    /// Weight of the commitment term.
    pub beta: f64,
    /// Seed of everything random.
    pub seed: u64,
}

/// One line of the log `tokenizer.jsonl`.
#[derive(Debug, Serialize)]
struct LogLine {
    epoch: usize,
    loss: f64,
    reconstruction: f64,
    quantisation: f64,
    levels: Vec<LevelUse>,
    revived: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What training leaves: the codes before collisions are resolved, and how good they are.
#[derive(Debug)]
pub struct Trained {
    /// Row-major `[items, levels]`.
    pub codes: Vec<u16>,
    /// Use of each level.
    pub levels: Vec<LevelUse>,
    /// Collisions.
    pub collisions: Collisions,
    /// Mean squared reconstruction error an item.
    pub reconstruction: f64,
}

enum Optimizer {
    AdamW(AdamW),
    Adagrad(Adagrad),
}

const RISE: &str = "the quantisation loss rises at first: k-means fits the codewords to an \
                    untrained encoder whose latent vectors are short, and the encoder then \
                    spreads them out; watch the reconstruction";

/// Trains on all vectors and writes `tokenizer.safetensors` and `tokenizer.jsonl`.
///
/// # Errors
/// [`TrainError::Usage`] for fewer items than codewords or a loss that is not a number.
pub fn train(
    run: &RunDir,
    vectors: &Vectors,
    settings: &Settings,
    device: Device,
    progress: &ProgressBar,
) -> Result<Trained> {
    let shape = &settings.shape;
    let items = vectors.data.len() / vectors.dimensions;
    if (items as i64) < shape.codebook {
        return Err(TrainError::usage(format!(
            "{items} items cannot fill {} codewords; use --codebook-size {items} or less",
            shape.codebook
        )));
    }
    let data = Tensor::from_slice(&vectors.data)
        .view([items as i64, vectors.dimensions as i64])
        .to_device(device);
    let params = Params::new(shape.specs(), settings.seed, device);
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut order: Vec<i64> = (0..items as i64).collect();
    order.shuffle(&mut rng);
    // The paper takes the first batch; a few more points a codeword make k-means less of a lottery.
    let first = settings.batch.max(16 * shape.codebook as usize).min(items);
    let index = |order: &[i64]| Tensor::from_slice(order).to_device(device);
    initialise_codebooks(shape, &params, &data.index_select(0, &index(&order[..first])), &mut rng);

    let mut optimizer = match settings.optimizer {
        OptimizerKind::Adamw => Optimizer::AdamW(AdamW::new(&params, 0.0)),
        OptimizerKind::Adagrad => Optimizer::Adagrad(Adagrad::new(&params)),
    };
    let mut log = Vec::new();
    progress.set_message("RQ-VAE");
    let mut explained = false;
    for epoch in 0..settings.epochs {
        order.shuffle(&mut rng);
        let mut sums = Tensor::zeros([2], (Kind::Double, device));
        let counts = Tensor::zeros([shape.levels as i64, shape.codebook], (Kind::Float, device));
        let mut residuals = Vec::new();
        for chunk in order.chunks(settings.batch) {
            let x = data.index_select(0, &index(chunk));
            let step = pass(shape, &params.views(), &x, settings.beta);
            (&step.reconstruction + &step.quantisation).backward();
            match &mut optimizer {
                Optimizer::AdamW(adamw) => adamw.step(&params, settings.learning_rate, 1e9),
                Optimizer::Adagrad(adagrad) => adagrad.step(&params, settings.learning_rate),
            }
            let weight = chunk.len() as f64 / items as f64;
            sums += Tensor::stack(&[step.reconstruction, step.quantisation], 0).detach() * weight;
            let ones = Tensor::ones([chunk.len() as i64], (Kind::Float, device));
            for level in 0..shape.levels {
                let chosen = step.codes.select(1, level as i64);
                let _ = counts.get(level as i64).index_add_(0, &chosen, &ones);
            }
            residuals = step.residuals;
        }
        // The last tenth of training is left alone, so that revived codewords can settle.
        let revived = if epoch * 10 < settings.epochs * 9 {
            revive(shape, &params, &counts, &residuals, &mut rng)
        } else {
            0
        };
        let (reconstruction, quantisation) = (sums.double_value(&[0]), sums.double_value(&[1]));
        if !(reconstruction + quantisation).is_finite() {
            return Err(TrainError::usage(format!(
                "the RQ-VAE's loss is not a number in epoch {epoch}; lower --learning-rate"
            )));
        }
        let rises = log.last().is_some_and(|line: &LogLine| quantisation > line.quantisation);
        let note = (rises && !explained).then_some(RISE);
        explained |= rises;
        log.push(LogLine {
            epoch,
            loss: reconstruction + quantisation,
            reconstruction,
            quantisation,
            levels: to_vec(&counts)
                .chunks_exact(shape.codebook as usize)
                .map(LevelUse::from_counts)
                .collect(),
            revived,
            note,
        });
        progress.set_message(format!("RQ-VAE {:.4}", reconstruction + quantisation));
        progress.inc(1);
    }
    progress.finish();
    write_atomically(&run.root().join("tokenizer.jsonl"), |file| {
        for line in &log {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })?;
    let json = serde_json::to_string(settings).map_err(|e| TrainError::file(run.tokenizer(), e))?;
    let metadata =
        HashMap::from([("kind".to_owned(), "rq-vae".to_owned()), ("settings".to_owned(), json)]);
    write_tensors(&run.tokenizer(), &params.to_host(), metadata)?;

    let (codes, reconstruction) = tch::no_grad(|| encode_all(shape, &params, &data));
    Ok(Trained {
        levels: level_use(&codes, shape.levels, shape.codebook as usize),
        collisions: collisions(&codes, shape.levels),
        codes,
        reconstruction,
    })
}

/// Codes of all vectors, and the mean reconstruction error.
fn encode_all(shape: &Shape, params: &Params, data: &Tensor) -> (Vec<u16>, f64) {
    let views = params.views();
    let (mut codes, mut error) = (Vec::new(), 0.0);
    let items = data.size()[0];
    for chunk in data.split(8192, 0) {
        let result = pass(shape, &views, &chunk, 0.0);
        codes.extend(to_vec(&result.codes).into_iter().map(|code| code as u16));
        error += result.reconstruction.double_value(&[]) * chunk.size()[0] as f64;
    }
    (codes, error / items as f64)
}

/// Moves codewords that no item of the epoch chose onto residuals of the last batch, so that no
/// codebook collapses. Returns how many.
fn revive(
    shape: &Shape,
    params: &Params,
    counts: &Tensor,
    residuals: &[Tensor],
    rng: &mut impl Rng,
) -> usize {
    let counts = to_vec(counts);
    let views = tch::no_grad(|| params.views());
    let mut revived = 0;
    for (level, counts) in counts.chunks_exact(shape.codebook as usize).enumerate() {
        let dead: Vec<i64> =
            (0..shape.codebook).filter(|&code| counts[code as usize] == 0.0).collect();
        let candidates = residuals[level].size()[0];
        if dead.is_empty() || candidates == 0 {
            continue;
        }
        let chosen: Vec<i64> = dead.iter().map(|_| rng.random_range(0..candidates)).collect();
        tch::no_grad(|| {
            let device = residuals[level].device();
            let points =
                residuals[level].index_select(0, &Tensor::from_slice(&chosen).to_device(device));
            let dead = Tensor::from_slice(&dead).to_device(device);
            let mut codebook = views.get(&format!("codebook.{level}")).shallow_clone();
            let _ = codebook.index_copy_(0, &dead, &points);
        });
        revived += dead.len();
    }
    revived
}
