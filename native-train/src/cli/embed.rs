//! `tigret embed`.

use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde::Serialize;

use super::Output;
use crate::data::Dataset;
use crate::data::new_items::text_recipe;
use crate::destination::check_place;
use crate::device::DeviceChoice;
use crate::embed::encoder::{Encoder, Ready, TfIdf};
use crate::embed::precomputed::{self, Source};
use crate::embed::sentence::{SentenceEncoder, hub, job};
use crate::embed::texts::{check_out, encode_file};
use crate::embed::{Vectors, svd, tfidf};
use crate::error::{Result, TrainError};
use crate::files::remove_if_there;
use crate::interrupt::{self, Control, STOPPABLE, Watch};
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

  Vectors of further texts by the encoder that made those of the run:
    tigret embed --run runs/shop --texts new.jsonl --out new.safetensors

Writes into the run directory: vectors.safetensors (tensor `vectors`, f32 [items, dimensions], rows
in the order of items.jsonl) and encoder.safetensors (what --texts and `tokenize --assign` need).
TF-IDF rows have length 1, those of --encoder if its folder says so; your own vectors stay as they
are unless --normalize is given. With --encoder and --texts, an interrupted command goes on where
it stopped when called again.")]
pub(super) struct Args {
    /// Run directory of `tigret prepare`.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

    /// Encode the items of this JSONL file ("id" and "text", or the fields of which `prepare` made
    /// the items' texts) with the run's encoder into --out; the run stays as it is.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["vectors", "dimensions",
          "max_words", "min_texts", "seed"])]
    texts: Option<PathBuf>,
    /// The .safetensors file for the vectors of --texts.
    #[arg(long, value_name = "FILE", requires = "texts")]
    out: Option<PathBuf>,

    /// Folder of a sentence-transformers model, or hub:NAME to download one from Hugging Face.
    /// With --texts: where the run's encoder lies now.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath,
          conflicts_with_all = ["vectors", "dimensions", "max_words", "min_texts", "seed"])]
    encoder: Option<String>,
    /// Where the encoder computes; cuda needs a build with `--features cuda`.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto,
          conflicts_with_all = ["vectors", "dimensions", "max_words", "min_texts", "seed"])]
    device: DeviceChoice,

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

    /// Most dimensions of a vector; fewer if the texts do not span as many.
    #[arg(long, value_name = "D", default_value_t = 256, help_heading = "TF-IDF",
          value_parser = clap::value_parser!(u32).range(1..=8192))]
    dimensions: u32,
    /// Most words of a term; 2 adds pairs of neighbouring words.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "TF-IDF",
          value_parser = clap::value_parser!(u8).range(1..=tfidf::MOST_WORDS as i64))]
    max_words: u8,
    /// Drop terms that stand in fewer texts.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "TF-IDF")]
    min_texts: usize,
    /// Seed of the SVD's random projection.
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "TF-IDF")]
    seed: u64,
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

