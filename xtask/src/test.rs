//! `cargo xtask test`: all checks there are, the cheapest first.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use tempfile::NamedTempFile;

use crate::build;
use crate::demo;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::setup::{browser, npm, vulkan};
use crate::summary::{Outcome, Summary};
use crate::wasm::{self, Size};
use crate::workspace;

/// What a visitor downloads at most: bytes of the module after wasm-opt, and those with brotli.
const WASM_BUDGET: Size = Size { raw: 450_000, brotli: Some(160_000) };

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only format, lints and tests of the Rust code; nothing of the page.
    #[arg(long)]
    quick: bool,
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: Choice,
}

/// What the steps need of setup: in place, or why not. A step that needs what is not in place
/// fails for that reason, and the others go on.
struct Tools<'a> {
    libtorch: Result<Libtorch>,
    wasm: Result<WasmToolchain>,
    report: &'a Report,
}

/// Sets up what is missing, runs every step whatever the others did, and sums up.
///
/// # Errors
/// None of a step: those are in the summary, and the exit status is 1 then.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    let mut summary = Summary::default();
    summary.step("cargo fmt", || passed(workspace::cargo().args(["fmt", "--all", "--check"])));

    let tools = Tools {
        libtorch: Libtorch::locate(report),
        wasm: WasmToolchain::locate(args.wasm_toolchain, report),
        report,
    };
    check_rust(&mut summary, &tools, args.quick);
    if args.quick {
        summary.step("the page", || Ok(Outcome::Skipped("--quick".into())));
    } else {
        check_page(&mut summary, &tools);
    }

    println!("\n{}\n{}", summary.table(), summary.closing_line());
    Ok(if summary.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Lints, documentation and tests of the workspace. The same packages, profile and environment in
/// every step, so that cargo builds once.
fn check_rust(summary: &mut Summary, tools: &Tools<'_>, quick: bool) {
    summary.step("cargo clippy", || {
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        passed(tools.libtorch()?.apply(&mut clippy))
    });
    summary.step("cargo clippy wasm32", || {
        let toolchain = tools.wasm()?;
        if let Some(lack) = toolchain.lacks_clippy() {
            return Ok(Outcome::Skipped(lack.into()));
        }
        let mut clippy = toolchain.cargo("clippy");
        passed(clippy.args(["--package", "tigret-infer", "--lib", "--", "-D", "warnings"]))
    });
    summary.step("cargo deny", || {
        if !process::succeeds(workspace::cargo().args(["deny", "--version"])) {
            let lack = "not installed; `cargo install cargo-deny --locked` gets it";
            return Ok(Outcome::Skipped(lack.into()));
        }
        // The fuzz target is a workspace of its own.
        ["Cargo.toml", "tests/fuzz/Cargo.toml"].into_iter().try_for_each(check_dependencies)?;
        Ok(Outcome::Passed(String::new()))
    });
    summary.step("cargo doc", || {
        if quick {
            return Ok(Outcome::Skipped("--quick".into()));
        }
        let mut doc = workspace::cargo();
        doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        passed(tools.libtorch()?.apply(&mut doc))
    });

    let driver = vulkan::locate(tools.report);
    let mut left_out = BTreeSet::new();
    summary.step("cargo test, shaders validated", || {
        let list = NamedTempFile::new().map_err(|e| Error::file(&env::temp_dir(), e))?;
        let mut test = workspace::cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]).env("TIGRET_SKIPPED", list.path());
        let outcome = passed(tools.libtorch()?.apply(require_gpu(&mut test, &driver)));
        let lines = fs::read_to_string(list.path()).map_err(|e| Error::file(list.path(), e))?;
        left_out.extend(lines.lines().map(str::to_owned));
        outcome
    });
    if let Err(why) = driver {
        summary.step("native GPU tests", || Ok(Outcome::Skipped(why.to_string())));
    }
    // What tests left out by themselves, each reason once.
    for what in left_out {
        summary.step("a part of cargo test", || Ok(Outcome::Skipped(what)));
    }
}

/// Makes the native GPU tests of a command fail where they find no GPU, if there is a driver; without
/// one they skip themselves.
pub(crate) fn require_gpu<'a, T>(command: &'a mut Command, driver: &Result<T>) -> &'a mut Command {
    if driver.is_ok() {
        command.env("TIGRET_REQUIRE_GPU", "1");
    }
    command
}

/// Holds the dependencies of a workspace to `deny.toml`.
fn check_dependencies(manifest: &str) -> Result<()> {
    let root = workspace::root();
    let mut deny = workspace::cargo();
    deny.args(["deny", "--log-level", "error", "--manifest-path"]).arg(root.join(manifest));
    deny.arg("--config").arg(root.join("deny.toml"));
    // Advisories need a network, and change with the day: docs/trust.md has their command.
    process::run(deny.args(["check", "licenses", "bans", "sources"]))
}

/// The wasm module, the npm package and the page, at last in a browser.
fn check_page(summary: &mut Summary, tools: &Tools<'_>) {
    let report = tools.report;
    let has_packages =
        summary.step("npm ci", || npm::install(report).map(|()| Outcome::Passed(String::new())));
    let mut size = None;
    let has_wasm = summary.step("wasm module", || {
        after("npm ci", has_packages, || {
            size = Some(wasm::build_module(tools.wasm()?, report)?);
            Ok(Outcome::Passed(String::new()))
        })
    });
    // A step of its own: a module that is too large is built all the same, and can be tested.
    summary.step("size of the module", || {
        Ok(match size {
            None => Outcome::Skipped("needs the wasm module".into()),
            Some(size) if size.fits(WASM_BUDGET) => Outcome::Passed(size.to_string()),
            Some(size) => Outcome::Failed(format!("{size}, over the budget of {WASM_BUDGET}")),
        })
    });
    let mut is_built = true;
    for (step, script) in [
        ("npm run check", "check"),
        ("npm test", "test"),
        ("npm run build", "build"),
        ("npm run build:demo", "build:demo"),
    ] {
        let has_passed =
            summary.step(step, || after("the wasm module", has_wasm, || npm_run(script, &[])));
        is_built &= has_passed || !script.starts_with("build");
    }

    let mut parity = PathBuf::new();
    let has_models = summary.step("models for the browser", || {
        parity = make_models(tools.libtorch()?, report)?;
        Ok(Outcome::Passed("tigret from prepare to export, in small".into()))
    });
    summary.step("npm run test:browser", || {
        let chromium = match browser::locate(report) {
            Ok(chromium) => chromium,
            Err(why) => return Ok(Outcome::Skipped(why.to_string())),
        };
        after("the built page and its models", is_built && has_models, || {
            let variables =
                [("TIGRET_CHROMIUM", chromium.as_path()), ("TIGRET_PARITY_DIR", &parity)];
            npm_run("test:browser", &variables)
        })
    });
}

impl Tools<'_> {
    fn libtorch(&self) -> Result<&Libtorch> {
        self.libtorch.as_ref().map_err(Error::again)
    }

    fn wasm(&self) -> Result<&WasmToolchain> {
        self.wasm.as_ref().map_err(Error::again)
    }
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
    workspace::remove(&folder)?;
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
