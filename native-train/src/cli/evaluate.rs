//! `tigret evaluate`: the protocol's figures for a trained model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tch::Device;
use tigret_infer::search::MAX_BEAMS;
use tigret_infer::{Bundle, T5Config};

use super::Output;
use super::baselines::{self, Place};
use crate::baselines::Method;
use crate::data::{Dataset, Item, PREPARE_HINT, Sequence};
use crate::device::DeviceChoice;
use crate::error::{Result, TrainError};
use crate::evaluate::figures::Asked;
use crate::evaluate::{
    Evaluation, FIRST, Protocol, Ranking, Settings, Split, rank_targets, rank_targets_of_bundle,
};
use crate::export::read_bundle;
use crate::files::{read_json, write_json};
use crate::metrics::Metrics;
use crate::model::{TrainedModel, checkpoint};
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::train::record::Training;

/// Rank the whole catalogue for every user by constrained beam search, and print Recall and NDCG
/// at 5 and 10 of the model and of baselines.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret evaluate --run runs/beauty
  tigret evaluate --run runs/beauty --split validation --beams 20
  tigret evaluate --run runs/beauty --no-user --json
  tigret evaluate --run runs/beauty --exclude-history
  tigret evaluate --run runs/beauty --bundle beauty.safetensors
  tigret evaluate --run runs/beauty --baselines item-knn,sasrec
  tigret evaluate --run runs/beauty --baselines all --baselines-only

The figures of the run's model, and of the baselines beside it, also go into RUN/evaluation.json;
as long as there is no model, those of the baselines alone.")]
pub(super) struct Args {
    /// The run directory.
    #[arg(long)]
    run: PathBuf,
    /// Evaluate this exported bundle on the CPU engine instead of the model in the run.
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// Which held-out item is to be found.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Rank only what the user has not had yet, for the model and the baselines alike.
    #[arg(long)]
    exclude_history: bool,
    /// Beams of the search.
    #[arg(long, default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(10..=MAX_BEAMS as u64))]
    beams: u64,
    /// Users searched together.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Leave the user token out, as in a page that knows no user.
    #[arg(long)]
    no_user: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Leave the model out.
    #[arg(long, conflicts_with_all = ["bundle", "beams", "batch", "no_user"])]
    baselines_only: bool,
    #[command(flatten)]
    baselines: baselines::Args,
}

/// What is printed, and written beside the model.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    figures: Evaluation,
    #[serde(flatten)]
    made: Option<Made>,
    /// Share of the model's first [`FIRST`] items that the user had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_history: Option<f64>,
    /// Whether users come back to items that they had.
    users_return: bool,
    /// Items of the run that the bundle does not have: no history has them, and none is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_in_bundle: Option<usize>,
    #[serde(flatten)]
    speed: Option<Speed>,
}

/// How the run's model was made.
#[derive(Debug, Serialize)]
struct Made {
    weights: usize,
    /// Sizes and dropout.
    config: T5Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<Training>,
}

/// How long the model took.
#[derive(Debug, Serialize)]
struct Speed {
    seconds: f64,
    users_per_second: f64,
}

impl Args {
    /// The run directory, if figures or a trained baseline go into it.
    pub(super) fn writes_into(&self) -> Option<&Path> {
        (self.bundle.is_none() || self.baselines.trains()).then_some(&self.run)
    }

