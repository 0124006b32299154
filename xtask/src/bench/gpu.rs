//! `cargo xtask bench gpu`: one recommendation on this machine's GPU, kernel by kernel, beside what no
//! call can be faster than there.

use std::process::{Command, ExitCode};

use clap::value_parser;
use serde_json::{Value, json};

use super::{json_of, print};
use crate::build;
use crate::error::Result;
use crate::report::Report;
use crate::setup::vulkan;

const FORMATS: [&str; 4] = ["f32", "f16", "q8", "q4"];

/// What not every GPU has, as `time_one` calls it, with the formats that it serves.
const EXTRAS: [(&str, &str, &[&str]); 3] = [
    ("packed products", "--packed-products", &["q8", "q4"]),
    ("halves", "--halves", &["f16"]),
    ("subgroups", "--subgroups", &FORMATS),
];

/// Arguments of `cargo xtask bench gpu`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Formats of the weights.
    #[arg(long, num_args = 1.., value_parser = FORMATS, default_values = FORMATS)]
    formats: Vec<String>,
    /// Widths of the search.
    #[arg(long, num_args = 1.., value_parser = value_parser!(u16).range(1..=512),
          default_values_t = [10, 20, 50])]
    beams: Vec<u16>,
    /// Calls that are timed.
    #[arg(long, value_parser = value_parser!(u32).range(1..), default_value_t = 200)]
    calls: u32,
}

/// Times each format and width as the device does it by itself, and the widest search without each
/// of what not every GPU has.
///
/// # Errors
/// When there is no Vulkan, the build fails, or a call does.
pub(super) fn run(args: &Args, as_json: bool, report: &Report) -> Result<ExitCode> {
    vulkan::locate(report)?;
    let program = build::examples(&["time_one"], "bench gpu", report)?.program("time_one")?;
    let time = |format: &str, beams: u16, more: &[&str]| -> Result<Value> {
        report.doing("bench gpu", format!("{format}, {beams} beams {}", more.join(" ")));
        let mut command = Command::new(&program);
        command.args(["--backend", "gpu", "--format", format, "--floor", "true"]);
        command.args(["--beams", &beams.to_string(), "--calls", &args.calls.to_string()]);
        json_of(command.args(more))
    };
    // The option takes at least one.
    let widest = args.beams.iter().copied().max().unwrap_or_default();
    let mut rows = Vec::new();
    for format in &args.formats {
        for &beams in &args.beams {
            let more: &[&str] = if beams == widest { &["--profile", "true"] } else { &[] };
            rows.push(row(&time(format, beams, more)?, "", beams));
        }
        for (name, option, formats) in EXTRAS {
            if formats.contains(&format.as_str()) {
                for (word, value) in [("without", "false"), ("with", "true")] {
                    let answer = time(format, widest, &[option, value])?;
                    rows.push(row(&answer, &format!("{word} {name}"), widest));
                }
            }
        }
    }
    print(as_json, "gpu", &json!(rows), || table(&rows));
    Ok(ExitCode::SUCCESS)
}

/// What is kept of an answer of `time_one`.
fn row(answer: &Value, how: &str, beams: u16) -> Value {
    json!({
        "adapter": answer["adapter"],
        "format": answer["format"],
        "how": how,
        "beams": beams,
        "median_ms": answer["median_ms"],
        "p95_ms": answer["p95_ms"],
        "floor": answer["floor"],
        "kernels": answer["kernels"],
    })
}

/// Times of all rows, then the kernels of those that have a profile.
fn table(rows: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let adapter = rows.first().map(|row| text(&row["adapter"])).unwrap_or_default();
    let mut table = format!(
        "{adapter}\n\n| | beams | median, ms | p95 | floor | times the floor | launches of nothing | \
         weights, MB | GB/s |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let floor = &row["floor"];
        table += &format!(
            "| {} {} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.1} | {:.0} |\n",
            text(&row["format"]),
            text(&row["how"]),
            row["beams"],
            number(&row["median_ms"]),
            number(&row["p95_ms"]),
            number(&floor["ms"]),
            number(&row["median_ms"]) / number(&floor["ms"]),
            number(&floor["launches_ms"]),
            number(&floor["weight_bytes"]) / 1e6,
            number(&floor["gigabytes_per_s"]),
        );
    }
    for row in rows {
        let kernels = row["kernels"].as_array().map(Vec::as_slice).unwrap_or_default();
        if kernels.is_empty() {
            continue;
        }
        let (format, beams) = (text(&row["format"]), &row["beams"]);
        table += &format!(
            "\n| {format}, {beams} beams | launches | ms by timestamps |\n|---|---|---|\n"
        );
        for kernel in kernels {
            let milliseconds = number(&kernel["milliseconds"]);
            let (name, launches) = (text(&kernel["name"]), &kernel["launches"]);
            table += &format!("| `{name}` | {launches} | {milliseconds:.3} |\n");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sets_every_row_against_its_floor() {
        let answer = json!({
            "adapter": "a GPU", "format": "q8", "median_ms": 1.5, "p95_ms": 1.75,
            "floor": {"ms": 0.5, "launches_ms": 0.4, "weight_bytes": 2.0e6, "gigabytes_per_s": 20.0},
            "kernels": [{"name": "linear_q8_packed", "launches": 117, "milliseconds": 1.25}],
        });
        let table = table(&[row(&answer, "with subgroups", 50)]);
        assert!(
            table.contains(
                "| q8 with subgroups | 50 | 1.50 | 1.75 | 0.50 | 3.0 | 0.40 | 2.0 | 20 |"
            ),
            "{table}"
        );
        assert!(table.contains("| `linear_q8_packed` | 117 | 1.250 |"), "{table}");
    }
}
