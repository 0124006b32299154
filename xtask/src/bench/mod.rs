//! `cargo xtask bench`: the figures that Tigret is judged by, with the machine they belong to.

mod gpu;
mod infer;
mod invented;
mod scale;
mod train;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::build;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::setup::{browser, npm, vulkan};
use crate::tigret;
use crate::wasm;
use crate::workspace;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure [default: everything of Tigret, without peers].
    #[command(subcommand)]
    what: Option<What>,
    /// Print one JSON object for machines instead of a table for people.
    #[arg(long, global = true)]
    json: bool,
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: Choice,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Training beside Hugging Face transformers, on the same weights and batches.
    Train(train::Args),
    /// One recommendation on this machine's GPU, kernel by kernel, beside what no call can be
    /// faster than there.
    Gpu(gpu::Args),
    /// One recommendation beside onnxruntime, PyTorch and transformers, on the same weights.
    Infer(infer::Args),
    /// The commands on an invented shop of 20 million interactions: time and memory.
    Scale(scale::Args),
}

/// A figure, or why there is none.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    measured: Measured,
}

#[derive(Debug, Clone, PartialEq)]
enum Measured {
    /// A value, and what it was measured on or an empty text.
    Value(f64, String),
    Skipped(String),
    Failed(String),
}

/// Measures one thing after the other, so that none disturbs another.
///
/// # Errors
/// None of a measurement: those are in the table, and the exit status is 1 then.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    match &args.what {
        Some(What::Train(what)) => return train::run(what, args.json, report),
        Some(What::Gpu(what)) => return gpu::run(what, args.json, report),
        Some(What::Infer(what)) => return infer::run(what, args.json, report),
        Some(What::Scale(what)) => return scale::run(what, args.json, report),
        None => {}
    }
    let mut figures = training_and_evaluation(report);
    for (name, backend) in
        [("one recommendation, CPU engine", "cpu"), ("one recommendation, native GPU", "gpu")]
    {
        report.doing("bench", name);
        let measured = one_natively(backend, report).unwrap_or_else(failed);
        figures.push(Figure { name, unit: "ms", measured });
    }
    figures.extend(one_in_page(args.wasm_toolchain, report));

    let values = figures.iter().map(Figure::json).collect();
    print(args.json, "figures", &values, || table(&figures));
    let any_failed = figures.iter().any(|figure| matches!(figure.measured, Measured::Failed(_)));
    Ok(if any_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints what was measured with the machine's description: as JSON under a name, or as a table.
fn print(as_json: bool, name: &str, value: &Value, table: impl FnOnce() -> String) {
    let machine = Machine::here();
    if as_json {
        println!("{}", json!({ "machine": machine.json(), name: value }));
    } else {
        print!("\n{}\n{}", machine.lines(), table());
    }
}

/// Refuses a Python that lacks a module; all are packages of the same name.
fn check_python(python: &Path, modules: &[&str]) -> Result<()> {
    let imports = format!("import {}", modules.join(", "));
    if process::succeeds(Command::new(python).args(["-c", &imports])) {
        return Ok(());
    }
    let packages = modules.join(" ").replace("torch ", "torch==2.11.0 ");
    let (last, others) = modules.split_last().unwrap_or((&"", &[]));
    Err(Error::message(format!(
        "{} does not import {} and {last}; `pip install {packages}`, and name that Python with \
         --python",
        python.display(),
        others.join(", ")
    )))
}

fn failed(error: Error) -> Measured {
    Measured::Failed(error.to_string())
}

/// Samples a second of training and users a second of evaluation, by `tigret bench`.
fn training_and_evaluation(report: &Report) -> Vec<Figure> {
    report.doing("bench", "training and evaluation");
    let measured = || -> Result<Value> {
        let libtorch = Libtorch::locate(report)?;
        let program = tigret::build(&libtorch, report)?;
        json_of(libtorch.apply(Command::new(program).args(["bench", "--json"])))
    }()
    .map_err(|error| error.to_string());
    [
        ("training", "samples/s", "train_samples_per_s"),
        ("evaluation", "users/s", "evaluate_users_per_s"),
    ]
    .map(|(name, unit, key)| {
        let measured = measured.as_ref().map_err(Error::message);
        let measured = measured.and_then(|answer| value_of(answer, key, "device"));
        Figure { name, unit, measured: measured.unwrap_or_else(failed) }
    })
    .into()
}

/// The median of one recommendation (20 items, beam 50, `paper` sizes) by a native engine.
fn one_natively(backend: &str, report: &Report) -> Result<Measured> {
    if backend == "gpu"
        && let Err(why) = vulkan::locate(report)
    {
        return Ok(Measured::Skipped(why.to_string()));
    }
    let built = build::examples(&["time_one"], "bench", report)?;
    let answer = json_of(Command::new(built.program("time_one")?).args(["--backend", backend]))?;
    value_of(&answer, "median_ms", "engine")
}

/// The same in the page, in headless Chromium: on the GPU, and on the CPU engine.
fn one_in_page(choice: Choice, report: &Report) -> Vec<Figure> {
    report.doing("bench", "one recommendation, page");
    let measured = time_page(choice, report);
    [("one recommendation, page, WebGPU", "webgpu"), ("one recommendation, page, CPU", "cpu")]
        .map(|(name, engine)| {
            let measured = match &measured {
                Ok(Ok(answer)) => by_page(answer, engine).unwrap_or_else(failed),
                Ok(Err(why)) => Measured::Skipped(why.clone()),
                Err(error) => Measured::Failed(error.to_string()),
            };
            Figure { name, unit: "ms", measured }
        })
        .into()
}

/// An engine's time in what the page's program prints, with its name, or why it has none.
fn by_page(answer: &Value, engine: &str) -> Result<Measured> {
    match answer[engine]["error"].as_str() {
        Some(why) => Err(Error::message(why)),
        None => value_of(&answer[engine], "median", "engine"),
    }
}

/// What tests/browser/bench.mjs prints, or why there is no browser for it.
fn time_page(choice: Choice, report: &Report) -> Result<Result<Value, String>> {
    let chromium = match browser::locate(report) {
        Ok(chromium) => chromium,
        Err(why) => return Ok(Err(why.to_string())),
    };
    npm::install(report)?;
    wasm::build_module(&WasmToolchain::locate(choice, report)?, report)?;
    process::run_on_stderr(npm::npm().args(["run", "--silent", "build"]))?;
    let built = build::examples(&["random_model"], "bench", report)?;
    let folder = workspace::root().join(".tigret").join("bench-infer");
    process::run_on_stderr(Command::new(built.program("random_model")?).arg(&folder))?;
    let mut node = Command::new("node");
    node.arg(workspace::root().join("tests/browser/bench.mjs")).arg(&folder);
    json_of(node.env("TIGRET_CHROMIUM", chromium)).map(Ok)
}

/// Runs a program whose last line of output is a JSON object.
fn json_of(command: &mut Command) -> Result<Value> {
    let text = process::output(command)?;
    text.lines().next_back().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(|| {
        Error::message(format!("`{}` printed no JSON in its last line", process::line(command)))
    })
}

fn value_of(answer: &Value, key: &str, note: &str) -> Result<Measured> {
    let value = answer[key]
        .as_f64()
        .ok_or_else(|| Error::message(format!("no number {key} in the answer {answer}")))?;
    Ok(Measured::Value(value, answer[note].as_str().unwrap_or_default().to_owned()))
}

impl Figure {
    fn json(&self) -> Value {
        let (value, note) = match &self.measured {
            Measured::Value(value, note) => (json!(value), note.clone()),
            Measured::Skipped(why) => (Value::Null, format!("skipped: {why}")),
            Measured::Failed(why) => (Value::Null, format!("failed: {why}")),
        };
        json!({ "name": self.name, "unit": self.unit, "value": value, "note": note })
    }
}

fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for Figure { name, unit, measured } in figures {
        let line = match measured {
            Measured::Value(value, note) => {
                format!("{name:<width$}  {value:>10.1} {unit:<9}  {note}")
            }
            Measured::Skipped(why) => format!("{name:<width$}  skipped: {why}"),
            Measured::Failed(why) => format!("{name:<width$}  failed: {why}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_by_its_key_or_missed_by_name() {
        let answer = json!({"median_ms": 12.5, "adapter": "llvmpipe"});
        let measured = value_of(&answer, "median_ms", "adapter").expect("a figure");
        assert_eq!(measured, Measured::Value(12.5, "llvmpipe".into()));
        let error = value_of(&answer, "p99", "adapter").expect_err("no such key");
        assert!(error.to_string().contains("no number p99"), "{error}");
    }

    #[test]
    fn an_engine_that_fails_in_the_page_has_no_figure_of_the_other() {
        let answer = json!({
            "cpu": {"median": 9.5, "engine": "CPU"},
            "webgpu": {"error": "webgpu failed, cpu took over"},
        });
        let cpu = by_page(&answer, "cpu").expect("a figure");
        assert_eq!(cpu, Measured::Value(9.5, "CPU".into()));
        let error = by_page(&answer, "webgpu").expect_err("it failed");
        assert!(error.to_string().contains("took over"), "{error}");
    }

    #[test]
    fn what_was_not_measured_says_why_in_table_and_json() {
        let figure = |measured| Figure { name: "page", unit: "ms", measured };
        let skipped = figure(Measured::Skipped("no Chromium".into()));
        assert_eq!(skipped.json()["value"], Value::Null);
        assert_eq!(skipped.json()["note"], "skipped: no Chromium");
        let table = table(&[skipped, figure(Measured::Value(3.25, "llvmpipe".into()))]);
        assert!(table.starts_with("page  skipped: no Chromium\n"), "{table}");
        assert!(table.contains(" 3.2 ms") || table.contains(" 3.3 ms"), "{table}");
        assert!(table.ends_with("llvmpipe\n"), "{table}");
    }

    #[test]
    fn only_the_last_line_of_a_program_is_its_answer() {
        let json = json_of(Command::new("sh").args(["-c", "echo loading; echo '{\"a\": 1}'"]));
        assert_eq!(json.expect("JSON")["a"], 1);
        assert!(json_of(Command::new("sh").args(["-c", "echo loading"])).is_err());
    }
}
