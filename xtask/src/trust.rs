//! `cargo xtask trust`: the long form of the tests of faults, hostile input and long runs.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::build;
use crate::error::{Error, Result};
use crate::fuzz;
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::setup::{browser, npm, vulkan};
use crate::summary::{Outcome, Summary};
use crate::test::require_gpu;
use crate::workspace;

/// Arguments of `cargo xtask trust`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes of fuzzing for each reader.
    #[arg(long, default_value_t = 15.0, value_name = "M")]
    fuzz_minutes: f64,
    /// Changed files for each reader, and requests for each engine.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    rounds: u32,
    /// Times that a training is killed, and rounds of each fault in the page; its tests want ten
    /// or more to see both ends of a fault.
    #[arg(long, default_value_t = 50, value_name = "N")]
    faults: u32,
    /// Minutes that each engine is asked, natively and in Chromium.
    #[arg(long, default_value_t = 60.0, value_name = "M")]
    soak_minutes: f64,
}

/// Runs every part whatever the others did, and sums up. `cargo xtask test` has to have passed: it
/// leaves the page and its models.
///
/// # Errors
/// When libtorch cannot be put in place.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    let libtorch = Libtorch::locate(report)?;
    let driver = vulkan::locate(report);
    let mut summary = Summary::default();
    let passed = || Ok(Outcome::Passed(String::new()));

    summary.step("fuzzing", || {
        let fuzz = fuzz::Args::of_all(args.fuzz_minutes);
        match fuzz::run(&fuzz, report)? {
            ExitCode::SUCCESS => passed(),
            _ => Ok(Outcome::Failed("a reader broke; see above".into())),
        }
    });
    for (step, tests, variable, rounds) in [
        ("hostile files", "--test hostile_files", "TIGRET_FUZZ_ROUNDS", args.rounds),
        ("hostile calls", "--test hostile_calls", "TIGRET_FUZZ_ROUNDS", args.rounds),
        (
            "faults of training",
            "--test outside training_faults::",
            "TIGRET_FAULT_ROUNDS",
            args.faults,
        ),
    ] {
        summary.step(step, || {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--workspace"]).args(tests.split(' ')).args(["--", "--nocapture"]);
            cargo.env(variable, rounds.to_string());
            process::run(libtorch.apply(require_gpu(&mut cargo, &driver)))?;
            passed()
        });
    }
    for (step, backend) in [("soak, CPU", "cpu"), ("soak, GPU", "gpu")] {
        summary.step(step, || match &driver {
            Err(why) if backend == "gpu" => Ok(Outcome::Skipped(why.to_string())),
            _ => soak(backend, args.soak_minutes, report).and_then(|()| passed()),
        });
    }
    if let Err(why) = &driver {
        summary.step("hostile calls, GPU", || Ok(Outcome::Skipped(why.to_string())));
    }

    let page = Page::locate(report);
    for (step, backend) in [("soak in Chromium, CPU", "cpu"), ("soak in Chromium, GPU", "webgpu")] {
        summary.step(step, || {
            page.as_ref()
                .map_err(Error::again)?
                .soak(backend, args.soak_minutes)
                .and_then(|()| passed())
        });
    }
    summary.step("faults and hostile calls in the page", || {
        page.as_ref().map_err(Error::again)?.faults(args).and_then(|()| passed())
    });

    println!("\n{}\n{}", summary.table(), summary.closing_line());
    Ok(if summary.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks a native engine the same questions for a time.
fn soak(backend: &str, minutes: f64, report: &Report) -> Result<()> {
    let built = build::examples(&["soak"], "soak", report)?;
    let mut soak = Command::new(built.program("soak")?);
    // A software adapter takes a second for the sizes of the paper.
    let size = if backend == "gpu" { "small" } else { "paper" };
    soak.args(["--backend", backend, "--size", size, "--minutes", &minutes.to_string()]);
    process::run(&mut soak)
}

/// What the page is tested with.
struct Page {
    chromium: std::path::PathBuf,
    models: std::path::PathBuf,
}

impl Page {
    fn locate(report: &Report) -> Result<Self> {
        let models = workspace::root().join(".tigret/parity");
        if !models.is_dir() || !workspace::web().join("dist").is_dir() {
            return Err(Error::message(
                "the page is not built; `cargo xtask test` leaves it built",
            ));
        }
        Ok(Self { chromium: browser::locate(report)?, models })
    }

    fn command(&self, mut command: Command) -> Command {
        let variables: [(&str, &Path); 2] =
            [("TIGRET_CHROMIUM", &self.chromium), ("TIGRET_PARITY_DIR", &self.models)];
        command.envs(variables);
        command
    }

    fn soak(&self, backend: &str, minutes: f64) -> Result<()> {
        let script = workspace::root().join("tests/browser/soak.mjs");
        let mut node = self.command(Command::new("node"));
        process::run(node.arg(script).args([backend, &format!("{minutes}m")]))
    }

    fn faults(&self, args: &Args) -> Result<()> {
        let mut npm = self.command(npm::npm());
        npm.args(["run", "--silent", "test:faults"]);
        npm.env("TIGRET_FAULT_ROUNDS", args.faults.to_string());
        // A call through the page takes far longer than a native one.
        npm.env("TIGRET_FUZZ_ROUNDS", (args.rounds / 20).to_string());
        process::run(&mut npm)
    }
}
