//! `cargo xtask tigret ARGS…`: the `tigret` command with libtorch in place.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use crate::error::{Error, Result};
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
    process::become_program(libtorch.apply(Command::new(program).args(arguments)))
}

/// Builds `tigret` (release) without a word from cargo unless it fails, and returns its path.
///
/// # Errors
/// When the build fails; cargo's messages are printed then.
pub(crate) fn build(libtorch: &Libtorch, report: &Report) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--release", "--package", "tigret-train", "--bin", "tigret"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    libtorch.apply(&mut cargo);
    let mut child = cargo.spawn().map_err(|cause| process::not_started(&cargo, cause))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (messages, notes) = thread::scope(|scope| {
        let notes = scope.spawn(|| notes_of(stderr, report));
        let mut messages = String::new();
        if let Some(mut stdout) = stdout {
            // What cannot be read cannot name the program either, which is reported below.
            let _ = stdout.read_to_string(&mut messages);
        }
        (messages, notes.join().unwrap_or_default())
    });
    let status = child.wait().map_err(|cause| process::not_started(&cargo, cause))?;
    if !status.success() {
        eprint!("{notes}");
    }
    process::check(&cargo, status)?;
    executable_in(&messages, "tigret")
        .ok_or_else(|| Error::message("cargo built `tigret` but did not say where it lies"))
}

/// Collects what cargo says, announcing once that it has something to compile or waits.
fn notes_of(stderr: Option<impl Read>, report: &Report) -> String {
    let mut notes = String::new();
    let mut announced = false;
    let lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines());
    for line in lines.map_while(std::result::Result::ok) {
        if line.contains("Blocking waiting") {
            report.doing("tigret", "waiting for another cargo to finish");
        } else if line.trim_start().starts_with("Compiling") && !announced {
            report.doing("tigret", "compiling (release); the first time takes some minutes");
            announced = true;
        }
        notes.push_str(&line);
        notes.push('\n');
    }
    notes
}

/// The executable of target `name` in cargo's JSON messages.
pub(crate) fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let of_target =
            message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        let executable = message["executable"].as_str()?;
        of_target.then(|| PathBuf::from(executable))
    })
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

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"tigret"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"tigret"},"executable":"/t/tigret"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable_in(messages, "tigret"), Some(PathBuf::from("/t/tigret")));
        assert_eq!(executable_in("", "tigret"), None);
    }
}
