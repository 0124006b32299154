//! `cargo xtask setup`: puts in place what the build needs, a module a thing. What is there is
//! left alone, so that every verb can ask for what it needs at no cost.

mod apt;
pub(crate) mod libtorch;

use crate::error::Result;
use crate::report::Report;

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Sets everything up.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(_args: &Args, report: &Report) -> Result<()> {
    libtorch::Libtorch::locate(report)?;
    Ok(())
}
