//! The `tigret` command.

use std::process::ExitCode;

use clap::Parser;
use tigret_train::cli::Cli;
use tigret_train::stderr::say;
use tigret_train::{TrainError, interrupt};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("tigret: {error}"));
            ExitCode::from(if matches!(error, TrainError::Paused) { interrupt::PAUSED } else { 2 })
        }
    }
}
