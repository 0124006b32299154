//! The wasm half of the page: `tigret-infer` as a module with its JavaScript face in `web/pkg`.

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build;
use crate::error::{Error, Result};
use crate::notices;
use crate::process;
use crate::report::Report;
use crate::setup::wasm::{Choice, WasmToolchain};
use crate::setup::{bindgen, npm};
use crate::workspace;

const STEP: &str = "wasm module";
const NAME: &str = "tigret_infer";
/// Holds the hash of what `web/pkg` was made from.
const STAMP: &str = ".made-from";

/// How wasm-opt works, and what it may assume: the features that the module is built with.
///
/// A function with one caller is inlined only if it is small. Without that limit a whole search is
/// one function, which browsers compile well only after its first run, and slowly; its loops, as
/// functions of their own, are compiled well while it runs.
const WASM_OPT: [&str; 10] = [
    "-O3",
    "--one-caller-inline-max-function-size=600",
    // Addresses with a small constant are folded into loads: nothing lies in the first kilobyte, the far
    // end of the stack.
    "--low-memory-unused",
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

/// Arguments of `cargo xtask wasm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: Choice,
}

/// Builds the module with all that it needs.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(args: &Args, report: &Report) -> Result<()> {
    npm::check()?;
    let toolchain = WasmToolchain::locate(args.wasm_toolchain, report)?;
    build_module(&toolchain, report).map(|_size| ())
}

/// Bytes of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// After wasm-opt.
    pub(crate) raw: u64,
    /// Compressed with brotli as a web server would; `None` without Node.
    pub(crate) brotli: Option<u64>,
}

impl Size {
    /// Whether both are within a budget, as far as both are known.
    pub(crate) fn fits(self, budget: Self) -> bool {
        let brotli = self.brotli.zip(budget.brotli);
        self.raw <= budget.raw && brotli.is_none_or(|(size, budget)| size <= budget)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KB", kilobytes(self.raw))?;
        if let Some(brotli) = self.brotli {
            write!(f, ", {} KB brotli", kilobytes(brotli))?;
        }
        Ok(())
    }
}

fn kilobytes(bytes: u64) -> u64 {
    bytes.div_ceil(1000)
}

/// Builds the module into `web/pkg` if it changed, and says how big it is.
///
/// # Errors
/// When the build, wasm-bindgen or wasm-opt fails.
pub(crate) fn build_module(toolchain: &WasmToolchain, report: &Report) -> Result<Size> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--package", "tigret-infer", "--lib", "--profile", "wasm"]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags().join("\u{1f}"));
    let announcement = "compiling for wasm32";
    let module = build::quietly(&mut cargo, STEP, announcement, report)?.file(NAME, "wasm")?;

    let pkg = workspace::web().join("pkg");
    // The lock files stand for wasm-opt's version, and for the crates whose licences are told.
    let made_by = ["xtask/bindgen/src/main.rs", "xtask/src/notices.rs"];
    let locked = ["web/package-lock.json", "Cargo.lock"];
    let others = made_by.iter().chain(&locked).map(|path| workspace::root().join(path));
    let stamp = hash_of(&std::iter::once(module.clone()).chain(others).collect::<Vec<_>>())?;
    let made = pkg.join(format!("{NAME}_bg.wasm"));
    if made.is_file() && fs::read_to_string(pkg.join(STAMP)).is_ok_and(|old| old == stamp) {
        let size = size_of(&made)?;
        report.done(STEP, format!("already in web/pkg ({size})"));
        return Ok(size);
    }
    report.doing(STEP, "wasm-bindgen and wasm-opt into web/pkg");
    make_package(&module, &pkg, &stamp, report)?;
    let size = size_of(&made)?;
    report.doing(STEP, format!("in web/pkg ({size})"));
    Ok(size)
}

/// Flags of the compiler: those of `.cargo/config.toml`, and that panic messages, which are part of
/// the module, name no folders of the machine that built it.
fn rust_flags() -> Vec<String> {
    let mut flags =
        ["-Ctarget-feature=+simd128", "--cfg=web_sys_unstable_apis"].map(str::to_owned).to_vec();
    let mut hidden = vec![workspace::root().to_owned()];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    if let Some(sources) = home.map(|home| home.join("registry").join("src")) {
        // A folder for each registry, with its crates.
        hidden.extend(fs::read_dir(&sources).into_iter().flatten().flatten().map(|e| e.path()));
        hidden.push(sources);
    }
    // Of several that fit, the compiler takes the last one.
    hidden.sort();
    flags.extend(hidden.iter().map(|path| format!("--remap-path-prefix={}=.", path.display())));
    flags
}

/// Makes the folder under another name and puts it in place whole.
fn make_package(module: &Path, pkg: &Path, stamp: &str, report: &Report) -> Result<()> {
    let bindgen = bindgen::locate(report)?;
    let partial = pkg.with_extension("partial");
    workspace::remove(&partial)?;
    process::run(Command::new(bindgen).arg(module).arg(&partial).arg(NAME))?;
    optimise(&partial.join(format!("{NAME}_bg.wasm")), report)?;
    let notices = partial.join(notices::NAME);
    fs::write(&notices, notices::of_module("tigret-infer")?)
        .map_err(|e| Error::file(&notices, e))?;
    let stamp_file = partial.join(STAMP);
    fs::write(&stamp_file, stamp).map_err(|e| Error::file(&stamp_file, e))?;
    workspace::remove(pkg)?;
    fs::rename(&partial, pkg).map_err(|e| Error::file(pkg, e))
}

/// Runs wasm-opt on the module in its place: that of the npm package `binaryen`, and no other.
/// Version 108, which Debian has, exports the wrong one of a module's tables where there are
/// reference types; the module then traps as soon as it is loaded.
fn optimise(module: &Path, report: &Report) -> Result<()> {
    npm::install(report)?;
    let wasm_opt = workspace::web().join("node_modules/.bin/wasm-opt");
    let optimised = module.with_extension("optimised");
    let mut command = Command::new(wasm_opt);
    command.args(WASM_OPT).arg(module).arg("-o").arg(&optimised);
    process::run(&mut command)?;
    fs::rename(&optimised, module).map_err(|e| Error::file(module, e))
}

fn hash_of(files: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    WASM_OPT.hash(&mut hasher);
    for file in files {
        fs::read(file).map_err(|e| Error::file(file, e))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn size_of(module: &Path) -> Result<Size> {
    let raw = fs::metadata(module).map_err(|e| Error::file(module, e))?.len();
    let script = "const { readFileSync } = require('fs'); \
                  console.log(require('zlib').brotliCompressSync(readFileSync(process.argv[1])).length)";
    let mut node = Command::new("node");
    node.args(["-e", script]).arg(module);
    let brotli = process::output(&mut node).ok().and_then(|length| length.parse().ok());
    Ok(Size { raw, brotli })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_in_kilobytes() {
        assert_eq!(
            Size { raw: 1_234_567, brotli: Some(99_001) }.to_string(),
            "1235 KB, 100 KB brotli"
        );
        assert_eq!(Size { raw: 1, brotli: None }.to_string(), "1 KB");
    }

    #[test]
    fn a_size_fits_where_both_of_its_numbers_do() {
        let budget = Size { raw: 10, brotli: Some(4) };
        let fits = |raw, brotli| Size { raw, brotli }.fits(budget);
        assert!(fits(10, Some(4)) && fits(10, None));
        assert!(!fits(11, Some(4)) && !fits(10, Some(5)) && !fits(11, None));
    }
}
