//! What a verb prints: results as text for people or as JSON for machines, notes and progress on
//! standard error.

use std::cell::{RefCell, RefMut};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Result, TrainError};
use crate::stderr::say;

/// Where results and progress go.
pub(super) struct Output {
    json: bool,
    /// Where results are printed: standard output, unless the caller of [`super::Cli`] keeps them.
    results: Rc<RefCell<dyn Write>>,
    /// The result of a verb that another verb calls.
    kept: Option<RefCell<Value>>,
    /// Whether results are printed.
    prints: bool,
    /// The first result that could not be printed.
    fault: RefCell<Option<io::Error>>,
}

/// Tells what became of a write to standard output: whether somebody reads it. A closed pipe
/// (`| head`) is not an error of ours.
///
/// # Errors
/// [`TrainError::File`] for what else it may be, such as a full disk.
pub(super) fn reaches_a_reader(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(TrainError::file("standard output", format!("cannot be written: {e}"))),
    }
}

impl Output {
    /// `json`: results as JSON.
    pub(super) fn new(json: bool, results: impl Write + 'static) -> Self {
        let results = Rc::new(RefCell::new(results));
        Self { json, results, kept: None, prints: true, fault: RefCell::default() }
    }

    /// For a verb that the verb of this output calls: the value of its result is kept, and the text
    /// printed only with `prints`.
    pub(super) fn of_step(&self, prints: bool) -> Self {
        Self {
            json: self.json,
            results: Rc::clone(&self.results),
            kept: Some(RefCell::default()),
            prints: prints && !self.json,
            fault: RefCell::default(),
        }
    }

    /// Where results are printed, for a verb that has many and prints them itself.
    pub(super) fn results(&self) -> RefMut<'_, dyn Write> {
        self.results.borrow_mut()
    }

    /// Ends the output of a verb that has done its work: the value that was kept.
    ///
    /// # Errors
    /// [`TrainError::File`] where a result could not be printed.
    pub(super) fn finish(self) -> Result<Value> {
        reaches_a_reader(self.fault.into_inner().map_or(Ok(()), Err))?;
        Ok(self.kept.map(RefCell::into_inner).unwrap_or_default())
    }

    /// Whether results are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether results go to the caller alone, as those of a study's steps do.
    pub(super) fn is_silent(&self) -> bool {
        !self.prints
    }

    /// Prints a result: `value` for machines, `text` for people. [`Output::finish`] tells whether it
    /// could be printed.
    pub(super) fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if let Some(kept) = &self.kept {
            // Our own result types have string keys and no failing serialisers.
            kept.replace(serde_json::to_value(value).unwrap_or_default());
        }
        if !self.prints {
            return;
        }
        let line = if self.json {
            // Our own result types have string keys and no failing serialisers.
            serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
        } else {
            text()
        };
        let mut out = self.results();
        if let Err(e) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            self.fault.borrow_mut().get_or_insert(e);
        }
    }

    /// A note for people on standard error; silent with `--json`.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        if !self.json {
            say(text);
        }
    }

    /// A progress bar over bytes, whose number grows with each file that is opened.
    pub(super) fn progress_bytes(&self) -> ProgressBar {
        self.bar(0, "{bytes}/{total_bytes} {bytes_per_sec}")
    }

    /// A progress bar over `total` steps of `unit`, shown on a terminal only.
    pub(super) fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        self.bar(total, &format!("{{pos}}/{{len}} {unit} {{per_sec}}"))
    }

    fn bar(&self, total: u64, figures: &str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        let template = format!("{{msg:>12}} {{bar:32}} {figures} {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
