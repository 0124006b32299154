//! `cargo xtask setup`: puts in place what the build needs, a module a thing. What is there is
//! left alone, so that every verb can ask for what it needs at no cost.

mod apt;
pub(crate) mod bindgen;
pub(crate) mod browser;
pub(crate) mod libtorch;
pub(crate) mod npm;
pub(crate) mod vulkan;
pub(crate) mod wasm;

use crate::error::Result;
use crate::report::Report;

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the tests need as well: Chromium and a Vulkan driver.
    #[arg(long)]
    browser: bool,
    /// The toolchain that builds for wasm32.
    #[arg(long, value_enum, default_value_t)]
    wasm_toolchain: wasm::Choice,
}

/// Sets everything up.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(args: &Args, report: &Report) -> Result<()> {
    // Half a gigabyte and minutes before it is used.
    npm::check()?;
    libtorch::Libtorch::locate(report)?;
    wasm::WasmToolchain::locate(args.wasm_toolchain, report)?;
    bindgen::locate(report)?;
    npm::install(report)?;
    if args.browser {
        browser::locate(report)?;
        vulkan::locate(report)?;
    }
    Ok(())
}
