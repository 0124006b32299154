//! The log of a training, a line of JSON for every reading of the loss, and the same for
//! TensorBoard.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::driver::Files;
use super::tensorboard::EventWriter;
use crate::error::{Result, TrainError};
use crate::files::write_atomically;
use crate::metrics::Metrics;

#[derive(Debug, Serialize)]
pub(super) struct LogLine {
    pub(super) step: u64,
    pub(super) epoch: u64,
    pub(super) seconds: f64,
    pub(super) loss: f64,
    pub(super) learning_rate: f64,
    pub(super) samples_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) validation: Option<Metrics>,
}

/// Where a training is logged.
pub(super) struct Logs<'a> {
    files: &'a Files,
    log: fs::File,
    events: EventWriter,
}

impl<'a> Logs<'a> {
    /// To log the steps after the first `done`.
    pub(super) fn open(files: &'a Files, done: u64) -> Result<Self> {
        let events = EventWriter::create(&files.tensorboard, done)?;
        Ok(Self { files, log: open_log(&files.log, done)?, events })
    }

    pub(super) fn add(&mut self, line: &LogLine) -> Result<()> {
        line.write(&mut self.log).map_err(|e| TrainError::file(&self.files.log, e))?;
        line.draw(&mut self.events).map_err(|e| TrainError::file(&self.files.tensorboard, e))
    }
}

/// The log, without the lines of steps that were not saved and are done again.
fn open_log(path: &Path, done: u64) -> Result<fs::File> {
    let old = match fs::read_to_string(path) {
        _ if done == 0 => String::new(),
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(TrainError::file(path, e)),
    };
    let step = |line: &&str| {
        let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
        value.and_then(|value| value["step"].as_u64()).is_some_and(|step| step <= done)
    };
    write_atomically(path, |file| {
        old.lines().take_while(step).try_for_each(|line| writeln!(file, "{line}"))
    })?;
    fs::OpenOptions::new().append(true).open(path).map_err(|e| TrainError::file(path, e))
}

impl LogLine {
    fn write(&self, log: &mut fs::File) -> std::io::Result<()> {
        let line = serde_json::to_string(self).map_err(std::io::Error::from)?;
        writeln!(log, "{line}")
    }

    fn draw(&self, events: &mut EventWriter) -> std::io::Result<()> {
        events.scalars(
            self.step,
            &[
                ("train/loss", self.loss),
                ("train/learning_rate", self.learning_rate),
                ("train/samples_per_second", self.samples_per_second),
            ],
        )?;
        let Some(metrics) = self.validation else { return Ok(()) };
        events.scalars(
            self.step,
            &[
                ("validation/recall@5", metrics.recall_5),
                ("validation/ndcg@5", metrics.ndcg_5),
                ("validation/recall@10", metrics.recall_10),
                ("validation/ndcg@10", metrics.ndcg_10),
            ],
        )
    }
}
