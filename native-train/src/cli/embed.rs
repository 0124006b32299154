//! `tigret embed`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use super::Output;
use super::interrupt::Interrupts;
use crate::data::Dataset;
use crate::embed::precomputed::{self, ExtraIds, Source};
use crate::embed::sentence::job::{self, Control};
use crate::embed::sentence::{Place, SentenceEncoder, hub};
use crate::embed::{Vectors, svd, tfidf};
use crate::error::{Result, TrainError};
use crate::run_dir::RunDir;

/// Turn the items' text into vectors, or take vectors that another encoder made.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  TF-IDF and truncated SVD, which need no download:
    tigret embed --run runs/shop

  A sentence-transformers folder (BERT and MiniLM, MPNet, Sentence-T5), or a name on the hub:
    tigret embed --run runs/shop --encoder models/all-MiniLM-L6-v2
    tigret embed --run runs/shop --encoder hub:sentence-transformers/sentence-t5-base

  Vectors that another program made, row i for line i of ids.txt:
    tigret embed --run runs/shop --vectors sentence-t5.npy --ids ids.txt

  A safetensors file with several tensors; the ids are the JSON list \"ids\" in its metadata:
    tigret embed --run runs/shop --vectors encoded.safetensors --tensor text

Writes vectors.safetensors into the run directory: tensor vectors [items, dimensions], f32, rows in
the order of items.jsonl. The rows of TF-IDF have length 1, those of --encoder if its folder says
so; vectors of yours stay as they are unless --normalize is given. --encoder can be interrupted: the
same command goes on where it stopped.")]
pub(super) struct Args {
    /// Run directory of `tigret prepare`.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

    /// Folder of a sentence-transformers model, or hub:NAME to download one from Hugging Face.
    #[arg(long, value_name = "DIR",
          conflicts_with_all = ["vectors", "dimensions", "max_words", "min_texts", "seed"])]
    encoder: Option<String>,
    /// Where the encoder computes; cuda needs a build with `--features cuda`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", requires = "encoder")]
    device: DeviceName,

    /// Vectors, .npy (float16, float32 or float64, C order) or .safetensors.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["dimensions", "max_words", "min_texts", "seed"])]
    vectors: Option<PathBuf>,
    /// The tensor of a .safetensors file; needed where it has several matrices.
    #[arg(long, value_name = "NAME", requires = "vectors")]
    tensor: Option<String>,
    /// Ids of the rows, one a line. Without them: the metadata "ids" of a .safetensors file,
    /// else one row an item, in the order of items.jsonl.
    #[arg(long, value_name = "FILE", requires = "vectors")]
    ids: Option<PathBuf>,
    /// Leave out vectors whose id the data set does not have.
    #[arg(long, requires = "vectors")]
    drop_extra: bool,
    /// Scale every vector to length 1.
    #[arg(long, requires = "vectors")]
    normalize: bool,

    /// Most dimensions of the vectors; fewer where the texts do not span them.
    #[arg(long, value_name = "D", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=8192))]
    dimensions: u32,
    /// Most words of a term.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=3))]
    max_words: u8,
    /// A term must stand in this many texts.
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_texts: usize,
    /// Seed of the random projection.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
}

impl From<DeviceName> for Place {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Auto => Self::Auto,
            DeviceName::Cpu => Self::Cpu,
            DeviceName::Cuda => Self::Cuda,
        }
    }
}

/// What `embed` prints.
#[derive(Debug, Serialize)]
struct Report {
    encoder: String,
    items: usize,
    dimensions: usize,
    /// Terms of TF-IDF.
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<usize>,
    /// Items whose vector is zero.
    zero_vectors: usize,
}

