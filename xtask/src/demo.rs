//! `cargo xtask demo`: from nothing to the page with a model trained here a moment ago.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::page;
use crate::process;
use crate::report::Report;
use crate::serve;
use crate::setup::libtorch::Libtorch;
use crate::setup::npm;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::tigret;
use crate::workspace;

/// The bundle of a run, as `tigret run` names it.
const BUNDLE: &str = "bundle.safetensors";

/// New items, which the model has not seen: in a run of one's own, and those of the classics.
const ARRIVALS: &str = "new.jsonl";
const DEMO_ARRIVALS: &str = "demo-new.jsonl";

/// The demo in half a minute, for the tests: what it recommends is of no use.
const SMALL: [&str; 4] =
    ["prepare.readers=300", "tokenize.epochs=20", "train.max-minutes=0.2", "evaluate.beams=10"];

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Port of the page; the next free one if it is taken.
    #[arg(long, default_value_t = 5173)]
    port: u16,
    /// Show a run of your own, trained already, instead of the embedded classics.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Make the demo's run anew.
    #[arg(long, conflicts_with = "run")]
    fresh: bool,
    /// Build the page into web/demo-dist and stop there.
    #[arg(long)]
    no_serve: bool,
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: Choice,
}

/// Sets up, trains, exports, builds the page and serves it.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    let libtorch = Libtorch::locate(report)?;
    let toolchain = WasmToolchain::locate(args.wasm_toolchain, report)?;
    npm::install(report)?;
    let program = tigret::build(&libtorch, report)?;

    let tigret = Tigret { program: &program, libtorch: &libtorch, report };
    let arrivals = match &args.run {
        Some(own) => own.join(ARRIVALS),
        None => workspace::root().join("xtask").join(DEMO_ARRIVALS),
    };
    let run = match &args.run {
        Some(own) => {
            let own = std::path::absolute(own).map_err(|e| Error::file(own, e))?;
            tigret.export_if_older(&own)?;
            own
        }
        None => {
            let run = workspace::root().join("runs").join("demo");
            if args.fresh && run.exists() {
                fs::remove_dir_all(&run).map_err(|e| Error::file(&run, e))?;
            }
            tigret.make(&run, &[])?;
            run
        }
    };

    page::build_wasm(&toolchain, report)?;
    report.doing("page", "npm run build:demo in web/");
    process::run_on_stderr(npm::npm().args(["run", "--silent", "build:demo"]))?;
    let built = built_page();
    lay_model(&run, &built.join("model"))?;
    tigret.lay_arrivals(&run, &arrivals, &built.join("model"))?;
    report.doing("page", format!("built in {}", built.display()));
    if args.no_serve {
        return Ok(ExitCode::SUCCESS);
    }
    let (server, address) = serve::listen(args.port)?;
    println!("The demo is at http://{address}/ (Ctrl-C ends it)");
    serve::serve(&server, &built);
    Ok(ExitCode::SUCCESS)
}

/// Goes through all steps of the demo in small, and lays the model beside the page.
///
/// # Errors
/// The first step that fails.
pub(crate) fn make_small(program: &Path, libtorch: &Libtorch, report: &Report) -> Result<()> {
    let run = workspace::root().join(".tigret").join("small-demo");
    if run.exists() {
        fs::remove_dir_all(&run).map_err(|e| Error::file(&run, e))?;
    }
    let tigret = Tigret { program, libtorch, report };
    tigret.make(&run, &SMALL)?;
    let folder = built_page().join("model");
    lay_model(&run, &folder)?;
    tigret.lay_arrivals(&run, &workspace::root().join("xtask").join(DEMO_ARRIVALS), &folder)
}

/// Where `npm run build:demo` puts the page.
fn built_page() -> PathBuf {
    workspace::web().join("demo-dist")
}

/// Calls `tigret`.
struct Tigret<'a> {
    program: &'a Path,
    libtorch: &'a Libtorch,
    report: &'a Report,
}

