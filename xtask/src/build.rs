//! Building a target of the workspace without a word from cargo unless it fails.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;

/// Runs `cargo build …` and returns the files it made of target `target` (executables first).
///
/// `step` and `announcement` are printed once if there is something to compile.
///
/// # Errors
/// When the build fails; cargo's messages are printed then.
pub(crate) fn quietly(
    cargo: &mut Command,
    target: &str,
    step: &str,
    announcement: &str,
    report: &Report,
) -> Result<Built> {
    cargo
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = cargo.spawn().map_err(|cause| process::not_started(cargo, cause))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (messages, notes) = thread::scope(|scope| {
        let notes = scope.spawn(|| notes_of(stderr, step, announcement, report));
        let mut messages = String::new();
        if let Some(mut stdout) = stdout {
            // What cannot be read cannot name the files either, which is reported below.
            let _ = stdout.read_to_string(&mut messages);
        }
        (messages, notes.join().unwrap_or_default())
    });
    let status = child.wait().map_err(|cause| process::not_started(cargo, cause))?;
    if !status.success() {
        eprint!("{}", notes.text);
    }
    process::check(cargo, status)?;
    let files = files_of(&messages, target);
    if files.is_empty() {
        return Err(Error::message(format!(
            "cargo built `{target}` but did not say where it lies"
        )));
    }
    Ok(Built { files, compiled: notes.compiled })
}

/// What a build made.
#[derive(Debug)]
pub(crate) struct Built {
    files: Vec<PathBuf>,
    /// Whether there was anything to compile.
    pub(crate) compiled: bool,
}

impl Built {
    /// The program.
    pub(crate) fn program(self) -> PathBuf {
        // `quietly` returns at least one file, executables first.
        self.files.into_iter().next().unwrap_or_default()
    }

    /// The file with an extension.
    pub(crate) fn with_extension(&self, extension: &str) -> Option<PathBuf> {
        self.files.iter().find(|file| file.extension().is_some_and(|own| own == extension)).cloned()
    }
}

#[derive(Debug, Default)]
struct Notes {
    text: String,
    compiled: bool,
}

/// Collects what cargo says, announcing once that it compiles or waits.
fn notes_of(stderr: Option<impl Read>, step: &str, announcement: &str, report: &Report) -> Notes {
    let mut notes = Notes::default();
    let lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines());
    for line in lines.map_while(std::result::Result::ok) {
        if line.contains("Blocking waiting") {
            report.doing(step, "waiting for another cargo to finish");
        } else if line.trim_start().starts_with("Compiling") && !notes.compiled {
            report.doing(step, announcement);
            notes.compiled = true;
        }
        notes.text.push_str(&line);
        notes.text.push('\n');
    }
    notes
}

/// The files of target `name` in cargo's JSON messages, executables first.
fn files_of(messages: &str, name: &str) -> Vec<PathBuf> {
    let mut executables = Vec::new();
    let mut others = Vec::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if message["reason"] != "compiler-artifact" || message["target"]["name"] != name {
            continue;
        }
        executables.extend(message["executable"].as_str().map(PathBuf::from));
        let files = message["filenames"].as_array().into_iter().flatten();
        others.extend(files.filter_map(|file| file.as_str()).map(PathBuf::from));
    }
    executables.extend(others);
    executables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"a"},"filenames":["/t/a.rlib","/t/a.wasm"],"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"b"},"filenames":["/t/b"],"executable":"/t/b"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built = |name| Built { files: files_of(messages, name), compiled: false };
        assert_eq!(built("b").program(), PathBuf::from("/t/b"));
        assert_eq!(built("a").with_extension("wasm"), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(built("a").with_extension("so"), None);
        assert!(files_of(messages, "c").is_empty());
    }
}
