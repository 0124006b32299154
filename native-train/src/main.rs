//! The `tigret` command.

use std::io::{self, Write};

use clap::Parser;
// Ends the process without the exit handlers of libraries: libtorch takes all its operators apart,
// which is a fifth of the time that a short command takes.
use signal_hook::low_level::exit;
use tigret_train::cli::Cli;
use tigret_train::stderr::say;
use tigret_train::{TrainError, interrupt, usage};

/// Exit status of a command line or an input that is not taken, and of work that failed.
const FAILED: i32 = 2;

fn main() {
    let status = run();
    // Whatever a verb prints it has written out by itself; what clap prints may wait in the buffer.
    let _ = io::stdout().flush();
    exit(status)
}

fn run() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) if usage::is_help(&asked) => {
            // A closed pipe (`tigret --help | head`) is no error.
            let _ = asked.print();
            return asked.exit_code();
        }
        Err(wrong) => {
            say(format_args!("tigret: {}; `--help` lists what there is", usage::refusal(&wrong)));
            return FAILED;
        }
    };
    let done = threads().and_then(|()| interrupt::listen()).and_then(|()| cli.run(io::stdout()));
    let Err(error) = done else { return 0 };
    say(format_args!("tigret: {error}"));
    match error {
        TrainError::Paused => interrupt::PAUSED,
        error if error.is_interrupted() => interrupt::end_by_signal(),
        _ => FAILED,
    }
}

/// Starts the threads of what is computed without libtorch: here it can be said that there are none.
fn threads() -> Result<(), TrainError> {
    rayon::ThreadPoolBuilder::new().build_global().map_err(|e| TrainError::no_thread(&e))
}
