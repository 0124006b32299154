//! Chromium, in which the page is tested.

use std::env;
use std::path::PathBuf;

use super::apt;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;

const STEP: &str = "chromium";
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Finds Chromium (`TIGRET_CHROMIUM`, then the PATH) or installs Debian's.
///
/// # Errors
/// When there is none and none can be installed; the message does as the reason of a skip.
pub(crate) fn locate(report: &Report) -> Result<PathBuf> {
    if let Some(own) = env::var_os("TIGRET_CHROMIUM").filter(|value| !value.is_empty()) {
        let own = PathBuf::from(own);
        if !own.is_file() {
            return Err(Error::message(format!(
                "TIGRET_CHROMIUM: there is no file {}; set it to a Chromium's executable or unset \
                 it",
                own.display()
            )));
        }
        report.done(STEP, format!("your own, {}", own.display()));
        return Ok(own);
    }
    if let Some(found) = process::find_on_path(&NAMES) {
        report.done(STEP, format!("already in place ({})", found.display()));
        return Ok(found);
    }
    apt::install(&["chromium"], "the page is tested in Chromium, and there is none", report)?;
    process::find_on_path(&NAMES)
        .ok_or_else(|| Error::message("apt-get installed chromium, but it is not on the PATH"))
}
