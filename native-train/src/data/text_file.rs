//! Opening input files: plain or gzip, with progress by the bytes read from disk.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::error::{Result, TrainError};
use crate::files::open_file;

/// Longest line that is read: a compressed file may hold a line larger than any memory.
pub(super) const MOST_LINE: u64 = 8 << 20;

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

/// The byte order marks of UTF-16.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

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
        // A truncated or damaged gzip file shows here. Beside the line, its end of two bytes.
        let read = reader
            .by_ref()
            .take(MOST_LINE + 2)
            .read_until(b'\n', &mut bytes)
            .map_err(|e| TrainError::line(path, number, format!("cannot be read: {e}")))?;
        if read == 0 {
            break;
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() as u64 > MOST_LINE {
            return Err(TrainError::line(path, number, "is longer than 8 MiB"));
        }
        if !line.iter().all(u8::is_ascii_whitespace) {
            each(number, line)?;
        }
    }
    Ok(())
}
