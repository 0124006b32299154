//! Debian's packages, where the system has them and we may install them.

use std::process::Command;
use std::sync::Once;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;

/// Whether `apt-get` is here and we are root.
pub(crate) fn usable() -> bool {
    process::find_on_path(&["apt-get"]).is_some()
        && process::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// Installs packages with `apt-get`; `why` says what they are wanted for.
///
/// # Errors
/// When we may not, with the command that somebody who may could run; or when `apt-get` fails.
pub(crate) fn install(packages: &[&str], why: &str, report: &Report) -> Result<()> {
    let names = packages.join(" ");
    if !usable() {
        return Err(Error::message(format!(
            "{why}; install it (on Debian: sudo apt-get install {names})"
        )));
    }
    report.doing("apt-get", format!("installing {names} ({why})"));
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        // Old lists may do as well; if not, the installation says so.
        let _ = process::run_on_stderr(apt_get().args(["update", "-qq"]));
    });
    // Nothing that is here may go for it.
    let flags = ["install", "-qq", "--yes", "--no-install-recommends", "--no-remove"];
    process::run_on_stderr(apt_get().args(flags).args(packages))
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}
