//! Building a target of the workspace without a word from cargo unless it fails.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

/// Runs `cargo build …` and returns what it made.
///
/// `step` and `announcement` are printed once if there is something to compile.
///
/// # Errors
/// When the build fails; cargo's messages are printed then.
pub(crate) fn quietly(
    cargo: &mut Command,
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
            // What cannot be read names no file, which is reported when the file is asked for.
            let _ = stdout.read_to_string(&mut messages);
        }
        (messages, notes.join().unwrap_or_default())
    });
    let status = child.wait().map_err(|cause| process::not_started(cargo, cause))?;
    if !status.success() {
        eprint!("{}", notes.text);
    }
    process::check(cargo, status)?;
    Ok(Built { messages, compiled: notes.compiled })
}

/// Builds examples of `tigret-infer` with optimisations.
///
/// # Errors
/// As [`quietly`].
pub(crate) fn examples(names: &[&str], step: &str, report: &Report) -> Result<Built> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "tigret-infer"]);
    for name in names {
        cargo.args(["--example", name]);
    }
    let announcement = format!("compiling {} (release)", names.join(" and "));
    quietly(&mut cargo, step, &announcement, report)
}

/// What a build made.
#[derive(Debug)]
pub(crate) struct Built {
    /// Cargo's, a JSON object a line.
    messages: String,
    /// Whether there was anything to compile.
    pub(crate) compiled: bool,
}

impl Built {
    /// The executable of a target.
    ///
    /// # Errors
    /// When the build made none of that name.
    pub(crate) fn program(&self, target: &str) -> Result<PathBuf> {
        self.artefacts(target)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .ok_or_else(|| Error::message(format!("cargo made no program {target}")))
    }

    /// The file of a target with an extension.
    ///
    /// # Errors
    /// When the build made no such file.
    pub(crate) fn file(&self, target: &str, extension: &str) -> Result<PathBuf> {
        self.artefacts(target)
            .find_map(|message| {
                let files = message["filenames"].as_array()?;
                let mut files = files.iter().filter_map(|file| file.as_str().map(PathBuf::from));
                files.find(|file| file.extension().is_some_and(|own| own == extension))
            })
            .ok_or_else(|| Error::message(format!("cargo made no .{extension} file of {target}")))
    }

    fn artefacts(&self, target: &str) -> impl Iterator<Item = Value> {
        self.messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(
            move |message| {
                message["reason"] == "compiler-artifact" && message["target"]["name"] == target
            },
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"a"},"filenames":["/t/a.rlib"],"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"a"},"filenames":["/t/a.wasm"],"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"b"},"filenames":["/t/b"],"executable":"/t/b"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built = Built { messages: messages.into(), compiled: false };
        assert_eq!(built.program("b").ok(), Some(PathBuf::from("/t/b")));
        assert_eq!(built.file("a", "wasm").ok(), Some(PathBuf::from("/t/a.wasm")));
        assert!(built.program("a").is_err());
        assert!(built.file("a", "so").is_err());
    }
}
