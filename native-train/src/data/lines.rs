//! Text files line by line, with the line number in every error.

use std::path::Path;

use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::text_file::{self, Text};
use crate::error::{Result, TrainError};
use crate::files::NOT_UTF8;

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
pub(crate) fn for_each_line_with(
    path: &Path,
    hint: &str,
    progress: &ProgressBar,
    each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    for_each_line_of(path, text_file::open(path, hint, progress)?, each)
}

/// [`for_each_line`] of a file that is open already.
pub(super) fn for_each_line_of(
    path: &Path,
    text: Text,
    mut each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    text_file::for_each_line_of_bytes(path, text, |number, bytes| {
        let line =
            std::str::from_utf8(bytes).map_err(|_| TrainError::line(path, number, NOT_UTF8))?;
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if line.trim().is_empty() { Ok(()) } else { each(number, line) }
    })
}

/// A line that must be a JSON object. The error says what is wrong with it.
pub(crate) fn object<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    // A list would do for a structure, too, its fields in their order.
    if !line.trim_start().starts_with('{') {
        return Err("is not a JSON object; the file must be JSONL, an object such as \
                    {\"name\": \"value\"} a line"
            .to_owned());
    }
    serde_json::from_str(line).map_err(|e| match e.classify() {
        Category::Data => json_reason(&e),
        _ => format!("is not a JSON object: {}", json_reason(&e)),
    })
}

/// What is wrong with the JSON of a line, without the place: that has always line 1.
pub(super) fn json_reason(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    whole.strip_suffix(&place).unwrap_or(&whole).to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only whether it is there matters")]
        history: Vec<String>,
    }

    #[test]
    fn what_is_no_object_is_refused_without_a_place_in_the_line() {
        assert!(object::<Line>(" {\"history\": [\"a\"]}").is_ok());
        for (line, said) in [
            ("user,item", "is not a JSON object; the file must be JSONL"),
            ("[[\"a\"]]", "is not a JSON object; the file must be JSONL"),
            ("{\"history\": [\"a", "is not a JSON object: EOF while parsing a string"),
            ("{\"history\": []} x", "is not a JSON object: trailing characters"),
            ("{\"history\": 3}", "invalid type: integer `3`, expected a sequence"),
            ("{}", "missing field `history`"),
        ] {
            let error = object::<Line>(line).unwrap_err();
            assert!(error.starts_with(said) && !error.contains("column"), "{line}: {error}");
        }
    }
}
