//! Commands that stand in the verbs, the scripts and the documentation name tests and examples that
//! there are: cargo runs no test without a word where a module of a test program has another name.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Files and folders with commands in them.
const PLACES: [&str; 9] = [
    ".ci",
    "docs",
    "native-train/src",
    "tests/examples",
    "tests/gpu.sh",
    "wasm-infer/examples",
    "xtask/src",
    "ARCHITECTURE.md",
    "README.md",
];

#[test]
fn tests_and_examples_that_commands_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let targets = targets(root);
    let mut files = Vec::new();
    PLACES.iter().for_each(|place| collect(&root.join(place), &mut files));
    let mut seen = 0;
    for file in files {
        // Pictures name nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (kind, name, module) in named(&text) {
            seen += 1;
            let is_it = |(its_kind, its_name, source): &(String, String, PathBuf)| {
                let has = |module: &str| source.with_file_name(format!("{module}.rs")).is_file();
                *its_kind == kind && *its_name == name && module.is_none_or(has)
            };
            let module = module.unwrap_or_default();
            assert!(targets.iter().any(is_it), "{}: no {kind} {name} {module}", file.display());
        }
    }
    assert!(seen > 10, "{seen}");
}

/// The kind, name and source of every target of the workspace.
fn targets(root: &Path) -> Vec<(String, String, PathBuf)> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root);
    let metadata: Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets = packages.iter().flat_map(|package| package["targets"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    targets
        .map(|it| (text(&it["kind"][0]), text(&it["name"]), text(&it["src_path"]).into()))
        .collect()
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_file() {
        files.push(place.to_owned());
        return;
    }
    for entry in fs::read_dir(place).unwrap() {
        collect(&entry.unwrap().path(), files);
    }
}

/// What follows each `--test` and `--example`, as a word or a literal of Rust: the name, and the
/// module that behind it chooses tests, if any.
fn named(text: &str) -> Vec<(&'static str, &str, Option<&str>)> {
    let mut found = Vec::new();
    for kind in ["test", "example"] {
        for rest in text.split(&format!("--{kind}")).skip(1) {
            let Some(rest) = rest.strip_prefix("\", \"").or_else(|| rest.strip_prefix(' ')) else {
                continue;
            };
            let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let module = rest.split_once("::").map(|(module, _)| module.trim_start());
            let module = module.filter(|it| it.chars().all(|c| c == '_' || c.is_alphanumeric()));
            if !name.is_empty() {
                found.push((kind, name, module));
            }
        }
    }
    found
}
