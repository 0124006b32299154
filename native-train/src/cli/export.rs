//! `tigret export`: a trained run to a bundle.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tigret_infer::{Bundle, WeightFormat};

use super::Output;
use crate::error::Result;
use crate::export::{bundle_of_run, check_out, with_tokenizer_of_run, write_bundle};
use crate::run_dir::RunDir;

/// Write a run's model, token layout and catalogue as one bundle for the browser.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret export --run runs/beauty --out beauty.safetensors
  tigret export --run runs/beauty --with-tokenizer --out beauty.safetensors
  tigret export --run runs/beauty --quantize q4 --out beauty-q4.safetensors")]
pub(super) struct Args {
    /// The run directory, with a trained model.
    #[arg(long)]
    run: PathBuf,
    /// Weight format: f32, f16, q8 or q4.
    #[arg(long, default_value = "q8", value_parser = weight_format)]
    quantize: WeightFormat,
    /// Also write the run's tokenizer into the bundle, so that a page can give new items their
    /// semantic IDs (`recommender.addItems`).
    #[arg(long)]
    with_tokenizer: bool,
    /// The file to write; a bundle that is there is replaced, another file is not.
    #[arg(long)]
    out: PathBuf,
}

/// The value of every `--quantize`.
pub(super) fn weight_format(name: &str) -> std::result::Result<WeightFormat, String> {
    name.parse()
        .map_err(|_| format!("use {}", WeightFormat::ALL.map(WeightFormat::name).join(", ")))
}

/// What was written.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    bytes: usize,
    quantization: &'static str,
    items: usize,
    weights: usize,
    /// The method of the tokenizer that the bundle carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer: Option<&'a str>,
}

impl Args {
    /// Refuses to write the bundle where something else lies, or a file of the run would.
    pub(super) fn check(&self) -> Result<()> {
        RunDir::named(&self.run).check_no_artefact(&self.out)?;
        check_out(&self.out)
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let mut bundle = bundle_of_run(&run, args.quantize)?;
    if args.with_tokenizer {
        bundle = with_tokenizer_of_run(bundle, &run)?;
    }
    write_and_report(&bundle, &args.out, output)
}

/// Writes a bundle and prints what was written.
pub(super) fn write_and_report(bundle: &Bundle, path: &Path, output: &Output) -> Result<()> {
    let report = Report {
        file: path,
        bytes: write_bundle(bundle, path)?,
        quantization: bundle.weight_format.name(),
        items: bundle.catalog.len(),
        weights: bundle.config.weights(),
        tokenizer: bundle.quantizer().map(|quantizer| quantizer.config().method.as_str()),
    };
    output.result(&report, || {
        format!(
            "{}: {:.2} MB, {} weights in {}, {} items{}",
            path.display(),
            report.bytes as f64 / 1e6,
            report.weights,
            report.quantization,
            report.items,
            report.tokenizer.map_or(String::new(), |method| format!(", tokenizer {method}"))
        )
    });
    Ok(())
}
