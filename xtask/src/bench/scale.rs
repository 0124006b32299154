//! `cargo xtask bench scale`: time and memory of the commands on an invented shop of 20 million
//! interactions, and of giving a million new items their semantic IDs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::value_parser;
use serde_json::{Value, json};

use super::invented::{DIMENSIONS, Shop, write_items, write_vectors};
use super::print;
use crate::error::{Error, Result};
use crate::machine::value_after;
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::tigret;
use crate::workspace;

/// Rewrites a CSV as Parquet, a batch at a time.
const TO_PARQUET: &str = "\
import sys, pyarrow.csv, pyarrow.parquet
batches = pyarrow.csv.open_csv(sys.argv[1])
with pyarrow.parquet.ParquetWriter(sys.argv[2], batches.schema) as table:
    for batch in batches:
        table.write_batch(batch)
";

/// Items that the tokenizer of the new items is fitted to.
const FITTED: u64 = 10_000;

/// Arguments of `cargo xtask bench scale`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Interactions of the shop's log.
    #[arg(long, value_parser = value_parser!(u64).range(1_000..), default_value_t = 20_000_000)]
    interactions: u64,
    /// Users of the shop.
    #[arg(long, value_parser = value_parser!(u64).range(10..), default_value_t = 1_000_000)]
    users: u64,
    /// Items of the shop.
    #[arg(long, value_parser = value_parser!(u64).range(300..), default_value_t = 50_000)]
    items: u64,
    /// New items, with vectors of 768 numbers, that get IDs by a trained RQ-VAE.
    #[arg(long, value_parser = value_parser!(u64).range(1..), default_value_t = 1_000_000)]
    new_items: u64,
    /// Minutes of training.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// A Python with pyarrow, to write the log as Parquet; that row is left out if there is none.
    #[arg(long, env = "TIGRET_PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// Invents the data in a folder of their own, which goes in the end, and runs the commands one after
/// the other.
///
/// # Errors
/// When the build fails, a command does, or the disk is full.
pub(super) fn run(args: &Args, as_json: bool, report: &Report) -> Result<ExitCode> {
    let libtorch = Libtorch::locate(report)?;
    let bench = Bench {
        program: tigret::build(&libtorch, report)?,
        folder: workspace::root().join(".tigret").join("bench-scale"),
        libtorch,
        report,
    };
    workspace::remove(&bench.folder)?;
    fs::create_dir_all(&bench.folder).map_err(|e| Error::file(&bench.folder, e))?;
    let rows = bench
        .of_shop(args)
        .and_then(|shop| Ok([shop, bench.of_new_items(args.new_items)?].concat()));
    workspace::remove(&bench.folder)?;

    let rows = rows?;
    let values = rows.iter().map(Row::json).collect();
    print(as_json, "scale", &values, || table(&rows));
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    program: PathBuf,
    folder: PathBuf,
    libtorch: Libtorch,
    report: &'a Report,
}

