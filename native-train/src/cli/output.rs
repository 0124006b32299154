//! What a verb prints: text for people or JSON for machines on standard output, progress on
//! standard error.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

/// Where results and progress go.
#[derive(Debug)]
pub struct Output {
    json: bool,
    /// The result of a verb that another verb calls.
    kept: Option<RefCell<Value>>,
    /// Whether results are printed.
    prints: bool,
}

impl Output {
    /// `json`: results as one JSON object.
    pub fn new(json: bool) -> Self {
        Self { json, kept: None, prints: true }
    }

    /// For a verb that another verb calls: the value of its result is kept, and the text printed
    /// only with `prints`.
    pub fn keeping(json: bool, prints: bool) -> Self {
        Self { json, kept: Some(RefCell::default()), prints: prints && !json }
    }

    /// The value that was kept.
    pub fn into_kept(self) -> Value {
        self.kept.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `value` for machines, `text` for people.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
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
        // A closed pipe (`| head`) is not an error of ours.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// A note for people on standard error; silent with `--json`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// A progress bar over bytes, whose number grows with each file that is opened.
    pub fn progress_bytes(&self) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        let template = "{msg:>12} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// A progress bar over `total` steps of `unit`, shown on a terminal only.
    pub fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        let template =
            format!("{{msg:>12}} {{bar:32}} {{pos}}/{{len}} {unit} {{per_sec}} {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
