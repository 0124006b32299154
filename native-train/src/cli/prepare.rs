//! `tigret prepare`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Output;
use crate::data::classics::{self, books};
use crate::data::events::{LeftOut, Rules, parse_rating};
use crate::data::interactions::{LogColumns, NO_LOG};
use crate::data::items::ItemColumns;
use crate::data::moment::Bound;
use crate::data::new_items::text_recipe;
use crate::data::oracle::optimum;
use crate::data::prepare::{Findings, Prepared, Settings, Source, prepare};
use crate::data::simulation::simulate;
use crate::data::{Summary, log};
use crate::error::{Result, TrainError};
use crate::metrics::Metrics;
use crate::run_dir::RunDir;

/// Sources beside which options of simulated readers mean nothing.
const NOT_SIMULATED: [&str; 4] = ["interactions", "amazon", "movielens", "sequences"];

/// Turn raw files, or the embedded classics, into a data set.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A log of ratings and a table of items, users and items with fewer than 5 events left out:
    tigret prepare --run runs/shop --interactions ratings.csv --items products.csv \\
      --user-column user_id --item-column product_id --time-column rated_at \\
      --id-column product_id --text-columns title,brand,description

  The research format (a user and their items a line, oldest first):
    tigret prepare --run runs/beauty --sequences sequences.txt --items items.jsonl

  Amazon's reviews as downloaded (2014, 2018 or 2023), those of at least four stars:
    tigret prepare --run runs/beauty --amazon reviews_Beauty_5.json.gz \\
      --items meta_Beauty.json.gz --min-rating 4

  A MovieLens release, unpacked:
    tigret prepare --run runs/ml --movielens ml-1m

  The embedded classics with simulated readers:
    tigret prepare --run runs/classics --classics

Writes items.jsonl, sequences.jsonl and dataset.json into the run directory; for the classics also
oracle.json, what the best possible recommender reaches.")]
pub(super) struct Args {
    /// Run directory, made if it is not there.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

    /// A log of interactions by its extension: Parquet, or CSV, TSV or JSONL, plain or .gz.
    #[arg(long, value_name = "FILE", requires = "items", group = "source")]
    interactions: Option<PathBuf>,
    #[command(flatten)]
    log: LogColumns,
    /// Leave out interactions that are rated below this; those without a rating count.
    #[arg(long, value_name = "RATING", value_parser = parse_rating,
          conflicts_with_all = ["sequences", "classics"])]
    min_rating: Option<f64>,
    /// Leave out interactions before this time: a number in the unit of the data, or a date with or
    /// without a time of day (not where a log has numbers, whose unit is not known).
    #[arg(long, allow_negative_numbers = true, value_name = "TIME",
          conflicts_with_all = ["sequences", "classics"])]
    from: Option<Bound>,
    /// Leave out interactions at this time and later.
    #[arg(long, allow_negative_numbers = true, value_name = "TIME",
          conflicts_with_all = ["sequences", "classics"])]
    until: Option<Bound>,
    /// Count the same user, item and time several times if it stands there several times; a log
    /// of your own is always taken as it is unless --deduplicate is given.
    #[arg(long, conflicts_with_all = ["sequences", "classics", "interactions"])]
    keep_duplicates: bool,
    /// Count the same user, item and time once; always so with --amazon and --movielens.
    #[arg(long, requires = "interactions", conflicts_with_all = NO_LOG)]
    deduplicate: bool,
    /// Leave out lines of the log whose item the items file does not have.
    #[arg(long, requires = "interactions", conflicts_with_all = NO_LOG)]
    skip_unknown_items: bool,
    /// Leave out lines of the log that lack a user, an item or a time, as anonymous visitors' do.
    #[arg(long, requires = "interactions", conflicts_with_all = NO_LOG)]
    skip_incomplete: bool,

    /// Amazon's reviews as downloaded, plain or .gz; --items is the metadata file.
    #[arg(long, value_name = "FILE", requires = "items", group = "source")]
    amazon: Option<PathBuf>,
    /// Folder of a MovieLens release: ratings.dat and movies.dat, ratings.csv and movies.csv, or u.data,
    /// u.item and u.genre, plain or .gz.
    #[arg(long, value_name = "DIR", group = "source", conflicts_with = "items")]
    movielens: Option<PathBuf>,
    /// Research format: a user and their items a line, oldest first.
    #[arg(long, value_name = "FILE", requires = "items", group = "source")]
    sequences: Option<PathBuf>,
    /// The embedded classics with simulated readers.
    #[arg(long, group = "source", conflicts_with = "items")]
    classics: bool,

    /// Items, JSONL, CSV, TSV or Parquet by the extension.
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    #[command(flatten)]
    columns: ItemColumns,

    /// Leave out users and items with fewer interactions, to the fixed point; 0: none
    /// [default: 5; 0 with --sequences].
    #[arg(long, allow_negative_numbers = true, value_name = "K", conflicts_with = "classics")]
    k_core: Option<usize>,

    /// Number of simulated readers.
    #[arg(long, value_name = "N", default_value_t = 6000, requires = "classics",
          conflicts_with_all = NOT_SIMULATED,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    readers: u32,
    /// Seed of the simulated readers.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "classics",
          conflicts_with_all = NOT_SIMULATED)]
    seed: u64,
}

/// What `prepare` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    summary: Summary,
    #[serde(flatten)]
    findings: Findings,
    /// What the best possible recommender reaches, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    optimum: Option<Metrics>,
}

