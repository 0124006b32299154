//! A generic log: a user, an item and a time a line, under column names of the user's choice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::items::{ItemColumns, KeyedItem, read_items, scalar};
use super::records::{RecordFormat, csv_error, for_each_record, header, open_delimited};
use super::{Dataset, Sequence};
use crate::error::{Result, TrainError};

/// Which columns of a log mean what.
#[derive(Debug, Clone)]
pub struct LogColumns {
    /// The user's id.
    pub user: String,
    /// The item's id.
    pub item: String,
    /// The time: a number, or an RFC 3339 date and time.
    pub time: String,
}

/// What to do with a line whose item the items file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownItems {
    /// Refuse the log.
    Refuse,
    /// Leave the line out.
    Skip,
}

/// A log as sequences, and how many lines were left out for their item.
#[derive(Debug)]
pub struct Log {
    /// Items in the order of their file, users in the order of their first line, a user's items
    /// in time order; equal times keep the order of the lines.
    pub dataset: Dataset,
    /// Lines left out under [`UnknownItems::Skip`].
    pub skipped: usize,
}

/// A point in time that compares numbers exactly, whatever their unit: the whole part and
/// billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    whole: i64,
    billionths: u32,
}

/// How times are written; one way a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeStyle {
    Number,
    Rfc3339,
}

impl TimeStyle {
    fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Rfc3339 => "an RFC 3339 date and time",
        }
    }
}

impl Moment {
    fn parse(text: &str) -> Option<(Self, TimeStyle)> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some((Self { whole, billionths: 0 }, TimeStyle::Number));
        }
        if let Ok(number) = text.parse::<f64>() {
            // Beyond 2^63 the whole part does not fit; NaN fails the comparison, too.
            let fits = number.abs() < 9.2e18;
            let billionths = ((number - number.floor()) * 1e9) as u32;
            let moment = Self { whole: number.floor() as i64, billionths };
            return fits.then_some((moment, TimeStyle::Number));
        }
        let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let moment = Self { whole: date.unix_timestamp(), billionths: date.nanosecond() };
        Some((moment, TimeStyle::Rfc3339))
    }
}

/// One line of the log.
struct Event {
    user: u32,
    item: u32,
    moment: Moment,
}

/// Reads a log, and the items it names.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read, a time that cannot, or an unknown item;
/// [`TrainError::File`] for a missing file or column.
pub fn read(
    interactions: &Path,
    columns: &LogColumns,
    items: &Path,
    item_columns: &ItemColumns,
    unknown: UnknownItems,
) -> Result<Log> {
    let keyed = read_items(items, item_columns, &item_columns.id)?;
    let index: HashMap<&str, u32> =
        keyed.iter().zip(0..).map(|(item, at)| (item.key.as_str(), at)).collect();
    let mut users: Vec<String> = Vec::new();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut events: Vec<Event> = Vec::new();
    let mut style = None;
    let mut skipped = 0;
    for_each_event(interactions, columns, |line, user, item, time| {
        let wrong = |reason: String| TrainError::line(interactions, line, reason);
        let (moment, this_style) = Moment::parse(time).ok_or_else(|| {
            wrong(format!("time \"{time}\" is neither a number nor an RFC 3339 date and time"))
        })?;
        let (first_style, first_line) = *style.get_or_insert((this_style, line));
        if this_style != first_style {
            return Err(wrong(format!(
                "time \"{time}\" is {}, on line {first_line} it is {}; write all in one way",
                this_style.name(),
                first_style.name()
            )));
        }
        let Some(&item) = index.get(item) else {
            if unknown == UnknownItems::Skip {
                skipped += 1;
                return Ok(());
            }
            return Err(wrong(format!(
                "item \"{item}\" is not in {}; add it there or pass --skip-unknown-items",
                items.display()
            )));
        };
        let user = match numbers.get(user) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(users.len())
                    .map_err(|_| wrong("more users than 32 bits can number".to_owned()))?;
                users.push(user.to_owned());
                numbers.insert(user.to_owned(), number);
                number
            }
        };
        events.push(Event { user, item, moment });
        Ok(())
    })?;
    drop((index, numbers));
    // Stable, so that equal times keep the order of the file.
    events.sort_by_key(|event| (event.user, event.moment));
    let sequences = events
        .chunk_by(|a, b| a.user == b.user)
        .map(|of_user| Sequence {
            user: std::mem::take(&mut users[of_user[0].user as usize]),
            items: of_user.iter().map(|event| event.item).collect(),
        })
        .collect();
    let items = keyed.into_iter().map(|KeyedItem { item, .. }| item).collect();
    Ok(Log { dataset: Dataset { items, sequences }, skipped })
}

/// Calls `each` with line number, user, item and time of every record.
fn for_each_event(
    path: &Path,
    columns: &LogColumns,
    mut each: impl FnMut(usize, &str, &str, &str) -> Result<()>,
) -> Result<()> {
    let names = [
        (&columns.user, "--user-column"),
        (&columns.item, "--item-column"),
        (&columns.time, "--time-column"),
    ];
    let empty = |line: usize, name: &str| {
        TrainError::line(path, line, format!("\"{name}\" is empty or missing"))
    };
    let RecordFormat::Delimited(delimiter) = RecordFormat::of(path)? else {
        return for_each_record(path, |line, fields| {
            let mut values: [Cow<str>; 3] = Default::default();
            for (value, (name, option)) in values.iter_mut().zip(names) {
                *value = fields.get(name).and_then(scalar).ok_or_else(|| {
                    let reason = format!(
                        "no \"{name}\" that is a string or a number; name the column with {option}"
                    );
                    TrainError::line(path, line, reason)
                })?;
                if value.trim().is_empty() {
                    return Err(empty(line, name));
                }
            }
            each(line, &values[0], &values[1], &values[2])
        });
    };
    let mut reader = open_delimited(path, delimiter)?;
    let header = header(path, &mut reader)?;
    let mut places = [0; 3];
    for (place, (name, option)) in places.iter_mut().zip(names) {
        *place = header.iter().position(|column| column == name).ok_or_else(|| {
            let columns = header.join(", ");
            let reason =
                format!("no column \"{name}\" among {columns}; name the column with {option}");
            TrainError::line(path, 1, reason)
        })?;
    }
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| csv_error(path, &e))? {
        let line = record.position().map_or(0, |position| position.line() as usize);
        let values = places.map(|place| &record[place]);
        for (value, (name, _)) in values.iter().zip(names) {
            if value.trim().is_empty() {
                return Err(empty(line, name));
            }
        }
        each(line, values[0], values[1], values[2])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Moment {
        Moment::parse(text).unwrap().0
    }

    #[test]
    fn numbers_compare_exactly() {
        assert!(moment("9007199254740993") > moment("9007199254740992"), "beyond f64's integers");
        assert!(moment("-1.5") < moment("-1.25"));
        assert!(moment("1.5") > moment("1"));
        assert!(moment("2e9") > moment("1999999999"));
    }

    #[test]
    fn dates_compare_across_offsets() {
        assert_eq!(moment("2020-01-01T01:00:00+01:00"), moment("2020-01-01T00:00:00Z"));
        assert!(moment("2020-01-01T00:00:00.5Z") > moment("2020-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in ["", "NaN", "inf", "1e300", "yesterday", "2020-01-01", "0x10"] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }
}
