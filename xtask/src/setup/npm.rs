//! Node as Vite wants it, and the page's npm packages, exactly as `web/package-lock.json` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

const STEP: &str = "npm packages";

/// What the page is built with: later ones of this line, and all from [`NEWER`] on.
const NODE: Version = (20, 19);
const NEWER: Version = (22, 12);

/// A version of Node, major and minor.
type Version = (u32, u32);

/// Refuses a machine without the Node and npm that the page is built with.
///
/// # Errors
/// A sentence that says what is missing or too old, and where to get it.
pub(crate) fn check() -> Result<()> {
    let node = process::output(Command::new("node").arg("--version")).ok();
    let has_npm = process::find_on_path(&["npm"]).is_some();
    lack(node.as_deref(), has_npm).map_or(Ok(()), |lack| {
        Err(Error::message(format!(
            "the page is built with {} and its npm, but {lack}; install both from \
             https://nodejs.org, or have them first in PATH",
            wanted()
        )))
    })
}

fn wanted() -> String {
    let ((major, minor), (newer, its_minor)) = (NODE, NEWER);
    format!("Node {major} from {major}.{minor} on, or {newer}.{its_minor} or later")
}

/// What keeps the page from being built, if anything does; `node` is what it says of its version.
fn lack(node: Option<&str>, has_npm: bool) -> Option<String> {
    let is_enough = |own: Version| own >= NEWER || (own >= NODE && own.0 == NODE.0);
    match node {
        None => Some("there is no `node` that runs".into()),
        Some(node) if !version_in(node.trim_start_matches('v')).is_some_and(is_enough) => {
            Some(format!("`node` is {node}"))
        }
        Some(_) => (!has_npm).then(|| "there is no `npm`".into()),
    }
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
    let mut npm = Command::new("npm");
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
        for enough in ["v20.19.0", "v20.20.2", "v22.12.0", "v100.1.0"] {
            assert_eq!(lack(Some(enough), true), None, "{enough}");
        }
        for old in ["v18.20.4", "v20.18.3", "v21.7.0", "v22.11.0", "v9.99.0", "what?"] {
            assert_eq!(lack(Some(old), true), Some(format!("`node` is {old}")));
        }
        assert_eq!(lack(None, true).as_deref(), Some("there is no `node` that runs"));
        assert_eq!(lack(Some("v22.12.0"), false).as_deref(), Some("there is no `npm`"));
    }

    #[test]
    fn the_wanted_node_is_that_of_vite_and_of_the_documentation() {
        let read = |path| fs::read_to_string(workspace::root().join(path)).expect("there");
        let lock: serde_json::Value =
            serde_json::from_str(&read("web/package-lock.json")).expect("JSON");
        let ((major, minor), (newer, its_minor)) = (NODE, NEWER);
        let range = format!("^{major}.{minor}.0 || >={newer}.{its_minor}.0");
        assert_eq!(lock["packages"]["node_modules/vite"]["engines"]["node"], range);
        assert!(read("docs/development.md").contains(&format!("{} with npm", wanted())));
    }
}
