//! `tigret tokenize`: content vectors to semantic IDs.

use std::path::PathBuf;

use serde::Serialize;
use tigret_infer::TokenLayout;

use super::Output;
use crate::data::Dataset;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::model::t5::device;
use crate::run_dir::{RunDir, write_json};
use crate::tokenizer::rqvae::Shape;
use crate::tokenizer::stats::{Collisions, LevelUse};
use crate::tokenizer::train::{OptimizerKind, Settings, train};
use crate::tokenizer::{SemanticIds, resolve_collisions};

/// Trains an RQ-VAE on the content vectors and gives every item its semantic ID.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret tokenize --run runs/beauty
  tigret tokenize --run runs/beauty --optimizer adagrad --learning-rate 0.4 --epochs 20000
  tigret tokenize --run runs/small-shop --codebook-size 32")]
pub(super) struct Args {
    /// The run directory, with vectors.
    #[arg(long)]
    run: PathBuf,
    /// Levels, without the collision level.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    levels: u64,
    /// Codewords of each level.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(2..=65_536))]
    codebook_size: u64,
    /// Codes of the collision level; the codebook size if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    collision_size: Option<u32>,
    /// Width of the latent vectors.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    latent: u64,
    /// Hidden widths of the encoder; the decoder mirrors them.
    #[arg(long, value_delimiter = ',', default_values_t = [512, 256, 128], value_parser = clap::value_parser!(u64).range(1..=65_536))]
    hidden: Vec<u64>,
    /// Passes over the items.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Items a step.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Optimiser.
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adamw)]
    optimizer: OptimizerKind,
    /// Learning rate; 0.001 for adamw, 0.4 for adagrad (paper) if not given.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Weight of the commitment term.
    #[arg(long, default_value_t = 0.25)]
    beta: f64,
    /// User tokens of the layout (paper: 2000); 0 for none.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    users: u32,
    /// Items of a history that the model sees (paper: 20).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=512))]
    max_items: u64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    levels: Vec<LevelUse>,
    collisions: Collisions,
    reconstruction: f64,
    seconds: f64,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let device = device(&args.device)?;
    let dataset = Dataset::load(&run)?;
    let vectors = Vectors::load(&run, &dataset)?;
    let learning_rate = args.learning_rate.unwrap_or(match args.optimizer {
        OptimizerKind::Adamw => 1e-3,
        OptimizerKind::Adagrad => 0.4,
    });
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(TrainError::usage(format!("--learning-rate {learning_rate} is not positive")));
    }
    let settings = Settings {
        shape: Shape {
            input: vectors.dimensions as i64,
            hidden: args.hidden.iter().map(|&width| width as i64).collect(),
            latent: args.latent as i64,
            levels: args.levels as usize,
            codebook: args.codebook_size as i64,
        },
        optimizer: args.optimizer,
        learning_rate,
        batch: args.batch as usize,
        epochs: args.epochs as usize,
        beta: args.beta,
        seed: args.seed,
    };
    let begin = std::time::Instant::now();
    let progress = output.progress(args.epochs, "epochs");
    let trained = train(&run, &vectors, &settings, device, &progress)?;
    let codebook = args.codebook_size as u32;
    let collision_size = args.collision_size.unwrap_or(codebook);
    let codes = resolve_collisions(&trained.codes, settings.shape.levels, collision_size)?;
    let mut sizes = vec![codebook; settings.shape.levels];
    sizes.push(collision_size);
    let layout = TokenLayout::contiguous(&sizes, args.users, args.max_items as usize);
    SemanticIds::new(&dataset, layout, &codes)?.save(&run, &dataset)?;
    let report = Report {
        settings,
        levels: trained.levels,
        collisions: trained.collisions,
        reconstruction: trained.reconstruction,
        seconds: begin.elapsed().as_secs_f64(),
    };
    write_json(&run.tokenizer_report(), &report)?;
    output.result(&report, || describe(&report));
    Ok(())
}

fn describe(report: &Report) -> String {
    let mut text = String::from("level  codewords used  perplexity\n");
    for (index, level) in report.levels.iter().enumerate() {
        text += &format!(
            "{index:>5}  {:>8} of {:<4}  {:>9.1}\n",
            level.used, level.codewords, level.perplexity
        );
    }
    let c = &report.collisions;
    text + &format!(
        "{} of {} items ({:.1} %) are unique after {} levels; the largest group has {}\n\
         reconstruction error {:.4}; {:.0} s",
        c.unique_items,
        c.items,
        100.0 * c.unique_items as f64 / c.items as f64,
        report.levels.len(),
        c.largest_group,
        report.reconstruction,
        report.seconds
    )
}
