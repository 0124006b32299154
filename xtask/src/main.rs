//! `cargo xtask`: what a developer of Tigret does, a verb each.

#[cfg(not(unix))]
compile_error!("`cargo xtask` runs on Linux and macOS; on Windows, in WSL 2");

mod bench;
mod build;
mod demo;
mod error;
mod fuzz;
mod machine;
mod notices;
mod pack;
mod process;
mod report;
mod run_dir;
mod serve;
mod setup;
mod summary;
mod test;
mod tigret;
mod tokenizers;
mod trust;
mod wasm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Result;
use report::Report;

/// What a developer of Tigret does: set up, run, test, measure.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put in place all that the build needs; what is there already is left alone.
    Setup(setup::Args),
    /// Train on the embedded classics, build the page with that model and serve it.
    Demo(demo::Args),
    /// Run all checks: format, lints, documentation, tests, and the page in a browser.
    Test(test::Args),
    /// Measure training, evaluation and one recommendation on each engine, on this machine.
    Bench(bench::Args),
    /// Tokenize runs by every method and print their figures side by side.
    CompareTokenizers(tokenizers::Args),
    /// Pack all that a machine with a GPU, and without Rust, needs to train and measure.
    Pack(pack::Args),
    /// Give every reader of files what libFuzzer finds worth trying (needs `cargo fuzz`).
    Fuzz(fuzz::Args),
    /// Run the long form of the tests of faults, hostile input and long runs: hours.
    Trust(trust::Args),
    /// Build the wasm module and its JavaScript face into web/pkg, and say how big it is.
    Wasm(wasm::Args),
    /// Run the `tigret` command (release build) with libtorch in place.
    ///
    /// Arguments, output and exit status pass through unchanged; so `cargo xtask tigret --help`
    /// is the help of `tigret` itself.
    #[command(disable_help_flag = true)]
    Tigret {
        /// Arguments of `tigret`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // Everything behind `tigret` is its own, `--` included, so it does not go through our parser.
    let outcome = match tigret::passed_through(std::env::args_os()) {
        Some(arguments) => tigret::run(&arguments),
        None => run(Cli::parse().verb),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error}");
        ExitCode::from(2)
    })
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => setup::run(&args, &Report::all()).map(|()| ExitCode::SUCCESS),
        Verb::Demo(args) => demo::run(&args, &Report::all()),
        Verb::Test(args) => test::run(&args, &Report::all()),
        Verb::Bench(args) => bench::run(&args, &Report::all()),
        Verb::CompareTokenizers(args) => tokenizers::run(&args, &Report::all()),
        Verb::Pack(args) => pack::run(&args, &Report::all()),
        Verb::Fuzz(args) => fuzz::run(&args, &Report::all()),
        Verb::Trust(args) => trust::run(&args, &Report::all()),
        Verb::Wasm(args) => wasm::run(&args, &Report::all()).map(|()| ExitCode::SUCCESS),
        Verb::Tigret { arguments } => tigret::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
