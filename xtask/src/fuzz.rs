//! `cargo xtask fuzz`: give every reader of files what libFuzzer finds worth trying.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use crate::build;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Readers, by their names in tests/support/readers.rs; all of them if none is named.
    #[arg(value_name = "READER")]
    readers: Vec<String>,
    /// Minutes for each reader.
    #[arg(long, default_value_t = 15.0, value_name = "M")]
    minutes: f64,
    /// Readers that run at the same time.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

impl Args {
    /// Every reader for so many minutes.
    pub(crate) fn of_all(minutes: f64) -> Self {
        Self { readers: Vec::new(), minutes, jobs: 2 }
    }
}

/// Larger files are the subject of a test of their own (tests/faults/hostile_files.rs).
const LONGEST_FILE: usize = 1 << 16;

/// Ends a reader that hangs; what is slow but ends is found by the program itself.
const LIMITS: [&str; 2] = ["-timeout=60", "-rss_limit_mb=4096"];

/// The variable that tells the program which reader it is to call.
const READER: &str = "TIGRET_READER";

/// Fuzzes the readers and prints a row of a Markdown table for each.
///
/// # Errors
/// When `cargo fuzz` is not there, a reader is unknown, or the build fails.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    if !process::succeeds(workspace::cargo().args(["fuzz", "--version"])) {
        return Err(Error::message(
            "cargo fuzz is not installed; `cargo install cargo-fuzz --locked` gets it",
        ));
    }
    let crate_folder = workspace::root().join("tests/fuzz");
    let work = workspace::root().join(".tigret/fuzz");
    let libtorch = Libtorch::locate(report)?;
    let seeds = write_seeds(&work, &libtorch, report)?;
    // A folder of seeds for every reader.
    let readers = chosen(&args.readers, &names_in(&seeds)?)?;

    report.doing("fuzz", "compiling everything for libFuzzer; the first time takes some minutes");
    let built = workspace::root().join("target/fuzz");
    let mut cargo = workspace::cargo();
    // Our crates forbid `unsafe`, so that a stable compiler without sanitizers finds what there
    // is to be found: panics, memory and time.
    cargo.args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir"]).arg(&crate_folder);
    process::run_on_stderr(libtorch.apply(cargo.env("CARGO_TARGET_DIR", &built)))?;
    // cargo fuzz always names the machine, and so has a folder for it.
    let host = workspace::rustc_prints("host-tuple")?;
    let program = built.join(host).join("release/reader");

    println!(
        "| reader | files tried | a second | edges at the start | edges at the end | files \
         kept | failed |\n|---|---|---|---|---|---|---|"
    );
    let mut has_failures = false;
    let mut waiting = readers.into_iter();
    let mut running: Vec<Fuzzer> = Vec::new();
    loop {
        while running.len() < usize::from(args.jobs)
            && let Some(reader) = waiting.next()
        {
            report.doing("fuzz", format!("{reader}, {} minutes", args.minutes));
            running.push(Fuzzer::start(&reader, &program, &work, &seeds, args.minutes, &libtorch)?);
        }
        if running.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for mut fuzzer in running {
            match fuzzer.child.try_wait().map_err(|e| Error::file(&fuzzer.log, e))? {
                None => still.push(fuzzer),
                Some(status) => {
                    println!("{}", fuzzer.row()?);
                    if !status.success() {
                        has_failures = true;
                        fuzzer.explain(&program, &libtorch)?;
                    }
                }
            }
        }
        running = still;
    }
    Ok(if has_failures { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// The named readers, or all.
fn chosen(named: &[String], all: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        let all = all.join(", ");
        return Err(Error::message(format!("there is no reader {unknown}; there are {all}")));
    }
    Ok(if named.is_empty() { all.to_vec() } else { named.to_vec() })
}

/// Writes the good files and the attacks that fuzzing each reader begins from.
fn write_seeds(work: &Path, libtorch: &Libtorch, report: &Report) -> Result<PathBuf> {
    let seeds = work.join("seeds");
    workspace::remove(&seeds)?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "tigret-tests", "--example", "write_seeds"]);
    let built = build::quietly(libtorch.apply(&mut cargo), "fuzz", "compiling the seeds", report)?;
    let mut write = Command::new(built.program("write_seeds")?);
    process::run_on_stderr(libtorch.apply(write.arg(&seeds)))?;
    Ok(seeds)
}

/// The program at work on a reader; it ends with its owner, also where an error ends that.
struct Fuzzer {
    reader: String,
    child: Child,
    log: PathBuf,
    /// The folder of files that broke the reader.
    found: PathBuf,
}

