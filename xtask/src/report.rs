//! The lines that the steps of a verb print, on standard error: results own standard output.

use std::fmt::Display;

/// Prints what each step does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    quiet_when_done: bool,
}

impl Report {
    /// Every step prints a line, whether it had something to do or not.
    pub(crate) fn all() -> Self {
        Self { quiet_when_done: false }
    }

    /// Only steps that had something to do print a line.
    pub(crate) fn only_work() -> Self {
        Self { quiet_when_done: true }
    }

    /// `step` begins to do something.
    pub(crate) fn doing(&self, step: impl Display, what: impl Display) {
        eprintln!("{step}: {what}");
    }

    /// `step` had nothing to do.
    pub(crate) fn done(&self, step: impl Display, what: impl Display) {
        if !self.quiet_when_done {
            eprintln!("{step}: {what}");
        }
    }
}