    /// Refuses settings outside their range.
    pub(super) fn check(&self) -> Result<()> {
        self.baselines.validate()
    }
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let run = RunDir::open(&args.run)?;
    let has_model = !checkpoint::files(&run.model(), checkpoint::MODEL)?.is_empty();
    let lacks_model = !has_model && args.bundle.is_none() && !args.baselines_only;
    if lacks_model && !args.baselines.are_named() {
        return Err(TrainError::file(
            run.model(),
            "has no model; make one with `tigret train`, or name --baselines to evaluate alone",
        ));
    }
    let dataset = Dataset::load(&run)?;
    if dataset.sequences.is_empty() {
        return Err(TrainError::file(
            run.sequences(),
            "has no users to rank for; make it again with `tigret prepare`",
        ));
    }
    let settings = Settings {
        protocol: Protocol { split: args.split, exclude_history: args.exclude_history },
        beams: args.beams as usize,
        batch: args.batch as usize,
        user_token: !args.no_user,
    };
    // The optimum is known for the test items of simulated readers only.
    let optimum = match (args.split, run.oracle().exists()) {
        (Split::Test, true) => Some(read_json(&run.oracle(), PREPARE_HINT)?),
        _ => None,
    };
    let device = args.device.torch()?;
    // What is wrong with the model is said before a baseline is trained.
    let model = match &args.bundle {
        _ if args.baselines_only || lacks_model => None,
        Some(path) => Some(Model::of_bundle(path, &run, &dataset)?),
        None => Some(Model::of_run(&run, &dataset, device, output)?),
    };
    let place = Place { run: &run, dataset: &dataset, device, output };
    let mut baselines = args.baselines.evaluate(place, settings.protocol)?;
    if lacks_model {
        output.note(format!("{} has no model yet: baselines only", run.model().display()));
    }
    let (ranking, speed) =
        model.as_ref().map(|model| model.rank(&dataset, settings, output)).unzip();
    let popularity = baselines.remove(&Method::Popularity).map(|figures| figures.metrics);
    let figures = Evaluation {
        settings: match model {
            Some(_) => Asked::Model(settings),
            None => Asked::BaselinesAlone(settings.protocol),
        },
        users: dataset.sequences.len(),
        trained_on_other_sequences: model.as_ref().is_some_and(Model::is_of_other_sequences),
        model: ranking.as_ref().map(Ranking::metrics),
        popularity: popularity.unwrap_or_default(),
        baselines,
        optimum,
    };
    let report = Report {
        figures,
        made: model.as_ref().and_then(|model| model.made(&run, output)),
        share_of_history: ranking.map(|ranking| ranking.share_of_history),
        users_return: dataset.has_repeats(),
        not_in_bundle: model.as_ref().and_then(Model::lacks),
        speed,
    };
    // Before they are written: where that fails, the work was not for nothing.
    output.result(&report, || report.text());
    // Figures of another bundle, or of baselines alone, do not replace those of the run's model.
    let replaces = args.bundle.is_none() && (report.figures.model.is_some() || !has_model);
    if replaces {
        write_json(&run.evaluation(), &report)?;
    }
    Ok(())
}

/// What ranks the items.
enum Model {
    Own {
        own: Box<(TrainedModel, SemanticIds)>,
        /// Whether it was trained on other sequences than the run has now.
        other_sequences: bool,
    },
    Bundle {
        bundle: Arc<Bundle>,
        /// Items of the run that it does not have.
        missing: usize,
    },
}

impl Model {
    /// The run's own, which may have seen what it is to find.
    fn of_run(run: &RunDir, dataset: &Dataset, device: Device, output: &Output) -> Result<Self> {
        let ids = SemanticIds::load(run, &dataset.items)?;
        let trained =
            TrainedModel::load(&run.model(), &ids.layout, |then| ids.are_of(then), device)?;
        let trained_on = checkpoint::trained_on(&run.model(), checkpoint::TRAIN)?;
        let other_sequences = trained_on.is_some_and(|then| !ids.sequences_are_of(&then, dataset));
        if other_sequences {
            output.note(format!(
                "{} was trained on other sequences than the run has now: it may have seen what it is \
                 to find, so its figures may be too high; train again",
                run.model().display()
            ));
        }
        Ok(Self::Own { own: Box::new((trained, ids)), other_sequences })
    }

    /// A bundle with items of the run.
    fn of_bundle(path: &Path, run: &RunDir, dataset: &Dataset) -> Result<Self> {
        let bundle = Arc::new(read_bundle(path)?);
        let is_missing = |item: &&Item| bundle.catalog.rank_of(&item.id).is_none();
        let missing = dataset.items.iter().filter(is_missing).count();
        if missing == dataset.items.len() {
            return Err(TrainError::file(
                path,
                format!(
                    "has none of the {missing} items of {}; name a bundle that `tigret export` made \
                     of this run",
                    run.root().display()
                ),
            ));
        }
        Ok(Self::Bundle { bundle, missing })
    }

