//! Files of records, JSONL, CSV, TSV or Parquet by their extension, as maps with line numbers.

use std::collections::HashSet;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::lines;
use super::parquet::{Cell, Table};
use super::source::{self, Text};
use crate::error::{Result, TrainError};

/// How a file of records is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordFormat {
    JsonLines,
    Delimited(u8),
    Parquet,
}

impl RecordFormat {
    pub(super) fn of(path: &Path) -> Result<Self> {
        match source::extension(path).as_str() {
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "csv" => Ok(Self::Delimited(b',')),
            "tsv" => Ok(Self::Delimited(b'\t')),
            // Packed in itself; a .gz around it could not be read from its end.
            "parquet" if path.extension().is_some_and(|e| e != "gz") => Ok(Self::Parquet),
            _ => Err(TrainError::file(
                path,
                "its extension does not tell the format; it must be .parquet, or .jsonl, .csv or \
                 .tsv, or one of these three and .gz",
            )),
        }
    }
}

/// Opens a CSV or TSV file with a header line.
pub(super) fn open_delimited(
    path: &Path,
    delimiter: u8,
    progress: &ProgressBar,
) -> Result<csv::Reader<Text>> {
    let text = source::open(path, "check the path", progress)?;
    let text = source::with_records_limited(text, delimiter);
    Ok(csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text))
}

/// A CSV error as ours, with its line.
pub(super) fn csv_error(path: &Path, error: &csv::Error) -> TrainError {
    let line = error.position().map(|position| position.line() as usize);
    match (error.kind(), line) {
        (csv::ErrorKind::UnequalLengths { expected_len, len, .. }, Some(line)) => TrainError::line(
            path,
            line,
            format!("has {len} columns, the header has {expected_len}"),
        ),
        (csv::ErrorKind::Utf8 { .. }, Some(line)) => {
            TrainError::line(path, line, "is not UTF-8 text")
        }
        (csv::ErrorKind::Io(e), _) if e.kind() == std::io::ErrorKind::NotFound => {
            TrainError::file(path, "not found; check the path")
        }
        (csv::ErrorKind::Io(e), _) => TrainError::file(path, format!("cannot be read: {e}")),
        (_, Some(line)) => TrainError::line(path, line, error),
        _ => TrainError::file(path, error),
    }
}

/// The column names; an empty file or a name that stands twice is refused.
pub(super) fn header(path: &Path, reader: &mut csv::Reader<Text>) -> Result<Vec<String>> {
    let header = reader.headers().map_err(|e| csv_error(path, &e))?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    if names.is_empty() {
        return Err(TrainError::file(path, "is empty; the first line must name the columns"));
    }
    let mut seen = HashSet::with_capacity(names.len());
    for name in &names {
        if !seen.insert(name) {
            return Err(TrainError::line(path, 1, format!("column \"{name}\" stands twice")));
        }
    }
    Ok(names)
}

/// Calls `each` with the line number and the fields of every record.
pub(super) fn for_each_record(
    path: &Path,
    mut each: impl FnMut(usize, Map<String, Value>) -> Result<()>,
) -> Result<()> {
    match RecordFormat::of(path)? {
        RecordFormat::JsonLines => lines::for_each_line(path, "check the path", |number, line| {
            let fields = serde_json::from_str(line).map_err(|e| {
                TrainError::line(path, number, format!("is not a JSON object: {e}"))
            })?;
            each(number, fields)
        }),
        RecordFormat::Parquet => {
            let hidden = ProgressBar::hidden();
            let table = Table::open(path, &hidden)?;
            let names = table.columns();
            table.for_each_row(&names, &hidden, |row, cells| {
                let values = cells.into_iter().map(Cell::into_value);
                each(row, names.iter().map(|name| (*name).to_owned()).zip(values).collect())
            })
        }
        RecordFormat::Delimited(delimiter) => {
            let mut reader = open_delimited(path, delimiter, &ProgressBar::hidden())?;
            let header = header(path, &mut reader)?;
            let mut record = csv::StringRecord::new();
            while reader.read_record(&mut record).map_err(|e| csv_error(path, &e))? {
                let line = record.position().map_or(0, |position| position.line() as usize);
                let fields = header
                    .iter()
                    .zip(&record)
                    .map(|(name, value)| (name.clone(), Value::from(value)))
                    .collect();
                each(line, fields)?;
            }
            Ok(())
        }
    }
}
