//! `tigret demo`: a run as a static site.

use std::path::PathBuf;

use serde::Serialize;
use tigret_infer::WeightFormat;

use super::Output;
use crate::data::new_items::text_recipe;
use crate::device::DeviceChoice;
use crate::embed::encoder::Ready;
use crate::error::Result;
use crate::run_dir::RunDir;
use crate::site::{Laid, check_site, content_of, copy_page, rows_by};

/// Make a static site of a trained run: the demo page with its model.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret demo runs/shop --page web/demo-dist --out site
  tigret demo runs/shop --page web/demo-dist --out site --new-items new.jsonl

The page is built by `cargo xtask demo`, or by `npm run build:demo` in web/; `cargo xtask demo
--run DIR` does both and serves it. Without --out the model is laid into the page's own folder.
New items are shown as such: each gets its semantic ID in the page, by the run's tokenizer.")]
pub(super) struct Args {
    /// The run directory, with a trained model.
    run: PathBuf,
    /// Folder of the built page.
    #[arg(long, value_name = "DIR")]
    page: PathBuf,
    /// Folder of the site; default: the page's.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Items that the model has not seen, JSONL: with the vector as `embedding`, or with a text for the run's
    /// own encoder.
    #[arg(long, value_name = "FILE")]
    new_items: Option<PathBuf>,
    /// Weight format: f32, f16, q8 or q4.
    #[arg(long, default_value = "q8", value_parser = super::export::weight_format)]
    quantize: WeightFormat,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    site: &'a std::path::Path,
    #[serde(flatten)]
    laid: Laid,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let out = args.out.as_deref().unwrap_or(&args.page);
    check_site(&args.page, out, &run)?;
    let encode = |texts: &[&str]| {
        let encoder = Ready::of_run(&run, None, DeviceChoice::Auto, |text| output.note(text))?;
        rows_by(&encoder, texts)
    };
    let recipe = text_recipe(&run)?;
    let new_items = args.new_items.as_deref();
    // Nothing is laid of a run that cannot be shown.
    let content = content_of(&run, args.quantize, new_items, encode, recipe.as_ref())?;
    copy_page(&args.page, out)?;
    let laid = content.lay(out)?;
    let report = Report { site: out, laid };
    output.result(&report, || {
        let Laid { bytes, items, new_items } = &report.laid;
        format!(
            "{}: {items} items, {new_items} new ones, a model of {:.2} MB; serve the folder with \
             any web server",
            out.display(),
            *bytes as f64 / 1e6
        )
    });
    Ok(())
}