impl Report {
    fn text(&self) -> String {
        let mut text = self.summary.table();
        let Findings { layout, left_out, times, undescribed, without_text, lines } = &self.findings;
        let mut row = |name: &str, count: usize| {
            if count > 0 {
                text += &format!("\n{name:<21} {count:>12}");
            }
        };
        if let Some(LeftOut { below_rating, outside_time, duplicates }) = *left_out {
            row("below --min-rating", below_rating);
            row("outside the times", outside_time);
            row("duplicates", duplicates);
        }
        row("other events", lines.other_events.unwrap_or(0));
        row("incomplete lines", lines.incomplete_lines.unwrap_or(0));
        row("undescribed items", undescribed.unwrap_or(0));
        row("items without text", without_text.unwrap_or(0));
        if let Some([earliest, latest]) = times {
            text += &format!("\n{:<21} {earliest:>12} to {latest}", "times of the data");
        }
        if let Some(layout) = layout {
            text += &format!("\n{:<21} {layout:>12}", "layout");
        }
        if let Some(skipped) = lines.skipped_lines {
            text += &format!("\n{:<21} {skipped:>12}", "lines skipped");
        }
        if let Some(optimum) = self.optimum {
            let reach = format!("{:.1} %", 100.0 * optimum.recall_10);
            text += &format!("\n{:<21} {reach:>12}", "optimum Recall@10");
        }
        text
    }
}

impl Args {
    /// The run directory.
    pub(super) fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Refuses options without a source of data, or that do not go together.
    pub(super) fn check(&self) -> Result<()> {
        let sources = [&self.interactions, &self.amazon, &self.movielens, &self.sequences];
        if !self.classics && sources.iter().all(|source| source.is_none()) {
            return Err(no_source());
        }
        if self.min_rating.is_some() && self.interactions.is_some() && self.log.rating.is_none() {
            return Err(TrainError::usage(
                "--min-rating needs the log's column of ratings; name it with --rating-column",
            ));
        }
        check_inputs(self)
    }
}

fn no_source() -> TrainError {
    TrainError::usage(
        "say where the data is: --interactions, --amazon or --sequences with --items, --movielens, \
         or --classics",
    )
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let report = if args.classics { simulated(&args, output)? } else { files(&args, output)? };
    output.result(&report, || report.text());
    Ok(())
}

const ELSEWHERE: &str = "give the run another folder than that of the data";

/// Refuses data that `prepare` would overwrite, or change.
fn check_inputs(args: &Args) -> Result<()> {
    let run = RunDir::named(&args.run);
    let inputs = [&args.interactions, &args.items, &args.sequences, &args.amazon];
    if let Some(input) = inputs.into_iter().flatten().find(|input| run.is_artefact(input)) {
        return Err(TrainError::file(
            input,
            format!("is where the run's own file would be written; {ELSEWHERE}"),
        ));
    }
    // With the run's own files in it, it would be another folder after each command.
    match &args.movielens {
        Some(folder) if run.is(folder) => {
            Err(TrainError::file(folder, format!("is the run's own folder; {ELSEWHERE}")))
        }
        _ => Ok(()),
    }
}

fn files(args: &Args, output: &Output) -> Result<Report> {
    let source = if let (Some(interactions), Some(items)) = (&args.interactions, &args.items) {
        Source::Log(log::Files {
            interactions,
            columns: &args.log,
            items,
            item_columns: &args.columns,
            skip_unknown_items: args.skip_unknown_items,
            skip_incomplete: args.skip_incomplete,
        })
    } else if let (Some(reviews), Some(metadata)) = (&args.amazon, &args.items) {
        Source::Amazon { reviews, metadata }
    } else if let Some(folder) = &args.movielens {
        Source::MovieLens(folder)
    } else if let (Some(sequences), Some(items)) = (&args.sequences, &args.items) {
        Source::Research { sequences, items }
    } else {
        return Err(no_source());
    };
    let rules = Rules {
        min_rating: args.min_rating,
        from: args.from,
        until: args.until,
        deduplicate: args.deduplicate || (args.interactions.is_none() && !args.keep_duplicates),
    };
    let settings = Settings { columns: &args.columns, rules, k_core: args.k_core };
    let progress = output.progress_bytes();
    let prepared = prepare(source, settings, &progress, |text| output.note(text))?;
    progress.finish_and_clear();
    let Prepared { dataset, summary, findings } = prepared;
    let run = RunDir::create(&args.run)?;
    note_other_texts(&run, &summary, output);
    dataset.save(&run, &summary, None)?;
    Ok(Report { summary, findings, optimum: None })
}

/// Says that texts are made otherwise than before, where a run has vectors of the earlier ones: new
/// items would get theirs from texts of another kind.
fn note_other_texts(run: &RunDir, summary: &Summary, output: &Output) {
    let before = text_recipe(run).ok().flatten();
    if run.vectors().exists() && before.is_some_and(|before| summary.text != Some(before)) {
        output.note(
            "the items' texts are made in another way than before, and the run's vectors and \
             semantic IDs are of the earlier ones: run `tigret embed` and `tigret tokenize` again, \
             or `tigret prepare` with the earlier --text-columns or --text-template",
        );
    }
}

fn simulated(args: &Args, output: &Output) -> Result<Report> {
    let (world, dataset) = simulate(&books(), args.readers as usize, args.seed);
    let progress = output.progress(dataset.sequences.len() as u64, "readers");
    progress.set_message("optimum");
    let optimum = optimum(&world, &dataset.sequences, || progress.inc(1));
    progress.finish_and_clear();
    let summary = Summary::new(&dataset, "classics", 0)
        .with_text(classics::text_recipe())
        .simulated(args.seed);
    dataset.save(&RunDir::create(&args.run)?, &summary, Some(&optimum))?;
    Ok(Report { summary, findings: Findings::default(), optimum: Some(optimum) })
}
