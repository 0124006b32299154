//! A Vulkan driver for the native GPU tests; Mesa's runs them on the CPU.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::apt;
use crate::error::Result;
use crate::report::Report;

const STEP: &str = "Vulkan driver";

/// Finds a driver or installs Debian's software driver.
///
/// # Errors
/// When there is none and none can be installed; the message does as the reason of a skip.
pub(crate) fn locate(report: &Report) -> Result<()> {
    // Metal comes with its system.
    if cfg!(target_os = "macos") {
        return Ok(());
    }
    if let Some(manifest) = first_manifest(|name| env::var_os(name)) {
        report.done(STEP, format!("already in place ({})", manifest.display()));
        return Ok(());
    }
    let why = "the native GPU tests need a Vulkan driver, and there is none";
    apt::install(&["libvulkan1", "mesa-vulkan-drivers"], why, report)
}

/// The first driver manifest where Vulkan's loader looks for them.
fn first_manifest(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // These two name the manifests themselves and stand for all other places.
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = variable(name) {
            return env::split_paths(&files).find(|file| file.is_file());
        }
    }
    ["/usr/share", "/usr/local/share", "/etc"]
        .iter()
        .filter_map(|base| fs::read_dir(Path::new(base).join("vulkan/icd.d")).ok())
        .flat_map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())))
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_driver_stands_for_all_others() {
        let named = |file: &'static str| {
            first_manifest(move |name| (name == "VK_ICD_FILENAMES").then(|| file.into()))
        };
        assert_eq!(named("/no/such/driver.json"), None);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("driver.json");
        fs::write(&file, "{}").expect("written");
        let found = first_manifest(|name| {
            (name == "VK_DRIVER_FILES").then(|| file.clone().into_os_string())
        });
        assert_eq!(found, Some(file.clone()));
    }
}
