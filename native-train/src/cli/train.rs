//! `tigret train`: semantic IDs to a model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tch::Device;
use tigret_infer::{T5Config, TokenLayout};

use super::Output;
use crate::data::Dataset;
use crate::device::{self, DeviceChoice};
use crate::error::{Result, TrainError, check_range, minutes};
use crate::interrupt::{self, Watch};
use crate::memory;
use crate::model::presets::Preset;
use crate::pipeline::arguments::word;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::train::{Limits, Options, Precision, Settings, Trainer, shorter_warmup};

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
    #[command(flatten)]
    options: Options,
    /// What matrix products compute in; bf16 on CUDA and f32 elsewhere if not given. A CPU with
    /// instructions for bf16 (AVX-512 BF16, AMX) trains faster in it, others slower.
    #[arg(long, display_order = 30, value_enum)]
    precision: Option<Precision>,
    /// Stop this call after so many minutes, with a last validation.
    #[arg(long, display_order = 50, allow_negative_numbers = true)]
    max_minutes: Option<f64>,
    /// Dropout.
    #[arg(long, display_order = 110, allow_negative_numbers = true, default_value_t = 0.1)]
    dropout: f64,
    /// Steps between validations; once an epoch if not given.
    #[arg(long, display_order = 150, value_parser = clap::value_parser!(u64).range(1..))]
    validate_every: Option<u64>,
    /// What `tigret run` knows this training again by.
    #[arg(long, hide = true)]
    begun_by: Option<String>,
    /// Go on from the last checkpoint.
    #[arg(long, display_order = 190)]
    resume: bool,
    /// Where to compute.
    #[arg(long, display_order = 210, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
}

impl Args {
    /// The run directory.
    pub(super) fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Refuses options outside their range.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value, allowed) in [
            ("--learning-rate", self.options.learning_rate, 1e-9..=10.0),
            ("--weight-decay", self.options.weight_decay, 0.0..=10.0),
            ("--dropout", self.dropout, 0.0..=0.99),
            ("--clip", self.options.clip, 1e-9..=1e9),
            ("--drop-user", self.options.drop_user, 0.0..=1.0),
            ("--drop-items", self.options.drop_items, 0.0..=0.99),
            ("--unlikelihood", self.options.unlikelihood, 0.0..=100.0),
            ("--ema", self.options.ema, 0.0..=0.999_999),
        ] {
            check_range(name, value, allowed)?;
        }
        self.budget()?;
        Ok(())
    }

    /// The time that the training may take.
    fn budget(&self) -> Result<Option<Duration>> {
        minutes("--max-minutes", self.max_minutes)
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
fn check_memory(config: &T5Config, options: &Options) -> Result<()> {
    let weights = config.weights();
    let needed = (weights as u64).saturating_mul(options.bytes_a_weight());
    match memory::free() {
        Some(free) if needed > free => {
            let megabytes = |bytes: u64| bytes / 1_000_000;
            Err(TrainError::usage(format!(
                "a model of {weights} weights takes {} MB to train, and {} MB of memory are free; \
                 ask for smaller sizes, or for fewer threads (OMP_NUM_THREADS)",
                megabytes(needed),
                megabytes(free)
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
    let options = args.options;
    if device == Device::Cpu {
        check_memory(&config, &options)?;
    }
    let samples = crate::train::samples::training_samples(&dataset).len();
    let of_epoch = samples.div_ceil(options.batch).max(1) as u64;
    let settings = Settings {
        config,
        precision: args.precision.unwrap_or_else(|| Precision::of(device)),
        validate_every: args.validate_every.unwrap_or(of_epoch),
        options,
    };
    let trainer = Trainer::new(&run, &dataset, &ids, settings, device)?;
    let mut trainer = trainer.begun_by(args.begun_by.clone());
    let origin = trainer.origin().map(|origin| format!(", {origin}"));
    output.note(format!(
        "{} weights, {} samples an epoch{}, on {}",
        trainer.parameters(),
        trainer.samples(),
        origin.unwrap_or_default(),
        device::name(device)
    ));
    let steps = trainer.steps_per_epoch().saturating_mul(options.epochs);
    // It may be meant, or an option forgotten.
    if let (true, Some(longer)) = (args.resume, trainer.longer()) {
        output.note(format!("goes on longer than it was to: {longer}"));
    }
    // A training that goes on has to keep its warm-up.
    if let (false, Some(better)) = (args.resume, shorter_warmup(options.warmup, steps)) {
        output.note(format!(
            "--warmup {} is long for the {steps} steps of all epochs: the learning rate gets to its \
             peak late or never; --warmup {better} suits them better",
            options.warmup
        ));
    }
    let _watch = Watch::start()?;
    let budget = args.budget()?;
    let progress = output.progress(1, "steps");
    let limits = Limits { budget, interrupted: &interrupt::is_requested, progress: &progress };
    let outcome = trainer.train(args.resume, limits).map_err(|e| match e {
        TrainError::Interrupted => TrainError::Stopped(format!(
            "interrupted; go on with `tigret train --run={} --resume` and the same settings",
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
