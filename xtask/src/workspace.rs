//! Where things lie: the checkout, the cache, the tools that run us.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs us, so that a moved checkout is found.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// The folder of the page and its package.
pub(crate) fn web() -> PathBuf {
    root().join("web")
}

/// The folder for downloads that outlive a checkout.
pub(crate) fn cache() -> Result<PathBuf> {
    cache_from(|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn cache_from(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let cache = if let Some(own) = variable("TIGRET_CACHE") {
        PathBuf::from(own)
    } else if let Some(base) = variable("XDG_CACHE_HOME") {
        Path::new(&base).join("tigret")
    } else if let Some(home) = variable("HOME") {
        Path::new(&home).join(".cache").join("tigret")
    } else {
        return Err(Error::message(
            "no folder for downloads: neither TIGRET_CACHE, XDG_CACHE_HOME nor HOME is set",
        ));
    };
    // Programs that are given it run in folders of their own.
    std::path::absolute(&cache).map_err(|e| Error::file(&cache, e))
}

/// The cargo that runs us, started in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// What the compiler of the checkout tells with `--print`.
pub(crate) fn rustc_prints(what: &str) -> Result<String> {
    process::output(Command::new("rustc").args(["--print", what]).current_dir(root()))
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(folder, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let found = cache_from(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        });
        found.ok()
    }

    #[test]
    fn the_cache_is_ones_own_folder_then_xdg_then_home() {
        let home = ("HOME", "/home/ada");
        let xdg = ("XDG_CACHE_HOME", "/var/cache/ada");
        let own = ("TIGRET_CACHE", "/data/tigret");
        assert_eq!(cache_with(&[home, xdg, own]), Some("/data/tigret".into()));
        assert_eq!(cache_with(&[home, xdg]), Some("/var/cache/ada/tigret".into()));
        assert_eq!(cache_with(&[home]), Some("/home/ada/.cache/tigret".into()));
        assert_eq!(cache_with(&[]), None);
        // Wherever it is used, it is the folder that it is here.
        let here = env::current_dir().expect("a current folder");
        assert_eq!(cache_with(&[home, ("TIGRET_CACHE", "c")]), Some(here.join("c")));
        assert_eq!(cache_with(&[home, ("XDG_CACHE_HOME", "./c")]), Some(here.join("c/tigret")));
    }

    #[test]
    fn a_folder_that_is_not_there_is_removed_already() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (full, file) = (folder.path().join("full"), folder.path().join("file"));
        fs::create_dir_all(full.join("deep")).expect("made");
        assert!(remove(&full).is_ok() && !full.exists());
        assert!(remove(&full).is_ok());
        fs::write(&file, "").expect("written");
        assert!(remove(&file).is_err() && file.exists());
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        assert!(root().join("xtask").join("Cargo.toml").is_file());
    }
}
