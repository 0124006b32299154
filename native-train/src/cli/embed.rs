//! `tigret embed`.

use std::path::PathBuf;

use serde::Serialize;

use super::Output;
use crate::data::Dataset;
use crate::embed::{svd, tfidf};
use crate::error::{Result, TrainError};
use crate::run_dir::RunDir;

/// Turn the items' text into vectors.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run directory of `tigret prepare`.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

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
    encoder: String,
    items: usize,
    dimensions: usize,
    /// Terms of TF-IDF.
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<usize>,
    /// Items whose vector is zero.
    zero_vectors: usize,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let dataset = Dataset::load(&run)?;
    let settings =
        tfidf::Settings { min_texts: args.min_texts, max_words: usize::from(args.max_words) };
    let matrix = tfidf::weigh(dataset.items.iter().map(|item| item.text.as_str()), settings);
    if matrix.columns() == 0 {
        return Err(TrainError::file(
            run.items(),
            "the texts share no term; give longer texts, lower --min-texts, or use --vectors",
        ));
    }
    let progress = output.progress(svd::rounds(), "rounds");
    progress.set_message("SVD");
    let mut vectors =
        svd::truncated(&matrix, args.dimensions as usize, args.seed, || progress.inc(1))?;
    progress.finish_and_clear();
    let zero_vectors = vectors.normalise();
    let encoder = "tf-idf+svd".to_owned();
    vectors.save(&run, &dataset, &encoder)?;
    let report = Report {
        encoder,
        items: dataset.items.len(),
        dimensions: vectors.dimensions,
        terms: Some(matrix.columns()),
        zero_vectors,
    };
    output.result(&report, || {
        format!(
            "{} items, {} terms, {} dimensions ({} vectors are zero)",
            report.items,
            matrix.columns(),
            report.dimensions,
            report.zero_vectors
        )
    });
    Ok(())
}