impl Tigret<'_> {
    /// Makes the demo's run by `tigret run`, which skips what is done.
    fn make(&self, run: &Path, settings: &[&str]) -> Result<()> {
        let mut command = Command::new(self.program);
        command.arg("run").arg(workspace::root().join("xtask").join("demo.toml"));
        command.arg("--set").arg(format!("run={}", run.display()));
        for setting in settings {
            command.args(["--set", setting]);
        }
        self.call(command)
    }

    /// Exports the model of a run unless its bundle is newer.
    fn export_if_older(&self, run: &Path) -> Result<()> {
        // Written with the weights, which may be in several files.
        let (model, bundle) = (run.join("model").join("config.json"), run.join(BUNDLE));
        let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        let trained = time(&model).map_err(|e| {
            Error::message(format!(
                "{}: {e}; train the run with `cargo xtask tigret train --run {}`",
                model.display(),
                run.display()
            ))
        })?;
        if time(&bundle).is_ok_and(|exported| exported >= trained) {
            self.report.done("export", "already done");
            return Ok(());
        }
        let mut command = Command::new(self.program);
        command.args(["export", "--quantize", "q8", "--run"]).arg(run).arg("--out").arg(bundle);
        if run.join("tokenizer.safetensors").exists() {
            command.arg("--with-tokenizer");
        }
        self.call(command)
    }

    /// Lays new items with their content vectors beside the model, if there are any.
    fn lay_arrivals(&self, run: &Path, arrivals: &Path, folder: &Path) -> Result<()> {
        let to = folder.join(ARRIVALS);
        if !arrivals.exists() {
            return match fs::remove_file(&to) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file(&to, e)),
                _ => Ok(()),
            };
        }
        let vectors = run.join("new.safetensors");
        let mut command = Command::new(self.program);
        command.args(["embed", "--run"]).arg(run).arg("--texts").arg(arrivals);
        self.call({
            command.arg("--out").arg(&vectors);
            command
        })?;
        let text = fs::read_to_string(arrivals).map_err(|e| Error::file(arrivals, e))?;
        let bytes = fs::read(&vectors).map_err(|e| Error::file(&vectors, e))?;
        let lines = with_embeddings(&text, &bytes).map_err(|e| Error::file(arrivals, e))?;
        fs::write(&to, lines).map_err(|e| Error::file(&to, e))
    }

    fn call(&self, mut command: Command) -> Result<()> {
        self.report.doing("tigret", process::line(&command));
        process::run_on_stderr(self.libtorch.apply(&mut command))
    }
}

/// Lays what the page loads beside it: the bundle, the items, and what is to be said of them.
fn lay_model(run: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    for (from, to) in [(BUNDLE, "model.safetensors"), ("items.jsonl", "items.jsonl")] {
        let from = run.join(from);
        fs::copy(&from, folder.join(to)).map_err(|e| Error::file(&from, e))?;
    }
    let dataset = read_json(&run.join("dataset.json"))?;
    // A run that was never evaluated has no figures, and the page then shows none.
    let evaluation = read_json(&run.join("evaluation.json")).unwrap_or(Value::Null);
    let oracle = read_json(&run.join("oracle.json")).unwrap_or(Value::Null);
    let path = folder.join("about.json");
    let about = about(&dataset, &evaluation, &oracle);
    fs::write(&path, format!("{about:#}\n")).map_err(|e| Error::file(&path, e))
}

/// The items of a JSONL text, each with its row of the vectors as `embedding`.
fn with_embeddings(
    text: &str,
    vectors: &[u8],
) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let file = SafeTensors::deserialize(vectors)?;
    let vectors = file.tensor("vectors")?;
    let &[rows, width] = vectors.shape() else { return Err("the vectors are no matrix".into()) };
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() != rows || width == 0 {
        return Err(format!("{} items, {rows} vectors of {width}", lines.len()).into());
    }
    let mut out = String::new();
    for (line, row) in lines.into_iter().zip(vectors.data().chunks_exact(4 * width)) {
        let mut item: serde_json::Map<String, Value> = serde_json::from_str(line)?;
        let values = row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        item.insert("embedding".into(), values.collect());
        out += &serde_json::to_string(&item)?;
        out.push('\n');
    }
    Ok(out)
}

/// What the page says of the model.
fn about(dataset: &Value, evaluation: &Value, oracle: &Value) -> Value {
    json!({
        "name": dataset["source"],
        "simulated": dataset["simulated"],
        "items": dataset["items"],
        "users": dataset["users"],
        "recall@10": evaluation["model"]["recall@10"],
        "popularity recall@10": evaluation["popularity"]["recall@10"],
        "optimum recall@10": oracle["recall@10"],
    })
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_told_the_figures_that_there_are() {
        let dataset = json!({"source": "classics", "simulated": true, "items": 12, "users": 3});
        let evaluation = json!({"model": {"recall@10": 0.4}, "popularity": {"recall@10": 0.1}});
        let told = about(&dataset, &evaluation, &json!({"recall@10": 0.5}));
        assert_eq!(told["name"], "classics");
        assert_eq!(told["recall@10"], 0.4);
        assert_eq!(told["popularity recall@10"], 0.1);
        assert_eq!(told["optimum recall@10"], 0.5);
        let untold = about(&dataset, &Value::Null, &Value::Null);
        assert_eq!(untold["recall@10"], Value::Null);
        assert_eq!(untold["items"], 12);
    }
}
