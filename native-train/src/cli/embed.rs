//! `tigret embed`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Output;
use crate::data::Dataset;
use crate::embed::precomputed::{self, ExtraIds, Source};
use crate::embed::{Vectors, svd, tfidf};
use crate::error::{Result, TrainError};
use crate::run_dir::RunDir;

/// Turn the items' text into vectors, or take vectors that another encoder made.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  TF-IDF and truncated SVD, which need no download:
    tigret embed --run runs/shop

  Vectors of a sentence encoder, row i for line i of ids.txt:
    tigret embed --run runs/shop --vectors sentence-t5.npy --ids ids.txt

  A safetensors file with several tensors; the ids are the JSON list \"ids\" in its metadata:
    tigret embed --run runs/shop --vectors encoded.safetensors --tensor text

Writes vectors.safetensors into the run directory: tensor vectors [items, dimensions], f32, rows in
the order of items.jsonl. The rows of TF-IDF have length 1; vectors of yours stay as they are unless
--normalize is given.")]
pub(super) struct Args {
    /// Run directory of `tigret prepare`.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

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

/// What `embed` prints.
#[derive(Debug, Serialize)]
struct Report {
    encoder: &'static str,
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
            count => format!("; {count} items without a known term have a zero vector"),
        };
        format!("{encoder}: {items} items{terms}, {dimensions} dimensions{zero}")
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let dataset = Dataset::load(&run)?;
    let (mut vectors, encoder, terms) = match &args.vectors {
        Some(file) => (precomputed_vectors(&args, file, &dataset)?, "precomputed", None),
        None => {
            let (vectors, terms) = tfidf_vectors(&args, &run, &dataset, output)?;
            (vectors, "tf-idf+svd", Some(terms))
        }
    };
    if args.vectors.is_none() || args.normalize {
        vectors.normalise();
    }
    vectors.save(&run, &dataset, encoder)?;
    let report = Report {
        encoder,
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
