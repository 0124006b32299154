//! `tigret train`: semantic IDs to a model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tch::Device;
use tigret_infer::{T5Config, TokenLayout};

use super::Output;
use crate::data::Dataset;
use crate::device::{self, DeviceChoice};
use crate::error::{MINUTES, Result, TrainError, check_range};
use crate::interrupt::{self, Watch};
use crate::memory;
use crate::model::presets::Preset;
use crate::pipeline::arguments::word;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::train::{
    Batching, Limits, OptimizerKind, Precision, Schedule, Settings, Trainer, shorter_warmup,
};

/// Train the model to generate the semantic ID of a user's next item.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret train --run runs/beauty --preset small --max-minutes 60
  tigret train --run runs/beauty --preset small --max-minutes 60 --resume
  tigret train --run runs/beauty --preset paper --device cuda
  tigret train --run runs/beauty --preset small --layers 3 --width 192 --d-ff 768

The best model by validation NDCG@10 is in RUN/model, the state to resume from beside it.")]
pub(super) struct Args {
    /// The run directory, with semantic IDs.
    #[arg(long)]
    run: PathBuf,
    /// Sizes of the model.
    #[arg(long, value_enum, default_value_t = Preset::Small)]
    preset: Preset,
    /// Layers of the encoder, and of the decoder, instead of the preset's.
    #[arg(long, value_name = "N", help_heading = "Sizes",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    layers: Option<u32>,
    /// Width of the model (d_model) instead of the preset's.
    #[arg(long, value_name = "N", help_heading = "Sizes",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    width: Option<u32>,
    /// Heads of the attention instead of the preset's.
    #[arg(long, value_name = "N", help_heading = "Sizes",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    heads: Option<u32>,
    /// Width of a head (d_kv) instead of the preset's.
    #[arg(long, value_name = "N", help_heading = "Sizes",
          value_parser = clap::value_parser!(u32).range(1..=512))]
    d_kv: Option<u32>,
    /// Width of the feed-forward layers (d_ff) instead of the preset's.
    #[arg(long, value_name = "N", help_heading = "Sizes",
          value_parser = clap::value_parser!(u32).range(1..=16_384))]
    d_ff: Option<u32>,
    /// Samples a step, in the mean.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    batch: u64,
    /// Whether steps have as many samples each, or about as many tokens.
    #[arg(long, value_enum, default_value_t = Batching::Samples)]
    batching: Batching,
    /// What matrix products compute in; bf16 on CUDA and f32 elsewhere if not given. A CPU with
    /// instructions for bf16 (AVX-512 BF16, AMX) trains faster in it, others slower.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Passes over the samples at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: u64,
    /// Stop this call after so many minutes, with a last validation.
    #[arg(long, allow_negative_numbers = true)]
    max_minutes: Option<f64>,
    /// Which optimiser: AdamW, or AdamW whose updates are scaled by the size of each weight, as those
    /// of T5's Adafactor are.
    #[arg(long, value_enum, default_value_t = OptimizerKind::ScaledAdamw)]
    optimizer: OptimizerKind,
    /// Peak learning rate: with scaled-adamw relative to each weight's root mean square; with adamw
    /// the default is 0.001.
    // From step 10,000 on, a peak of 0.03 after 1,000 steps is about 5 % below the paper's rate.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value = "0.03",
        default_value_if("optimizer", "adamw", "0.001")
    )]
    learning_rate: f64,
    /// Warm-up: steps until the learning rate reaches its peak.
    #[arg(long, default_value_t = 1000)]
    warmup: u64,
    /// How the learning rate decays after the warm-up.
    #[arg(long, value_enum, default_value_t = Schedule::InverseSqrt)]
    schedule: Schedule,
    /// Weight decay.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.05)]
    weight_decay: f64,
    /// Dropout.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.1)]
    dropout: f64,
    /// Largest norm of the gradient.
    #[arg(long, allow_negative_numbers = true, default_value_t = 1.0)]
    clip: f64,
    /// Probability that a sample's user token is dropped, so that the model works without one.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.2)]
    drop_user: f64,
    /// Steps between validations; once an epoch if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    validate_every: Option<u64>,
    /// Validations without a better NDCG@10 before training stops.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    patience: u32,
    /// Users of a validation.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    validation_users: u64,
    /// Beams of a validation.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=512))]
    validation_beams: u64,
    /// Go on from the last checkpoint.
    #[arg(long)]
    resume: bool,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
}

impl Args {
    /// The run directory.
    pub(super) fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Whether it goes on with the training that is there.
    pub(super) fn resumes(&self) -> bool {
        self.resume
    }

