//! `cargo xtask demo`: from nothing to the page with a model trained here a moment ago.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::run_dir;
use crate::serve;
use crate::setup::libtorch::Libtorch;
use crate::setup::npm;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::tigret;
use crate::wasm;
use crate::workspace;

/// The demo in half a minute, for the tests: what it recommends is of no use.
const SMALL: [&str; 4] =
    ["prepare.readers=300", "tokenize.epochs=20", "train.max-minutes=0.2", "evaluate.beams=10"];
/// What the page shows of a run.
const ARTEFACTS: [&str; 4] = ["items.jsonl", "tokens.json", "catalog.json", "model/config.json"];

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
    if let Some(own) = &args.run {
        let verbs = "`tigret prepare`, `embed`, `tokenize` and `train`";
        run_dir::check(own, &ARTEFACTS, verbs)?;
    }
    // Half a gigabyte and minutes before it is used.
    npm::check()?;
    let libtorch = Libtorch::locate(report)?;
    let toolchain = WasmToolchain::locate(args.wasm_toolchain, report)?;
    npm::install(report)?;
    let program = tigret::build(&libtorch, report)?;

    let tigret = Tigret { program: &program, libtorch: &libtorch, report };
    let (run, new_items) = match &args.run {
        Some(own) => {
            let own = std::path::absolute(own).map_err(|e| Error::file(own, e))?;
            let new_items = own.join("new.jsonl");
            (own, new_items)
        }
        None => {
            let run = workspace::root().join("runs").join("demo");
            if args.fresh {
                workspace::remove(&run)?;
            }
            tigret.make(&run, &[])?;
            (run, demo_new_items())
        }
    };

    wasm::build_module(&toolchain, report)?;
    report.doing("page", "npm run build:demo in web/");
    process::run_on_stderr(npm::npm().args(["run", "--silent", "build:demo"]))?;
    let built = built_page();
    tigret.lay(&run, &new_items)?;
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
    workspace::remove(&run)?;
    let tigret = Tigret { program, libtorch, report };
    tigret.make(&run, &SMALL)?;
    tigret.lay(&run, &demo_new_items())
}

/// Classics that the demo's model has not seen.
fn demo_new_items() -> PathBuf {
    workspace::root().join("xtask").join("demo-new.jsonl")
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

    /// Lays the model of a run beside the page, and new items, if there is such a file.
    fn lay(&self, run: &Path, new_items: &Path) -> Result<()> {
        let mut command = Command::new(self.program);
        command.arg("demo").arg(run).arg("--page").arg(built_page());
        if new_items.exists() {
            command.arg("--new-items").arg(new_items);
        }
        self.call(command)
    }

    fn call(&self, mut command: Command) -> Result<()> {
        self.report.doing("tigret", process::line(&command));
        process::run_on_stderr(self.libtorch.apply(&mut command))
    }
}
