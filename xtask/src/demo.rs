//! `cargo xtask demo`: from nothing to the page with a model trained here a moment ago.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

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

/// The bundle of a run, made by [`EXPORT`].
const BUNDLE: &str = "bundle.q8.safetensors";

/// The steps of the demo's own run, in order: what `tigret` is called with, and what it makes.
/// Every step gets `--run DIR` as well. Five minutes on two cores is the limit of `train`.
const STEPS: [Step; 5] = [
    Step { verb: "prepare", options: &["--classics"], makes: "dataset.json" },
    Step { verb: "embed", options: &[], makes: "vectors.safetensors" },
    Step { verb: "tokenize", options: &["--codebook-size", "32"], makes: "catalog.json" },
    // A few passes over much data cannot overfit, so dropout would only slow it down.
    Step {
        verb: "train",
        options: &[
            "--preset",
            "tiny",
            "--dropout",
            "0",
            "--batch",
            "128",
            "--learning-rate",
            "0.002",
            "--warmup",
            "300",
            "--validation-users",
            "1000",
            "--max-minutes",
            "4.5",
        ],
        makes: "model/model.safetensors",
    },
    Step { verb: "evaluate", options: &[], makes: "evaluation.json" },
];

/// The same in half a minute, for the tests: what it recommends is of no use.
const SMALL_STEPS: [Step; 5] = [
    Step { options: &["--classics", "--readers", "300"], ..STEPS[0] },
    STEPS[1],
    Step { options: &["--codebook-size", "32", "--epochs", "5"], ..STEPS[2] },
    Step { options: &["--preset", "tiny", "--max-minutes", "0.2"], ..STEPS[3] },
    Step { options: &["--beams", "10"], ..STEPS[4] },
];

/// The last step, of the demo's own run and of any other. The bundle's path is added.
const EXPORT: Step = Step { verb: "export", options: &["--quantize", "q8"], makes: BUNDLE };

/// One call of `tigret`.
#[derive(Debug, Clone, Copy)]
struct Step {
    verb: &'static str,
    options: &'static [&'static str],
    /// Relative to the run directory.
    makes: &'static str,
}

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
            tigret.make(&run, &STEPS)?;
            run
        }
    };

    page::build_wasm(&toolchain, report)?;
    report.doing("page", "npm run build:demo in web/");
    process::run_on_stderr(npm::npm().args(["run", "--silent", "build:demo"]))?;
    let built = built_page();
    lay_model(&run, &built.join("model"))?;
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
    Tigret { program, libtorch, report }.make(&run, &SMALL_STEPS)?;
    lay_model(&run, &built_page().join("model"))
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
    /// Makes the demo's run, as far as it is not made already by the same steps.
    fn make(&self, run: &Path, steps: &[Step]) -> Result<()> {
        let mut made_anew = false;
        for step in steps.iter().chain(&[EXPORT]) {
            // What rests on something newer is made anew as well.
            if !made_anew && is_made(run, step) {
                self.report.done(step.verb, "already done");
                continue;
            }
            made_anew = true;
            forget(run, step)?;
            self.call(run, step)?;
            remember(run, step)?;
        }
        Ok(())
    }

    /// Exports the model of a run unless its bundle is newer.
    fn export_if_older(&self, run: &Path) -> Result<()> {
        let model = run.join("model").join("model.safetensors");
        let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        let trained = time(&model).map_err(|e| {
            Error::message(format!(
                "{}: {e}; train the run with `cargo xtask tigret train --run {}`",
                model.display(),
                run.display()
            ))
        })?;
        if time(&run.join(BUNDLE)).is_ok_and(|exported| exported >= trained) {
            self.report.done(EXPORT.verb, "already done");
            return Ok(());
        }
        self.call(run, &EXPORT)
    }

    fn call(&self, run: &Path, step: &Step) -> Result<()> {
        let mut command = Command::new(self.program);
        command.arg(step.verb).arg("--run").arg(run).args(step.options);
        if step.makes == BUNDLE {
            command.arg("--out").arg(run.join(BUNDLE));
        }
        self.report.doing(step.verb, process::line(&command));
        let begin = Instant::now();
        process::run_on_stderr(self.libtorch.apply(&mut command))?;
        self.report.doing(step.verb, format!("done in {:.0} s", begin.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Where a finished step leaves the options that it ran with. Its artefact alone does not show
/// that it came to its end: training writes the best model so far.
fn stamp(run: &Path, step: &Step) -> PathBuf {
    run.join(".demo").join(step.verb)
}

fn is_made(run: &Path, step: &Step) -> bool {
    run.join(step.makes).is_file()
        && fs::read_to_string(stamp(run, step))
            .is_ok_and(|options| options == step.options.join(" "))
}

fn remember(run: &Path, step: &Step) -> Result<()> {
    let stamp = stamp(run, step);
    stamp
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&stamp, step.options.join(" ")))
        .map_err(|e| Error::file(&stamp, e))
}

fn forget(run: &Path, step: &Step) -> Result<()> {
    let stamp = stamp(run, step);
    match fs::remove_file(&stamp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file(&stamp, error))
        }
        _ => Ok(()),
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

    const STEP: Step = Step { verb: "train", options: &["--preset", "tiny"], makes: "model" };

    #[test]
    fn a_step_is_done_when_it_came_to_its_end_with_the_same_options() {
        let run = tempfile::tempdir().expect("a temporary folder");
        let artefact = run.path().join(STEP.makes);
        fs::write(&artefact, "best so far").expect("written");
        assert!(!is_made(run.path(), &STEP), "an artefact alone may be of an interrupted step");
        remember(run.path(), &STEP).expect("remembered");
        assert!(is_made(run.path(), &STEP));
        assert!(!is_made(run.path(), &Step { options: &["--preset", "small"], ..STEP }));
        fs::remove_file(&artefact).expect("removed");
        assert!(!is_made(run.path(), &STEP));
        fs::write(&artefact, "again").expect("written");
        forget(run.path(), &STEP).expect("forgotten");
        forget(run.path(), &STEP).expect("forgetting twice is no error");
        assert!(!is_made(run.path(), &STEP));
    }

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
