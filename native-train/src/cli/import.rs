//! `tigret import`: a Hugging Face checkpoint to a bundle.

use std::path::PathBuf;

use tigret_infer::WeightFormat;

use super::Output;
use super::export::write_and_report;
use crate::error::Result;
use crate::export::{bundle_from_files, check_out};

/// Make a bundle of a T5 checkpoint trained elsewhere, its token layout and its catalogue.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  tigret import --checkpoint DIR --tokens tokens.json --catalog catalog.json --out m.safetensors

DIR holds config.json and model.safetensors as `transformers` saves them. Which tokens start the
decoder, end a history and pad it, the token layout says.")]
pub(super) struct Args {
    /// The checkpoint folder.
    #[arg(long)]
    checkpoint: PathBuf,
    /// The token layout.
    #[arg(long)]
    tokens: PathBuf,
    /// The catalogue: ids and codes.
    #[arg(long)]
    catalog: PathBuf,
    /// Weight format: f32, f16, q8 or q4.
    #[arg(long, default_value = "q8", value_parser = super::export::weight_format)]
    quantize: WeightFormat,
    /// The file to write; a bundle that is there is replaced, another file is not.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    check_out(&args.out)?;
    let Args { checkpoint, tokens, catalog, quantize, out } = args;
    let note = |text| output.note(text);
    let bundle = bundle_from_files(&checkpoint, &tokens, &catalog, quantize, note)?;
    write_and_report(&bundle, &out, output)
}
