//! The page's npm packages, exactly as `web/package-lock.json` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

const STEP: &str = "npm packages";

/// Runs `npm ci` unless the packages of this very lock file are there.
///
/// # Errors
/// When npm is missing or fails.
pub(crate) fn install(report: &Report) -> Result<()> {
    let web = workspace::web();
    let lock = web.join("package-lock.json");
    let locked = fs::read(&lock).map_err(|e| Error::file(&lock, e))?;
    // `npm ci` removes the folder first, so the copy vouches for a finished installation.
    let installed = web.join("node_modules").join(".installed-lock.json");
    if is_copy(&installed, &locked) {
        report.done(STEP, "already in place (web/node_modules)");
        return Ok(());
    }
    report.doing(STEP, "npm ci in web/");
    process::run_on_stderr(npm().args(["ci", "--no-audit", "--no-fund"]))?;
    fs::write(&installed, &locked).map_err(|e| Error::file(&installed, e))
}

/// `npm`, started in `web/`.
pub(crate) fn npm() -> Command {
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.current_dir(workspace::web());
    npm
}

/// Whether `web/package.json` has a script.
pub(crate) fn has_script(name: &str) -> bool {
    fs::read_to_string(workspace::web().join("package.json"))
        .is_ok_and(|package| declares_script(&package, name))
}

fn declares_script(package: &str, name: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(package)
        .is_ok_and(|package| package["scripts"][name].is_string())
}

fn is_copy(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|copy| copy == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_lock_file_counts_as_installed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join("lock");
        assert!(!is_copy(&copy, b"a"));
        fs::write(&copy, b"a").expect("written");
        assert!(is_copy(&copy, b"a"));
        assert!(!is_copy(&copy, b"b"));
    }

    #[test]
    fn scripts_are_found_by_name() {
        let package = r#"{"scripts": {"build": "tsc"}}"#;
        assert!(declares_script(package, "build"));
        assert!(!declares_script(package, "bench:browser"));
        assert!(!declares_script("not json", "build"));
    }
}
