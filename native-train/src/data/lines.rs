//! Text files line by line, with the line number in every error.

use std::path::Path;

use indicatif::ProgressBar;

use super::source;
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
    each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    for_each_line_with(path, hint, &ProgressBar::hidden(), each)
}

/// [`for_each_line`] that tells a progress bar of the bytes read.
pub(super) fn for_each_line_with(
    path: &Path,
    hint: &str,
    progress: &ProgressBar,
    mut each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let reader = source::open(path, hint, progress)?;
    source::for_each_line_of_bytes(path, reader, |number, bytes| {
        let line = std::str::from_utf8(bytes)
            .map_err(|_| TrainError::line(path, number, "is not UTF-8 text"))?;
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if line.trim().is_empty() { Ok(()) } else { each(number, line) }
    })
}
