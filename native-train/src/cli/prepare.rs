//! `tigret prepare`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Serialize;

use super::Output;
use crate::data::classics::{self, books};
use crate::data::events::{LeftOut, Rules, Tally, parse_rating};
use crate::data::filter::k_core;
use crate::data::interactions::{EventColumn, LogColumns, Unusable};
use crate::data::items::ItemColumns;
use crate::data::moment::Bound;
use crate::data::oracle::optimum;
use crate::data::readers::{Behaviour, simulate};
use crate::data::summary::Counts;
use crate::data::template::{self, Template, TextRecipe};
use crate::data::{Dataset, Item, MIN_SEQUENCE, Summary, amazon, log, movielens, research};
use crate::error::{Result, TrainError};
use crate::metrics::Metrics;
use crate::run_dir::RunDir;

/// Sources beside which options of simulated readers mean nothing.
const NOT_SIMULATED: [&str; 4] = ["interactions", "amazon", "movielens", "sequences"];
/// Sources beside which options of a log mean nothing.
const NO_LOG: [&str; 4] = ["amazon", "movielens", "sequences", "classics"];

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
    tigret prepare --run runs/beauty --amazon reviews_Beauty_5.json.gz \
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
    /// Column of the log's users.
    #[arg(long, value_name = "NAME", default_value = "user", requires = "interactions", conflicts_with_all = NO_LOG)]
    user_column: String,
    /// Column of the log's items.
    #[arg(long, value_name = "NAME", default_value = "item", requires = "interactions", conflicts_with_all = NO_LOG)]
    item_column: String,
    /// Column of the log's times: numbers, dates with or without a time of day (2024-05-21,
    /// 2024-05-21 05:39:06, 2024-05-21T05:39:06+02:00; UTC without a zone), or timestamps of Parquet.
    #[arg(long, value_name = "NAME", default_value = "timestamp", requires = "interactions", conflicts_with_all = NO_LOG)]
    time_column: String,
    /// Column of the log's ratings, for --min-rating.
    #[arg(long, value_name = "NAME", requires = "interactions", conflicts_with_all = NO_LOG, requires = "min_rating")]
    rating_column: Option<String>,
    /// Column of the log's kinds of events, for --events.
    #[arg(long, value_name = "NAME", requires = "interactions", conflicts_with_all = NO_LOG, requires = "events")]
    event_column: Option<String>,
    /// Keep only lines of the log with one of these events, such as purchase,cart.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', requires = "event_column")]
    events: Vec<String>,
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
    /// Folder of a MovieLens release: ratings.dat and movies.dat, or ratings.csv and movies.csv.
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
    /// Column of the items' ids.
    #[arg(long, value_name = "NAME", default_value = "id",
          conflicts_with_all = ["amazon", "movielens", "classics"])]
    id_column: String,
    /// Columns that make an item's text, in order [default: title,price,brand,categories,keywords];
    /// with --amazon and --movielens a --text-template does that.
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
          conflicts_with_all = ["amazon", "movielens", "classics"])]
    text_columns: Option<Vec<String>>,

    /// Template of an item's text, such as "[{title}. ][Price: {price}. ]": what stands in
    /// brackets is left out where a field in it is missing [default: title, price, brand and
    /// category with --amazon, as in the paper; title, year and genres with --movielens].
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["text_columns", "classics"])]
    text_template: Option<Template>,

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
    /// Which release the files are of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<&'static str>,
    /// Interactions left out by rating, time, or because they stand there twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOut>,
    /// The earliest and the latest time of all interactions, where they have times.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<[String; 2]>,
    /// Items that the metadata do not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    undescribed: Option<usize>,
    /// Items whose text is empty, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    without_text: Option<usize>,
    /// Lines of the log left out because their item is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_lines: Option<usize>,
    /// Lines of the log left out because they lack a user, an item or a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete_lines: Option<usize>,
    /// Lines of the log left out because their event does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_events: Option<usize>,
    /// What the best possible recommender reaches, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    optimum: Option<Metrics>,
}