impl Bench<'_> {
    /// From a log to training.
    fn of_shop(&self, args: &Args) -> Result<Vec<Row>> {
        let shop = Shop { users: args.users, items: args.items, interactions: args.interactions };
        self.report.doing("bench scale", format!("{} invented interactions", shop.interactions));
        let log = self.folder.join("log.csv");
        shop.write_log(&log)?;
        shop.write_items(&self.folder.join("items.jsonl"))?;

        let prepare = "prepare --items items.jsonl --text-columns title,brand";
        let mut rows =
            vec![self.row(&format!("{prepare} --run shop --interactions log.csv"), Some(&log))?];
        rows.extend(self.of_parquet(&args.python, &log, prepare)?);
        fs::remove_file(&log).map_err(|e| Error::file(&log, e))?;
        for line in [
            "embed --run shop",
            "tokenize --run shop --method rq-kmeans",
            &format!(
                "train --run shop --preset tiny --validation-users 1000 --max-minutes {}",
                args.minutes
            ),
        ] {
            rows.push(self.row(line, None)?);
        }
        Ok(rows)
    }

    /// `prepare` of the same log as Parquet, if there is a Python that writes it.
    fn of_parquet(&self, python: &Path, log: &Path, prepare: &str) -> Result<Option<Row>> {
        let mut script = Command::new(python);
        if !process::succeeds(script.args(["-c", "import pyarrow"])) {
            let why = "does not import pyarrow: no Parquet (--python names another)";
            self.report.doing("bench scale", format!("{} {why}", python.display()));
            return Ok(None);
        }
        let table = log.with_extension("parquet");
        process::run(Command::new(python).args(["-c", TO_PARQUET]).arg(log).arg(&table))?;
        self.row(&format!("{prepare} --run parquet --interactions log.parquet"), Some(&table))
            .map(Some)
    }

    /// IDs for new items by the RQ-VAE of a small shop.
    fn of_new_items(&self, count: u64) -> Result<Vec<Row>> {
        self.report.doing("bench scale", format!("{count} invented vectors of {DIMENSIONS}"));
        let at = |name| self.folder.join(name);
        // Enough for every item to be in it.
        let shop = Shop { users: 1_000, items: FITTED, interactions: 40 * FITTED };
        shop.write_log(&at("few.csv"))?;
        shop.write_items(&at("few.jsonl"))?;
        write_vectors(&at("few.npy"), FITTED, 4)?;
        write_items(&at("new.jsonl"), "new", count)?;
        write_vectors(&at("new.npy"), count, 5)?;
        for line in [
            "prepare --run few --interactions few.csv --items few.jsonl --k-core 0 --text-columns title",
            "embed --run few --vectors few.npy",
            "tokenize --run few --epochs 20 --collision-size 65536",
        ] {
            self.measured(line)?;
        }
        let vectors = at("new.npy");
        let line = "tokenize --run few --assign new.jsonl --vectors new.npy";
        Ok(vec![self.row(line, Some(&vectors))?])
    }

    fn row(&self, line: &str, input: Option<&Path>) -> Result<Row> {
        let (seconds, peak_bytes, answer) = self.measured(line)?;
        let input_bytes = input
            .map(|path| fs::metadata(path).map_err(|e| Error::file(path, e)))
            .transpose()?
            .map(|metadata| metadata.len());
        let samples_per_second = answer["samples_per_second"].as_f64();
        Ok(Row { line: line.to_owned(), input_bytes, seconds, peak_bytes, samples_per_second })
    }

    /// Seconds, the most bytes of memory if the system tells, and the JSON of a command.
    fn measured(&self, line: &str) -> Result<(f64, Option<u64>, Value)> {
        self.report.doing("bench scale", format!("tigret {line}"));
        let path = self.folder.join("answer.json");
        let answer = File::create(&path).map_err(|e| Error::file(&path, e))?;
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(line.split(' ')).arg("--json");
        self.libtorch.apply(command.stdin(Stdio::null()).stdout(answer));
        let begin = Instant::now();
        let mut child = command.spawn().map_err(|cause| process::not_started(&command, cause))?;
        let status_file = format!("/proc/{}/status", child.id());
        let mut peak = None;
        let status = loop {
            // The most so far never falls, and a process that has ended has none.
            peak = fs::read_to_string(&status_file).ok().as_deref().and_then(most_memory).or(peak);
            match child.try_wait().map_err(|cause| process::not_started(&command, cause))? {
                Some(status) => break status,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let seconds = begin.elapsed().as_secs_f64();
        process::check(&command, status)?;
        let text = fs::read(&path).map_err(|e| Error::file(&path, e))?;
        let answer = serde_json::from_slice(&text).map_err(|e| Error::file(&path, e))?;
        Ok((seconds, peak, answer))
    }
}

/// A command and what it took.
#[derive(Debug, Clone)]
struct Row {
    line: String,
    input_bytes: Option<u64>,
    seconds: f64,
    peak_bytes: Option<u64>,
    samples_per_second: Option<f64>,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "command": format!("tigret {}", self.line),
            "input_bytes": self.input_bytes,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "samples_per_second": self.samples_per_second,
        })
    }
}

/// Bytes of `VmHWM`, the most physical memory that a process has had, of its `status` under /proc.
fn most_memory(status: &str) -> Option<u64> {
    let kib: u64 = value_after(status, "VmHWM")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn table(rows: &[Row]) -> String {
    let megabytes =
        |bytes: Option<u64>| bytes.map(|bytes| (bytes / 1_000_000).to_string()).unwrap_or_default();
    let mut table = String::from(
        "| command | input, MB | seconds | most memory, MB | samples/s |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        table += &format!(
            "| `tigret {}` | {} | {:.1} | {} | {} |\n",
            row.line,
            megabytes(row.input_bytes),
            row.seconds,
            megabytes(row.peak_bytes),
            row.samples_per_second.map(|rate| format!("{rate:.0}")).unwrap_or_default(),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_memory_is_read_from_proc() {
        assert_eq!(most_memory("VmPeak:\t 9 kB\nVmHWM:\t  300 kB\nVmRSS:\t 8 kB\n"), Some(307_200));
        assert_eq!(most_memory("State:\tZ (zombie)\n"), None);
    }

    #[test]
    fn the_table_leaves_open_what_was_not_measured() {
        let row = Row {
            line: "embed --run shop".into(),
            input_bytes: None,
            seconds: 1.25,
            peak_bytes: Some(5_900_000),
            samples_per_second: None,
        };
        assert!(table(&[row]).ends_with("| `tigret embed --run shop` |  | 1.2 | 5 |  |\n"));
    }
}
