//! The lines or rows of a log, in any of its formats, as interactions.

use std::borrow::Cow;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::events::parse_rating;
use super::lines::{for_each_line_with, object};
use super::moment::{Moment, NO_TIME, TimeStyle};
use super::parquet::{Cell, Table};
use super::records::{Delimited, RecordFormat};
use super::values::{INEXACT, is_exact, scalar};
use crate::error::{Result, TrainError};

/// Sources beside which options of a log mean nothing.
pub(crate) const NO_LOG: [&str; 4] = ["amazon", "movielens", "sequences", "classics"];

/// Which columns of a log mean what.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct LogColumns {
    /// Column of the log's users.
    #[arg(long = "user-column", value_name = "NAME", default_value = "user", requires = "interactions", conflicts_with_all = NO_LOG)]
    pub user: String,
    /// Column of the log's items.
    #[arg(long = "item-column", value_name = "NAME", default_value = "item", requires = "interactions", conflicts_with_all = NO_LOG)]
    pub item: String,
    /// Column of the log's times: numbers, dates with or without a time of day (2024-05-21,
    /// 2024-05-21 05:39:06, 2024-05-21T05:39:06+02:00; UTC without a zone), or timestamps of Parquet.
    #[arg(long = "time-column", value_name = "NAME", default_value = "timestamp", requires = "interactions", conflicts_with_all = NO_LOG)]
    pub time: String,
    /// Column of the log's ratings, for --min-rating.
    #[arg(long = "rating-column", value_name = "NAME", requires = "interactions", conflicts_with_all = NO_LOG, requires = "min_rating")]
    pub rating: Option<String>,
    /// Column of the log's kinds of events, for --events.
    #[arg(long = "event-column", value_name = "NAME", requires = "interactions", conflicts_with_all = NO_LOG, requires = "events")]
    pub event: Option<String>,
    /// Keep only lines of the log with one of these events, such as purchase,cart.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', requires = "event")]
    pub events: Vec<String>,
}

/// A line of the log.
pub(super) struct Interaction<'a> {
    pub(super) user: &'a str,
    pub(super) item: &'a str,
    pub(super) moment: Moment,
    pub(super) style: TimeStyle,
    pub(super) rating: Option<f64>,
}

/// What a column is for: its place among the values of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    User,
    Item,
    Time,
    Rating,
    Event,
}

impl Role {
    /// Whether values are compared as texts.
    fn is_id(self) -> bool {
        matches!(self, Self::User | Self::Item)
    }
}

/// The values of a line by [`Role`]; empty where a line lacks one or no column is named.
type Values<T> = [T; 5];

/// A column that is read.
struct Column<'a> {
    role: Role,
    name: &'a str,
    /// The option that names it.
    option: &'static str,
}

impl Column<'_> {
    /// Whether an interaction must have a value.
    fn is_needed(&self) -> bool {
        match self.role {
            Role::User | Role::Item | Role::Time => true,
            Role::Rating | Role::Event => false,
        }
    }

    /// Whether a line may lack a value.
    fn may_be_empty(&self, skip_incomplete: bool) -> bool {
        !self.is_needed() || skip_incomplete
    }
}

impl LogColumns {
    fn named(&self) -> Vec<Column<'_>> {
        let column = |role, name, option| Column { role, name, option };
        // It decides whether the others matter.
        let event = self.event.as_deref();
        let event = event.map(|name| column(Role::Event, name, "--event-column"));
        let mut columns: Vec<_> = event.into_iter().collect();
        columns.extend([
            column(Role::User, self.user.as_str(), "--user-column"),
            column(Role::Item, &self.item, "--item-column"),
            column(Role::Time, &self.time, "--time-column"),
        ]);
        let rating = self.rating.as_deref();
        columns.extend(rating.map(|name| column(Role::Rating, name, "--rating-column")));
        columns
    }
}

/// Calls `each` with the line number and the contents of every record whose event counts; with
/// `skip_incomplete` nothing for one that lacks what it needs. Where a column tells the event, `counts`
/// is asked of every record before anything else of it is looked at.
pub(super) fn for_each_interaction(
    path: &Path,
    columns: &LogColumns,
    skip_incomplete: bool,
    progress: &ProgressBar,
    counts: impl FnMut(&str) -> bool,
    each: impl FnMut(usize, Option<Interaction<'_>>) -> Result<()>,
) -> Result<()> {
    let file = LogFile { path, columns: columns.named(), skip_incomplete, progress };
    match RecordFormat::of(path)? {
        RecordFormat::Delimited(delimiter) => file.delimited(delimiter, counts, each),
        RecordFormat::JsonLines => file.json_lines(counts, each),
        RecordFormat::Parquet => file.parquet(counts, each),
    }
}

/// A log that is read; each format asks and calls as [`for_each_interaction`] says.
struct LogFile<'a> {
    path: &'a Path,
    columns: Vec<Column<'a>>,
    skip_incomplete: bool,
    progress: &'a ProgressBar,
}

