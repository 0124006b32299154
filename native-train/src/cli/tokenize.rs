//! `tigret tokenize`: content vectors to semantic IDs.

use std::path::{Path, PathBuf};

use tch::Device;
use tigret_infer::TokenLayout;
use tigret_infer::tokens::{MAX_HISTORY, MAX_LEVEL_SIZE, MAX_LEVELS};

use super::autoencoder::AutoencoderOptions;
use super::tokenizer_report::{Report, TrainingReport};
use super::{Output, assign};
use crate::data::Dataset;
use crate::device::{self, DeviceChoice};
use crate::embed::Vectors;
use crate::embed::encoder::Encoder;
use crate::error::{Result, TrainError};
use crate::files::{remove_if_there, write_atomically, write_json};
use crate::interrupt::{self, Control, STOPPABLE, Watch};
use crate::model::IdsOf;
use crate::run_dir::RunDir;
use crate::tokenizer::check::{check, check_alone};
use crate::tokenizer::collaborative::{Als, item_vectors, join};
use crate::tokenizer::collisions::{Alike, alike, collisions, resolve_collisions};
use crate::tokenizer::quantizer_file::save_quantizer;
use crate::tokenizer::settings::Normalise;
use crate::tokenizer::state::Keeper;
use crate::tokenizer::stats::{level_use, smaller_codebook};
use crate::tokenizer::{Fitted, Method, SemanticIds, Settings, fit};

/// Give every item its semantic ID, with a quantiser fitted to the content vectors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret tokenize --run runs/beauty
  tigret tokenize --run runs/beauty --method rq-kmeans
  tigret tokenize --run runs/beauty --method opq --levels 4 --codebook-size 256
  tigret tokenize --run runs/beauty --codebook-size 64,128,256 --sinkhorn
  tigret tokenize --run runs/beauty --epochs 20000
  tigret tokenize --run runs/beauty --collaborative 0.5
  tigret tokenize --run runs/beauty --assign new.jsonl
  tigret tokenize --run runs/beauty --assign new.jsonl --vectors new.npy

The training of an autoencoder can be interrupted: the same command goes on where it stopped and
ends with the same codes. Writes catalog.json, tokens.json, tokenizer.safetensors (the quantiser),
tokenizer.json (settings and statistics) and, for autoencoders, tokenizer.jsonl (the log) into the
run directory.")]
pub(super) struct Args {
    /// The run directory, with vectors.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Give the new items of this JSONL file ("id" and any fields) IDs by the run's tokenizer as
    /// it is, and add them to catalog.json and items.jsonl. No ID that exists changes. Without
    /// --vectors an item has the vector of its field "embedding", else that of its text by the
    /// run's own encoder; its text is "text", else made of its fields as `prepare` did.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "levels", "codebook_size",
          "collision_size", "normalise", "sinkhorn", "collaborative", "latent", "hidden", "epochs",
          "max_epochs", "batch", "optimizer", "learning_rate", "beta", "gradient", "no_revival",
          "users", "max_items", "seed", "device"])]
    assign: Option<PathBuf>,
    /// Vectors of the new items, .npy or .safetensors, a row a line of --assign in the same order.
    #[arg(long, value_name = "FILE", requires = "assign")]
    vectors: Option<PathBuf>,

    /// How items get their codes.
    #[arg(long, value_enum, default_value_t = Method::RqVae)]
    method: Method,
    /// Levels, without the collision level [default: 3, or as many as --codebook-size names].
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..MAX_LEVELS as u64))]
    levels: Option<u64>,
    /// Codewords of each level: one number for all, or one a level.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "256",
          value_parser = clap::value_parser!(u32).range(2..=MAX_LEVEL_SIZE as i64))]
    codebook_size: Vec<u32>,
    /// Codes of the collision level; the largest codebook size if not given.
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=MAX_LEVEL_SIZE as i64))]
    collision_size: Option<u32>,
    /// What is done to the vectors first.
    #[arg(long = "normalize", value_enum, default_value_t = Normalise::None)]
    normalise: Normalise,
    /// Balance the last level (Sinkhorn): items that share all codes move to other codewords of it,
    /// and an rq-vae is trained to use it evenly. Fewer collisions, but the items of a codeword are
    /// less alike. For rq-vae and rq-kmeans.
    #[arg(long)]
    sinkhorn: bool,
    /// Join vectors learned from the training interactions alone (ALS), of this weight relative
    /// to the content; 0 for none.
    #[arg(long, allow_negative_numbers = true, value_name = "WEIGHT", default_value_t = 0.0)]
    collaborative: f64,

    /// User tokens of the layout (paper: 2000); 0 for none.
    #[arg(long, value_name = "N", default_value_t = 2000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    users: u32,
    /// Items of a history that the model sees (paper: 20).
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=MAX_HISTORY as u64))]
    max_items: u64,
    /// Seed of everything random.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,

    #[command(flatten)]
    autoencoder: AutoencoderOptions,
}

