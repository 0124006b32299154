//! libtorch, which `tch` links: the user's own, or a CPU-only one made from PyTorch's wheel.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use zip::ZipArchive;

use super::apt;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

/// The version that our `tch` wants.
const VERSION: &str = "2.11.0";
const STEP: &str = "libtorch 2.11.0";

/// What is downloaded: versions and hashes. The CPU library of PyTorch's Linux wheel needs two
/// small CUDA libraries beside it, and nothing else of CUDA.
const WHEELS: &str = include_str!("libtorch-wheels.txt");

/// The libraries kept of the wheels.
const LIBRARIES: [&str; 6] = [
    "libtorch_cpu.so",
    "libc10.so",
    "libshm.so",
    "libgomp.so.1",
    "libcudart.so.13",
    "libcupti.so.13",
];

/// Headers whose presence shows that the folder has them.
const HEADERS: [&str; 2] = ["torch/csrc/api/include/torch/torch.h", "ATen/ATen.h"];
const VERSION_HEADER: &str = "torch/headeronly/version.h";

/// The variable with which the system's loader finds shared libraries.
const LOADER_PATH: &str =
    if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };

/// A libtorch in place, as the environment of the programs that need it.
#[derive(Debug, Clone)]
pub(crate) struct Libtorch {
    variables: Vec<(&'static str, OsString)>,
}

impl Libtorch {
    /// Finds the user's own libtorch (`LIBTORCH_USE_PYTORCH`, `LIBTORCH`), else the one in the
    /// cache, which is made first where it is missing.
    ///
    /// # Errors
    /// When the user's own is not one, the download fails, or the platform has no such wheel.
    pub(crate) fn locate(report: &Report) -> Result<Self> {
        if set("LIBTORCH_USE_PYTORCH").is_some() {
            let libraries = libraries_of_pytorch()?;
            report.done("libtorch", format!("PyTorch's own, {}", libraries.display()));
            return Ok(Self { variables: vec![loader_path(&libraries)] });
        }
        let own = own_folders(set)?;
        if let Some(libraries) = own_libraries(&own)? {
            report.done("libtorch", format!("your own, {}", libraries.display()));
            let mut variables = vec![loader_path(&libraries)];
            variables.extend(own.into_iter().map(|(name, folder)| (name, folder.into())));
            return Ok(Self { variables });
        }
        let folder = in_cache(report)?;
        let libraries = folder.join("lib");
        Ok(Self { variables: vec![("LIBTORCH", folder.into()), loader_path(&libraries)] })
    }

