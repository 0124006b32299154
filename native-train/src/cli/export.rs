//! `tigret export`: a trained run to a bundle.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tigret_infer::{Bundle, WeightFormat};

use super::Output;
use crate::error::Result;
use crate::export::{bundle_from_files, write_bundle};
use crate::run_dir::RunDir;

/// Writes the model, the token layout and the catalogue of a run as one file for the browser.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret export --run runs/beauty --out beauty.safetensors
  tigret export --run runs/beauty --quantize f32 --out beauty-f32.safetensors")]
pub(super) struct Args {
    /// The run directory, with a trained model.
    #[arg(long)]
    run: PathBuf,
    /// Weight format: f32 or q8.
    #[arg(long, default_value = "q8")]
    quantize: WeightFormat,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    bytes: usize,
    quantization: &'static str,
    items: usize,
    weights: usize,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let bundle = bundle_from_files(&run.model(), &run.tokens(), &run.catalog(), args.quantize)?;
    write_and_report(&bundle, &args.out, output)
}

/// Writes a bundle and prints what was written.
pub(super) fn write_and_report(bundle: &Bundle, path: &Path, output: &Output) -> Result<()> {
    let report = Report {
        file: path,
        bytes: write_bundle(bundle, path)?,
        quantization: bundle.weight_format.name(),
        items: bundle.catalog.len(),
        weights: bundle.weights().values().map(|w| w.rows() * w.columns()).sum(),
    };
    output.result(&report, || {
        format!(
            "{}: {:.2} MB, {} weights in {}, {} items",
            path.display(),
            report.bytes as f64 / 1e6,
            report.weights,
            report.quantization,
            report.items
        )
    });
    Ok(())
}
