//! `tigret inspect`: what is in a bundle or a run.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};
use tigret_infer::{Bundle, T5Config, TokenLayout};

use super::Output;
use crate::error::{Result, TrainError};
use crate::export::read_bundle;
use crate::run_dir::{RunDir, read_json};
use crate::tokenizer::stats::{LevelUse, level_use};

/// Shows what a bundle holds, or which steps of a run are done and their figures.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret inspect model.safetensors
  tigret inspect runs/beauty --json")]
pub(super) struct Args {
    /// A bundle, or a run directory.
    path: PathBuf,
}

#[derive(Debug, Serialize)]
struct BundleReport<'a> {
    format: &'static str,
    quantization: &'static str,
    items: usize,
    weights: usize,
    config: &'a T5Config,
    tokens: &'a TokenLayout,
    levels: Vec<LevelUse>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    if args.path.is_dir() {
        inspect_run(&RunDir::open(&args.path)?, output)
    } else {
        inspect_bundle(&read_bundle(&args.path)?, &args.path, output)
    }
}

fn inspect_bundle(bundle: &Bundle, path: &Path, output: &Output) -> Result<()> {
    let Bundle { config, tokens, catalog, .. } = bundle;
    let sizes: Vec<u32> = tokens.levels.iter().map(|level| level.size).collect();
    let report = BundleReport {
        format: tigret_infer::bundle::FORMAT,
        quantization: bundle.weight_format.name(),
        items: catalog.len(),
        weights: bundle.weights().values().map(|w| w.rows() * w.columns()).sum(),
        config,
        tokens,
        levels: level_use(catalog.codes(), &sizes),
    };
    output.result(&report, || {
        let mut text = format!(
            "{}: {} bundle, {} weights in {}\n\
             model      {} + {} layers, width {}, {} heads of {}, feed-forward {}, vocabulary {}\n\
             history    the last {} items, {}\n\
             catalogue  {} items, first \"{}\"\n",
            path.display(),
            report.format,
            report.weights,
            report.quantization,
            config.num_layers,
            config.decoder_layers(),
            config.d_model,
            config.num_heads,
            config.d_kv,
            config.d_ff,
            config.vocab_size,
            tokens.max_items,
            tokens.users.map_or("no user tokens".into(), |u| format!("{} user tokens", u.count)),
            catalog.len(),
            catalog.id_of(0),
        );
        for (index, level) in report.levels.iter().enumerate() {
            text += &format!(
                "level {index}    {} of {} codes used, perplexity {:.1}\n",
                level.used, level.codewords, level.perplexity
            );
        }
        text.trim_end().to_owned()
    });
    Ok(())
}

fn inspect_run(run: &RunDir, output: &Output) -> Result<()> {
    let mut found = Map::new();
    for (step, path) in [
        ("dataset", run.dataset()),
        ("tokenizer", run.tokenizer_report()),
        ("model", run.model().join("config.json")),
        ("evaluation", run.evaluation()),
        ("oracle", run.oracle()),
    ] {
        if path.exists() {
            let value: Value = read_json(&path, "")?;
            found.insert(step.into(), value);
        }
    }
    if found.is_empty() {
        return Err(TrainError::file(
            run.root(),
            "holds no artefact of a run; make one with `tigret prepare`",
        ));
    }
    output.result(&found, || {
        let lines = found.iter().map(|(step, value)| {
            format!("{step}:\n{}", serde_json::to_string_pretty(value).unwrap_or_default())
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
