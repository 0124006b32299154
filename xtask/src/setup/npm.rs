//! Node as `web/package.json` wants it, and the page's npm packages, exactly as
//! `web/package-lock.json` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

const STEP: &str = "npm packages";
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// A version of Node, major and minor.
type Version = (u32, u32);

/// Refuses a machine without the Node and npm that the page is built with.
///
/// # Errors
/// A sentence that says what is missing or too old, and where to get it.
pub(crate) fn check() -> Result<()> {
    let manifest = workspace::web().join("package.json");
    let package = fs::read_to_string(&manifest).map_err(|e| Error::file(&manifest, e))?;
    let least = least_node(&package).ok_or_else(|| {
        Error::file(&manifest, "`engines` has no `node` such as \">=20.19\"; put it there")
    })?;
    let node = process::output(Command::new("node").arg("--version")).ok();
    let has_npm = process::find_on_path(&[NPM]).is_some();
    lack(node.as_deref(), has_npm, least).map_or(Ok(()), |lack| {
        let (major, minor) = least;
        Err(Error::message(format!(
            "the page is built with Node {major}.{minor} or later and its npm, but {lack}; install \
             both from https://nodejs.org, or have them first in PATH"
        )))
    })
}

/// What keeps the page from being built, if anything does; `node` is what it says of its version.
fn lack(node: Option<&str>, has_npm: bool, least: Version) -> Option<String> {
    match node {
        None => Some("there is no `node` that runs".into()),
        Some(node) if version_in(node.trim_start_matches('v')).is_none_or(|own| own < least) => {
            Some(format!("`node` is {node}"))
        }
        Some(_) => (!has_npm).then(|| "there is no `npm`".into()),
    }
}

/// The least Node in `engines` of a package.
fn least_node(package: &str) -> Option<Version> {
    let package: serde_json::Value = serde_json::from_str(package).ok()?;
    version_in(package["engines"]["node"].as_str()?.strip_prefix(">=")?)
}

fn version_in(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Runs `npm ci` unless the packages of this very lock file are there.
///
/// # Errors
/// As [`check`], or when npm fails.
pub(crate) fn install(report: &Report) -> Result<()> {
    check()?;
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
    let mut npm = Command::new(NPM);
    npm.current_dir(workspace::web());
    npm
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
    fn an_old_or_missing_node_is_named() {
        let lack = |node, has_npm| lack(node, has_npm, (20, 19));
        for enough in ["v20.19.0", "v20.20.2", "v22.0.1", "v100.1.0"] {
            assert_eq!(lack(Some(enough), true), None, "{enough}");
        }
        for old in ["v18.20.4", "v20.18.3", "v9.99.0", "what?"] {
            assert_eq!(lack(Some(old), true), Some(format!("`node` is {old}")));
        }
        assert_eq!(lack(None, true).as_deref(), Some("there is no `node` that runs"));
        assert_eq!(lack(Some("v22.1.0"), false).as_deref(), Some("there is no `npm`"));
    }

    #[test]
    fn the_wanted_node_is_that_of_the_package_and_of_the_documentation() {
        assert_eq!(least_node(r#"{"engines": {"node": "20"}}"#), None);
        let read = |path| fs::read_to_string(workspace::root().join(path)).expect("there");
        let (major, minor) = least_node(&read("web/package.json")).expect("a version");
        let documentation = read("docs/development.md");
        assert!(documentation.contains(&format!("Node {major}.{minor} or later with npm")));
    }
}
