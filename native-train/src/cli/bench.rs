//! `tigret bench`: samples/s of training and users/s of evaluation, for `cargo xtask bench`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tigret_infer::TokenLayout;

use super::Output;
use crate::data::{Dataset, Item, Sequence};
use crate::device::{self, DeviceChoice};
use crate::error::Result;
use crate::evaluate::{self, Split, rank_targets};
use crate::model::presets::Preset;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::train::batch::Batch;
use crate::train::loss::loss;
use crate::train::{OptimizerKind, Options, Precision, Settings, Trainer};

/// Time training steps and evaluation, on random data with the sizes of the paper's Beauty set or
/// on a run's own.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    /// A run with semantic IDs, instead of random data.
    #[arg(long)]
    run: Option<PathBuf>,
    /// Sizes of the model.
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    preset: Preset,
    /// Samples a step.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    batch: u64,
    /// Training steps before those that are timed.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=100_000))]
    warm_up: u64,
    /// Training steps that are timed.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,
    /// Users that are searched for, with 50 beams; 0 to time training only.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    users: u64,
    /// Write the checkpoint and the batches of the steps into this folder, for another program
    /// (tests/bench_train.py) to train on.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Which optimiser.
    #[arg(long, value_enum, default_value_t = OptimizerKind::ScaledAdamw)]
    optimizer: OptimizerKind,
    /// What matrix products compute in; bf16 on CUDA and f32 elsewhere if not given.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    precision: Precision,
    threads: i32,
    weights: usize,
    /// Samples and encoder tokens of a timed step, padding included, in the mean.
    samples_per_step: f64,
    tokens_per_step: f64,
    /// Loss of the first batch without dropout, before training.
    first_loss: f64,
    train_samples_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluate_users_per_s: Option<f64>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let device = args.device.torch()?;
    let (dataset, ids) = match &args.run {
        Some(run) => {
            let run = RunDir::open(run)?;
            let dataset = Dataset::load(&run)?;
            let ids = SemanticIds::load(&run, &dataset.items)?;
            (dataset, ids)
        }
        None => random_data()?,
    };
    let precision = args.precision.unwrap_or_else(|| Precision::of(device));
    let options = Options {
        batch: args.batch as usize,
        optimizer: args.optimizer,
        learning_rate: 1e-3,
        ..Options::DEFAULT
    };
    let config = args.preset.config(&ids.layout);
    let settings = Settings { config, precision, validate_every: u64::MAX, options };
    // Nothing is written: the run directory is only named.
    let run = RunDir::named(PathBuf::from("bench"));
    let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device)?;
    let warm_up = args.warm_up;
    let batches: Vec<Batch> = (0..warm_up + args.steps).map(|step| trainer.batch(step)).collect();
    if let Some(folder) = &args.dump {
        dump(folder, &trainer, &batches)?;
    }
    let first_loss = tch::no_grad(|| {
        loss(trainer.model(), &trainer.views(), &batches[0], None).double_value(&[])
    });
    train_rate(&mut trainer, 0..warm_up);
    let train_samples_per_s = train_rate(&mut trainer, warm_up..warm_up + args.steps);
    let mean = |of: fn(&Batch) -> usize| {
        let timed = &batches[warm_up as usize..];
        timed.iter().map(of).sum::<usize>() as f64 / timed.len() as f64
    };
    let report = Report {
        device: format!("{device:?}"),
        precision,
        threads: tch::get_num_threads(),
        weights: trainer.parameters(),
        samples_per_step: mean(Batch::rows),
        tokens_per_step: mean(|batch| batch.tokens.numel()),
        first_loss,
        train_samples_per_s,
        evaluate_users_per_s: (args.users > 0).then(|| {
            let users: Vec<&Sequence> =
                dataset.sequences.iter().take(args.users as usize).collect();
            evaluate_rate(&trainer, &ids, &users)
        }),
    };
    output.result(&report, || {
        let evaluation = report
            .evaluate_users_per_s
            .map_or(String::new(), |rate| format!(", evaluation {rate:.0} users/s"));
        format!(
            "training {:.0} samples/s{evaluation} on {} with {} threads",
            report.train_samples_per_s,
            device::name(device),
            report.threads
        )
    });
    Ok(())
}

/// Samples a second of some training steps.
fn train_rate(trainer: &mut Trainer<'_>, steps: Range<u64>) -> f64 {
    let begin = Instant::now();
    let mut samples = 0;
    let mut last = None;
    for step in steps {
        let (loss, count) = trainer.step(step);
        samples += count;
        last = Some(loss);
    }
    // Reading the loss waits for the device.
    let _ = last.map(|loss| loss.double_value(&[]));
    samples as f64 / begin.elapsed().as_secs_f64()
}

/// Users a second of an evaluation.
fn evaluate_rate(trainer: &Trainer<'_>, ids: &SemanticIds, users: &[&Sequence]) -> f64 {
    let begin = Instant::now();
    let hidden = indicatif::ProgressBar::hidden();
    let settings = evaluate::Settings::of(Split::Test, 50);
    rank_targets(trainer.model(), &trainer.views(), ids, users, settings, &hidden);
    users.len() as f64 / begin.elapsed().as_secs_f64()
}

/// Users, items and lengths as in the paper's Beauty set; who took what is drawn evenly.
fn random_data() -> Result<(Dataset, SemanticIds)> {
    const ITEMS: u32 = 12_101;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let items = (0..ITEMS)
        .map(|i| Item { id: i.to_string(), text: String::new(), fields: Default::default() })
        .collect();
    // Lengths from 5 on, as in a 5-core, with a mean of about 9.
    let sequences = (0..20_000)
        .map(|user| {
            let mut length = 5;
            while length < 50 && rng.random_bool(0.8) {
                length += 1;
            }
            let items = (0..length).map(|_| rng.random_range(0..ITEMS)).collect();
            Sequence { user: format!("user-{user}"), items }
        })
        .collect();
    let dataset = Dataset { items, sequences };
    // All distinct: the last level counts through items that share the first three.
    let codes: Vec<u16> = (0..ITEMS as u16)
        .flat_map(|i| [i % 256, (i / 7) % 256, (i / 3) % 256, (i / 256) % 256])
        .collect();
    let layout = TokenLayout::contiguous(&[256; 4], 2000, 20);
    let ids = SemanticIds::new(&dataset.items, layout, &codes)?;
    Ok((dataset, ids))
}

/// The weights as `transformers` reads them, and the batches as `tokens.N`, `keep.N`, `labels.N`.
fn dump(folder: &Path, trainer: &Trainer<'_>, batches: &[Batch]) -> Result<()> {
    trainer.save(folder)?;
    let path = folder.join("batches.safetensors");
    let named: Vec<(String, Tensor)> = batches
        .iter()
        .enumerate()
        .flat_map(|(i, batch)| {
            let int = |tensor: &Tensor| tensor.to_kind(Kind::Int).to_device(Device::Cpu);
            [
                (format!("tokens.{i}"), int(&batch.tokens)),
                (format!("keep.{i}"), int(&batch.keep)),
                (format!("labels.{i}"), int(&batch.labels)),
            ]
        })
        .collect();
    Ok(Tensor::write_safetensors(&named, path)?)
}
