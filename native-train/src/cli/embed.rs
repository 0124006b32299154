//! `tigret embed`.

use super::Output;
use crate::error::Result;

/// Being built.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: Args, _output: &Output) -> Result<()> {
    Ok(())
}