    /// Gives a program what it needs to build against this libtorch and to run with it.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let_threads_sleep(command).envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// Lets a program's libtorch threads sleep while they wait for each other, unless the user has chosen.
/// On a machine that is busy with anything else, a spinning thread takes the core that the other one
/// needs, and training becomes several times slower; sleeping costs next to nothing.
pub(crate) fn let_threads_sleep(command: &mut Command) -> &mut Command {
    if set("OMP_WAIT_POLICY").is_none() {
        command.env("OMP_WAIT_POLICY", "passive");
    }
    command
}

fn loader_path(libraries: &Path) -> (&'static str, OsString) {
    (LOADER_PATH, process::with_folder_first(libraries, LOADER_PATH))
}

fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// Where the libraries of the user's own libtorch are, `None` without one.
fn own_libraries(own: &BTreeMap<&'static str, PathBuf>) -> Result<Option<PathBuf>> {
    let of = |name: &str| own.get(name).or_else(|| own.get("LIBTORCH"));
    let (library, include) = (of("LIBTORCH_LIB"), of("LIBTORCH_INCLUDE"));
    let libraries = match (library, include) {
        (None, None) => return Ok(None),
        (Some(library), Some(_)) => library.join("lib"),
        _ => {
            return Err(Error::message(
                "LIBTORCH_LIB and LIBTORCH_INCLUDE are set one without the other; set both, set \
                 LIBTORCH, or unset them",
            ));
        }
    };
    if !libraries.is_dir() {
        return Err(Error::message(format!(
            "LIBTORCH: there is no folder {}; set LIBTORCH to the folder of libtorch {VERSION} that \
             holds lib/ and include/, or unset it",
            libraries.display()
        )));
    }
    Ok(Some(libraries))
}

/// The folders of the user's own libtorch, by their variables. Whole paths: the build script of
/// `torch-sys` runs in a folder of its own.
fn own_folders(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<&'static str, PathBuf>> {
    ["LIBTORCH", "LIBTORCH_LIB", "LIBTORCH_INCLUDE"]
        .into_iter()
        .filter_map(|name| Some((name, PathBuf::from(variable(name)?))))
        .map(|(name, folder)| match std::path::absolute(&folder) {
            Ok(whole) => Ok((name, whole)),
            Err(e) => Err(Error::file(&folder, e)),
        })
        .collect()
}

fn libraries_of_pytorch() -> Result<PathBuf> {
    // The interpreter that the build script of `torch-sys` asks.
    let python = if set("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let script = "import os, torch; print(os.path.join(os.path.dirname(torch.__file__), 'lib'))";
    process::output(Command::new(python).args(["-c", script])).map(PathBuf::from).map_err(|error| {
        Error::message(format!(
            "LIBTORCH_USE_PYTORCH is set, but `{python}` cannot import torch ({error}); install \
             torch=={VERSION} or unset the variable"
        ))
    })
}

/// The folder in the cache, made if it is not there or not whole.
fn in_cache(report: &Report) -> Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Error::message(format!(
            "libtorch {VERSION} is put in place by itself on Linux x86-64 only; here, install \
             torch=={VERSION} with pip and set LIBTORCH_USE_PYTORCH=1, or set LIBTORCH to a \
             libtorch {VERSION}"
        )));
    }
    let cache = workspace::cache()?;
    let folder = cache.join(format!("libtorch-{VERSION}"));
    if folder.exists() {
        match fault_in(&folder) {
            None => {
                gather(&folder.join("lib"))?;
                report.done(STEP, format!("already in place ({})", folder.display()));
                return Ok(folder);
            }
            Some(fault) => report.doing(STEP, format!("not whole ({fault}), making it anew")),
        }
    }
    fs::create_dir_all(&cache).map_err(|e| Error::file(&cache, e))?;
    // In the cache itself, so that the finished folder can be renamed into place.
    let work = tempfile::Builder::new()
        .prefix("libtorch-partial-")
        .tempdir_in(&cache)
        .map_err(|e| Error::file(&cache, e))?;
    make(work.path(), &folder, report)?;
    report.doing(STEP, format!("in place ({})", folder.display()));
    Ok(folder)
}

/// Downloads the wheels into `work`, unpacks what is needed there, and renames it to `folder`.
fn make(work: &Path, folder: &Path, report: &Report) -> Result<()> {
    let wheels = work.join("wheels");
    report.doing(STEP, "downloading PyTorch's wheel (530 MB), of which the CPU part is kept");
    download(work, &wheels, report)?;

    report.doing(STEP, "unpacking");
    let whole = work.join("libtorch");
    for wheel in fs::read_dir(&wheels).map_err(|e| Error::file(&wheels, e))? {
        let wheel = wheel.map_err(|e| Error::file(&wheels, e))?.path();
        unpack(&wheel, &whole)?;
    }
    if let Some(fault) = fault_in(&whole) {
        return Err(Error::message(format!("the wheels did not hold a whole libtorch: {fault}")));
    }
    gather(&whole.join("lib"))?;

    // A broken one goes into `work` and with it; a whole one that another process has put there
    // meanwhile does as well as ours.
    if folder.exists() && fault_in(folder).is_some() {
        fs::rename(folder, work.join("broken")).map_err(|e| Error::file(folder, e))?;
    }
    match fs::rename(&whole, folder) {
        Err(_) if fault_in(folder).is_none() => Ok(()),
        renamed => renamed.map_err(|e| Error::file(folder, e)),
    }
}

