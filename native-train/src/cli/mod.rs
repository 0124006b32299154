//! The `tigret` command: one module a verb, each with its `Args` and a `run`.

mod baselines;
mod bench;
mod embed;
mod evaluate;
mod export;
mod import;
mod inspect;
mod output;
mod prepare;
mod recommend;
mod tokenize;
mod train;

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
    Tokenize(tokenize::Args),
    Train(train::Args),
    Evaluate(evaluate::Args),
    Export(export::Args),
    Import(import::Args),
    Recommend(recommend::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
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
            Verb::Tokenize(args) => tokenize::run(args, &output),
            Verb::Train(args) => train::run(args, &output),
            Verb::Evaluate(args) => evaluate::run(args, &output),
            Verb::Export(args) => export::run(args, &output),
            Verb::Import(args) => import::run(args, &output),
            Verb::Recommend(args) => recommend::run(args, &output),
            Verb::Inspect(args) => inspect::run(args, &output),
            Verb::Bench(args) => bench::run(args, &output),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn options_of_all_verbs_have_names_of_their_own() {
        Cli::command().debug_assert();
    }
}
