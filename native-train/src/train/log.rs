//! The log of a training, a line of JSON for every reading of the loss, and the same for
//! TensorBoard.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::driver::Files;
use super::tensorboard::EventWriter;
use crate::error::{Result, TrainError};
use crate::files::{read_text, write_atomically};
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
        let events = EventWriter::create(&files.tensorboard, done + 1)?;
        Ok(Self { files, log: open_log(&files.log, done)?, events })
    }

    pub(super) fn add(&mut self, line: &LogLine) -> Result<()> {
        line.write(&mut self.log).map_err(|e| TrainError::file(&self.files.log, e))?;
        line.draw(&mut self.events).map_err(|e| TrainError::file(&self.files.tensorboard, e))
    }
}

/// The log, without the lines of steps that were not saved and are done again.
fn open_log(path: &Path, done: u64) -> Result<fs::File> {
    let old = if done > 0 && path.exists() { read_text(path, "")? } else { String::new() };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps from which the event files of a folder supersede those before them, in the order of
    /// their names.
    fn starts(folder: &Path) -> Vec<u8> {
        let mut files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        // SessionLog { status: START }, behind its step, which is below 128 here.
        let start = b"\x3a\x02\x08\x01";
        let step = |path| {
            let bytes = fs::read(path).unwrap();
            let at = bytes.windows(start.len()).position(|at| at == start).unwrap();
            assert_eq!(bytes[at - 2], 0x10);
            bytes[at - 1]
        };
        files.into_iter().map(step).collect()
    }

    #[test]
    fn a_training_that_goes_on_keeps_what_was_logged_of_its_last_step() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = Files {
            folder: at("model"),
            log: at("log.jsonl"),
            tensorboard: at("tensorboard"),
            begun_by: None,
        };
        let line = |step| LogLine {
            step,
            epoch: 0,
            seconds: 1.0,
            loss: 2.0,
            learning_rate: 0.1,
            samples_per_second: 3.0,
            validation: None,
        };
        let mut logs = Logs::open(&files, 0).unwrap();
        [50, 100, 120].into_iter().for_each(|step| logs.add(&line(step)).unwrap());
        assert_eq!(starts(&files.tensorboard), [1]);
        fs::remove_dir_all(&files.tensorboard).unwrap();
        drop(Logs::open(&files, 100).unwrap());
        assert_eq!(starts(&files.tensorboard), [101]);
        let log = fs::read_to_string(&files.log).unwrap();
        let steps: Vec<_> = log.lines().map(|line| &line[..11]).collect();
        assert_eq!(steps, ["{\"step\":50,", "{\"step\":100"]);
    }
}
