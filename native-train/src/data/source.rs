//! Opening input files: plain or gzip, with progress by the bytes read from disk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::error::{Result, TrainError};
use crate::files::open_file;

/// Longest line that is read: a compressed file may hold a line larger than any memory.
const MOST_LINE: u64 = 8 << 20;

/// A file as a stream of text, unpacked where its name ends in `.gz`.
pub(super) type Text = BufReader<Box<dyn Read>>;

/// Opens a file.
///
/// # Errors
/// [`TrainError::File`], with `hint` where it is missing, or where its first bytes are not those of
/// text in UTF-8, packed as its name says.
pub(super) fn open(path: &Path, hint: &str, progress: &ProgressBar) -> Result<Text> {
    let file = open_file(path, hint)?;
    progress.inc_length(file.metadata().map_or(0, |metadata| metadata.len()));
    // Larger than a line, so that the progress is not told of each.
    let mut file = BufReader::with_capacity(1 << 18, progress.wrap_read(file));
    let cannot = |e| TrainError::file(path, format!("cannot be read: {e}"));
    let packed = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    let start = file.fill_buf().map_err(cannot)?;
    match (packed, start.starts_with(&GZIP)) {
        (false, true) => {
            return Err(TrainError::file(path, "is packed by gzip; let its name end in .gz"));
        }
        (true, false) if !start.is_empty() => {
            return Err(TrainError::file(path, "is not packed by gzip; take .gz off its name"));
        }
        _ => {}
    }
    let stream: Box<dyn Read> =
        if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut text = BufReader::with_capacity(1 << 16, stream);
    let start = text.fill_buf().map_err(cannot)?;
    if UTF_16.iter().any(|mark| start.starts_with(mark)) {
        return Err(TrainError::file(path, "is UTF-16 text; save it as UTF-8"));
    }
    Ok(text)
}

/// First bytes of what gzip packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The byte order mark of UTF-8.
const UTF_8: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The byte order marks of UTF-16.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Most cells of a record: more are no table, and each takes many times its byte.
const MOST_CELLS: usize = 1 << 16;

/// The lines on which records begin, of those that were read ahead and not yet taken, in order.
pub(super) type RecordLines = Rc<RefCell<VecDeque<usize>>>;

/// A delimited text for a reader that knows no longest record of its own: one that is longer, or of
/// too many cells, ends it. The lines are what the `csv` crate does not tell rightly where lines end
/// in CR LF or are blank.
pub(super) fn with_records_limited(text: Text, delimiter: u8) -> (Text, RecordLines) {
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
        let line = self.line;
        if self.length > MOST_LINE {
            return Err(format!("the record on line {line} is longer than 8 MiB"));
        }
        if self.cells > MOST_CELLS {
            return Err(format!("line {line} has more than {MOST_CELLS} cells"));
        }
        Ok(())
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

/// The extension that tells the format: that before `.gz`, in lower case.
pub(super) fn extension(path: &Path) -> String {
    let of = |path: &Path| {
        path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
    };
    match of(path).as_str() {
        "gz" => path.file_stem().map(|stem| of(Path::new(stem))).unwrap_or_default(),
        other => other.to_owned(),
    }
}

/// Calls `each` with the 1-based number and the bytes of every line that is not blank, without
/// its line end.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read or is too long, and whatever `each`
/// returns.
pub(super) fn for_each_line_of_bytes(
    path: &Path,
    mut reader: Text,
    mut each: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        // A truncated or damaged gzip file shows here.
        let read = reader
            .by_ref()
            .take(MOST_LINE)
            .read_until(b'\n', &mut bytes)
            .map_err(|e| TrainError::line(path, number, format!("cannot be read: {e}")))?;
        if read == 0 {
            break;
        }
        if read as u64 == MOST_LINE {
            return Err(TrainError::line(path, number, "is longer than 8 MiB"));
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(u8::is_ascii_whitespace) {
            each(number, line)?;
        }
    }
    Ok(())
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