    /// Refuses options outside their range.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value, allowed) in [
            ("--learning-rate", self.learning_rate, 1e-9..=10.0),
            ("--weight-decay", self.weight_decay, 0.0..=10.0),
            ("--dropout", self.dropout, 0.0..=0.99),
            ("--clip", self.clip, 1e-9..=1e9),
            ("--drop-user", self.drop_user, 0.0..=1.0),
            ("--max-minutes", self.max_minutes.unwrap_or(1.0), MINUTES),
        ] {
            check_range(name, value, allowed)?;
        }
        Ok(())
    }

    /// The preset's sizes, with what is given in their place.
    fn config(&self, layout: &TokenLayout) -> T5Config {
        let mut config = self.preset.config(layout);
        config.dropout_rate = self.dropout;
        for (given, size) in [
            (self.layers, &mut config.num_layers),
            (self.width, &mut config.d_model),
            (self.heads, &mut config.num_heads),
            (self.d_kv, &mut config.d_kv),
            (self.d_ff, &mut config.d_ff),
        ] {
            *size = given.map_or(*size, |given| given as usize);
        }
        config.num_decoder_layers = Some(config.num_layers);
        config
    }
}

/// Refuses a model whose training takes more memory than there is.
fn check_memory(config: &T5Config, optimizer: OptimizerKind, batch: usize) -> Result<()> {
    let weights: u64 = config
        .weight_shapes()
        .iter()
        .map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>())
        .sum();
    let needed = weights.saturating_mul(optimizer.bytes_a_weight(batch));
    match memory::free() {
        Some(free) if needed > free => {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            Err(TrainError::usage(format!(
                "a model of {weights} weights takes {:.1} GB to train, and {:.1} GB of memory are \
                 free; ask for smaller sizes, or for fewer threads (OMP_NUM_THREADS)",
                gigabytes(needed),
                gigabytes(free)
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let device = args.device.torch()?;
    let dataset = Dataset::load(&run)?;
    let ids = SemanticIds::load(&run, &dataset.items)?;
    let config = args.config(&ids.layout);
    // What a bundle cannot hold is not worth its training.
    config.validate_with(&ids.layout).map_err(|e| {
        TrainError::usage(format!(
            "no bundle can hold this model ({e}); ask for smaller sizes, or for fewer users and \
             codes in `tigret tokenize`"
        ))
    })?;
    let batch = args.batch as usize;
    if device == Device::Cpu {
        check_memory(&config, args.optimizer, batch)?;
    }
    let samples = crate::train::samples::training_samples(&dataset).len();
    let settings = Settings {
        config,
        batch,
        batching: args.batching,
        precision: args.precision.unwrap_or_else(|| Precision::of(device)),
        epochs: args.epochs,
        optimizer: args.optimizer,
        learning_rate: args.learning_rate,
        warmup: args.warmup,
        schedule: args.schedule,
        weight_decay: args.weight_decay,
        clip: args.clip,
        drop_user: args.drop_user,
        validate_every: args.validate_every.unwrap_or(samples.div_ceil(batch).max(1) as u64),
        patience: args.patience,
        validation_users: args.validation_users as usize,
        validation_beams: args.validation_beams as usize,
        seed: args.seed,
    };
    let mut trainer = Trainer::new(&run, &dataset, &ids, settings, device)?;
    output.note(format!(
        "{} weights, {} samples an epoch, on {}",
        trainer.parameters(),
        trainer.samples(),
        device::name(device)
    ));
    let steps = trainer.steps_per_epoch().saturating_mul(args.epochs);
    // A training that goes on has to keep its settings.
    if let (false, Some(better)) = (args.resume, shorter_warmup(args.warmup, steps)) {
        output.note(format!(
            "--warmup {} is long for the {steps} steps of all epochs: the learning rate gets to its \
             peak late or never; --warmup {better} suits them better",
            args.warmup
        ));
    }
    let _watch = Watch::start()?;
    let budget = args.max_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let progress = output.progress(1, "steps");
    let limits = Limits { budget, interrupted: &interrupt::is_requested, progress: &progress };
    let outcome = trainer.train(args.resume, limits).map_err(|e| match e {
        TrainError::Interrupted => TrainError::Stopped(format!(
            "interrupted; go on with `tigret train --run {} --resume` and the same settings",
            word(&run.root().to_string_lossy())
        )),
        other => other,
    })?;
    output.result(&outcome, || {
        // A training that had ended has no rate of this session.
        let rate = match outcome.samples_per_second {
            0.0 => String::new(),
            rate => format!(" ({rate:.0} samples/s)"),
        };
        format!(
            "stopped after {} steps, {:.0} s{rate}: {}\n\
             best validation at step {}: Recall@10 {:.4}, NDCG@10 {:.4}",
            outcome.steps,
            outcome.seconds,
            outcome.stopped,
            outcome.best_step,
            outcome.best.recall_10,
            outcome.best.ndcg_10
        )
    });
    Ok(())
}