fn download(work: &Path, wheels: &Path, report: &Report) -> Result<()> {
    let python = Path::new("python3");
    if !process::succeeds(Command::new(python).args(["-m", "pip", "--version"])) {
        let why = "`python3 -m pip` does not run, and libtorch comes through it";
        apt::install(&["python3-pip"], why, report)?;
    }
    let list = work.join("wheels.txt");
    fs::write(&list, WHEELS).map_err(|e| Error::file(&list, e))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
    // Fixed, so that the same files come whatever the Python here is: nothing of them runs in it.
    pip.args(["--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"]);
    for platform in ["2_28", "2_25", "2_17"] {
        pip.args(["--platform", &format!("manylinux_{platform}_x86_64")]);
    }
    pip.arg("--no-cache-dir").arg("--disable-pip-version-check");
    if !io::stderr().is_terminal() {
        pip.args(["--quiet", "--progress-bar=off"]);
    }
    process::run_on_stderr(pip.arg("--dest").arg(wheels).arg("--requirement").arg(&list)).map_err(
        |error| {
            Error::message(format!(
                "libtorch {VERSION} could not be downloaded: {error}; or set LIBTORCH to a \
                 libtorch {VERSION} of your own"
            ))
        },
    )
}

/// Unpacks what is needed of one wheel.
fn unpack(wheel: &Path, into: &Path) -> Result<()> {
    let file = File::open(wheel).map_err(|e| Error::file(wheel, e))?;
    let mut archive = ZipArchive::new(file).map_err(|e| Error::file(wheel, e))?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|e| Error::file(wheel, e))?;
        let name = member.name().map_err(|e| Error::file(wheel, e))?.into_owned();
        let Some(place) = place_of(&name).filter(|_| member.is_file()) else {
            continue;
        };
        let path = into.join(place);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::create(&path))
            .and_then(|mut file| io::copy(&mut member, &mut file));
        written.map_err(|e| Error::file(&path, e))?;
    }
    Ok(())
}

/// Where a member of a wheel goes in our folder; `None` for what is not needed.
fn place_of(member: &str) -> Option<PathBuf> {
    let path = Path::new(member);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    if let Ok(header) = path.strip_prefix("torch/include") {
        return Some(Path::new("include").join(header));
    }
    let name = path.file_name()?.to_str()?;
    let of_libraries = path.parent()?.file_name()? == "lib";
    (of_libraries && LIBRARIES.contains(&name)).then(|| Path::new("lib").join(name))
}

/// Puts `libtorch.so` in place, if it is not: a library of nothing that needs the CPU one, as that of
/// the wheel needs the CPU and the CUDA one. A program that is linked to it here computes on CUDA where
/// it finds a whole libtorch instead.
fn gather(libraries: &Path) -> Result<()> {
    let gathering = libraries.join("libtorch.so");
    if !gathering.is_symlink() && is_whole_library(&gathering) {
        return Ok(());
    }
    // In a folder of its own first: what is broken off, or made twice at once, leaves what was there.
    let work = tempfile::tempdir_in(libraries).map_err(|e| Error::file(libraries, e))?;
    let partial = work.path().join("libtorch.so");
    let mut linker = Command::new("cc");
    linker.args(["-shared", "-nostdlib", "-Wl,-soname,libtorch.so", "-Wl,--no-as-needed", "-o"]);
    linker.arg(&partial).arg("-L").arg(libraries).arg("-ltorch_cpu");
    process::run_on_stderr(&mut linker)?;
    fs::rename(&partial, &gathering).map_err(|e| Error::file(&gathering, e))
}

