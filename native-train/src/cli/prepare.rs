//! `tigret prepare`.

use std::path::PathBuf;

use super::Output;
use crate::data::classics::books;
use crate::data::filter::k_core;
use crate::data::items::ItemColumns;
use crate::data::oracle::optimum;
use crate::data::readers::{Behaviour, simulate};
use crate::data::{Summary, research};
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
    #[arg(long, value_name = "N", default_value_t = 5000, requires = "classics",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    readers: u32,
    /// Seed of the simulated readers.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "classics")]
    seed: u64,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    if args.classics {
        return run_classics(&args, output);
    }
    let columns = ItemColumns { id: args.id_column, text: args.text_columns };
    let (dataset, source, default_core) = match (&args.sequences, &args.items) {
        (Some(sequences), Some(items)) => {
            (research::read(sequences, items, &columns)?, "research", 0)
        }
        _ => {
            return Err(TrainError::usage(
                "say where the data is: --interactions and --items, --sequences and --items, or --classics",
            ));
        }
    };
    let k = args.k_core.unwrap_or(default_core);
    let dataset = k_core(dataset, k);
    if dataset.sequences.is_empty() {
        return Err(TrainError::usage(format!(
            "no user is left after the {k}-core filter and the least length of 3; lower --k-core"
        )));
    }
    let summary = Summary::new(&dataset, source, k);
    dataset.save(&RunDir::create(&args.run)?, &summary)?;
    output.result(&summary, || summary.table());
    Ok(())
}

fn run_classics(args: &Args, output: &Output) -> Result<()> {
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
    output.result(&summary, || {
        let reach = 100.0 * optimum.recall_at_10;
        format!("{}\nbest possible Recall@10 {reach:.1} % (oracle.json)", summary.table())
    });
    Ok(())
}
