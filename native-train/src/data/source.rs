//! Opening input files: plain or gzip, with progress by the bytes read from disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::error::{Result, TrainError};

/// Longest line that is read: a compressed file may hold a line larger than any memory.
const MOST_LINE: u64 = 64 << 20;

/// A file as a stream of text, unpacked where its name ends in `.gz`.
pub(super) type Text = BufReader<Box<dyn Read>>;

/// Opens a file.
///
/// # Errors
/// [`TrainError::File`], with `hint` where it is missing.
pub(super) fn open(path: &Path, hint: &str, progress: &ProgressBar) -> Result<Text> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        _ => TrainError::file(path, e),
    })?;
    progress.inc_length(file.metadata().map_or(0, |metadata| metadata.len()));
    // Larger than a line, so that the progress is not told of each.
    let file = BufReader::with_capacity(1 << 18, progress.wrap_read(file));
    let packed = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    let stream: Box<dyn Read> =
        if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(BufReader::with_capacity(1 << 16, stream))
}

/// A text for a reader that knows no longest line of its own: one that is longer ends it.
pub(super) fn with_lines_limited(text: Text) -> Text {
    BufReader::new(Box::new(LineLimit { text, line: 1, length: 0 }))
}

struct LineLimit {
    text: Text,
    line: usize,
    /// Bytes of the line so far.
    length: u64,
}

impl Read for LineLimit {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.text.read(buffer)?;
        let pieces = buffer[..read].split(|&byte| byte == b'\n').enumerate();
        for (index, piece) in pieces {
            if index > 0 {
                self.line += 1;
                self.length = 0;
            }
            self.length += piece.len() as u64;
            if self.length > MOST_LINE {
                let what = format!("line {} is longer than 64 MiB", self.line);
                return Err(std::io::Error::other(what));
            }
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
            return Err(TrainError::line(path, number, "is longer than 64 MiB"));
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(u8::is_ascii_whitespace) {
            each(number, line)?;
        }
    }
    Ok(())
}
