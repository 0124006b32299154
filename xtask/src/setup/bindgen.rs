//! wasm-bindgen, built from the version that `Cargo.lock` pins.

use std::path::PathBuf;

use crate::build;
use crate::error::Result;
use crate::report::Report;
use crate::workspace;

const STEP: &str = "wasm-bindgen";

/// Builds the program `xtask-bindgen` if need be and returns its path.
///
/// # Errors
/// When the build fails.
pub(crate) fn locate(report: &Report) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "xtask-bindgen"]);
    let announcement = "compiling it as a library; the first time takes a minute";
    let built = build::quietly(&mut cargo, STEP, announcement, report)?;
    if !built.compiled {
        report.done(STEP, "already built");
    }
    built.program("xtask-bindgen")
}
