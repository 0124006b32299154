//! `cargo xtask compare-tokenizers RUN…`: every tokenizer on the same vectors, side by side.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::run_dir;
use crate::setup::libtorch::Libtorch;
use crate::tigret;

/// Arguments of `cargo xtask compare-tokenizers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run directories with vectors (`tigret prepare` and `tigret embed`); they are left as they
    /// are.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// More options of `tigret tokenize` for all, in one text.
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    options: String,
}

/// Name in the table, and options of `tigret tokenize`.
const TOKENIZERS: [(&str, &str); 9] = [
    ("rq-vae", "--method rq-vae"),
    ("rq-vae, rotation trick", "--method rq-vae --gradient rotation"),
    ("rq-vae, Sinkhorn", "--method rq-vae --sinkhorn"),
    ("vq-vae", "--method vq-vae"),
    ("rq-kmeans", "--method rq-kmeans"),
    ("hierarchical-kmeans, 24 a node", "--method hierarchical-kmeans --codebook-size 24"),
    ("opq", "--method opq"),
    ("lsh", "--method lsh"),
    ("random", "--method random"),
];

/// What of a run a tokenizer reads.
const ARTEFACTS: [&str; 4] =
    ["dataset.json", "items.jsonl", "sequences.jsonl", "vectors.safetensors"];

/// Prints a Markdown table for each run.
///
/// # Errors
/// When a run lacks an artefact or a tokenizer fails.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    for run in &args.runs {
        run_dir::check(run, &ARTEFACTS, "`tigret prepare` and `tigret embed`")?;
    }
    let libtorch = Libtorch::locate(report)?;
    let program = tigret::build(&libtorch, report)?;
    let tigret = |arguments: &[&OsStr]| -> Result<Value> {
        let mut command = Command::new(&program);
        let text = process::output(libtorch.apply(command.args(arguments).arg("--json")))?;
        serde_json::from_str(&text).map_err(|e| Error::message(format!("tigret --json: {e}")))
    };
    for run in &args.runs {
        println!("\n{}\n", run.file_name().unwrap_or(run.as_os_str()).to_string_lossy());
        println!(
            "| tokenizer | codewords used, % by level | unique | largest group | category \
             information by prefix | variance lost | epochs | seconds |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (name, options) in TOKENIZERS {
            let scratch = scratch_copy(run)?;
            let folder = scratch.path().as_os_str();
            // A collapsed tokenizer is a finding, so no group may be too large for the table.
            let fixed = ["tokenize", "--collision-size", "65536", "--run"].map(OsStr::new);
            let more = options.split_whitespace().chain(args.options.split_whitespace());
            let arguments: Vec<&OsStr> =
                fixed.into_iter().chain([folder]).chain(more.map(OsStr::new)).collect();
            let tokenized = tigret(&arguments)?;
            let looked_at = ["inspect", "--sample", "0"].map(OsStr::new);
            let looked_at: Vec<&OsStr> = looked_at.into_iter().chain([folder]).collect();
            println!("| {name} | {} |", row(&tokenized, &tigret(&looked_at)?["semantic_ids"]));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder with links to what a tokenizer reads; gone when it is dropped. It is in the run, since
/// links do not lead to other disks.
fn scratch_copy(run: &Path) -> Result<TempDir> {
    let scratch = tempfile::Builder::new()
        .prefix(".compare-tokenizers-")
        .tempdir_in(run)
        .map_err(|e| Error::file(run, e))?;
    for name in ARTEFACTS {
        fs::hard_link(run.join(name), scratch.path().join(name))
            .map_err(|e| Error::file(&run.join(name), e))?;
    }
    Ok(scratch)
}

/// The cells of a tokenizer, from what `tokenize` and `inspect` print.
fn row(tokenized: &Value, semantic_ids: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let levels: Vec<String> = list(&tokenized["levels"])
        .iter()
        .map(|l| format!("{:.1}", 100.0 * number(&l["used"]) / number(&l["codewords"])))
        .collect();
    let collisions = &tokenized["collisions"];
    let unique = 100.0 * number(&collisions["unique_items"]) / number(&collisions["items"]);
    let prefixes: Vec<String> = list(&semantic_ids["categories"][0]["prefixes"])
        .iter()
        .map(|shares| format!("{:.2}", number(&shares["share_beyond_chance"])))
        .collect();
    let lost = tokenized["reconstruction"].as_f64();
    let epochs = tokenized["training"]["epochs"].as_u64();
    format!(
        "{} | {unique:.1} % | {} | {} | {} | {} | {:.1}",
        levels.join(", "),
        collisions["largest_group"],
        prefixes.join(", "),
        lost.map_or("-".to_owned(), |lost| format!("{:.1} %", 100.0 * lost)),
        epochs.map_or("-".to_owned(), |epochs| epochs.to_string()),
        number(&tokenized["seconds"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_has_the_figures_of_both_verbs() {
        let tokenized = json!({
            "levels": [{"used": 4, "codewords": 4}, {"used": 3, "codewords": 4}],
            "collisions": {"unique_items": 9, "items": 12, "largest_group": 3},
            "reconstruction": 0.25, "training": {"epochs": 7}, "seconds": 1.26
        });
        let inspected = json!({"categories": [{"prefixes": [{"share_beyond_chance": 0.5}]}]});
        let expected = "100.0, 75.0 | 75.0 % | 3 | 0.50 | 25.0 % | 7 | 1.3";
        assert_eq!(row(&tokenized, &inspected), expected);
        let bare = json!({"levels": [], "collisions": collisions(), "seconds": 0.0});
        assert!(row(&bare, &json!(null)).ends_with("| - | - | 0.0"));
    }

    fn collisions() -> Value {
        json!({"unique_items": 1, "items": 1, "largest_group": 1})
    }
}
