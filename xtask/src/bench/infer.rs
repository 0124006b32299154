//! `cargo xtask bench infer`: one recommendation by Tigret's engines beside other programs, on the
//! same weights and history, in turns.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde_json::Value;

use super::{check_python, json_of, print};
use crate::build;
use crate::error::Result;
use crate::process;
use crate::report::Report;
use crate::setup::vulkan;
use crate::workspace;

/// The engine that ratios are taken of.
const OURS: &str = "Tigret, CPU, q8";

/// Arguments of `cargo xtask bench infer`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Widths of the search.
    #[arg(long, num_args = 1.., default_values_t = [10, 20, 50],
          value_parser = clap::value_parser!(u64).range(1..))]
    beams: Vec<u64>,
    /// Calls that are timed in a round.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// Rounds; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Threads of every program.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// A Python with torch 2.11.0, transformers, onnx and onnxruntime.
    #[arg(long, env = "TIGRET_PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// Times all in turns and prints medians and ratios.
///
/// # Errors
/// When Python lacks a package, a build fails, or a program does not give Tigret's answer.
pub(super) fn run(args: &Args, as_json: bool, report: &Report) -> Result<ExitCode> {
    check_python(&args.python, &["torch", "transformers", "onnx", "onnxruntime"])?;
    let built = build::examples(&["time_one", "random_model"], "bench infer", report)?;
    // Graphs that were exported belong to an older model.
    let folder = workspace::root().join(".tigret").join("bench-infer");
    workspace::remove(&folder)?;
    process::run_on_stderr(Command::new(built.program("random_model")?).arg(&folder))?;

    report.doing("bench infer", "programs in turns; some minutes");
    let mut python = Command::new(&args.python);
    python.arg(workspace::root().join("tests/bench_infer.py")).arg(&folder);
    python.arg("--tigret").arg(built.program("time_one")?);
    let text = u64::to_string;
    python.arg("--beams").args(args.beams.iter().map(text));
    for (option, value) in
        [("--calls", args.calls), ("--rounds", args.rounds), ("--threads", args.threads)]
    {
        python.args([option, &value.to_string()]);
    }
    if vulkan::locate(report).is_ok() {
        python.arg("--gpu");
    }
    let answer = json_of(python.env("RAYON_NUM_THREADS", args.threads.to_string()))?;
    print(as_json, "inference", &answer, || table(&answer, &args.beams));
    Ok(ExitCode::SUCCESS)
}

/// Milliseconds of all programs, with how many times longer than Tigret's they are.
fn table(answer: &Value, beams: &[u64]) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let mut table = format!(
        "onnxruntime {}, torch {}, transformers {}, {} threads\n\n| ms (times {OURS}) |",
        text("onnxruntime"),
        text("torch"),
        text("transformers"),
        answer["threads"]
    );
    for beams in beams {
        table += &format!(" {beams} beams |");
    }
    table += &format!("\n|---|{}\n", "---|".repeat(beams.len()));
    let all = &answer["milliseconds"];
    let of = |name: &str, beams: &u64| all[name][beams.to_string()].as_f64();
    for name in all.as_object().into_iter().flat_map(|object| object.keys()) {
        table += &format!("| {name} |");
        for beams in beams {
            table += &match (of(name, beams), of(OURS, beams)) {
                (Some(own), Some(ours)) => format!(" {own:.1} ({:.2}) |", own / ours),
                _ => " - |".to_owned(),
            };
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_sets_every_program_against_tigret() {
        let answer = json!({
            "onnxruntime": "1.30", "torch": "2.11.0", "transformers": "5.0", "threads": 2,
            "milliseconds": {OURS: {"10": 4.0, "50": 8.0}, "a peer": {"10": 6.0}},
        });
        let table = table(&answer, &[10, 50]);
        assert!(table.contains("| ms (times Tigret, CPU, q8) | 10 beams | 50 beams |"), "{table}");
        assert!(table.contains("| Tigret, CPU, q8 | 4.0 (1.00) | 8.0 (1.00) |"), "{table}");
        assert!(table.contains("| a peer | 6.0 (1.50) | - |"), "{table}");
    }
}
