//! `cargo xtask tigret ARGS…`: the `tigret` command with libtorch in place.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::build;
use crate::error::Result;
use crate::process;
use crate::report::Report;
use crate::setup::libtorch::Libtorch;
use crate::workspace;

/// The arguments behind `tigret`, where that is the verb; `arguments` begins with the program.
pub(crate) fn passed_through(
    arguments: impl IntoIterator<Item = OsString>,
) -> Option<Vec<OsString>> {
    let mut arguments = arguments.into_iter().skip(1);
    (arguments.next()? == "tigret").then(|| arguments.collect())
}

/// Builds `tigret` if need be and becomes it, in the user's current directory.
///
/// # Errors
/// When libtorch cannot be put in place or the build fails.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let report = Report::only_work();
    let libtorch = Libtorch::locate(&report)?;
    let program = build(&libtorch, &report)?;
    Err(process::become_program(libtorch.apply(Command::new(program).args(arguments))))
}

/// Builds `tigret` (release) and returns its path.
///
/// # Errors
/// When the build fails; cargo's messages are printed then.
pub(crate) fn build(libtorch: &Libtorch, report: &Report) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "tigret-train", "--bin", "tigret"]);
    let announcement = "compiling (release); the first time takes some minutes";
    build::quietly(libtorch.apply(&mut cargo), "tigret", announcement, report)?.program("tigret")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(arguments: &[&str]) -> Option<Vec<OsString>> {
        passed_through(arguments.iter().map(OsString::from))
    }

    #[test]
    fn every_argument_behind_tigret_passes_verbatim() {
        let behind = ["--help", "--", "-x", "train", "--run", "a b", "--version", ""];
        let mut all = vec!["xtask", "tigret"];
        all.extend(behind);
        assert_eq!(pass(&all), Some(behind.iter().map(OsString::from).collect()));
        assert_eq!(pass(&["xtask", "tigret"]), Some(vec![]));
    }

    #[test]
    fn other_verbs_are_not_passed_through() {
        assert_eq!(pass(&["xtask"]), None);
        assert_eq!(pass(&["xtask", "setup", "tigret"]), None);
        assert_eq!(pass(&["xtask", "--help"]), None);
    }
}
