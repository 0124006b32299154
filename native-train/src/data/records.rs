//! Files of records, JSONL, CSV, TSV or Parquet by their extension, as maps with line numbers.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io::{BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::lines;
use super::parquet::{Cell, Table};
use super::text_file::{self, MOST_LINE, Text};
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
        match text_file::extension(path).as_str() {
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
        let text = text_file::open(path, hint, progress)?;
        let (text, lines) = with_records_limited(text, delimiter);
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

/// The byte order mark of UTF-8.
const UTF_8: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Most cells of a record: more are no table, and each takes many times its byte.
const MOST_CELLS: usize = 1 << 16;

/// The lines on which records begin, of those that were read ahead and not yet taken, in order.
type RecordLines = Rc<RefCell<VecDeque<usize>>>;

/// A delimited text for a reader that knows no longest record of its own: one that is longer, or of
/// too many cells, ends it. The lines are what the `csv` crate does not tell rightly where lines end
/// in CR LF or are blank.
fn with_records_limited(text: Text, delimiter: u8) -> (Text, RecordLines) {
    let limit = RecordLimit::new(text, delimiter);
    let lines = Rc::clone(&limit.lines);
    (BufReader::new(Box::new(limit)), lines)
}

/// Where in a record a byte is. Quotes count at the start of a cell only, as for the `csv` crate.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: its end, or the first of two that stand for one.
    Closing,
}

struct RecordLimit {
    text: Text,
    delimiter: u8,
    place: Place,
    /// Bytes of a byte order mark at the start so far.
    mark: usize,
    line: usize,
    /// Whether the byte before was the CR of a line end.
    after_cr: bool,
    /// The line on which the quoted cell begins that is open or was the last.
    quoted: usize,
    /// Bytes of the record so far; a quoted cell may go over many lines.
    length: u64,
    cells: usize,
    lines: RecordLines,
}

impl RecordLimit {
    fn new(text: Text, delimiter: u8) -> Self {
        Self {
            text,
            delimiter,
            place: Place::CellStart,
            mark: 0,
            line: 1,
            after_cr: false,
            quoted: 1,
            length: 0,
            cells: 1,
            lines: RecordLines::default(),
        }
    }

    fn pass(&mut self, byte: u8) -> Result<(), String> {
        // The reader of records leaves it out as well.
        if UTF_8.get(self.mark) == Some(&byte) {
            self.mark += 1;
            return Ok(());
        }
        self.mark = UTF_8.len();
        if self.length == 0 && !matches!(byte, b'\n' | b'\r') {
            self.lines.borrow_mut().push_back(self.line);
        }
        self.length += 1;
        if (self.place, byte) == (Place::CellStart, b'"') {
            self.quoted = self.line;
        }
        self.line += usize::from(byte == b'\r' || (byte == b'\n' && !self.after_cr));
        self.after_cr = byte == b'\r';
        self.place = match (self.place, byte) {
            (Place::Quoted, b'"') => Place::Closing,
            (Place::Closing, byte)
                if !matches!(byte, b'"' | b'\n' | b'\r') && byte != self.delimiter =>
            {
                return Err(self.quotes("goes on behind its second quote"));
            }
            (Place::Quoted, _) | (Place::Closing | Place::CellStart, b'"') => Place::Quoted,
            (_, b'\n' | b'\r') => {
                (self.length, self.cells) = (0, 1);
                Place::CellStart
            }
            (_, byte) if byte == self.delimiter => {
                self.cells += 1;
                Place::CellStart
            }
            _ => Place::Plain,
        };
        if self.length > MOST_LINE {
            return Err(format!("the record on line {} is longer than 8 MiB", self.begin()));
        }
        if self.cells > MOST_CELLS {
            return Err(format!("line {} has more than {MOST_CELLS} cells", self.begin()));
        }
        Ok(())
    }

    /// The line on which the record that is being read begins.
    fn begin(&self) -> usize {
        self.lines.borrow().back().copied().unwrap_or(self.line)
    }

    /// What is wrong with the quotes of a cell. Rows between it and the next quote would be a part
    /// of it, and be missing without a word.
    fn quotes(&self, what: &str) -> String {
        format!(
            "the cell that begins with a quote on line {} {what}; quote a whole cell, and write a \
             quote inside of it twice",
            self.quoted
        )
    }
}

