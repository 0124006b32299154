//! Files of a source as a data set that later steps take: read, filtered to the k-core, and with what
//! is told of both.

use std::collections::BTreeSet;
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;

use super::events::{LeftOut, Rules, Tally};
use super::items::ItemColumns;
use super::k_core::k_core;
use super::log::Lines;
use super::summary::Counts;
use super::template::{self, Template, TextRecipe};
use super::{Dataset, Item, MIN_SEQUENCE, Summary, amazon, log, movielens, research};
use crate::error::{Result, TrainError};

/// The files of a source.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A generic log and its items.
    Log(log::Files<'a>),
    /// Amazon's reviews and the metadata of products.
    Amazon {
        /// The reviews.
        reviews: &'a Path,
        /// The metadata.
        metadata: &'a Path,
    },
    /// The folder of a MovieLens release.
    MovieLens(&'a Path),
    /// The research format and its items.
    Research {
        /// A user and their items a line.
        sequences: &'a Path,
        /// The items.
        items: &'a Path,
    },
}

/// What becomes of the files.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Columns of the items, and what makes their texts.
    pub columns: &'a ItemColumns,
    /// Which interactions count.
    pub rules: Rules,
    /// The k of the k-core; `None`: the source's own.
    pub k_core: Option<usize>,
}

/// What is told of the data beside their summary; `None` where it does not apply.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Which release the files are of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<&'static str>,
    /// Interactions left out by rating, time, or because they stand there twice, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The earliest and the latest time of the interactions before any are left out by rating or time,
    /// where they have times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<[String; 2]>,
    /// Items that the metadata do not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undescribed: Option<usize>,
    /// Items whose text is empty, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_text: Option<usize>,
    /// Lines of a log.
    #[serde(flatten)]
    pub lines: Lines,
}

/// A data set that can be saved.
#[derive(Debug)]
pub struct Prepared {
    /// Items and sequences.
    pub dataset: Dataset,
    /// What is kept of it in the run.
    pub summary: Summary,
    /// What else there is to tell.
    pub findings: Findings,
}

/// Reads and filters; `note` is told what may be wrong with the data.
///
/// # Errors
/// [`TrainError`] for files that cannot be read, for data of which no user is left, for metadata of
/// other items, and for a template with a field that no item has.
pub fn prepare(
    source: Source<'_>,
    settings: Settings<'_>,
    progress: &ProgressBar,
    note: impl Fn(&str),
) -> Result<Prepared> {
    progress.set_message("reading");
    // Before the reviews: it may be missing.
    let metadata = match source {
        Source::Amazon { metadata, .. } => Some(amazon::Metadata::open(metadata, progress)?),
        _ => None,
    };
    let read = read(source, settings, progress)?;
    let Read { dataset, text, mut findings, .. } = read;
    if read.mixes_units {
        note(
            "the times look like one unit in some lines and another in others (seconds, milliseconds), \
             which puts a user's items out of order; write all in one unit",
        );
    }
    if dataset.interactions() == 0 {
        return Err(nothing_left(&findings));
    }
    let k = settings.k_core.unwrap_or(read.default_core);
    let before = Counts::of(&dataset);
    let mut dataset = k_core(dataset, k);
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
    let mut fields = BTreeSet::new();
    let describing = match (source, metadata) {
        (Source::Amazon { metadata: path, .. }, Some(metadata)) => {
            // After the filter: of the metadata of all products, few are kept.
            progress.set_message("metadata");
            let described = metadata.describe(&mut dataset, &text)?;
            fields = described.fields;
            Some((path, described.missing))
        }
        (Source::MovieLens(folder), _) => {
            let missing = dataset.items.iter().filter(|item| item.fields.is_empty());
            Some((folder, missing.count()))
        }
        _ => None,
    };
    findings.undescribed = describing.map(|(_, missing)| missing);
    if let Some((path, _)) = describing.filter(|(_, missing)| *missing == dataset.items.len()) {
        let items = dataset.items.len();
        return Err(TrainError::file(
            path,
            format!(
                "describes none of the {items} items of the interactions; take both of one release"
            ),
        ));
    }
    if let (Some(_), TextRecipe::Template(template)) = (&settings.columns.template, &text) {
        check_fields(template, &dataset.items, fields)?;
    }
    if take_source_texts(&mut dataset.items) && !text.fields().contains(&"text") {
        note(
            "the items have a column \"text\", which is not used in their texts, while \
             `tokenize --assign` and `embed --texts` take the \"text\" of a new item as its finished \
             text; name it with --text-columns, or leave it out there",
        );
    }
    let without_text = dataset.items.iter().filter(|item| item.text.is_empty()).count();
    findings.without_text = Some(without_text).filter(|count| *count > 0);
    let summary = Summary::new(&dataset, read.source, k).out_of(before).with_text(text);
    Ok(Prepared { dataset, summary, findings })
}