impl Args {
    /// The run directory, if the vectors go into it.
    pub(super) fn writes_into(&self) -> Option<&Path> {
        self.texts.is_none().then_some(&self.run)
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    if let (Some(texts), Some(out)) = (&args.texts, &args.out) {
        return embed_texts(&args, texts, out, &run, output);
    }
    let dataset = Dataset::load(&run)?;
    let (mut terms, mut watch) = (None, None);
    let (vectors, encoder, name) = if let Some(name) = &args.encoder {
        let (vectors, encoder, started) = sentence_vectors(&args, name, &run, &dataset, output)?;
        // Until the vectors are kept: an interruption before would lose them.
        watch = Some(started);
        (vectors, encoder, name.as_str())
    } else if let Some(file) = &args.vectors {
        let mut vectors = precomputed_vectors(&args, file, &dataset)?;
        if args.normalize {
            vectors.normalise();
        }
        (vectors, Encoder::Precomputed { normalised: args.normalize }, "precomputed")
    } else {
        let (vectors, encoder) = tfidf_vectors(&args, &run, &dataset, output)?;
        terms = Some(encoder.terms());
        (vectors, Encoder::TfIdf(encoder), "tf-idf+svd")
    };
    // The encoder first: vectors of another one beside it are noticed by its name in them.
    encoder.save(&run)?;
    let of_texts = !matches!(encoder, Encoder::Precomputed { .. });
    vectors.save(&run, &dataset.items, &encoder.id(), of_texts)?;
    if watch.is_some() {
        remove_if_there(&run.encoding_state())?;
    }
    let report = Report {
        encoder: name.to_owned(),
        items: dataset.items.len(),
        dimensions: vectors.dimensions,
        terms,
        zero_vectors: vectors.zero_rows(),
    };
    output.result(&report, || report.text());
    Ok(())
}

/// Encodes further texts with the run's encoder.
fn embed_texts(args: &Args, texts: &Path, out: &Path, run: &RunDir, output: &Output) -> Result<()> {
    run.check_no_artefact(out)?;
    check_out(out)?;
    check_place(out)?;
    let encoder = Ready::of_run(run, args.encoder.as_deref(), args.device, |text| {
        output.note(text);
    })?;
    let recipe = text_recipe(run)?;
    let _watch = Watch::start()?;
    output.note(STOPPABLE);
    let progress = output.progress(0, "texts");
    let encoded =
        encode_file(&encoder, recipe.as_ref(), texts, out, &interrupt::is_requested, &progress)?;
    output.result(&encoded, || {
        let zero = match encoded.zero_vectors {
            0 => String::new(),
            count => format!("; {count} have no term that the encoder knows and a zero vector"),
        };
        format!("{} texts, {} dimensions{zero}", encoded.texts, encoded.dimensions)
    });
    Ok(())
}

fn precomputed_vectors(args: &Args, file: &Path, dataset: &Dataset) -> Result<Vectors> {
    let source = Source {
        vectors: file,
        tensor: args.tensor.as_deref(),
        ids: args.ids.as_deref(),
        drop_extra: args.drop_extra,
    };
    precomputed::read(source, &dataset.items)
}

fn sentence_vectors(
    args: &Args,
    name: &str,
    run: &RunDir,
    dataset: &Dataset,
    output: &Output,
) -> Result<(Vectors, Encoder, Watch)> {
    let texts: Vec<&str> = dataset.items.iter().map(|item| item.text.as_str()).collect();
    refuse_empty_texts(run, &texts)?;
    // It is looked for again from wherever later texts are encoded.
    let source = match name.starts_with(hub::PREFIX) {
        true => name.to_owned(),
        false => std::path::absolute(name)
            .map_err(|e| TrainError::file(name, e))?
            .to_string_lossy()
            .into_owned(),
    };
    let encoder = SentenceEncoder::open(name, args.device, |file| output.note(file))?;
    encoder.notes().iter().for_each(|note| output.note(note));
    // Not before: nothing polls while an encoder is downloaded and loaded.
    let watch = Watch::start()?;
    let state = run.encoding_state();
    let (count, device) = (texts.len(), encoder.device_name());
    output.note(format!("{count} texts on {device}; {STOPPABLE}"));
    let progress = output.progress(texts.len() as u64, "texts");
    let control = Control { interrupted: &interrupt::is_requested, state: Some(&state) };
    let vectors = job::encode_all(&encoder, &texts, control, &progress)?;
    progress.finish_and_clear();
    let fingerprint = encoder.fingerprint().to_owned();
    Ok((vectors, Encoder::Sentence { source, fingerprint }, watch))
}

fn refuse_empty_texts(run: &RunDir, texts: &[&str]) -> Result<()> {
    match texts.iter().all(|text| text.trim().is_empty()) {
        true => Err(TrainError::file(
            run.items(),
            "the text of every item is empty; name columns with `tigret prepare --text-columns`, or \
             fields with --text-template",
        )),
        false => Ok(()),
    }
}

fn tfidf_vectors(
    args: &Args,
    run: &RunDir,
    dataset: &Dataset,
    output: &Output,
) -> Result<(Vectors, TfIdf)> {
    let settings =
        tfidf::Settings { min_texts: args.min_texts, max_words: usize::from(args.max_words) };
    let texts: Vec<&str> = dataset.items.iter().map(|item| item.text.as_str()).collect();
    refuse_empty_texts(run, &texts)?;
    let progress = output.progress(svd::rounds(), "rounds");
    progress.set_message("SVD");
    let dimensions = args.dimensions as usize;
    let encoder = TfIdf::fit(&texts, settings, dimensions, args.seed, || progress.inc(1))?;
    progress.finish_and_clear();
    let encoder = encoder.ok_or_else(|| {
        TrainError::file(
            run.items(),
            "no term stands in enough texts; give longer texts, lower --min-texts, or use --encoder or \
             --vectors",
        )
    })?;
    Ok((encoder.encode(&texts), encoder))
}
