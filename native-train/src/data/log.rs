//! A generic log: a user, an item and a time a line or row, under column names of the user's
//! choice.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;

use super::Dataset;
use super::events::{Events, Rules, Tally};
use super::interactions::{Interaction, LogColumns, for_each_interaction};
use super::items::{ItemColumns, KeyedItem, read_items};
use crate::error::{Result, TrainError};

/// A log and the file of its items.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The log.
    pub interactions: &'a Path,
    /// Its columns.
    pub columns: &'a LogColumns,
    /// The items.
    pub items: &'a Path,
    /// Their columns.
    pub item_columns: &'a ItemColumns,
    /// Whether lines whose item the items file does not have are left out, and not refused.
    pub skip_unknown_items: bool,
    /// Whether lines that lack a user, an item or a time, as anonymous visitors' do, are.
    pub skip_incomplete: bool,
}

/// Lines of a log that were left out; `None` where none may be for that reason.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Lines {
    /// Their item is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_lines: Option<usize>,
    /// They lack a user, an item or a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete_lines: Option<usize>,
    /// Their event does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_events: Option<usize>,
}

/// Reads a log, and the items it names: the data set, what the rules left out, and the lines left out.
///
/// Items are in the order of their file, users in the order of their first line, a user's items in time
/// order; equal times keep the order of the lines.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read, a time that cannot, or an unknown item;
/// [`TrainError::File`] for a missing file or column; [`TrainError::Usage`] for an event that no line
/// has.
pub fn read(
    files: Files<'_>,
    rules: Rules,
    progress: &ProgressBar,
) -> Result<(Dataset, Tally, Lines)> {
    let Files { interactions, columns, items, item_columns, .. } = files;
    let keyed = read_items(items, item_columns, None)?;
    let index: HashMap<&str, u32> =
        keyed.iter().zip(0..).map(|(item, at)| (item.key.as_str(), at)).collect();
    let mut events = Events::new(rules);
    let mut style = None;
    let mut skipped = 0;
    let mut incomplete = 0;
    let mut kinds = columns.event.as_ref().map(|_| Kinds::new(&columns.events));
    let counts = |event: &str| kinds.as_mut().is_none_or(|kinds| kinds.counts(event));
    let skip = files.skip_incomplete;
    for_each_interaction(interactions, columns, skip, progress, counts, |line, event| {
        let Some(event) = event else {
            incomplete += 1;
            return Ok(());
        };
        let Interaction { user, item, moment, style: this_style, rating } = event;
        let wrong = |reason: String| TrainError::line(interactions, line, reason);
        let (first_style, first_line) = *style.get_or_insert((this_style, line));
        if this_style != first_style {
            return Err(wrong(format!(
                "the time is {}, on line {first_line} it is {}; write all in one way",
                this_style.name(),
                first_style.name()
            )));
        }
        let Some(&item) = index.get(item) else {
            if files.skip_unknown_items {
                skipped += 1;
                return Ok(());
            }
            return Err(wrong(format!(
                "item \"{item}\" is not in {}; add it there or pass --skip-unknown-items",
                items.display()
            )));
        };
        if !events.counts(rating, moment, this_style)? {
            return Ok(());
        }
        events.push(user, item, moment).map_err(wrong)
    })?;
    drop(index);
    let lines = Lines {
        skipped_lines: files.skip_unknown_items.then_some(skipped),
        incomplete_lines: files.skip_incomplete.then_some(incomplete),
        other_events: kinds.map(Kinds::left_out).transpose()?,
    };
    let (sequences, tally) = events.into_sequences()?;
    let items = keyed.into_iter().map(|KeyedItem { item, .. }| item).collect();
    Ok((Dataset { items, sequences }, tally, lines))
}

/// Most kinds of events that a message names.
const MOST_NAMED: usize = 12;

/// Kinds of events that were seen.
struct Kinds<'a> {
    /// Those that count, and whether a line has them.
    counting: Vec<(&'a str, bool)>,
    /// The first of the others.
    others: BTreeSet<String>,
    left_out: usize,
}

impl<'a> Kinds<'a> {
    fn new(counting: &'a [String]) -> Self {
        let counting = counting.iter().map(|kind| (kind.as_str(), false)).collect();
        Self { counting, others: BTreeSet::new(), left_out: 0 }
    }

    /// Whether an event counts; one that does not is counted.
    fn counts(&mut self, event: &str) -> bool {
        let event = event.trim();
        if let Some((_, seen)) = self.counting.iter_mut().find(|(kind, _)| *kind == event) {
            *seen = true;
            return true;
        }
        self.left_out += 1;
        if self.others.len() < MOST_NAMED && !self.others.contains(event) {
            self.others.insert(event.to_owned());
        }
        false
    }

    /// How many do not count; an error for a kind that was asked for and that no line has, which
    /// is misspelt.
    fn left_out(self) -> Result<usize> {
        match self.counting.iter().find(|(_, seen)| !seen) {
            // Without any line there is more to say.
            Some((missing, _)) if self.left_out > 0 => {
                let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
                let others = others.join("\", \"");
                Err(TrainError::usage(format!(
                    "--events: no line has the event \"{missing}\"; others that lines have are \
                     \"{others}\""
                )))
            }
            _ => Ok(self.left_out),
        }
    }
}
