//! The command as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// `tigret` in a folder with the arguments of a line, which blanks divide (a value with a blank in
/// it is added by [`Command::args`]), nothing on standard input, and one thread: tests run beside
/// each other, so that more threads would only wait for each other.
pub(crate) fn tigret(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tigret"));
    command.current_dir(folder).args(line.split_ascii_whitespace()).env("OMP_NUM_THREADS", "1");
    command.stdin(Stdio::null());
    command
}

/// Standard output of a command that must succeed.
pub(crate) fn works(folder: &Path, line: &str) -> String {
    succeeds(&mut tigret(folder, line)).0
}

/// What a command that must succeed prints with `--json`.
pub(crate) fn works_json(folder: &Path, line: &str) -> Value {
    prints_json(&mut tigret(folder, line))
}

/// The same of a command that is made already.
pub(crate) fn prints_json(command: &mut Command) -> Value {
    let text = succeeds(command.arg("--json")).0;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("JSON is printed: {e}: {text}"))
}

/// Standard output and standard error of a command that must succeed.
pub(crate) fn succeeds(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command:?}: {errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// The one line of a command that must refuse, before it says or prints anything else.
pub(crate) fn refuses(folder: &Path, line: &str) -> String {
    let (printed, errors) = failed(&mut tigret(folder, line));
    assert_eq!(printed, "");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// The sentence with which a command says why it ends with status 2, as it must: the last line of
/// standard error, or all that clap says of arguments that it does not take.
pub(crate) fn fails(command: &mut Command) -> String {
    let errors = failed(command).1;
    let last = errors.lines().last().unwrap_or_default();
    if last.starts_with("tigret: ") { last.to_owned() } else { errors }
}

fn failed(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{command:?}: {errors}");
    let said = |line: &&str| line.starts_with("tigret: ") || line.starts_with("error: ");
    assert_eq!(errors.lines().filter(said).count(), 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let last = errors.lines().last().unwrap();
    assert!(last.starts_with("tigret: ") || errors.starts_with("error: "), "{errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// What other programs computed, by its name in the folder of such.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// The folder of a small sentence encoder, with the vectors that Python computes with it.
pub(crate) fn golden_encoder(name: &str) -> PathBuf {
    golden("encoders").join(name)
}