impl Fuzzer {
    fn start(
        reader: &str,
        program: &Path,
        work: &Path,
        seeds: &Path,
        minutes: f64,
        libtorch: &Libtorch,
    ) -> Result<Self> {
        let corpus = work.join("corpus").join(reader);
        let found = work.join("found").join(reader);
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        }
        let log = work.join(format!("{reader}.log"));
        let file = File::create(&log).map_err(|e| Error::file(&log, e))?;
        let mut command = Command::new(program);
        command
            .env(READER, reader)
            .arg(&corpus)
            .arg(seeds.join(reader))
            .arg(format!("-max_total_time={}", (minutes * 60.0).ceil()))
            .arg(format!("-max_len={LONGEST_FILE}"))
            .args(LIMITS)
            .arg("-print_final_stats=1")
            // What the commands print is of no interest.
            .arg("-close_fd_mask=3")
            .arg(format!("-artifact_prefix={}/", found.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        scratch_in_memory(libtorch.apply(&mut command));
        let child = command.spawn().map_err(|cause| process::not_started(&command, cause))?;
        Ok(Self { reader: reader.into(), child, log, found })
    }

    /// What its log says, as a row of the table.
    fn row(&self) -> Result<String> {
        let log = fs::read(&self.log).map_err(|e| Error::file(&self.log, e))?;
        let log = String::from_utf8_lossy(&log);
        let figures = figures(&log).join(" | ");
        Ok(format!("| {} | {figures} | {} |", self.reader, self.failures()?.len()))
    }

    /// The names of the files that broke the reader, in this run or an earlier one.
    fn failures(&self) -> Result<Vec<String>> {
        names_in(&self.found)
    }

    /// Shows what the reader did with the files that broke it.
    fn explain(&self, program: &Path, libtorch: &Libtorch) -> Result<()> {
        for name in self.failures()? {
            let file = self.found.join(name);
            eprintln!("\n{} broke the reader:", file.display());
            let mut again = Command::new(program);
            again.env(READER, &self.reader).args(LIMITS).arg(&file);
            scratch_in_memory(libtorch.apply(&mut again));
            let output = again.output().map_err(|cause| process::not_started(&again, cause))?;
            let text = String::from_utf8_lossy(&output.stderr);
            text.lines()
                .skip_while(|line| !line.contains("panicked at"))
                .take(3)
                .for_each(|line| eprintln!("  {line}"));
        }
        eprintln!(
            "mend it, put the file into tests/attacks, and list it with what refuses it in \
             tests/support/attacks.rs"
        );
        Ok(())
    }
}

impl Drop for Fuzzer {
    fn drop(&mut self) {
        // One that has ended already is left alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The commands write their results; on a disk that would be most of the time.
fn scratch_in_memory(command: &mut Command) {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        command.env("TMPDIR", memory);
    }
}

/// From libFuzzer's log: executions, executions a second, edges reached by the seeds and at the
/// end, files kept.
fn figures(log: &str) -> [String; 5] {
    let after = |line: &str, key: &str| -> Option<String> {
        let rest = line.split_once(key)?.1.trim_start();
        Some(rest.split([' ', '/']).next()?.to_owned())
    };
    let of = |mut lines: Box<dyn Iterator<Item = &str> + '_>, key: &str| {
        lines.find_map(|line| after(line, key)).unwrap_or_else(|| "?".into())
    };
    [
        of(Box::new(log.lines()), "stat::number_of_executed_units:"),
        of(Box::new(log.lines()), "stat::average_exec_per_sec:"),
        of(Box::new(log.lines().filter(|line| line.contains("INITED"))), "cov:"),
        of(Box::new(log.lines().rev()), "cov:"),
        of(Box::new(log.lines().rev()), "corp:"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_figures_are_those_of_the_log() {
        let log = "INFO: seed corpus: files: 5\n\
                   #5\tINITED cov: 992 ft: 1165 corp: 4/35Kb exec/s: 0 rss: 158Mb\n\
                   #9\tNEW    cov: 1010 ft: 1200 corp: 7/41Kb lim: 4 exec/s: 0 rss: 158Mb\n\
                   #99\tDONE   cov: 1012 ft: 1204 corp: 8/41Kb lim: 4 exec/s: 0 rss: 158Mb\n\
                   stat::number_of_executed_units: 199167\n\
                   stat::average_exec_per_sec:     15320\n";
        assert_eq!(figures(log), ["199167", "15320", "992", "1012", "8"]);
        assert_eq!(figures("the program could not be started")[0], "?");
    }

    #[test]
    fn all_readers_run_unless_some_are_named_and_unknown_ones_are_refused() {
        let all = ["bundle".to_owned(), "config".to_owned()];
        assert_eq!(chosen(&[], &all).unwrap_or_default(), all);
        assert_eq!(chosen(&["bundle".into()], &all).unwrap_or_default(), ["bundle"]);
        assert!(chosen(&["nothing".into()], &all).is_err());
    }

    /// Names of crates with their versions.
    fn locked(path: &str) -> BTreeMap<String, BTreeSet<String>> {
        let text = fs::read_to_string(workspace::root().join(path)).expect("a lock file");
        let mut locked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in text.split("[[package]]\n").skip(1) {
            let of = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key));
                line.expect("as cargo writes it").trim_matches([' ', '=', '"']).to_owned()
            };
            locked.entry(of("name")).or_default().insert(of("version"));
        }
        locked
    }

    #[test]
    fn what_is_fuzzed_is_what_the_program_is_made_of() {
        let program = locked("Cargo.lock");
        let others = locked("tests/fuzz/Cargo.lock").into_iter().filter(|(name, versions)| {
            program.get(name).is_some_and(|of_program| !versions.is_subset(of_program))
        });
        assert_eq!(others.collect::<Vec<_>>(), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fuzzer_does_not_outlive_its_owner() {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep starts");
        let process = format!("/proc/{}", child.id());
        let fuzzer =
            Fuzzer { reader: String::new(), child, log: PathBuf::new(), found: PathBuf::new() };
        assert!(Path::new(&process).exists());
        drop(fuzzer);
        assert!(!Path::new(&process).exists());
    }
}