impl Read for RecordLimit {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.text.read(buffer)?;
        for &byte in &buffer[..read] {
            self.pass(byte).map_err(std::io::Error::other)?;
        }
        if read == 0 && !buffer.is_empty() && self.place == Place::Quoted {
            return Err(std::io::Error::other(self.quotes("has no end")));
        }
        Ok(read)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and cells of the record that a text ends in.
    fn open_record(text: &str) -> (u64, usize) {
        let limit = passed(text);
        (limit.length, limit.cells)
    }

    fn passed(text: &str) -> RecordLimit {
        passed_if_good(text).unwrap()
    }

    fn passed_if_good(text: &str) -> Option<RecordLimit> {
        let mut limit = RecordLimit::new(BufReader::new(Box::new(std::io::empty())), b',');
        text.bytes().all(|byte| limit.pass(byte).is_ok()).then_some(limit)
    }

    /// The records as the `csv` crate reads them.
    fn records(text: &str) -> Vec<csv::StringRecord> {
        let mut reader = csv::ReaderBuilder::new();
        let reader = reader.has_headers(false).flexible(true).from_reader(text.as_bytes());
        reader.into_records().map(Result::unwrap).collect()
    }

    #[test]
    fn every_record_has_the_line_on_which_it_begins() {
        for (text, lines) in [
            ("a\nb\nc", vec![1, 2, 3]),
            ("a\r\nb\r\nc\r\n", vec![1, 2, 3]),
            ("\n\r\na\n\n\r\n\nb", vec![3, 7]),
            ("\"a\nb\",\"\r\n\"\r\nc", vec![1, 4]),
            ("a\rb\r\rc", vec![1, 2, 4]),
            ("\u{feff}\"a\nb\"\nc", vec![1, 3]),
            ("", vec![]),
        ] {
            assert_eq!(passed(text).lines.take(), lines, "{text:?}");
        }
        // As many as the csv crate finds, in every text of six such characters.
        const CHARACTERS: [char; 5] = ['a', ',', '"', '\n', '\r'];
        for number in 0..CHARACTERS.len().pow(6) {
            let text: String = (0..6)
                .map(|at| CHARACTERS[number / CHARACTERS.len().pow(at) % CHARACTERS.len()])
                .collect();
            // What has its quotes wrong is refused.
            let Some(limit) = passed_if_good(&text) else { continue };
            assert_eq!(limit.lines.take().len(), records(&text).len(), "{text:?}");
        }
    }

    #[test]
    fn a_record_ends_where_the_csv_crate_ends_it() {
        for (text, open) in [
            ("a,b\nc,d,", (4, 3)),
            ("a,b\r\nc", (1, 1)),
            // A quoted cell goes over lines and delimiters, and two quotes in it are one.
            ("a,\"b\nc,d", (8, 2)),
            ("a,\"b\"\"\nc", (8, 2)),
            ("a,\"b\"\nc", (1, 1)),
            // In the middle of a cell a quote is a quote.
            ("a,5\" disk\nc", (1, 1)),
        ] {
            assert_eq!(open_record(text), open, "{text}");
            assert_eq!(records(text).last().unwrap().len(), open.1, "{text}");
        }
    }

    #[test]
    fn a_quoted_cell_that_would_swallow_records_is_refused() {
        let refusal = |text: &str| {
            let text: Box<dyn Read> = Box::new(std::io::Cursor::new(text.to_owned()));
            let mut limit = RecordLimit::new(BufReader::new(text), b',');
            limit.read_to_end(&mut Vec::new()).map_err(|e| e.to_string()).unwrap_err()
        };
        for (text, line, what) in [
            ("a,b\nc,\"d\ne,f\n", 2, "has no end"),
            ("a,b\r\n\"c\r\nd\",\"", 3, "has no end"),
            ("a,\"Heroes\nb,12\" disk\nc,d\n", 1, "goes on behind its second quote"),
        ] {
            let said = refusal(text);
            let expected = format!("begins with a quote on line {line} {what}; quote a whole cell");
            assert!(said.contains(&expected), "{text:?}: {said}");
        }
    }
}
