//! Running programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Error, Result};

/// Runs a program to its end, its output going where ours goes.
///
/// # Errors
/// When it does not start or its status is not 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|cause| not_started(command, cause))?;
    check(command, status)
}

/// Like [`run`], with standard output sent to standard error: for verbs whose standard output
/// belongs to another program.
pub(crate) fn run_on_stderr(command: &mut Command) -> Result<()> {
    run(command.stdout(Stdio::from(std::io::stderr())))
}

/// Runs a program to its end and returns what it wrote to standard output, trimmed; its standard
/// error goes where ours goes.
///
/// # Errors
/// When it does not start or its status is not 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|cause| not_started(command, cause))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program starts and ends with status 0; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Becomes the program, so that signals and the exit status are its own; returns where it does not
/// start.
pub(crate) fn become_program(command: &mut Command) -> Error {
    let cause = command.exec();
    not_started(command, cause)
}

/// The error of a program that does not start.
pub(crate) fn not_started(command: &Command, cause: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), cause }
}

/// An error unless `status` is 0.
pub(crate) fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: line(command), status })
}

/// A command as one would type it; the program by its name only.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line =
        program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// The first of `names` that lies on the PATH.
pub(crate) fn find_on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    names.iter().find_map(|name| {
        folders.iter().map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
    })
}

/// A list of folders (as in PATH) with `first` in front of what `variable` holds.
pub(crate) fn with_folder_first(first: &Path, variable: &str) -> OsString {
    prepend(first, env::var_os(variable).as_deref())
}

fn prepend(first: &Path, rest: Option<&OsStr>) -> OsString {
    let mut folders = vec![first.to_path_buf()];
    if let Some(rest) = rest {
        folders.extend(env::split_paths(rest).filter(|folder| {
            // An empty entry would mean the current folder.
            !folder.as_os_str().is_empty() && folder != first
        }));
    }
    // Only a folder with the separator in its name cannot be joined; then it stands alone.
    env::join_paths(&folders).unwrap_or_else(|_| first.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_first_once_and_empty_entries_go() {
        let first = Path::new("/libtorch/lib");
        assert_eq!(prepend(first, None), "/libtorch/lib");
        assert_eq!(prepend(first, Some(OsStr::new(""))), "/libtorch/lib");
        assert_eq!(prepend(first, Some(OsStr::new("/a:/libtorch/lib::/b"))), "/libtorch/lib:/a:/b");
    }

    #[test]
    fn a_command_is_described_as_typed() {
        let mut command = Command::new("/usr/bin/npm");
        command.args(["run", "build"]);
        assert_eq!(line(&command), "npm run build");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit status 3");
        assert!(error.to_string().starts_with("`sh -c exit 3` failed"), "{error}");
        let error = run(&mut Command::new("no-such-program-here")).expect_err("no such program");
        assert!(error.to_string().contains("`no-such-program-here` does not start"), "{error}");
    }
}
