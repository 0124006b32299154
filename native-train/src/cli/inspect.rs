//! `tigret inspect`: what is in a bundle or a run.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use tigret_infer::{Bundle, T5Config, TokenLayout, Weight};

use super::Output;
use crate::data::Dataset;
use crate::destination;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::export::read_bundle;
use crate::files::make_parent;
use crate::report::{self, Report};
use crate::run_dir::RunDir;
use crate::tokenizer::stats::{LevelUse, level_use};

/// Show what a bundle holds, or statistics of a run and of its semantic IDs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret inspect model.safetensors
  tigret inspect runs/beauty
  tigret inspect runs/beauty --html report.html
  tigret inspect runs/beauty --json")]
pub(super) struct Args {
    /// A bundle, or a run directory.
    path: PathBuf,
    /// Also write a report on the run's semantic IDs: one HTML file that loads nothing. It replaces
    /// an earlier report, and nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How many sampled items have their neighbours by semantic ID compared with those by cosine; 0
    /// skips this.
    #[arg(long, value_name = "ITEMS", default_value_t = 2000)]
    sample: usize,
}

impl Args {
    /// Refuses to write the page where something else lies, or a file of the run would.
    pub(super) fn check(&self) -> Result<()> {
        let Some(page) = &self.html else { return Ok(()) };
        RunDir::named(&self.path).check_no_artefact(page)?;
        report::check_html(page)
    }
}

#[derive(Debug, Serialize)]
struct BundleReport<'a> {
    format: &'static str,
    quantization: &'static str,
    items: usize,
    weights: usize,
    weight_bytes: usize,
    config: &'a T5Config,
    tokens: &'a TokenLayout,
    levels: Vec<LevelUse>,
    /// The method of the tokenizer that the bundle carries.
    tokenizer: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct RunReport<'a> {
    #[serde(flatten)]
    artefacts: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_ids: Option<&'a Report>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    if args.path.is_dir() {
        inspect_run(&RunDir::open(&args.path)?, &args, output)
    } else if let Some(html) = &args.html {
        Err(TrainError::usage(format!(
            "--html {} needs a run directory, which has the items' titles and vectors; {} is none",
            html.display(),
            args.path.display()
        )))
    } else if !args.path.exists() {
        let reason = "not found; name a run directory, or a bundle of `tigret export`";
        Err(TrainError::file(&args.path, reason))
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
        weights: bundle.config.weights(),
        weight_bytes: bundle.weights().values().map(Weight::bytes).sum(),
        config,
        tokens,
        levels: level_use(catalog.codes(), &sizes),
        tokenizer: bundle.quantizer().map(|quantizer| quantizer.config().method.as_str()),
    };
    output.result(&report, || {
        let mut text = format!(
            "{}: {} bundle, {} weights in {} ({:.2} MB)\n\
             model      {} + {} layers, width {}, {} heads of {}, feed-forward {}, vocabulary {}\n\
             history    the last {} items, {}\n\
             catalogue  {} items, first \"{}\"\n",
            path.display(),
            report.format,
            report.weights,
            report.quantization,
            report.weight_bytes as f64 / 1e6,
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
        for (number, level) in (1..).zip(&report.levels) {
            text += &format!(
                "level {number}    {} of {} codes used, perplexity {:.1}\n",
                level.used, level.codewords, level.perplexity
            );
        }
        text + "tokenizer  "
            + report
                .tokenizer
                .unwrap_or("none, so the page cannot add items; export --with-tokenizer")
    });
    Ok(())
}

fn inspect_run(run: &RunDir, args: &Args, output: &Output) -> Result<()> {
    let mut artefacts = report::artefacts(run)?;
    // Before `tokenize` there is less to say, and that is no error unless the page was asked for.
    let settings = report::Settings { sample: args.sample, ..Default::default() };
    let report = match args.html.is_some() || run.catalog().exists() {
        true => Some(Report::new(run, settings)?),
        false => None,
    };
    let mut missing = report.as_ref().map(|report| report.omitted.clone()).unwrap_or_default();
    if report.is_none() && !artefacts.is_empty() {
        match vectors_of(run) {
            Ok(vectors) => _ = artefacts.insert("vectors".into(), vectors),
            Err(e) => missing.push(format!("vectors: {e}")),
        }
        missing.push("semantic IDs: make them with `tigret tokenize`".into());
    }
    if artefacts.is_empty() && report.is_none() {
        return Err(TrainError::file(
            run.root(),
            "holds no artefact of a run; make one with `tigret prepare`",
        ));
    }
    let shown = run.root().display().to_string();
    if let (Some(path), Some(report)) = (&args.html, &report) {
        let page = report.html(&name(run.root()), &artefacts);
        make_parent(path)?;
        destination::write(path, |file| file.write_all(page.as_bytes()))?;
    }
    let value = RunReport { artefacts: &artefacts, semantic_ids: report.as_ref() };
    output.result(&value, || report::summary(&shown, &artefacts, report.as_ref(), &missing));
    if let Some(path) = &args.html {
        output.note(format!("report written to {}", path.display()));
    }
    Ok(())
}

/// What is told of a run's vectors where no report does.
fn vectors_of(run: &RunDir) -> Result<Value> {
    let dimensions = Vectors::load(run, &Dataset::load_items(run)?)?.dimensions;
    Ok(json!({"dimensions": dimensions, "encoder": Vectors::encoder(run)}))
}

/// The last part of a run's path; a colleague does not need the rest.
fn name(root: &Path) -> String {
    let whole = root.canonicalize();
    let last = whole.as_deref().unwrap_or(root).file_name();
    last.map_or_else(|| root.display().to_string(), |name| name.to_string_lossy().into_owned())
}
