//! The error of this crate: one clear sentence that says what, where, and how to mend it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tigret_infer::error::brief;

use crate::panics;

/// Why a step could not be done. [`TrainError::Paused`] ends the command with exit status 75, what
/// [`TrainError::is_interrupted`] as the signal would have, and all else with 2.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A line of an input file is wrong.
    #[error("{}:{line}: {}", shown(&path.display()), shown(reason))]
    Line {
        /// The file.
        path: PathBuf,
        /// 1-based line number.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file as a whole is wrong.
    #[error("{}: {}", shown(&path.display()), shown(reason))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An option or a combination of options is wrong.
    #[error("{}", shown(.0))]
    Usage(String),
    /// The bundle or a part of it was refused.
    #[error("{}", shown(.0))]
    Bundle(#[from] tigret_infer::BundleError),
    /// Inference failed.
    #[error("{}", shown(.0))]
    Infer(#[from] tigret_infer::InferError),
    /// libtorch reported an error.
    #[error("libtorch: {0}")]
    Torch(String),
    /// The time limit of a command that goes on when it is called again.
    #[error("the time is up; the same command goes on where it stopped")]
    Paused,
    /// The user interrupted the command, which can go on.
    #[error("interrupted; the same command goes on where it stopped")]
    Interrupted,
    /// A command was interrupted; the text says how to go on.
    #[error("{0}")]
    Stopped(String),
    /// A step of a pipeline failed.
    #[error("{step}: {source}")]
    Step {
        /// The step.
        step: String,
        /// Why.
        source: Box<TrainError>,
    },
}

impl TrainError {
    /// Whether the user interrupted the work, as opposed to a mistake.
    pub fn is_interrupted(&self) -> bool {
        match self {
            Self::Interrupted | Self::Stopped(_) => true,
            Self::Step { source, .. } => source.is_interrupted(),
            _ => false,
        }
    }

    /// A [`TrainError::File`].
    pub fn file(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::File { path: path.as_ref().to_owned(), reason: reason.to_string() }
    }

    /// A [`TrainError::Line`].
    pub fn line(path: impl AsRef<Path>, line: usize, reason: impl ToString) -> Self {
        Self::Line { path: path.as_ref().to_owned(), line, reason: reason.to_string() }
    }

    /// That the system grants no thread.
    pub fn no_thread(reason: &dyn Display) -> Self {
        Self::Usage(format!(
            "the system grants no threads ({reason}); allow this user or container more processes \
             (`ulimit -u`, `pids.max`), or set RAYON_NUM_THREADS and OMP_NUM_THREADS to 1"
        ))
    }

    /// A [`TrainError::Step`].
    pub fn step(step: impl ToString, source: Self) -> Self {
        Self::Step { step: step.to_string(), source: Box::new(source) }
    }

    /// A [`TrainError::Usage`].
    pub fn usage(reason: impl ToString) -> Self {
        Self::Usage(reason.to_string())
    }
}

/// What an option in minutes may say.
pub(crate) const MINUTES: RangeInclusive<f64> = 1e-3..=1e6;

/// Refuses the value of an option (`--name`) outside its range.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_range(option: &str, value: f64, allowed: RangeInclusive<f64>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(TrainError::usage(format!("{option} {value} is outside {least}..={most}")))
}

/// As it is shown: in one line, and as long as a person reads. It may quote a name from a file, which can
/// be as long as the file, and hold line ends and what a terminal takes as a command.
pub(crate) fn shown(text: &impl Display) -> String {
    let mut safe = String::new();
    for c in text.to_string().chars() {
        match c.is_control() {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    brief(&safe).into_owned()
}

/// The time of an option in minutes, if it is given.
///
/// # Errors
/// [`TrainError::Usage`] outside [`MINUTES`].
pub(crate) fn minutes(option: &str, given: Option<f64>) -> Result<Option<Duration>> {
    let Some(minutes) = given else { return Ok(None) };
    check_range(option, minutes, MINUTES)?;
    Ok(Some(Duration::from_secs_f64(minutes * 60.0)))
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(panics::torch_sentence(&error.to_string()))
    }
}

/// `Result` with a [`TrainError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_one_short_line_that_commands_no_terminal() {
        let name = "a\n\u{1b}[31mé";
        let said = "a\\n\\u{1b}[31mé";
        let twice = tigret_infer::BundleError::Catalog(format!("the id \"{name}\" occurs twice"));
        for (error, expected) in [
            (TrainError::line(name, 3, name), format!("{said}:3: {said}")),
            (TrainError::file(name, name), format!("{said}: {said}")),
            (TrainError::usage(name), said.to_owned()),
            (twice.into(), format!("catalogue: the id \"{said}\" occurs twice")),
        ] {
            assert_eq!(error.to_string(), expected);
        }
        let long = TrainError::usage("\u{7f}".repeat(100_000)).to_string();
        assert!(long.len() < 2000, "{} bytes", long.len());
    }
}