impl Report {
    fn text(&self) -> String {
        let Self { encoder, items, dimensions, .. } = self;
        let terms = self.terms.map_or(String::new(), |terms| format!(", {terms} terms"));
        let zero = match self.zero_vectors {
            0 => String::new(),
            count => format!("; {count} items have a zero vector"),
        };
        format!("{encoder}: {items} items{terms}, {dimensions} dimensions{zero}")
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let dataset = Dataset::load(&run)?;
    let (vectors, encoder, terms) = if let Some(name) = &args.encoder {
        let (vectors, encoder) = sentence_vectors(&args, name, &run, &dataset, output)?;
        (vectors, encoder, None)
    } else if let Some(file) = &args.vectors {
        let mut vectors = precomputed_vectors(&args, file, &dataset)?;
        if args.normalize {
            vectors.normalise();
        }
        (vectors, "precomputed".to_owned(), None)
    } else {
        let (mut vectors, terms) = tfidf_vectors(&args, &run, &dataset, output)?;
        vectors.normalise();
        (vectors, "tf-idf+svd".to_owned(), Some(terms))
    };
    vectors.save(&run, &dataset, &encoder)?;
    let report = Report {
        encoder: args.encoder.unwrap_or(encoder),
        items: dataset.items.len(),
        dimensions: vectors.dimensions,
        terms,
        zero_vectors: vectors.zero_rows(),
    };
    output.result(&report, || report.text());
    Ok(())
}

fn precomputed_vectors(args: &Args, file: &Path, dataset: &Dataset) -> Result<Vectors> {
    let extra = if args.drop_extra { ExtraIds::Drop } else { ExtraIds::Refuse };
    let (tensor, ids) = (args.tensor.as_deref(), args.ids.as_deref());
    precomputed::read(Source { vectors: file, tensor, ids }, dataset, extra)
}

/// The vectors, and what the artefact says made them.
fn sentence_vectors(
    args: &Args,
    name: &str,
    run: &RunDir,
    dataset: &Dataset,
    output: &Output,
) -> Result<(Vectors, String)> {
    let texts: Vec<&str> = dataset.items.iter().map(|item| item.text.as_str()).collect();
    if texts.iter().all(|text| text.trim().is_empty()) {
        return Err(TrainError::file(
            run.items(),
            "the text of every item is empty; name columns with `tigret prepare --text-columns`",
        ));
    }
    let encoder = load_encoder(name, args.device.into(), output)?;
    let state = job::state_file(run);
    let interrupts = Interrupts::listen()?;
    let progress = output.progress(texts.len() as u64, "texts");
    progress.set_message(encoder.device_name());
    let control = Control { interrupted: interrupts.flag(), state: Some(&state) };
    let vectors = job::encode_all(&encoder, &texts, control, |count| progress.inc(count)).map_err(
        |error| match error {
            TrainError::Interrupted => {
                TrainError::usage("interrupted; the same command goes on where it stopped")
            }
            other => other,
        },
    )?;
    progress.finish_and_clear();
    Ok((vectors, format!("sentence:{}", encoder.fingerprint())))
}

/// The encoder of a folder, or of a name on the hub.
fn load_encoder(name: &str, place: Place, output: &Output) -> Result<SentenceEncoder> {
    let folder = match name.strip_prefix("hub:") {
        Some(name) => hub::folder(name, |file| output.note(format!("downloading {file}")))?,
        None => PathBuf::from(name),
    };
    let encoder = SentenceEncoder::load(&folder, place)?;
    encoder.notes().iter().for_each(|note| output.note(note));
    Ok(encoder)
}

/// The vectors and the number of terms.
fn tfidf_vectors(
    args: &Args,
    run: &RunDir,
    dataset: &Dataset,
    output: &Output,
) -> Result<(Vectors, usize)> {
    let settings =
        tfidf::Settings { min_texts: args.min_texts, max_words: usize::from(args.max_words) };
    let matrix = tfidf::weigh(dataset.items.iter().map(|item| item.text.as_str()), settings);
    if matrix.columns() == 0 {
        return Err(TrainError::file(
            run.items(),
            "no term stands in enough texts; give longer texts, lower --min-texts, or use --vectors",
        ));
    }
    let progress = output.progress(svd::rounds(), "rounds");
    progress.set_message("SVD");
    let vectors = svd::truncated(&matrix, args.dimensions as usize, args.seed, || progress.inc(1))?;
    progress.finish_and_clear();
    Ok((vectors, matrix.columns()))
}
