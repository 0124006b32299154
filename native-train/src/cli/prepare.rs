//! `tigret prepare`.

use std::path::PathBuf;

use serde::Serialize;

use super::Output;
use crate::data::classics::books;
use crate::data::filter::k_core;
use crate::data::items::ItemColumns;
use crate::data::log::{self, LogColumns, UnknownItems};
use crate::data::oracle::{Optimum, optimum};
use crate::data::readers::{Behaviour, simulate};
use crate::data::{MIN_SEQUENCE, Summary, remove_if_there, research};
use crate::error::{Result, TrainError};
use crate::run_dir::{RunDir, write_json};

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

  The embedded classics with simulated readers:
    tigret prepare --run runs/classics --classics

Writes items.jsonl, sequences.jsonl and dataset.json into the run directory; for the classics also
oracle.json, what the best possible recommender reaches.")]
pub(super) struct Args {
    /// Run directory, made if it is not there.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,

    /// A log of interactions, CSV, TSV or JSONL by the extension.
    #[arg(long, value_name = "FILE", requires = "items", group = "source")]
    interactions: Option<PathBuf>,
    /// Column of the log's users.
    #[arg(long, value_name = "NAME", default_value = "user", requires = "interactions")]
    user_column: String,
    /// Column of the log's items.
    #[arg(long, value_name = "NAME", default_value = "item", requires = "interactions")]
    item_column: String,
    /// Column of the log's times, numbers or RFC 3339 dates with times.
    #[arg(long, value_name = "NAME", default_value = "timestamp", requires = "interactions")]
    time_column: String,
    /// Leave out lines of the log whose item the items file does not have.
    #[arg(long, requires = "interactions")]
    skip_unknown_items: bool,

    /// Research format: a user and their items a line, oldest first.
    #[arg(long, value_name = "FILE", requires = "items", group = "source")]
    sequences: Option<PathBuf>,
    /// The embedded classics with simulated readers.
    #[arg(long, group = "source", conflicts_with = "items")]
    classics: bool,

    /// Items, JSONL, CSV or TSV by the extension.
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Column of the items' ids.
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_column: String,
    /// Columns that make an item's text, in order [default: title,brand,categories,keywords].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    text_columns: Option<Vec<String>>,

    /// Leave out users and items with fewer interactions, to the fixed point; 0: none
    /// [default: 5 with --interactions, else 0].
    #[arg(long, value_name = "K", conflicts_with = "classics")]
    k_core: Option<usize>,

    /// Number of simulated readers.
    #[arg(long, value_name = "N", default_value_t = 6000, requires = "classics",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    readers: u32,
    /// Seed of the simulated readers.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "classics")]
    seed: u64,
}

/// What `prepare` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    summary: Summary,
    /// Lines of the log left out because their item is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_lines: Option<usize>,
    /// What the best possible recommender reaches, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    optimum: Option<Optimum>,
}

impl Report {
    fn text(&self) -> String {
        let mut text = self.summary.table();
        if let Some(skipped) = self.skipped_lines {
            text += &format!("\n{:<18} {skipped:>12}", "lines skipped");
        }
        if let Some(optimum) = self.optimum {
            let reach = format!("{:.1} %", 100.0 * optimum.recall_at_10);
            text += &format!("\n{:<18} {reach:>12}", "optimum Recall@10");
        }
        text
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let report = if args.classics { classics(&args, output)? } else { files(args)? };
    output.result(&report, || report.text());
    Ok(())
}

fn files(args: Args) -> Result<Report> {
    let columns = ItemColumns { id: args.id_column, text: args.text_columns };
    let mut skipped_lines = None;
    let (dataset, source, default_core) = match (args.interactions, args.sequences, args.items) {
        (Some(interactions), _, Some(items)) => {
            let log_columns = LogColumns {
                user: args.user_column,
                item: args.item_column,
                time: args.time_column,
            };
            let unknown =
                if args.skip_unknown_items { UnknownItems::Skip } else { UnknownItems::Refuse };
            let log = log::read(&interactions, &log_columns, &items, &columns, unknown)?;
            skipped_lines = args.skip_unknown_items.then_some(log.skipped);
            (log.dataset, "log", 5)
        }
        (_, Some(sequences), Some(items)) => {
            (research::read(&sequences, &items, &columns)?, "research", 0)
        }
        _ => {
            return Err(TrainError::usage(
                "say where the data is: --interactions with --items, --sequences with --items, \
                 or --classics",
            ));
        }
    };
    let k = args.k_core.unwrap_or(default_core);
    let dataset = k_core(dataset, k);
    if dataset.sequences.is_empty() {
        return Err(TrainError::usage(format!(
            "no user is left: the {k}-core is empty or no user has {MIN_SEQUENCE} items; \
             lower --k-core or give more data"
        )));
    }
    let summary = Summary::new(&dataset, source, k);
    let run = RunDir::create(args.run)?;
    remove_if_there(&run.oracle())?;
    dataset.save(&run, &summary)?;
    Ok(Report { summary, skipped_lines, optimum: None })
}

fn classics(args: &Args, output: &Output) -> Result<Report> {
    let (world, dataset) =
        simulate(&books(), Behaviour::default(), args.readers as usize, args.seed);
    let progress = output.progress(dataset.sequences.len() as u64, "readers");
    progress.set_message("optimum");
    let optimum = optimum(&world, &dataset.sequences, || progress.inc(1));
    progress.finish_and_clear();
    let summary = Summary::new(&dataset, "classics", 0).simulated(args.seed);
    let run = RunDir::create(&args.run)?;
    write_json(&run.oracle(), &optimum)?;
    dataset.save(&run, &summary)?;
    Ok(Report { summary, skipped_lines: None, optimum: Some(optimum) })
}
