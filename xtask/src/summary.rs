//! The steps of `cargo xtask test` and `cargo xtask trust`: run one after the other, timed, and summed up at the end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::error::Result;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; with a figure worth a place in the table, or an empty text.
    Passed(String),
    /// Not done as it should be; why.
    Failed(String),
    /// Not tried; why.
    Skipped(String),
}

/// What has run so far.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    step: &'static str,
    time: Duration,
    outcome: Outcome,
}

impl Summary {
    /// Runs a step, and returns whether it passed. Its error is printed, not returned: the other
    /// steps go on.
    pub(crate) fn step(
        &mut self,
        step: &'static str,
        action: impl FnOnce() -> Result<Outcome>,
    ) -> bool {
        eprintln!("\n== {step}");
        let begin = Instant::now();
        let outcome = action().unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        match &outcome {
            Outcome::Failed(why) => eprintln!("{step}: failed: {why}"),
            Outcome::Skipped(why) => eprintln!("{step}: skipped: {why}"),
            Outcome::Passed(_) => {}
        }
        let passed = matches!(outcome, Outcome::Passed(_));
        self.rows.push(Row { step, time: begin.elapsed(), outcome });
        passed
    }

    /// Whether a step has failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)))
    }

    /// A table of the steps.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.step.chars().count()).max().unwrap_or(0);
        let mut table = String::new();
        for Row { step, time, outcome } in &self.rows {
            let (word, note) = match outcome {
                Outcome::Passed(note) => ("passed", note),
                Outcome::Failed(why) => ("failed", why),
                Outcome::Skipped(why) => ("skipped", why),
            };
            let line = format!("{step:<width$}  {:>6.1} s  {word:<7}  {note}", time.as_secs_f64());
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }

    /// The closing line: `N passed, N failed`, and `, N skipped` where there are any.
    pub(crate) fn closing_line(&self) -> String {
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for row in &self.rows {
            match row.outcome {
                Outcome::Passed(_) => passed += 1,
                Outcome::Failed(_) => failed += 1,
                Outcome::Skipped(_) => skipped += 1,
            }
        }
        let line = format!("{passed} passed, {failed} failed");
        if skipped == 0 { line } else { format!("{line}, {skipped} skipped") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_failure_is_counted_and_the_rest_goes_on() {
        let mut summary = Summary::default();
        assert!(summary.step("format", || Ok(Outcome::Passed(String::new()))));
        assert_eq!(summary.closing_line(), "1 passed, 0 failed");
        assert!(!summary.has_failures());

        assert!(!summary.step("lints", || Err(Error::message("3 warnings"))));
        assert!(!summary.step("browser", || Ok(Outcome::Skipped("no Chromium".into()))));
        assert!(summary.step("wasm", || Ok(Outcome::Passed("300 KB".into()))));
        assert_eq!(summary.closing_line(), "2 passed, 1 failed, 1 skipped");
        assert!(summary.has_failures());
    }

    #[test]
    fn the_table_has_a_line_a_step_with_its_reason() {
        let mut summary = Summary::default();
        summary.step("lints", || Err(Error::message("3 warnings")));
        summary.step("npm test", || Ok(Outcome::Passed(String::new())));
        let table = summary.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("lints   "), "{table}");
        assert!(lines[0].ends_with("failed   3 warnings"), "{table}");
        assert!(lines[1].starts_with("npm test"), "{table}");
        assert!(lines[1].ends_with("passed"), "{table}");
    }
}
