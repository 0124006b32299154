//! `tigret study`: the paper's experiments.

use std::path::PathBuf;

use clap::{CommandFactory, ValueEnum};

use super::{Cli, InProcess, OneOrAll, Output, or_all};
use crate::error::{Result, TrainError, minutes};
use crate::interrupt;
use crate::model::presets::Preset;
use crate::pipeline::{Config, RunLock};
use crate::study::{CommandLine, Settings, Study};

/// Repeat the paper's experiments: train variants, measure them, and write a report.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  A trial in small of everything, on the embedded classics:
    tigret study all --data classics --out studies/trial --smoke

  The number of layers on one data set, with a training of ten minutes each:
    tigret study layers --data beauty=data/beauty --out studies --preset small --max-minutes 10

  The paper's table on its three data sets, three seeds, all settings in a file:
    tigret study main --config paper.toml --seeds 0,1,2

  In pieces of less than ten minutes (exit status 75 until all is done):
    (until tigret study all --config paper.toml --stop-after-minutes 9.5
     do s=$?; [ $s -eq 75 ] || exit $s; done)

A folder of --data has sequences.txt and items.jsonl (tigret prepare --sequences). Writes
OUT/NAME/NAME.md, .csv and .svg; the runs of the variants are in OUT/runs. The same command goes on
where an interrupted one stopped, and does only what has changed. docs/studies.md tells what each
study does.")]
pub(super) struct Args {
    /// The experiments.
    #[arg(required = true, value_name = "NAME",
          value_parser = or_all::<Study>("All of these"))]
    names: Vec<OneOrAll<Study>>,
    /// A data set: `classics`, NAME=FOLDER or FOLDER; may be given several times.
    #[arg(long, value_name = "NAME=FOLDER")]
    data: Vec<String>,
    /// Where runs and reports go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A TOML file with `out`, `seeds`, tables of data sets, and a table a step as in `tigret run`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lay a setting over the file, such as train.warmup=500; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Sizes of the model: --set train.preset=NAME.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Minutes of each training at most: --set train.max-minutes=N.
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// A run of each variant for each of these seeds [default: 0].
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Everything small: to see that it works, not what comes out.
    #[arg(long)]
    smoke: bool,
    /// Stop after this time, with exit status 75; the same command goes on.
    #[arg(long, value_name = "MINUTES")]
    stop_after_minutes: Option<f64>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    minutes("--max-minutes", args.max_minutes)?;
    if let Some(limit) = minutes("--stop-after-minutes", args.stop_after_minutes)? {
        interrupt::pause_after(limit)?;
    }
    let asked_for = args.names.concat();
    let studies = Study::value_variants().iter().filter(|study| asked_for.contains(study));
    let studies: Vec<Study> = studies.copied().collect();
    let config = match &args.config {
        Some(path) if !path.exists() => {
            let reason = "not found; docs/studies.md shows what the TOML file of a study holds";
            return Err(TrainError::file(path, reason));
        }
        Some(path) => Config::load(path, &[])?,
        None => Config::of_table("tigret study", "", toml::Table::new()),
    };
    let settings = Settings::new(config, &args.line())?;
    let verbs = InProcess { output, prints: false };
    let command = Cli::command();
    studies.iter().try_for_each(|study| study.check(&settings, &verbs, &command))?;
    let _lock = RunLock::acquire(&settings.out, "tigret study")?;
    let (mut written, mut failed) = (Vec::new(), Vec::new());
    let last = studies.last().copied();
    for study in studies {
        match study.run(&settings, &verbs, &command) {
            Ok(report) => {
                output.note(format!("{}: {}", study.name(), report.markdown.display()));
                written.push(report);
            }
            Err(e) if e.is_interrupted() || matches!(e, TrainError::Paused) => return Err(e),
            // The data may lack what one study is about: the others go on.
            Err(e) => {
                // At once, and again at the end: the others may take hours, or be interrupted.
                let failure = format!("{}: {e}", study.name());
                if Some(study) != last {
                    output.note(&failure);
                }
                failed.push(failure);
            }
        }
    }
    if !written.is_empty() {
        output.result(&written, || {
            let files = written.iter().map(|report| report.markdown.display().to_string());
            files.collect::<Vec<_>>().join("\n")
        });
    }
    if failed.is_empty() { Ok(()) } else { Err(TrainError::usage(failed.join("; "))) }
}

impl Args {
    /// What stands beside the file.
    fn line(&self) -> CommandLine {
        let preset = self.preset.and_then(|preset| preset.to_possible_value());
        let preset = preset.map(|preset| format!("train.preset={}", preset.get_name()));
        let minutes = self.max_minutes.map(|minutes| format!("train.max-minutes={minutes}"));
        CommandLine {
            data: self.data.clone(),
            out: self.out.clone(),
            seeds: self.seeds.clone(),
            settings: preset.into_iter().chain(minutes).chain(self.settings.clone()).collect(),
            smoke: self.smoke,
        }
    }
}
