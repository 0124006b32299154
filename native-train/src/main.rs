//! The `tigret` command.

use std::process::ExitCode;

use clap::Parser;
use tigret_train::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tigret: {error}");
            ExitCode::from(2)
        }
    }
}