impl Report {
    fn text(&self) -> String {
        let mut text = self.summary.table();
        let mut row = |name: &str, count: usize| {
            if count > 0 {
                text += &format!("\n{name:<18} {count:>12}");
            }
        };
        if let Some(LeftOut { below_rating, outside_time, duplicates }) = self.left_out {
            row("below --min-rating", below_rating);
            row("outside the times", outside_time);
            row("duplicates", duplicates);
        }
        row("other events", self.other_events.unwrap_or(0));
        row("incomplete lines", self.incomplete_lines.unwrap_or(0));
        row("items without text", self.without_text.unwrap_or(0));
        if let Some([earliest, latest]) = &self.times {
            text += &format!("\n{:<18} {earliest:>12} to {latest}", "times of the data");
        }
        if let Some(layout) = self.layout {
            text += &format!("\n{:<18} {layout:>12}", "layout");
        }
        if let Some(skipped) = self.skipped_lines {
            text += &format!("\n{:<18} {skipped:>12}", "lines skipped");
        }
        if let Some(optimum) = self.optimum {
            let reach = format!("{:.1} %", 100.0 * optimum.recall_10);
            text += &format!("\n{:<18} {reach:>12}", "optimum Recall@10");
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
        if self.min_rating.is_some() && self.interactions.is_some() && self.rating_column.is_none()
        {
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
    args.check()?;
    let report = if args.classics { simulated(&args, output)? } else { files(args, output)? };
    output.result(&report, || report.text());
    Ok(())
}

/// A data set before the k-core, and what is told of it.
struct Read {
    dataset: Dataset,
    source: &'static str,
    default_core: usize,
    text: TextRecipe,
    skipped_lines: Option<usize>,
    incomplete_lines: Option<usize>,
    other_events: Option<usize>,
    layout: Option<&'static str>,
    tally: Option<Tally>,
    /// Whether items without fields are items that the source does not describe.
    may_lack_items: bool,
}

impl Read {
    fn new(dataset: Dataset, source: &'static str, default_core: usize, text: TextRecipe) -> Self {
        Self {
            dataset,
            source,
            default_core,
            text,
            skipped_lines: None,
            incomplete_lines: None,
            other_events: None,
            layout: None,
            tally: None,
            may_lack_items: false,
        }
    }

    /// Refuses data without an interaction, saying what became of those that there were.
    fn check_interactions(&self) -> Result<()> {
        if self.dataset.interactions() > 0 {
            return Ok(());
        }
        let LeftOut { below_rating, outside_time, .. } =
            self.tally.as_ref().map(|tally| tally.left_out).unwrap_or_default();
        let causes = [
            (self.other_events.unwrap_or(0), "of other events than --events"),
            (self.skipped_lines.unwrap_or(0), "of items that the items file does not have"),
            (self.incomplete_lines.unwrap_or(0), "without a user, an item or a time"),
            (below_rating, "below --min-rating"),
            (outside_time, "outside --from and --until"),
        ];
        let all: usize = causes.iter().map(|(count, _)| count).sum();
        if all == 0 {
            return Err(TrainError::usage(
                "no user is left: there are no interactions in the data; check the file",
            ));
        }
        let causes: Vec<String> = causes
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, cause)| format!("{count} {cause}"))
            .collect();
        Err(TrainError::usage(format!(
            "no user is left: all {all} interactions were left out, {}",
            causes.join(", ")
        )))
    }
}

/// Refuses data that `prepare` would overwrite.
fn check_inputs(args: &Args) -> Result<()> {
    let run = RunDir::named(&args.run);
    let inputs = [&args.interactions, &args.items, &args.sequences, &args.amazon];
    match inputs.into_iter().flatten().find(|input| run.is_artefact(input)) {
        None => Ok(()),
        Some(input) => Err(TrainError::file(
            input,
            "is where the run's own file would be written; give the run another folder than that \
             of the data",
        )),
    }
}

fn files(args: Args, output: &Output) -> Result<Report> {
    let progress = output.progress_bytes();
    progress.set_message("reading");
    let read = read(&args, &progress)?;
    if read.tally.as_ref().is_some_and(|tally| tally.mixes_units) {
        output.note(
            "the times look like seconds in some lines and milliseconds in others, which puts a \
             user's items out of order; write all in one unit",
        );
    }
    let k = args.k_core.unwrap_or(read.default_core);
    read.check_interactions()?;
    let before = Counts::of(&read.dataset);
    let mut dataset = k_core(read.dataset, k);
    if dataset.sequences.is_empty() {
        let why = match k {
            0 | 1 => format!("no user has {MIN_SEQUENCE} items; give more data"),
            _ => format!(
                "the {k}-core is empty or no user has {MIN_SEQUENCE} items; lower --k-core or give \
                 more data"
            ),
        };
        return Err(TrainError::usage(format!("no user is left: {why}")));
    }
    let mut undescribed = None;
    if read.may_lack_items {
        undescribed = Some(dataset.items.iter().filter(|item| item.fields.is_empty()).count());
    }
    if let (Some(_), Some(metadata)) = (&args.amazon, &args.items) {
        // After the filter: of the metadata of all products, few are kept.
        progress.set_message("metadata");
        undescribed = Some(amazon::describe(&mut dataset, metadata, &read.text, &progress)?);
    }
    progress.finish_and_clear();
    if let Some(template) = &args.text_template {
        check_fields(template, &args.id_column, &dataset.items)?;
    }
    if take_source_texts(&mut dataset.items) && !read.text.fields().contains(&"text") {
        output.note(
            "the items have a column \"text\", which is not used in their texts, while \
             `tokenize --assign` and `embed --texts` take the \"text\" of a new item as its finished \
             text; name it with --text-columns, or leave it out there",
        );
    }
    let without_text = dataset.items.iter().filter(|item| item.text.is_empty()).count();
    let without_text = Some(without_text).filter(|count| *count > 0);
    let summary = Summary::new(&dataset, read.source, k).out_of(before).with_text(read.text);
    dataset.save(&RunDir::create(&args.run)?, &summary, None)?;
    let Read { skipped_lines, incomplete_lines, other_events, layout, tally, .. } = read;
    let (left_out, times) = tally.map(|tally| (tally.left_out, tally.times)).unzip();
    let left_out = left_out.filter(|left_out| *left_out != LeftOut::default());
    let times = times.flatten();
    Ok(Report {
        summary,
        layout,
        left_out,
        times,
        undescribed,
        without_text,
        skipped_lines,
        incomplete_lines,
        other_events,
        optimum: None,
    })
}

/// Takes a column `text` of the source out of the items' fields, where the artefact's own has that
/// name; says whether there was one.
fn take_source_texts(items: &mut [Item]) -> bool {
    items.iter_mut().fold(false, |any, item| item.fields.remove("text").is_some() | any)
}

/// Refuses a template with a field that no item has: a misspelt one would be missing without a word.
fn check_fields(template: &Template, id_column: &str, items: &[Item]) -> Result<()> {
    let there: BTreeSet<&str> =
        items.iter().flat_map(|item| item.fields.keys()).map(String::as_str).collect();
    // What an item keeps under names of its own.
    let known = |field: &&str| there.contains(field) || [id_column, "id", "text"].contains(field);
    let missing: Vec<&str> = template.fields().filter(|field| !known(field)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<&str> = there.into_iter().collect();
    Err(TrainError::usage(format!(
        "--text-template: no item has the field {}; the fields are {}",
        missing.join(" or "),
        if there.is_empty() { "none".to_owned() } else { there.join(", ") }
    )))
}

/// The template of `--text-template`, or the source's own.
fn template(args: &Args, default: &str) -> Result<Template> {
    match &args.text_template {
        Some(template) => Ok(template.clone()),
        None => default.parse().map_err(TrainError::usage),
    }
}

fn read(args: &Args, progress: &ProgressBar) -> Result<Read> {
    let columns = ItemColumns {
        id: args.id_column.clone(),
        text: args.text_columns.clone(),
        template: args.text_template.clone(),
    };
    let rules = Rules {
        min_rating: args.min_rating,
        from: args.from,
        until: args.until,
        deduplicate: args.deduplicate || (args.interactions.is_none() && !args.keep_duplicates),
    };
    if let (Some(interactions), Some(items)) = (&args.interactions, &args.items) {
        let log_columns = LogColumns {
            user: args.user_column.clone(),
            item: args.item_column.clone(),
            time: args.time_column.clone(),
            rating: args.rating_column.clone(),
            events: args
                .event_column
                .clone()
                .map(|name| EventColumn { name, counting: args.events.clone() }),
        };
        let files = log::Files {
            interactions,
            columns: &log_columns,
            items,
            item_columns: &columns,
            unknown_item: Unusable::skip_if(args.skip_unknown_items),
            incomplete: Unusable::skip_if(args.skip_incomplete),
        };
        let log = log::read(files, rules, progress)?;
        return Ok(Read {
            skipped_lines: args.skip_unknown_items.then_some(log.skipped),
            incomplete_lines: args.skip_incomplete.then_some(log.incomplete),
            other_events: args.event_column.is_some().then_some(log.other_events),
            tally: Some(log.tally),
            ..Read::new(log.dataset, "log", 5, columns.text_recipe())
        });
    }
    if let Some(reviews) = &args.amazon {
        let found = amazon::read(reviews, rules, progress)?;
        return Ok(Read {
            layout: Some(found.layout),
            tally: Some(found.tally),
            ..Read::new(
                found.dataset,
                "amazon",
                5,
                TextRecipe::Template(template(args, template::PAPER)?),
            )
        });
    }
    if let Some(folder) = &args.movielens {
        let template = template(args, movielens::TEMPLATE)?;
        let found = movielens::read(folder, rules, &template, progress)?;
        return Ok(Read {
            tally: Some(found.tally),
            may_lack_items: true,
            ..Read::new(found.dataset, "movielens", 5, TextRecipe::Template(template))
        });
    }
    if let (Some(sequences), Some(items)) = (&args.sequences, &args.items) {
        let dataset = research::read(sequences, items, &columns)?;
        return Ok(Read::new(dataset, "research", 0, columns.text_recipe()));
    }
    Err(no_source())
}

fn simulated(args: &Args, output: &Output) -> Result<Report> {
    let (world, dataset) =
        simulate(&books(), Behaviour::default(), args.readers as usize, args.seed);
    let progress = output.progress(dataset.sequences.len() as u64, "readers");
    progress.set_message("optimum");
    let optimum = optimum(&world, &dataset.sequences, || progress.inc(1));
    progress.finish_and_clear();
    let summary = Summary::new(&dataset, "classics", 0)
        .with_text(classics::text_recipe())
        .simulated(args.seed);
    dataset.save(&RunDir::create(&args.run)?, &summary, Some(&optimum))?;
    Ok(Report {
        summary,
        layout: None,
        left_out: None,
        times: None,
        undescribed: None,
        without_text: None,
        skipped_lines: None,
        incomplete_lines: None,
        other_events: None,
        optimum: Some(optimum),
    })
}