impl LogFile<'_> {
    fn delimited(
        &self,
        delimiter: u8,
        mut counts: impl FnMut(&str) -> bool,
        mut each: impl FnMut(usize, Option<Interaction<'_>>) -> Result<()>,
    ) -> Result<()> {
        let mut table = Delimited::open(self.path, delimiter, "check the path", self.progress)?;
        let places = self.places(table.columns())?;
        let mut record = csv::StringRecord::new();
        'lines: while let Some(line) = table.read(&mut record)? {
            let mut values: Values<&str> = Default::default();
            for (column, &place) in self.columns.iter().zip(&places) {
                values[column.role as usize] = &record[place];
                if column.role == Role::Event && !counts(&record[place]) {
                    continue 'lines;
                }
            }
            let event = self.interaction(values, None);
            each(line, event.map_err(|reason| TrainError::line(self.path, line, reason))?)?;
        }
        Ok(())
    }

    fn json_lines(
        &self,
        mut counts: impl FnMut(&str) -> bool,
        mut each: impl FnMut(usize, Option<Interaction<'_>>) -> Result<()>,
    ) -> Result<()> {
        let mut lines = 0;
        // A column that a line may lack, and that none has, is misspelt.
        let mut seen: Values<bool> = Default::default();
        for_each_line_with(self.path, "check the path", self.progress, |line, text| {
            let wrong = |reason: String| TrainError::line(self.path, line, reason);
            let fields: Map<String, Value> = object(text).map_err(wrong)?;
            let mut values: Values<Cow<str>> = Default::default();
            for Column { role, name, .. } in &self.columns {
                seen[*role as usize] |= fields.contains_key(*name);
            }
            lines += 1;
            for column in &self.columns {
                let Column { role, name, option } = column;
                let value = match fields.get(*name) {
                    None | Some(Value::Null) if column.may_be_empty(self.skip_incomplete) => {
                        Some("".into())
                    }
                    Some(value) if role.is_id() && !is_exact(value) => {
                        return Err(wrong(format!("\"{name}\" {INEXACT}")));
                    }
                    value => value.and_then(scalar),
                };
                let value = value.ok_or_else(|| {
                    wrong(format!(
                        "no \"{name}\" that is a string or a number; name the column with {option}"
                    ))
                })?;
                if *role == Role::Event && !counts(&value) {
                    return Ok(());
                }
                values[*role as usize] = value;
            }
            let values = values.each_ref().map(|value| &**value);
            each(line, self.interaction(values, None).map_err(wrong)?)
        })?;
        match self.columns.iter().find(|column| !seen[column.role as usize]) {
            Some(Column { name, option, .. }) if lines > 0 => Err(TrainError::file(
                self.path,
                format!("no line has \"{name}\"; name the column with {option}"),
            )),
            _ => Ok(()),
        }
    }

    fn parquet(
        &self,
        mut counts: impl FnMut(&str) -> bool,
        mut each: impl FnMut(usize, Option<Interaction<'_>>) -> Result<()>,
    ) -> Result<()> {
        let table = Table::open(self.path, self.progress)?;
        self.places(&table.columns())?;
        let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        table.for_each_row(&names, self.progress, |row, cells| {
            let wrong = |reason: String| TrainError::line(self.path, row, reason);
            let mut moment = None;
            let mut values: Values<Cow<str>> = Default::default();
            for (cell, Column { role, name, .. }) in cells.iter().zip(&self.columns) {
                let value = match cell {
                    Cell::Value(Value::Null) => Some("".into()),
                    Cell::Value(value) if role.is_id() && !is_exact(value) => {
                        return Err(wrong(format!("\"{name}\" {INEXACT}")));
                    }
                    Cell::Value(value) => scalar(value),
                    Cell::Time(time) if *role == Role::Time => {
                        moment = Some((*time, TimeStyle::Date));
                        Some("a date".into())
                    }
                    Cell::Time(_) => None,
                };
                let value = value
                    .ok_or_else(|| wrong(format!("\"{name}\" is neither a string nor a number")))?;
                if *role == Role::Event && !counts(&value) {
                    return Ok(());
                }
                values[*role as usize] = value;
            }
            let values = values.each_ref().map(|value| &**value);
            each(row, self.interaction(values, moment).map_err(wrong)?)
        })
    }

    /// The places of the columns in a table's header.
    fn places<N: AsRef<str>>(&self, header: &[N]) -> Result<Vec<usize>> {
        let place = |Column { name, option, .. }: &Column<'_>| {
            header.iter().position(|column| column.as_ref() == *name).ok_or_else(|| {
                let columns: Vec<&str> = header.iter().map(AsRef::as_ref).collect();
                let reason = match columns[..] {
                    [one] if one.contains(';') => {
                        "its columns are separated by semicolons; save it \
                                                   with commas, or as .tsv with tabs"
                            .to_owned()
                    }
                    _ => format!(
                        "no column \"{name}\" among {}; name the column with {option}",
                        columns.join(", ")
                    ),
                };
                TrainError::line(self.path, 1, reason)
            })
        };
        self.columns.iter().map(place).collect()
    }

    /// An interaction of the columns' values as text; the time is `moment` where that is known
    /// already. Nothing where a value is lacking that may. The error says what is wrong with the line.
    fn interaction<'a>(
        &self,
        values: Values<&'a str>,
        moment: Option<(Moment, TimeStyle)>,
    ) -> Result<Option<Interaction<'a>>, String> {
        let is_empty = |column: &&Column<'_>| values[column.role as usize].trim().is_empty();
        match self.columns.iter().filter(|column| column.is_needed()).find(is_empty) {
            None => {}
            Some(_) if self.skip_incomplete => return Ok(None),
            Some(Column { name, .. }) => {
                return Err(format!(
                    "\"{name}\" is empty or missing; complete the line or pass --skip-incomplete"
                ));
            }
        }
        let [user, item, time, rating, _] = values;
        let (moment, style) = moment
            .or_else(|| Moment::parse(time))
            .ok_or_else(|| format!("time \"{time}\" {NO_TIME}"))?;
        let rating = match rating.trim() {
            "" => None,
            text => Some(parse_rating(text).map_err(|e| format!("rating {e}"))?),
        };
        Ok(Some(Interaction { user, item, moment, style, rating }))
    }
}
