//! The `tigret` command: one module a verb, each with its `Args` and a `run`.

mod assign;
mod autoencoder;
mod baselines;
mod bench;
mod demo;
mod embed;
mod evaluate;
mod export;
mod import;
mod inspect;
mod output;
mod prepare;
mod recommend;
mod run;
mod study;
mod tokenize;
mod tokenizer_report;
mod train;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde_json::Value;

use output::Output;

use crate::error::{Result, TrainError};
use crate::panics;
use crate::pipeline::{RunLock, Verbs};
use crate::run_dir::RunDir;

/// Trains generative recommenders and exports them to the browser.
#[derive(Debug, Parser)]
#[command(name = "tigret", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Print JSON instead of text: one object; `recommend` prints an object per line, `run` and
    /// `study` an array with an object per step or report.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Prepare(Box<prepare::Args>),
    Embed(embed::Args),
    Tokenize(tokenize::Args),
    Train(train::Args),
    Evaluate(evaluate::Args),
    Export(export::Args),
    Import(import::Args),
    Recommend(recommend::Args),
    Inspect(inspect::Args),
    Run(run::Args),
    Study(study::Args),
    Demo(demo::Args),
    Bench(bench::Args),
}

impl Cli {
    /// Runs the verb, alone in the run directory that it writes into, and prints what it comes to
    /// in `results`.
    ///
    /// # Errors
    /// Whatever the verb reports, to be printed as one line.
    pub fn run(self, results: impl Write + 'static) -> Result<()> {
        let output = Output::new(self.json, results);
        let _lock = match self.verb.writes_into() {
            // A verb that needs a run has a better message for one that is not there.
            Some((verb, run)) if verb == "prepare" || RunDir::open(run).is_ok() => {
                Some(RunLock::acquire(run, &format!("tigret {verb}"))?)
            }
            _ => None,
        };
        panics::torch(|| self.verb.run(&output))
            .unwrap_or_else(|said| Err(TrainError::Torch(said)))?;
        output.finish().map(|_| ())
    }
}

impl Verb {
    /// The verb's name and the run directory that it writes into, if any.
    fn writes_into(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Prepare(args) => Some(("prepare", args.run_dir())),
            Self::Embed(args) => args.writes_into().map(|run| ("embed", run)),
            Self::Tokenize(args) => Some(("tokenize", args.run_dir())),
            Self::Train(args) => Some(("train", args.run_dir())),
            Self::Evaluate(args) => args.writes_into().map(|run| ("evaluate", run)),
            _ => None,
        }
    }

    /// Refuses options that the parser takes one by one, and places where nothing may be written,
    /// before any work begins.
    fn check(&self) -> Result<()> {
        match self {
            Self::Prepare(args) => args.check(),
            Self::Tokenize(args) => args.check(),
            Self::Train(args) => args.check(),
            Self::Evaluate(args) => args.check(),
            Self::Export(args) => args.check(),
            Self::Inspect(args) => args.check(),
            // Their parsers refuse all that is wrong in the options alone, or no step is made of them.
            _ => Ok(()),
        }
    }

    fn run(self, output: &Output) -> Result<()> {
        self.check()?;
        match self {
            Self::Prepare(args) => prepare::run(*args, output),
            Self::Embed(args) => embed::run(args, output),
            Self::Tokenize(args) => tokenize::run(args, output),
            Self::Train(args) => train::run(args, output),
            Self::Evaluate(args) => evaluate::run(args, output),
            Self::Export(args) => export::run(args, output),
            Self::Import(args) => import::run(args, output),
            Self::Recommend(args) => recommend::run(args, output),
            Self::Inspect(args) => inspect::run(args, output),
            Self::Run(args) => run::run(args, output),
            Self::Study(args) => study::run(args, output),
            Self::Demo(args) => demo::run(args, output),
            Self::Bench(args) => bench::run(args, output),
        }
    }
}

/// Calls verbs inside of another verb, which holds the lock of the run.
#[derive(Clone, Copy)]
struct InProcess<'a> {
    /// That of the verb that calls.
    output: &'a Output,
    /// Whether the results of the verbs called are printed, too.
    prints: bool,
}

impl Verbs for InProcess<'_> {
    fn check(&self, arguments: &[OsString]) -> Result<()> {
        parse(arguments)?.verb.check()
    }

    fn call(&self, arguments: &[OsString]) -> Result<Value> {
        let output = self.output.of_step(self.prints);
        parse(arguments)?.verb.run(&output)?;
        output.finish()
    }

    fn note(&self, text: &str) {
        self.output.note(text);
    }

    fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        self.output.progress(total, unit)
    }
}

/// What a name of an option stands for: one value, or all of them.
type OneOrAll<T> = Vec<T>;

/// Reads the name of a value, or `all`, whose help is `help`.
fn or_all<T>(help: &'static str) -> impl TypedValueParser<Value = OneOrAll<T>>
where
    T: ValueEnum + Send + Sync + 'static,
{
    let names = T::value_variants().iter().filter_map(T::to_possible_value);
    let names = names.chain([PossibleValue::new("all").help(help)]);
    PossibleValuesParser::new(names).map(|name| match name.as_str() {
        "all" => T::value_variants().to_vec(),
        name => T::from_str(name, false).into_iter().collect(),
    })
}

fn parse(arguments: &[OsString]) -> Result<Cli> {
    let line = std::iter::once(OsString::from("tigret")).chain(arguments.iter().cloned());
    Cli::try_parse_from(line).map_err(|e| TrainError::usage(e.render()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn options_of_all_verbs_have_names_of_their_own() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_of_several_lines_can_be_copied() {
        let depth = |line: &str| line.len() - line.trim_start().len();
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().chain([""]).collect();
            // Where the command begins that a line belongs to.
            let mut command = None;
            for pair in lines.windows(2) {
                if pair[0].trim_start().starts_with("tigret ") {
                    command = Some(depth(pair[0]));
                }
                command = command.filter(|&begin| depth(pair[1]) > begin);
                let goes_on = pair[0].ends_with(" \\");
                assert_eq!(command.is_some(), goes_on, "{}: {}", verb.get_name(), pair[0]);
            }
        }
    }
}
