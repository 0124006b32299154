//! `cargo xtask pack`: what a machine with a GPU, and without Rust, needs to run Tigret.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::build;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::run_dir;
use crate::setup::libtorch::Libtorch;
use crate::tigret;
use crate::workspace;

const STEP: &str = "pack";
/// The folder in the archive.
const NAME: &str = "tigret-gpu";
/// The script that runs there, and what it calls beside the programs.
const SCRIPTS: [&str; 2] = ["tests/gpu.sh", "tests/bench_train.py"];
/// What `tigret train` and `tigret tokenize` read of a run.
const ARTEFACTS: [&str; 8] = [
    "dataset.json",
    "items.jsonl",
    "sequences.jsonl",
    "vectors.safetensors",
    "tokenizer.json",
    "tokenizer.safetensors",
    "tokens.json",
    "catalog.json",
];

/// Arguments of `cargo xtask pack`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On the other machine, Linux on x86-64 with an NVIDIA GPU, a Python with torch 2.11.0, and a
glibc as new as here (2.35 does for what is packed on Debian 12):
  tar xzf gpu.tar.gz && bash tigret-gpu/gpu.sh OUT

`gpu.sh --help` says what it measures and writes to OUT."
)]
pub(crate) struct Args {
    /// A run with semantic IDs (`tigret prepare`, `embed` and `tokenize`) to train on there.
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// The archive [default: .tigret/gpu.tar.gz of the repository].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Builds, strips and packs the programs with the script and the run.
///
/// # Errors
/// On another platform than the archive is for; when the run lacks an artefact, a build fails, or
/// the archive cannot be written.
pub(crate) fn run(args: &Args, report: &Report) -> Result<ExitCode> {
    check_platform(env::consts::OS, env::consts::ARCH)?;
    run_dir::check(&args.run, &ARTEFACTS, "`tigret prepare`, `embed` and `tokenize`")?;
    let parent = workspace::root().join(".tigret");
    fs::create_dir_all(&parent).map_err(|e| Error::file(&parent, e))?;
    let out = args.out.clone().unwrap_or_else(|| parent.join("gpu.tar.gz"));
    let beside = match out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // What cannot be written is said before the builds; the archive gets its name when it is whole.
    let archive = tempfile::NamedTempFile::new_in(beside).map_err(|e| Error::file(beside, e))?;
    let libtorch = Libtorch::locate(report)?;
    let engine_tests = engine_tests(report)?;
    let programs = [
        ("tigret", tigret::build(&libtorch, report)?),
        ("device-tests", device_tests(&libtorch, report)?),
        ("kernel-tests", engine_tests.program("tigret_infer")?),
        ("engine-tests", engine_tests.program("engines")?),
        ("time_one", build::examples(&["time_one"], STEP, report)?.program("time_one")?),
    ];
    report.doing(STEP, "stripping and compressing");
    let work = tempfile::Builder::new()
        .prefix("pack-")
        .tempdir_in(&parent)
        .map_err(|e| Error::file(&parent, e))?;
    let folder = work.path().join(NAME);
    let run = folder.join("run");
    fs::create_dir_all(&run).map_err(|e| Error::file(&run, e))?;
    for (name, program) in &programs {
        let stripped = folder.join(name);
        process::run(Command::new("strip").arg("-o").arg(stripped).arg(program))?;
    }
    for script in SCRIPTS {
        copy(&workspace::root().join(script), &folder)?;
    }
    for artefact in ARTEFACTS {
        copy(&args.run.join(artefact), &run)?;
    }
    let mut tar = Command::new("tar");
    process::run(tar.arg("czf").arg(archive.path()).arg("-C").arg(work.path()).arg(NAME))?;
    archive.persist(&out).map_err(|e| Error::file(&out, e.error))?;
    let size = fs::metadata(&out).map_err(|e| Error::file(&out, e))?.len();
    let megabytes = size.div_ceil(1_000_000);
    report.doing(STEP, format!("{} ({megabytes} MB)", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// The programs are those that are built here, and the script finds what they need on Linux.
fn check_platform(os: &str, architecture: &str) -> Result<()> {
    if (os, architecture) == ("linux", "x86_64") {
        return Ok(());
    }
    Err(Error::message(format!(
        "the archive is for Linux on x86_64, and programs that are built here run on {os} on \
         {architecture}; pack it on Linux on x86_64"
    )))
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or(file.as_os_str());
    fs::copy(file, folder.join(name)).map_err(|e| Error::file(file, e))?;
    Ok(())
}

/// The tests of `native-train`, of which those whose names say `cuda` want a device.
fn device_tests(libtorch: &Libtorch, report: &Report) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run", "--package", "tigret-train", "--lib"]);
    let cargo = libtorch.apply(&mut cargo);
    build::quietly(cargo, STEP, "compiling tigret_train", report)?.program("tigret_train")
}

/// The tests of `wasm-infer` on a GPU: of its kernels, whose names say `gpu::`, and of the whole engine.
fn engine_tests(report: &Report) -> Result<build::Built> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run", "--package", "tigret-infer"]);
    cargo.args(["--lib", "--test", "engines"]);
    build::quietly(&mut cargo, STEP, "compiling the tests of tigret_infer", report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_platforms_are_refused_by_name() {
        assert!(check_platform("linux", "x86_64").is_ok());
        for (os, architecture) in [("macos", "aarch64"), ("linux", "aarch64"), ("macos", "x86_64")]
        {
            let said = check_platform(os, architecture).expect_err("another platform").to_string();
            assert!(said.contains(&format!("run on {os} on {architecture};")), "{said}");
        }
    }

    #[test]
    fn the_script_stops_where_the_programs_do_not_start() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let program = |name: &str, text: &str| {
            fs::write(at(name), text).expect("written");
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("set");
        };
        copy(&workspace::root().join(SCRIPTS[0]), folder.path()).expect("copied");
        program("python3", "#!/bin/sh\necho /torch/lib\n");
        let path = process::with_folder_first(folder.path(), "PATH");
        let said = |tigret: &str| {
            program("tigret", tigret);
            let mut script = Command::new("bash");
            script.arg(at("gpu.sh")).arg(at("out")).arg("check").env("PATH", &path);
            let output = script.output().expect("bash starts");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let loader = "tigret: libm.so.6: version GLIBC_2.35 not found";
        let (status, line) = said(&format!("#!/bin/sh\necho '{loader}' >&2\nexit 1\n"));
        assert_eq!(status, Some(2), "{line}");
        assert!(line.lines().count() == 1 && line.contains(loader), "{line}");
        assert!(line.starts_with("gpu.sh: tigret does not start; it needs torch 2.11.0"), "{line}");
        // Where it starts, a step fails for its own reason: here there are no tests.
        let (status, line) = said("#!/bin/sh\n");
        assert_eq!(status, Some(1), "{line}");
    }
}