    fn is_of_other_sequences(&self) -> bool {
        matches!(self, Self::Own { other_sequences: true, .. })
    }

    /// How it was made, as far as the files of the run say.
    fn made(&self, run: &RunDir, output: &Output) -> Option<Made> {
        let Self::Own { own, .. } = self else { return None };
        let config = own.0.model.config().clone();
        // Its figures do not depend on it.
        let training = Training::of(&run.model()).unwrap_or_else(|e| {
            output.note(e.to_string());
            None
        });
        Some(Made { weights: config.weights(), config, training })
    }

    /// How many items of the run it does not have, if any.
    fn lacks(&self) -> Option<usize> {
        match self {
            Self::Bundle { missing, .. } if *missing > 0 => Some(*missing),
            _ => None,
        }
    }

    /// Ranks for every user.
    fn rank(&self, dataset: &Dataset, settings: Settings, output: &Output) -> (Ranking, Speed) {
        let users = dataset.sequences.len();
        let progress = output.progress(users as u64, "users");
        let begin = Instant::now();
        let ranking = match self {
            Self::Own { own, .. } => {
                let (TrainedModel { model, weights }, ids) = &**own;
                let sequences: Vec<&Sequence> = dataset.sequences.iter().collect();
                rank_targets(model, weights, ids, &sequences, settings, &progress)
            }
            Self::Bundle { bundle, .. } => {
                rank_targets_of_bundle(bundle, dataset, settings, &progress)
            }
        };
        progress.finish();
        let seconds = begin.elapsed().as_secs_f64();
        (ranking, Speed { seconds, users_per_second: users as f64 / seconds })
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weights", self.weights)?;
        match &self.training {
            Some(training) => write!(f, ", {training}"),
            None => Ok(()),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::from("               Recall@5   NDCG@5  Recall@10  NDCG@10\n");
        let mut row = |name: &str, m: &Metrics| {
            text += &format!(
                "{name:<14} {:>8.4} {:>8.4} {:>10.4} {:>8.4}\n",
                m.recall_5, m.ndcg_5, m.recall_10, m.ndcg_10
            );
        };
        let Evaluation { model, optimum, users, .. } = &self.figures;
        if let Some(model) = model {
            row("model", model);
        }
        for (method, metrics) in self.figures.all_baselines() {
            row(method.title(), metrics);
        }
        if let Some(optimum) = optimum {
            row("known optimum", optimum);
        }
        if let Some(missing) = self.not_in_bundle {
            text += &format!(
                "{missing} items of the run are not in the bundle: they are left out of \
                 histories, and never found\n"
            );
        }
        for line in self.losses().into_iter().chain(self.history_shown()) {
            text += &line;
            text.push('\n');
        }
        if let Some(made) = &self.made {
            text += &format!("{made}\n");
        }
        text += &format!("{users} users");
        if let Some(speed) = &self.speed {
            text += &format!(", {:.0} users/s", speed.users_per_second);
        }
        text
    }

    /// A sentence where the model recommends what users of this data hardly come back to.
    fn history_shown(&self) -> Option<String> {
        /// A share that is worth a word.
        const WORTH: f64 = 0.01;
        let share = self.share_of_history.filter(|&share| share >= WORTH && !self.users_return)?;
        Some(format!(
            "{:.1} % of the model's first {FIRST} items are of the user's history, to which users \
             of this data hardly ever return; --exclude-history ranks the others alone, and \
             `tigret train --unlikelihood 1` teaches the model",
            100.0 * share
        ))
    }

    /// A sentence for each baseline that the model loses to.
    fn losses(&self) -> Vec<String> {
        let Some(model) = &self.figures.model else { return Vec::new() };
        self.figures
            .all_baselines()
            .filter(|(_, metrics)| metrics.ndcg_10 > model.ndcg_10)
            .map(|(method, metrics)| {
                let lead = metrics.ndcg_10 - model.ndcg_10;
                format!("{} is ahead of the model by {lead:.4} NDCG@10", method.title())
            })
            .collect()
    }
}