impl Args {
    /// The run directory.
    pub(super) fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Refuses options that are outside their range or do not go together.
    pub(super) fn check(&self) -> Result<()> {
        check_alone(self.method, &self.sizes()?, self.sinkhorn)?;
        if self.method.has_autoencoder() {
            self.autoencoder.settings()?;
        }
        if !(self.collaborative >= 0.0 && self.collaborative.is_finite()) {
            let weight = self.collaborative;
            return Err(TrainError::usage(format!("--collaborative {weight} is not a weight")));
        }
        Ok(())
    }

    /// Options that are given and change nothing, and why.
    fn unused(&self) -> Vec<(Vec<&'static str>, &'static str)> {
        let mut unused = Vec::new();
        if !self.method.has_autoencoder() {
            unused.push((self.autoencoder.given(), "trains no autoencoder"));
        }
        if self.method == Method::Random {
            let options = [
                ("--normalize", self.normalise != Normalise::None),
                ("--collaborative", self.collaborative != 0.0),
            ];
            let given = options.into_iter().filter_map(|(name, is_set)| is_set.then_some(name));
            unused.push((given.collect(), "uses no vectors"));
        }
        unused.retain(|(options, _)| !options.is_empty());
        unused
    }

    fn sizes(&self) -> Result<Vec<u32>> {
        let sizes = &self.codebook_size;
        let levels = match (self.levels, sizes.len()) {
            (Some(levels), 1) => levels as usize,
            (None, 1) => 3,
            (levels, named) if levels.is_none_or(|levels| levels as usize == named) => named,
            (levels, named) => {
                return Err(TrainError::usage(format!(
                    "--codebook-size names {named} levels, --levels {}; leave one out",
                    levels.unwrap_or_default()
                )));
            }
        };
        if levels >= MAX_LEVELS {
            return Err(TrainError::usage(format!(
                "--codebook-size: {levels} levels, at most {} beside the collision level",
                MAX_LEVELS - 1
            )));
        }
        Ok(if sizes.len() == 1 { vec![sizes[0]; levels] } else { sizes.clone() })
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    match &args.assign {
        Some(items) => assign::run(&args.run, items, args.vectors.as_deref(), output),
        None => tokenize(args, output),
    }
}

/// The vectors that are quantised, and how many numbers of each were learned from interactions.
fn vectors_of(
    args: &Args,
    run: &RunDir,
    dataset: &Dataset,
    device: Device,
    output: &Output,
) -> Result<(Vectors, usize)> {
    if args.method == Method::Random {
        // Its codes come from the ids alone, so it runs without `tigret embed`.
        return Ok((Vectors { dimensions: 1, data: vec![0.0; dataset.items.len()] }, 0));
    }
    let content = Vectors::load(run, &dataset.items)?;
    if args.collaborative == 0.0 {
        return Ok((content, 0));
    }
    let als = Als { seed: args.seed, ..Als::default() };
    let progress = output.progress(als.rounds as u64, "rounds");
    progress.set_message("ALS");
    let factors = item_vectors(dataset, als, device, &progress);
    Ok((join(&content, &factors, args.collaborative), factors.dimensions))
}

/// Whether `embed --normalize` has brought the run's vectors, of another program, to length 1.
fn has_unit_length(run: &RunDir) -> bool {
    Vectors::encoder(run) == Some(Encoder::Precomputed { normalised: true }.id())
}

fn tokenize(args: Args, output: &Output) -> Result<()> {
    let sizes = args.sizes()?;
    let autoencoder =
        args.method.has_autoencoder().then(|| args.autoencoder.settings()).transpose()?;
    let run = RunDir::open(&args.run)?;
    let device = args.device.torch()?;
    let dataset = Dataset::load(&run)?;
    let begin = std::time::Instant::now();
    let (vectors, learned) = vectors_of(&args, &run, &dataset, device, output)?;
    let settings = Settings {
        method: args.method,
        sizes,
        normalise: args.normalise,
        balance_last: args.sinkhorn,
        autoencoder,
        learned,
        unit_length: args.method != Method::Random && has_unit_length(&run),
        seed: args.seed,
    };
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    check(&settings, &ids, &vectors)?;
    note_settings(&args, &settings, ids.len(), output);
    // The other methods take seconds: an interrupt ends them where they are.
    let _watch = settings.autoencoder.is_some().then(Watch::start).transpose()?;
    let fitted = fitted(&run, &settings, &ids, &vectors, device, output)?;
    let levels = settings.sizes.len();
    let largest = settings.sizes.iter().copied().max().unwrap_or(1);
    let collision_size = args.collision_size.unwrap_or(largest);
    let alike = match args.method {
        // What is drawn from ids follows from no vector.
        Method::Random => Alike::default(),
        _ => alike(&fitted.codes, levels, &vectors),
    };
    let codes = resolve_collisions(&fitted.codes, levels, collision_size, alike.largest)?;
    let layout = TokenLayout::contiguous(
        &[&settings.sizes[..], &[collision_size]].concat(),
        args.users,
        args.max_items as usize,
    );
    let report = Report {
        encoder: Vectors::encoder(&run).filter(|_| args.method != Method::Random),
        collaborative: (learned > 0).then_some(args.collaborative),
        levels: level_use(&fitted.codes, &settings.sizes),
        collisions: collisions(&fitted.codes, levels),
        alike: alike.items,
        separated: settings.balance_last.then_some(fitted.moved),
        reconstruction: fitted.reconstruction,
        training: fitted.training.as_ref().map(|training| TrainingReport::of(training, device)),
        settings,
        seconds: begin.elapsed().as_secs_f64()
            + fitted.training.as_ref().map_or(0.0, |training| training.earlier),
    };
    let ids = SemanticIds::new(&dataset.items, layout, &codes)?;
    save(&run, fitted, &ids, &report)?;
    output.result(&report, || report.text(collision_size as usize));
    Ok(())
}

/// Fits the quantiser; the training of an autoencoder can be stopped and goes on from its state.
fn fitted(
    run: &RunDir,
    settings: &Settings,
    ids: &[&str],
    vectors: &Vectors,
    device: Device,
    output: &Output,
) -> Result<Fitted> {
    let Some(autoencoder) = &settings.autoencoder else {
        let progress = output.progress(0, "epochs");
        return fit(settings, ids, vectors, device, &mut Keeper::none(), &progress);
    };
    let progress = output.progress(autoencoder.epochs.most() as u64, "epochs");
    let state = run.tokenizer_state();
    let control = Control { interrupted: &interrupt::is_requested, state: Some(&state) };
    let mut keeper = Keeper::new(control, settings, vectors, device);
    if let Some(path) = keeper.in_the_way() {
        output.note(format!(
            "{} is of other settings or vectors; training begins anew and overwrites it",
            path.display()
        ));
    }
    output.note(format!(
        "{} items, {} dimensions, on {}; {STOPPABLE}",
        ids.len(),
        vectors.dimensions,
        device::name(device)
    ));
    fit(settings, ids, vectors, device, &mut keeper, &progress)
}

/// Says which options do nothing, and which codebooks are large for so many items.
fn note_settings(args: &Args, settings: &Settings, items: usize, output: &Output) {
    for (unused, why) in args.unused() {
        // No refusal: a study compares methods under the settings of one file.
        let (unused, method) = (unused.join(", "), settings.method.name());
        output.note(format!("{unused} without effect: --method {method} {why}"));
    }
    if let Some(&first) = settings.sizes.first()
        && let Some(better) = smaller_codebook(items, first as usize)
    {
        output.note(format!(
            "{items} items are few for {first} codewords in the first level: a code that hardly two \
             items share teaches the model nothing about the others; --codebook-size {better} \
             suits them better"
        ));
    }
}

/// Writes the tokenizer and its IDs, and removes what they leave behind.
fn save(run: &RunDir, fitted: Fitted, ids: &SemanticIds, report: &Report) -> Result<()> {
    write_log(run, fitted.training.map_or(Vec::new(), |training| training.log))?;
    save_quantizer(run, &fitted.quantizer, &IdsOf::new(&ids.layout, ids.in_file()))?;
    write_json(&run.tokenizer_report(), report)?;
    ids.save(run)?;
    // The figures of a model that cannot be used any more are not those of the run.
    if ids.check_model(&run.model()).is_err() {
        remove_if_there(&run.evaluation())?;
    }
    // That of another method, too: nothing goes on from it any more.
    remove_if_there(&run.tokenizer_state())?;
    Ok(())
}

/// Writes `tokenizer.jsonl`, or removes that of an earlier tokenizer.
fn write_log(run: &RunDir, log: Vec<String>) -> Result<()> {
    if log.is_empty() {
        return remove_if_there(&run.tokenizer_log());
    }
    write_atomically(&run.tokenizer_log(), |file| {
        log.iter().try_for_each(|line| writeln!(file, "{line}"))
    })
}