/// Takes a column `text` of the source out of the items' fields, where the artefact's own has that
/// name; says whether there was one.
fn take_source_texts(items: &mut [Item]) -> bool {
    items.iter_mut().fold(false, |any, item| item.fields.remove("text").is_some() | any)
}

/// A data set before the k-core.
struct Read {
    dataset: Dataset,
    source: &'static str,
    default_core: usize,
    text: TextRecipe,
    findings: Findings,
    mixes_units: bool,
}

impl Read {
    /// Of a source whose interactions have times.
    fn new(dataset: Dataset, source: &'static str, text: TextRecipe, tally: Tally) -> Self {
        let Tally { left_out, times, mixes_units } = tally;
        let left_out = Some(left_out).filter(|left_out| *left_out != LeftOut::default());
        let findings = Findings { left_out, times, ..Findings::default() };
        Self { dataset, source, default_core: 5, text, findings, mixes_units }
    }
}

fn read(source: Source<'_>, settings: Settings<'_>, progress: &ProgressBar) -> Result<Read> {
    let Settings { columns, rules, .. } = settings;
    // What was asked for, or the source's own.
    let template = |default: &str| match &columns.template {
        Some(template) => Ok(template.clone()),
        None => default.parse().map_err(TrainError::usage),
    };
    Ok(match source {
        Source::Log(files) => {
            let (dataset, tally, lines) = log::read(files, rules, progress)?;
            let mut read = Read::new(dataset, "log", columns.text_recipe(), tally);
            read.findings.lines = lines;
            read
        }
        Source::Amazon { reviews, .. } => {
            let (dataset, tally, layout) = amazon::read(reviews, rules, progress)?;
            let text = TextRecipe::Template(template(template::PAPER)?);
            let mut read = Read::new(dataset, "amazon", text, tally);
            read.findings.layout = Some(layout);
            read
        }
        Source::MovieLens(folder) => {
            let text = TextRecipe::Template(template(movielens::TEMPLATE)?);
            let (dataset, tally) = movielens::read(folder, rules, &text, progress)?;
            Read::new(dataset, "movielens", text, tally)
        }
        Source::Research { sequences, items } => Read {
            dataset: research::read(sequences, items, columns)?,
            source: "research",
            default_core: 0,
            text: columns.text_recipe(),
            findings: Findings::default(),
            mixes_units: false,
        },
    })
}

/// The error of data without an interaction, which says what became of those that there were.
fn nothing_left(findings: &Findings) -> TrainError {
    let LeftOut { below_rating, outside_time, .. } = findings.left_out.unwrap_or_default();
    let Lines { skipped_lines, incomplete_lines, other_events } = findings.lines;
    let causes = [
        (other_events.unwrap_or(0), "of other events than --events"),
        (skipped_lines.unwrap_or(0), "of items that the items file does not have"),
        (incomplete_lines.unwrap_or(0), "without a user, an item or a time"),
        (below_rating, "below --min-rating"),
        (outside_time, "outside --from and --until"),
    ];
    let all: usize = causes.iter().map(|(count, _)| count).sum();
    if all == 0 {
        return TrainError::usage(
            "no user is left: there are no interactions in the data; check the file",
        );
    }
    let causes: Vec<String> = causes
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, cause)| format!("{count} {cause}"))
        .collect();
    TrainError::usage(format!(
        "no user is left: all {all} interactions were left out, {}",
        causes.join(", ")
    ))
}

/// Refuses a template with a field that no item has: a misspelt one would be missing without a word.
/// `fields` are those that the items do not keep and might have.
fn check_fields(template: &Template, items: &[Item], fields: BTreeSet<String>) -> Result<()> {
    let mut there: BTreeSet<&str> =
        items.iter().flat_map(|item| item.fields.keys()).map(String::as_str).collect();
    there.insert(template::ID);
    let missing: Vec<&str> = template.fields().filter(|field| !there.contains(field)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    there.extend(fields.iter().map(String::as_str));
    Err(TrainError::usage(format!(
        "--text-template: no item has the field {}; the fields are {}",
        missing.join(" or "),
        Vec::from_iter(there).join(", ")
    )))
}