/// What a folder lacks to be a whole libtorch of our version, but for what [`gather`] makes; `None` when
/// it is one.
fn fault_in(folder: &Path) -> Option<String> {
    let include = folder.join("include");
    for header in HEADERS {
        if !include.join(header).is_file() {
            return Some(format!("include/{header} is missing"));
        }
    }
    let version = fs::read_to_string(include.join(VERSION_HEADER)).unwrap_or_default();
    if version_in(&version).as_deref() != Some(VERSION) {
        return Some(format!("include/{VERSION_HEADER} does not say {VERSION}"));
    }
    LIBRARIES
        .iter()
        .find(|name| !is_whole_library(&folder.join("lib").join(name)))
        .map(|name| format!("lib/{name} is missing or cut short"))
}

/// The version that PyTorch's version header defines.
fn version_in(header: &str) -> Option<String> {
    let part = |name: &str| {
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let defines = words.next() == Some("#define") && words.next() == Some(name);
            defines.then(|| words.next()).flatten()
        })
    };
    let [major, minor, patch] =
        ["TORCH_VERSION_MAJOR", "TORCH_VERSION_MINOR", "TORCH_VERSION_PATCH"].map(part);
    Some(format!("{}.{}.{}", major?, minor?, patch?))
}

/// Whether a file is a 64-bit ELF library that is as long as its header says.
fn is_whole_library(path: &Path) -> bool {
    let mut header = [0; 64];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut header)?;
        file.metadata()
    });
    read.is_ok_and(|metadata| elf_length(&header).is_some_and(|length| metadata.len() >= length))
}

