//! The `tigret` command: one module a verb, each with its `Args` and a `run`.

mod embed;
mod output;
mod prepare;

use clap::{Parser, Subcommand};

pub use output::Output;

use crate::error::Result;

/// Trains generative recommenders and exports them to the browser.
#[derive(Debug, Parser)]
#[command(name = "tigret", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON object for machines instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Prepare(prepare::Args),
    Embed(embed::Args),
}

impl Cli {
    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever the verb reports, to be printed as one line.
    pub fn run(self) -> Result<()> {
        let output = Output::new(self.json);
        match self.verb {
            Verb::Prepare(args) => prepare::run(args, &output),
            Verb::Embed(args) => embed::run(args, &output),
        }
    }
}
