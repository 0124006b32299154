//! `tigret evaluate`: the protocol's figures for a trained model.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde::Serialize;

use super::Output;
use crate::data::Dataset;
use crate::error::{Result, TrainError};
use crate::evaluate::popularity::popularity;
use crate::evaluate::{Metrics, Settings, Split, evaluate, rank_targets_of_bundle};
use crate::export::read_bundle;
use crate::model::t5::device;
use crate::model::{Params, T5, checkpoint};
use crate::run_dir::{RunDir, read_json, write_json};
use crate::tokenizer::SemanticIds;

/// Ranks the whole catalogue for every user by constrained beam search and averages
/// Recall and NDCG at 5 and 10.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret evaluate --run runs/beauty
  tigret evaluate --run runs/beauty --split validation --beams 20
  tigret evaluate --run runs/beauty --no-user --json
  tigret evaluate --run runs/beauty --bundle beauty.safetensors

The figures of the model also go into RUN/evaluation.json.")]
pub(super) struct Args {
    /// The run directory, with a trained model.
    #[arg(long)]
    run: PathBuf,
    /// Evaluate this exported bundle on the CPU engine instead of the model in the run.
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// Which held-out item is to be found.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Beams of the search.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=512))]
    beams: u64,
    /// Users searched together.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Leave the user token out, as in a page that knows no user.
    #[arg(long)]
    no_user: bool,
    /// Where to compute: auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    users: usize,
    model: Metrics,
    popularity: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    optimum: Option<Metrics>,
    seconds: f64,
    users_per_second: f64,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let dataset = Dataset::load(&run)?;
    let settings = Settings {
        split: args.split,
        beams: args.beams as usize,
        batch: args.batch as usize,
        user_token: !args.no_user,
    };
    // The optimum is known for the test items of simulated readers only.
    let optimum = match (args.split, run.oracle().exists()) {
        (Split::Test, true) => Some(read_json(&run.oracle(), "make it with `tigret prepare`")?),
        _ => None,
    };
    let progress = output.progress(dataset.sequences.len() as u64, "users");
    let begin = std::time::Instant::now();
    let metrics = match &args.bundle {
        Some(bundle) => {
            let bundle = Arc::new(read_bundle(bundle)?);
            Metrics::from_ranks(&rank_targets_of_bundle(&bundle, &dataset, settings, &progress))
        }
        None => evaluate_run(&run, &dataset, &args.device, settings, &progress)?,
    };
    progress.finish();
    let seconds = begin.elapsed().as_secs_f64();
    let users = dataset.sequences.len();
    let report = Report {
        settings,
        users,
        model: metrics,
        popularity: popularity(&dataset, args.split),
        optimum,
        seconds,
        users_per_second: users as f64 / seconds,
    };
    if args.bundle.is_none() {
        write_json(&run.evaluation(), &report)?;
    }
    output.result(&report, || {
        let mut text = String::from("               Recall@5   NDCG@5  Recall@10  NDCG@10\n");
        let mut row = |name: &str, m: &Metrics| {
            text += &format!(
                "{name:<14} {:>8.4} {:>8.4} {:>10.4} {:>8.4}\n",
                m.recall_5, m.ndcg_5, m.recall_10, m.ndcg_10
            );
        };
        row("model", &report.model);
        row("popularity", &report.popularity);
        if let Some(optimum) = &report.optimum {
            row("known optimum", optimum);
        }
        text + &format!("{users} users, {:.0} users/s", report.users_per_second)
    });
    Ok(())
}

/// The figures of the run's own model, in tch.
fn evaluate_run(
    run: &RunDir,
    dataset: &Dataset,
    device_name: &str,
    settings: Settings,
    progress: &ProgressBar,
) -> Result<Metrics> {
    let device = device(device_name)?;
    let ids = SemanticIds::load(run, dataset)?;
    let (config, weights) = checkpoint::load(&run.model())?;
    if config.vocab_size < ids.layout.vocab_size() {
        return Err(TrainError::file(
            run.model(),
            "has a smaller vocabulary than tokens.json; train again after `tigret tokenize`",
        ));
    }
    let model = T5::new(config);
    let mut params = Params::new(model.specs(), 0, device);
    params.load(&weights).map_err(|e| TrainError::file(run.model(), e))?;
    let views = tch::no_grad(|| params.views());
    Ok(evaluate(&model, &views, &ids, dataset, settings, progress))
}
