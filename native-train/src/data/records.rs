//! Files of records, JSONL, CSV, TSV or Parquet by their extension, as maps with line numbers.

use std::collections::HashSet;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::lines;
use super::parquet::{Cell, Table};
use super::source::{self, RecordLines, Text};
use crate::error::{Result, TrainError};
use crate::files::NOT_UTF8;

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

/// A CSV or TSV file with a header line, record by record.
pub(super) struct Delimited<'a> {
    path: &'a Path,
    reader: csv::Reader<Text>,
    lines: RecordLines,
    columns: Vec<String>,
}

impl<'a> Delimited<'a> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`TrainError::File`], with `hint` where it is missing, or where it is empty;
    /// [`TrainError::Line`] for a header that cannot be read or names a column twice.
    pub(super) fn open(
        path: &'a Path,
        delimiter: u8,
        hint: &str,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let text = source::open(path, hint, progress)?;
        let (text, lines) = source::with_records_limited(text, delimiter);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
        let header = reader.headers().cloned();
        let line = lines.borrow_mut().pop_front();
        let header = header.map_err(|e| csv_error(path, line, &e))?;
        let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        check_header(path, line.unwrap_or(1), &columns)?;
        Ok(Self { path, reader, lines, columns })
    }

    /// The names of the columns, in their order.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Reads the next record; the line on which it begins, or nothing behind the last.
    ///
    /// # Errors
    /// [`TrainError::Line`] or [`TrainError::File`] for a record that cannot be read.
    pub(super) fn read(&mut self, record: &mut csv::StringRecord) -> Result<Option<usize>> {
        let read = self.reader.read_record(record);
        let line = self.lines.borrow_mut().pop_front();
        match read {
            Ok(true) => Ok(Some(line.unwrap_or_default())),
            Ok(false) => Ok(None),
            Err(e) => Err(csv_error(self.path, line, &e)),
        }
    }
}

/// A CSV error as ours, with the line of its record.
fn csv_error(path: &Path, line: Option<usize>, error: &csv::Error) -> TrainError {
    match (error.kind(), line) {
        (csv::ErrorKind::UnequalLengths { expected_len, len, .. }, Some(line)) => TrainError::line(
            path,
            line,
            format!("has {len} columns, the header has {expected_len}"),
        ),
        (csv::ErrorKind::Utf8 { .. }, Some(line)) => TrainError::line(path, line, NOT_UTF8),
        (csv::ErrorKind::Io(e), _) if e.kind() == std::io::ErrorKind::NotFound => {
            TrainError::file(path, "not found; check the path")
        }
        (csv::ErrorKind::Io(e), _) => TrainError::file(path, format!("cannot be read: {e}")),
        (_, Some(line)) => TrainError::line(path, line, error),
        _ => TrainError::file(path, error),
    }
}

/// Refuses an empty file, and a name that stands twice.
fn check_header(path: &Path, line: usize, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Err(TrainError::file(path, "is empty; the first line must name the columns"));
    }
    let mut seen = HashSet::with_capacity(names.len());
    for name in names {
        if !seen.insert(name) {
            return Err(TrainError::line(path, line, format!("column \"{name}\" stands twice")));
        }
    }
    Ok(())
}

/// Calls `each` with the line number and the fields of every record.
pub(super) fn for_each_record(
    path: &Path,
    mut each: impl FnMut(usize, Map<String, Value>) -> Result<()>,
) -> Result<()> {
    match RecordFormat::of(path)? {
        RecordFormat::JsonLines => lines::for_each_line(path, "check the path", |number, line| {
            let fields = lines::object(line).map_err(|e| TrainError::line(path, number, e))?;
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
            let hidden = ProgressBar::hidden();
            let mut table = Delimited::open(path, delimiter, "check the path", &hidden)?;
            let mut record = csv::StringRecord::new();
            while let Some(line) = table.read(&mut record)? {
                let fields = table
                    .columns()
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
