//! `cargo xtask test`: all checks there are, the cheapest first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::build;
use crate::demo;
use crate::error::{Error, Result};
use crate::page;
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::setup::{browser, npm, vulkan};
use crate::summary::{Outcome, Summary};
use crate::workspace;

/// The module may not grow beyond this unnoticed: bytes after wasm-opt.
const WASM_BUDGET: u64 = 600_000;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the documentation, the wasm module and what runs in a browser.
    #[arg(long)]
    quick: bool,
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: Choice,
}

/// Sets up what is missing, runs every step whatever the others did, and sums up.
///
/// # Errors
/// None of a step: those are in the summary, and the exit status is 1 then.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    let mut summary = Summary::default();
    let quick = || Outcome::Skipped("--quick".into());

    summary.step("cargo fmt", || passed(workspace::cargo().args(["fmt", "--all", "--check"])));

    // The same packages, profile and environment in every step, so that cargo builds once.
    let libtorch = Libtorch::locate(report).map_err(|error| error.to_string());
    let with_libtorch = |cargo: &mut Command| -> Result<Outcome> {
        let libtorch = libtorch.as_ref().map_err(Error::message)?;
        passed(libtorch.apply(cargo))
    };
    summary.step("cargo clippy", || {
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        with_libtorch(&mut clippy)
    });

    let toolchain = WasmToolchain::locate(args.wasm_toolchain, report).map_err(|e| e.to_string());
    summary.step("cargo clippy wasm32", || {
        let toolchain = toolchain.as_ref().map_err(Error::message)?;
        if let Some(lack) = toolchain.lacks_clippy() {
            return Ok(Outcome::Skipped(lack.into()));
        }
        let mut clippy = toolchain.cargo("clippy");
        passed(clippy.args(["--package", "tigret-infer", "--lib", "--", "-D", "warnings"]))
    });

    summary.step("cargo doc", || {
        if args.quick {
            return Ok(quick());
        }
        let mut doc = workspace::cargo();
        doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        with_libtorch(&mut doc)
    });

    let driver = vulkan::locate(report).map_err(|error| error.to_string());
    summary.step("cargo test, shaders validated", || {
        let mut test = workspace::cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]);
        if driver.is_ok() {
            // Without a driver the native GPU tests skip themselves; with one they must run.
            test.env("TIGRET_REQUIRE_GPU", "1");
        }
        with_libtorch(&mut test)
    });
    if let Err(why) = &driver {
        summary.step("native GPU tests", || Ok(Outcome::Skipped(why.clone())));
    }

    let has_wasm = summary.step("wasm module", || {
        if args.quick {
            return Ok(quick());
        }
        let toolchain = toolchain.as_ref().map_err(Error::message)?;
        let size = page::build_wasm(toolchain, report)?;
        if size.raw > WASM_BUDGET {
            return Ok(Outcome::Failed(format!("{size}, over the budget of {WASM_BUDGET} bytes")));
        }
        Ok(Outcome::Passed(size.to_string()))
    });

    let has_packages =
        summary.step("npm ci", || npm::install(report).map(|()| Outcome::Passed(String::new())));
    for (step, script) in [("npm run check", "check"), ("npm test", "test")] {
        summary.step(step, || after("npm ci", has_packages, || npm_run(script, &[])));
    }
    let ready = has_packages && has_wasm;
    let mut is_built = ready;
    for (step, script) in [("npm run build", "build"), ("npm run build:demo", "build:demo")] {
        is_built &= summary.step(step, || {
            if args.quick {
                return Ok(quick());
            }
            after("npm ci and the wasm module", ready, || npm_run(script, &[]))
        });
    }
    let mut parity = None;
    let has_models = summary.step("models for the browser", || {
        if args.quick {
            return Ok(quick());
        }
        let libtorch = libtorch.as_ref().map_err(Error::message)?;
        parity = Some(make_models(libtorch, report)?);
        Ok(Outcome::Passed("tigret from prepare to export".into()))
    });
    summary.step("npm run test:browser", || {
        if args.quick {
            return Ok(quick());
        }
        let chromium = match browser::locate(report) {
            Ok(chromium) => chromium,
            Err(why) => return Ok(Outcome::Skipped(why.to_string())),
        };
        after("the built page and its models", is_built && has_models, || {
            let parity = parity.as_deref().unwrap_or(Path::new(""));
            let variables =
                [("TIGRET_CHROMIUM", chromium.as_path()), ("TIGRET_PARITY_DIR", parity)];
            npm_run("test:browser", &variables)
        })
    });

    println!("\n{}\n{}", summary.table(), summary.closing_line());
    Ok(if summary.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn passed(command: &mut Command) -> Result<Outcome> {
    process::run(command).map(|()| Outcome::Passed(String::new()))
}

/// Runs a step only if what it needs has passed.
fn after(needed: &str, ready: bool, action: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if ready { action() } else { Ok(Outcome::Skipped(format!("needs {needed}"))) }
}

fn npm_run(script: &str, variables: &[(&str, &Path)]) -> Result<Outcome> {
    let mut npm = npm::npm();
    npm.args(["run", "--silent", script]).envs(variables.iter().copied());
    passed(&mut npm)
}

/// Makes what the page is tested with: the demo in small, and in the folder returned what the
/// native engines compute on small models.
fn make_models(libtorch: &Libtorch, report: &Report) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    // The whole workspace, so that the features and thus the builds of `cargo test` are used.
    cargo.args(["build", "--workspace", "--bin", "tigret", "--example", "write_parity"]);
    let announcement = "compiling tigret and the example write_parity";
    let built = build::quietly(libtorch.apply(&mut cargo), "models", announcement, report)?;

    demo::make_small(&built.program("tigret")?, libtorch, report)?;

    let folder = workspace::root().join(".tigret").join("parity");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
    }
    fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
    let mut write_parity = Command::new(built.program("write_parity")?);
    report.doing("models", format!("write_parity {}", folder.display()));
    process::run_on_stderr(libtorch.apply(write_parity.arg(&folder)))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_whose_needs_failed_is_skipped_and_says_so() {
        let tried = after("npm ci", false, || Ok(Outcome::Passed(String::new())));
        assert_eq!(tried.ok(), Some(Outcome::Skipped("needs npm ci".into())));
        let tried = after("npm ci", true, || Ok(Outcome::Passed(String::new())));
        assert_eq!(tried.ok(), Some(Outcome::Passed(String::new())));
    }
}
