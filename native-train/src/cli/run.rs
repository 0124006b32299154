//! `tigret run`: all steps from one TOML file.

use std::path::PathBuf;

use clap::CommandFactory;

use super::{Cli, InProcess, Output};
use crate::error::{Result, TrainError};
use crate::pipeline::config::EXAMPLE;
use crate::pipeline::{Choice, Config, Pipeline, RunLock, Step};

/// Run all steps from one TOML file; what is done and unchanged is skipped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tigret run --example > shop.toml
  tigret run shop.toml --dry-run
  tigret run shop.toml
  tigret run shop.toml --set train.preset=paper --set train.max-minutes=60
  tigret run shop.toml --from train --force

`run = \"runs/shop\"` stands at the top, then a table a step whose keys are the options of its verb:
[train] with preset = \"paper\" is `tigret train --preset=paper`. Relative paths count from the
file's folder. A step is skipped when its options and the content of what it reads are the same as
when it last finished; an interrupted one goes on where it stopped. `tokenize = false` leaves a step
out.")]
pub(super) struct Args {
    /// The file.
    #[arg(required_unless_present = "example")]
    config: Option<PathBuf>,
    /// Lay a setting over the file, such as train.preset=paper; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Say what would be done, and why, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Begin with this step; what is before is taken as it is.
    #[arg(long, value_name = "STEP", value_enum)]
    from: Option<Step>,
    /// Do steps again that are done.
    #[arg(long)]
    force: bool,
    /// Print an example file with a table for every step, with comments.
    #[arg(long, exclusive = true)]
    example: bool,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let Some(path) = args.config.filter(|_| !args.example) else {
        output.result(&EXAMPLE, || EXAMPLE.trim_end().to_owned());
        return Ok(());
    };
    let verbs = InProcess { output, prints: true };
    let (run, calls) = Config::load(&path, &args.settings)?.pipeline(&Cli::command())?;
    if let Some(from) = args.from
        && !calls.iter().any(|call| call.step == from)
    {
        return Err(TrainError::usage(format!(
            "--from {from}: {} leaves this step out",
            path.display()
        )));
    }
    let choice = Choice { from: args.from, force: args.force };
    let root = run.root().to_owned();
    let pipeline = Pipeline::new(run, calls, &verbs);
    if args.dry_run {
        let planned = pipeline.plan(choice)?;
        output.result(&planned, || {
            let lines = planned.iter().map(|step| match step.done {
                Some(true) => format!("{:<9} done already", step.step),
                _ => format!("{:<9} {}: {}", step.step, step.reason, step.command),
            });
            lines.collect::<Vec<_>>().join("\n")
        });
        return Ok(());
    }
    let _lock = RunLock::acquire(&root, "tigret run")?;
    let done = pipeline.run(choice)?;
    if output.is_json() {
        output.result(&done, String::new);
    }
    Ok(())
}
