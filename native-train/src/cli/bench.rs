//! `tigret bench`: samples/s of training and users/s of evaluation, for `cargo xtask bench`.

use std::path::PathBuf;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tigret_infer::TokenLayout;

use super::Output;
use crate::data::{Dataset, Item, Sequence};
use crate::error::Result;
use crate::evaluate::{self, Split, rank_targets};
use crate::model::presets::Preset;
use crate::model::t5::device;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::train::{Settings, Trainer};

/// Times training steps and evaluation on random data with the sizes of the paper's Beauty set.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    /// Sizes of the model.
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    preset: Preset,
    /// Training steps that are timed, of 256 samples each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Users that are searched for, with 50 beams.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    users: u64,
    /// Where to compute: auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    threads: i32,
    train_samples_per_s: f64,
    evaluate_users_per_s: f64,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    const ITEMS: u32 = 12_101;
    const BATCH: usize = 256;
    let device = device(&args.device)?;
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
    let ids = SemanticIds::new(&dataset, layout, &codes)?;
    let settings = Settings {
        config: args.preset.config(&ids.layout),
        batch: BATCH,
        epochs: 1,
        learning_rate: 1e-3,
        warmup: 1000,
        weight_decay: 0.05,
        clip: 1.0,
        drop_user: 0.2,
        validate_every: u64::MAX,
        patience: 1,
        validation_users: 1,
        validation_beams: 10,
        seed: 0,
    };
    // Nothing is written: the run directory is only named.
    let run = RunDir::named(PathBuf::from("bench"));
    let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device)?;
    let batches = trainer.batches(0);
    let mut steps = batches.iter().zip(0..).cycle();
    let mut time_steps = |count: u64, trainer: &mut Trainer<'_>| {
        let begin = Instant::now();
        let mut samples = 0;
        let mut loss = None;
        for (batch, step) in steps.by_ref().take(count as usize) {
            samples += batch.len();
            loss = Some(trainer.step(batch, step));
        }
        // Reading the loss waits for the device.
        let _ = loss.map(|loss| loss.double_value(&[]));
        samples as f64 / begin.elapsed().as_secs_f64()
    };
    time_steps(2, &mut trainer);
    let train_samples_per_s = time_steps(args.steps, &mut trainer);

    let users: Vec<&Sequence> = dataset.sequences.iter().take(args.users as usize).collect();
    let settings =
        evaluate::Settings { split: Split::Test, beams: 50, batch: 128, user_token: true };
    let hidden = indicatif::ProgressBar::hidden();
    let begin = Instant::now();
    let views = trainer.views();
    rank_targets(trainer.model(), &views, &ids, &users, settings, &hidden);
    let report = Report {
        device: format!("{device:?}"),
        threads: tch::get_num_threads(),
        train_samples_per_s,
        evaluate_users_per_s: users.len() as f64 / begin.elapsed().as_secs_f64(),
    };
    output.result(&report, || {
        format!(
            "training {:.0} samples/s, evaluation {:.0} users/s on {} with {} threads",
            report.train_samples_per_s, report.evaluate_users_per_s, report.device, report.threads
        )
    });
    Ok(())
}
