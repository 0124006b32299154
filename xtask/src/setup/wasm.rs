//! The toolchain that builds for wasm32: the one that runs us with the target's standard library,
//! or Debian's, which builds that library itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt;
use crate::error::{Error, Result};
use crate::process;
use crate::report::Report;
use crate::workspace;

const TARGET: &str = "wasm32-unknown-unknown";
const STEP: &str = "wasm32 target";

/// Debian's packages: a compiler, its cargo, the sources of the standard library, the linter.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Which toolchain to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// rustup's where it has the target or can fetch it, else Debian's.
    #[default]
    Auto,
    /// rustup's or none.
    Rustup,
    /// Debian's packages `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
}

/// A toolchain that builds for wasm32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WasmToolchain {
    /// The toolchain that runs us; the target's standard library lies in it.
    Own,
    /// Debian's compiler, which builds the standard library from its sources.
    Debian {
        /// The linker for wasm32: `rust-lld` of our own toolchain, or a `wasm-ld`.
        linker: PathBuf,
    },
}

impl WasmToolchain {
    /// Finds a toolchain, fetching what is missing.
    ///
    /// # Errors
    /// When there is none and none can be fetched; the message says what was tried.
    pub(crate) fn locate(choice: Choice, report: &Report) -> Result<Self> {
        match choice {
            Choice::Rustup => Self::own(report),
            Choice::Debian => Self::debian(report),
            Choice::Auto => Self::own(report).or_else(|own| {
                report.doing(STEP, format!("{own}; trying Debian's toolchain"));
                Self::debian(report).map_err(|debian| {
                    Error::message(format!("no toolchain builds for {TARGET}: {own}; {debian}"))
                })
            }),
        }
    }

    fn own(report: &Report) -> Result<Self> {
        let library = library_of(TARGET)?.join("lib");
        if library.is_dir() {
            report.done(STEP, "already in the Rust toolchain");
            return Ok(Self::Own);
        }
        report.doing(STEP, format!("rustup target add {TARGET}"));
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]).current_dir(workspace::root());
        process::run_on_stderr(&mut rustup)?;
        if !library.is_dir() {
            return Err(Error::message(format!(
                "rustup added {TARGET}, but not to the toolchain in use ({} is missing)",
                library.display()
            )));
        }
        report.doing(STEP, "in place, by rustup");
        Ok(Self::Own)
    }

    fn debian(report: &Report) -> Result<Self> {
        let here =
            [DEBIAN_RUSTC, DEBIAN_CARGO, DEBIAN_SOURCES].iter().all(|p| Path::new(p).is_file());
        let why = format!("the standard library for {TARGET} is built with it");
        if here {
            report.done(STEP, format!("Debian's toolchain, already in place; {why}"));
        } else {
            apt::install(&DEBIAN_PACKAGES, &why, report)?;
            report.doing(STEP, format!("Debian's toolchain is in place; {why}"));
        }
        Ok(Self::Debian { linker: wasm_linker()? })
    }

    /// `cargo VERB` for wasm32, in the root of the checkout.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut cargo = match self {
            Self::Own => workspace::cargo(),
            Self::Debian { linker } => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo
                    .current_dir(workspace::root())
                    .env("CARGO", DEBIAN_CARGO)
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env("PATH", process::with_folder_first(Path::new("/usr/bin"), "PATH"))
                    .env_remove("RUSTUP_TOOLCHAIN");
                cargo
            }
        };
        cargo.arg(verb).args(["--target", TARGET]);
        if matches!(self, Self::Debian { .. }) {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo
    }

    /// Why `cargo clippy` cannot run for wasm32, if it cannot.
    pub(crate) fn lacks_clippy(&self) -> Option<&'static str> {
        let lacks = matches!(self, Self::Debian { .. }) && !Path::new(DEBIAN_CLIPPY).is_file();
        lacks.then_some("Debian's Rust toolchain is here without its rust-web-clippy")
    }
}

/// Where the toolchain that runs us has what belongs to a target.
fn library_of(target: &str) -> Result<PathBuf> {
    Ok(Path::new(&workspace::rustc_prints("sysroot")?).join("lib/rustlib").join(target))
}

/// `rust-lld` of the toolchain that runs us, else a `wasm-ld` on the PATH.
fn wasm_linker() -> Result<PathBuf> {
    let own = library_of(&workspace::rustc_prints("host-tuple")?)?.join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    process::find_on_path(&["wasm-ld", "rust-lld"]).ok_or_else(|| {
        Error::message(format!(
            "no linker for {TARGET}: neither {} nor wasm-ld is there; install one (on Debian: \
             apt-get install lld)",
            own.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_toolchain_builds_the_standard_library_with_our_linker() {
        let toolchain = WasmToolchain::Debian { linker: "/rust-lld".into() };
        let cargo = toolchain.cargo("build");
        assert_eq!(
            process::line(&cargo),
            "cargo build --target wasm32-unknown-unknown -Z build-std=std,panic_abort"
        );
        let linker = cargo
            .get_envs()
            .find(|(name, _)| *name == "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER");
        assert_eq!(linker.and_then(|(_, value)| value), Some("/rust-lld".as_ref()));
    }

    #[test]
    fn our_own_toolchain_builds_as_it_is() {
        let cargo = WasmToolchain::Own.cargo("clippy");
        let arguments: Vec<_> = cargo.get_args().collect();
        assert_eq!(arguments, ["clippy", "--target", TARGET]);
        assert_eq!(cargo.get_envs().count(), 0);
    }
}
