//! The licences of the crates that are compiled into the wasm module: most ask that their notice goes
//! with every copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace;

/// The file beside the module.
pub(crate) const NAME: &str = "THIRD-PARTY-LICENSES.txt";

const TARGET: &str = "wasm32-unknown-unknown";

/// How files begin that hold terms, in capital letters.
const TERMS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What `cargo metadata` says, as far as it is read.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for those of the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

/// The text for the module of a package of the workspace.
///
/// # Errors
/// When cargo does not tell, or a crate cannot be read.
pub(crate) fn of_module(package: &str) -> Result<String> {
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut cargo)?)
        .map_err(|e| Error::message(format!("`cargo metadata`: {e}")))?;
    let mut cargo = workspace::cargo();
    // A macro runs in the compiler, with all that it depends on.
    cargo.args(["tree", "--locked", "--target", TARGET, "--edges", "normal,no-proc-macro"]);
    cargo.args(["--prefix", "none", "--format", "{p}", "--package", package]);
    let tree = process::output(&mut cargo)?;
    notices(&compiled_in(&metadata.packages, &tree))
}

/// The crates of others in a tree as `cargo tree` prints it, a name and a version in a line.
fn compiled_in<'a>(packages: &'a [Package], tree: &str) -> Vec<&'a Package> {
    let name = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    let names: BTreeSet<(String, String)> = tree.lines().filter_map(name).collect();
    let is_there = |package: &&Package| {
        package.source.is_some() && names.contains(&(package.name.clone(), package.version.clone()))
    };
    packages.iter().filter(is_there).collect()
}

/// Each text once, under the crates that have it.
fn notices(packages: &[&Package]) -> Result<String> {
    let mut crates_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let license = package.license.as_deref().unwrap_or("see below");
        let name = format!("{} {} ({license})", package.name, package.version);
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        let texts = terms(folder, license)?;
        if texts.is_empty() {
            crates_of
                .entry("Its package has no file with its terms.".into())
                .or_default()
                .push(name);
            continue;
        }
        for text in texts {
            crates_of.entry(text).or_default().push(name.clone());
        }
    }
    let mut all = String::from(
        "The wasm module of Tigret holds code of the following crates, and of the standard library of \
         Rust (MIT OR Apache-2.0, The Rust Project Contributors).\n",
    );
    let mut sections: Vec<(Vec<String>, String)> =
        crates_of.into_iter().map(|(text, crates)| (crates, text)).collect();
    sections.sort();
    for (crates, text) in sections {
        let rule = "-".repeat(72);
        let _ = write!(all, "\n{rule}\n{}\n{rule}\n\n{text}\n", crates.join("\n"));
    }
    Ok(all)
}

/// The texts of a crate's terms: where they leave a choice with MIT in it, those of MIT alone.
fn terms(folder: &Path, license: &str) -> Result<Vec<String>> {
    let failed = |e| Error::file(folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.path().is_file() && TERMS.iter().any(|begin| name.starts_with(begin)) {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    let leaves_choice = license.contains(" OR ") || license.contains('/');
    let is_a_choice = license.contains("MIT") && leaves_choice && !license.contains(" AND ");
    let is_of_mit = |name: &str| name.contains("MIT");
    if is_a_choice && files.iter().any(|(name, _)| is_of_mit(name)) {
        files.retain(|(name, _)| is_of_mit(name) || name.starts_with("NOTICE"));
    }
    let text = |(_, path): (String, PathBuf)| {
        let text = fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
        Ok(lines.join("\n"))
    };
    files.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn crates_of_others_count_that_are_compiled_in() {
        let package = |name: &str, version: &str, source: Option<&str>| {
            json!({"name": name, "version": version, "license": "MIT", "source": source,
                "manifest_path": "Cargo.toml"})
        };
        let others = Some("registry");
        let metadata: Metadata = serde_json::from_value(json!({"packages": [
            package("own", "1.0.0", None), package("far", "1.2.3", others),
            package("far", "0.9.0", others), package("unused", "1.0.0", others),
        ]}))
        .expect("as cargo writes it");
        let tree = "own v1.0.0 (/own)\nfar v1.2.3\nfar v1.2.3 (*)";
        let found = compiled_in(&metadata.packages, tree);
        let names = found.iter().map(|package| (package.name.as_str(), package.version.as_str()));
        assert_eq!(names.collect::<Vec<_>>(), [("far", "1.2.3")]);
    }

    #[test]
    fn of_a_choice_the_shorter_terms_are_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        write("LICENSE-MIT", "(c) Ada  \n");
        write("license-apache", "long");
        write("NOTICE.md", "of Ada");
        write("lib.rs", "code");
        let terms = |license| terms(folder.path(), license).expect("read");
        assert_eq!(terms("MIT OR Apache-2.0"), ["(c) Ada", "of Ada"]);
        assert_eq!(terms("MIT/Apache-2.0"), ["(c) Ada", "of Ada"]);
        for all in ["MIT AND Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert_eq!(terms(all), ["long", "(c) Ada", "of Ada"], "{all}");
        }
    }

    #[test]
    fn the_same_terms_stand_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("LICENSE"), "(c) Ada").expect("written");
        let package = |name: &str, manifest_path| Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: Some("MIT".into()),
            source: None,
            manifest_path,
        };
        let manifest = folder.path().join("Cargo.toml");
        let text = notices(&[&package("one", manifest.clone()), &package("other", manifest)]);
        let text = text.expect("read");
        assert!(text.contains("one 1.0.0 (MIT)\nother 1.0.0 (MIT)\n"), "{text}");
        assert_eq!(text.matches("(c) Ada").count(), 1);
    }
}