/// The least length of the file that a 64-bit little-endian ELF header begins: where its table of
/// sections ends, which linkers write last.
fn elf_length(header: &[u8; 64]) -> Option<u64> {
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = u64::from_le_bytes(header[0x28..0x30].try_into().ok()?);
    let half = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    table.checked_add(half(0x3a) * half(0x3c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf_header(table: u64, entries: u16) -> [u8; 64] {
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        header[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        header[0x3c..0x3e].copy_from_slice(&entries.to_le_bytes());
        header
    }

    fn version_header(version: &str) -> String {
        let parts: Vec<&str> = version.split('.').collect();
        format!(
            "#pragma once\n#define TORCH_VERSION_MAJOR {}\n#define TORCH_VERSION_MINOR {}\n\
             #define TORCH_VERSION_PATCH {}\n#define TORCH_VERSION \"{version}\"\n",
            parts[0], parts[1], parts[2]
        )
    }

    /// A folder with all that is looked at, its libraries 192 bytes long.
    fn whole_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        };
        for header in HEADERS {
            write(&format!("include/{header}"), b"");
        }
        write(&format!("include/{VERSION_HEADER}"), version_header(VERSION).as_bytes());
        let mut library = elf_header(64, 2).to_vec();
        library.resize(192, 0);
        for name in LIBRARIES {
            write(&format!("lib/{name}"), &library);
        }
        folder
    }

    #[test]
    fn a_whole_folder_is_taken() {
        assert_eq!(fault_in(whole_folder().path()), None);
    }

    #[test]
    fn a_folder_that_lacks_anything_is_refused() {
        for missing in
            ["include/ATen/ATen.h", "include/torch/headeronly/version.h", "lib/libc10.so"]
        {
            let folder = whole_folder();
            fs::remove_file(folder.path().join(missing)).expect("removed");
            let fault = fault_in(folder.path()).expect("a fault");
            assert!(fault.contains(missing), "{fault}");
        }
    }

    #[test]
    fn a_library_cut_short_is_refused() {
        let folder = whole_folder();
        let library = folder.path().join("lib/libtorch_cpu.so");
        let file = File::options().write(true).open(library).expect("opened");
        file.set_len(191).expect("cut");
        let fault = fault_in(folder.path()).expect("a fault");
        assert!(fault.contains("libtorch_cpu.so"), "{fault}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn libtorch_needs_the_cpu_library_and_is_not_the_same_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cpu, gathering) =
            (folder.path().join("libtorch_cpu.so"), folder.path().join("libtorch.so"));
        let mut linker = Command::new("cc");
        linker.args([
            "-shared",
            "-nostdlib",
            "-Wl,-soname,libtorch_cpu.so",
            "-x",
            "c",
            "/dev/null",
        ]);
        linker.arg("-o").arg(&cpu);
        process::run(&mut linker).expect("linked");
        // What a link is cannot be told from what it names, once a program is linked to it.
        std::os::unix::fs::symlink("libtorch_cpu.so", &gathering).expect("a link");
        for _ in 0..2 {
            gather(folder.path()).expect("gathered");
            assert!(!gathering.is_symlink() && is_whole_library(&gathering));
        }
        let names = fs::read(&gathering).expect("read");
        let has = |name: &[u8]| names.windows(name.len()).any(|window| window == name);
        assert!(has(b"libtorch.so\0") && has(b"libtorch_cpu.so\0"));
    }

    #[test]
    fn folders_of_ones_own_are_whole_paths() {
        let variable = |name: &str| match name {
            "LIBTORCH" => Some("torch".into()),
            "LIBTORCH_INCLUDE" => Some("/usr".into()),
            _ => None,
        };
        let here = env::current_dir().expect("a current folder");
        let expected = [("LIBTORCH", here.join("torch")), ("LIBTORCH_INCLUDE", "/usr".into())];
        assert_eq!(own_folders(variable).expect("folders"), expected.into());
        assert!(own_folders(|_| None).expect("none").is_empty());
    }

    #[test]
    fn both_folders_of_ones_own_do_without_libtorch_and_one_does_not() {
        let whole = whole_folder();
        let of = |names: &[&'static str]| {
            own_libraries(&names.iter().map(|&name| (name, whole.path().to_owned())).collect())
        };
        let libraries = Some(whole.path().join("lib"));
        assert_eq!(of(&["LIBTORCH"]).expect("libraries"), libraries);
        assert_eq!(of(&["LIBTORCH_LIB", "LIBTORCH_INCLUDE"]).expect("libraries"), libraries);
        assert_eq!(of(&[]).expect("none"), None);
        for alone in ["LIBTORCH_LIB", "LIBTORCH_INCLUDE"] {
            let error = of(&[alone]).expect_err("half of a libtorch").to_string();
            assert!(error.contains("one without the other"), "{error}");
        }
    }

    #[test]
    fn another_version_is_refused() {
        let folder = whole_folder();
        let header = folder.path().join("include").join(VERSION_HEADER);
        fs::write(header, version_header("2.10.0")).expect("written");
        assert!(fault_in(folder.path()).expect("a fault").contains(VERSION));
    }

    #[test]
    fn the_version_is_read_from_the_header() {
        assert_eq!(version_in(&version_header("2.11.0")).as_deref(), Some("2.11.0"));
        assert_eq!(version_in("#define TORCH_VERSION_MAJOR 2\n"), None);
    }

    #[test]
    fn only_headers_and_the_needed_libraries_are_unpacked() {
        let place = |member| place_of(member).map(|path| path.display().to_string());
        assert_eq!(place("torch/include/ATen/ATen.h").as_deref(), Some("include/ATen/ATen.h"));
        assert_eq!(place("torch/lib/libtorch_cpu.so").as_deref(), Some("lib/libtorch_cpu.so"));
        assert_eq!(
            place("nvidia/cu13/lib/libcudart.so.13").as_deref(),
            Some("lib/libcudart.so.13")
        );
        for unwanted in [
            "torch/lib/libtorch_cuda.so",
            "torch/lib/libtorch.so",
            "torch/__init__.py",
            "torch/include/../../../etc/passwd",
            "/torch/include/a.h",
            "libc10.so",
        ] {
            assert_eq!(place(unwanted), None, "{unwanted}");
        }
    }

    #[test]
    fn the_wheels_are_pinned_by_version_and_hash() {
        assert!(WHEELS.contains(&format!("torch=={VERSION} ")));
        assert!(WHEELS.lines().all(|line| line.contains("==") && line.contains("--hash=sha256:")));
    }
}
