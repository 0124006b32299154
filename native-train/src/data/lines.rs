//! Text files line by line, with the line number in every error.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::{Result, TrainError};

/// Calls `each` with the 1-based number and the text of every line that is not blank.
///
/// A byte order mark and carriage returns at line ends are dropped.
///
/// # Errors
/// [`TrainError::File`] when the file cannot be opened (with `hint` where it is missing),
/// [`TrainError::Line`] for bytes that are not UTF-8, and whatever `each` returns.
pub(crate) fn for_each_line(
    path: &Path,
    hint: &str,
    mut each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        _ => TrainError::file(path, e),
    })?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(|e| TrainError::file(path, e))?;
        if read == 0 {
            break;
        }
        let line = std::str::from_utf8(&bytes)
            .map_err(|_| TrainError::line(path, number, "is not UTF-8 text"))?;
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        let line = line.trim_end_matches(['\n', '\r']);
        if !line.trim().is_empty() {
            each(number, line)?;
        }
    }
    Ok(())
}
