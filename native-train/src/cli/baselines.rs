//! The baselines of `tigret evaluate`: their options, and running them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::{Value, json};
use tch::Device;

use super::{OneOrAll, Output, or_all};
use crate::baselines::sasrec::{self, Earlier, Limits};
use crate::baselines::{
    self, Baseline, ItemKnn, Method, Popularity, SemanticKnn, item_knn, semantic_knn,
};
use crate::data::Dataset;
use crate::device;
use crate::embed::Vectors;
use crate::error::{Result, TrainError, minutes};
use crate::evaluate::Protocol;
use crate::evaluate::figures::OfBaseline;
use crate::interrupt::{self, Watch};
use crate::run_dir::RunDir;

/// Which baselines, and how.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Baselines to compare with, separated by commas; popularity if not given. SASRec is trained
    /// in RUN/baselines/sasrec; a training of the same settings is gone on with or taken as it is.
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
          value_parser = or_all::<Method>("All of them"))]
    baselines: Vec<OneOrAll<Method>>,
    #[command(flatten)]
    item_knn: item_knn::Settings,
    #[command(flatten)]
    semantic_knn: semantic_knn::Settings,
    #[command(flatten)]
    sasrec: sasrec::Settings,
    /// Most minutes of training, over all sessions.
    #[arg(long, allow_negative_numbers = true, value_name = "MINUTES", help_heading = "SASRec")]
    sasrec_max_minutes: Option<f64>,
}

/// How many times its limit a training takes that cannot have been trained within it.
const LONGER: f64 = 1.2;

/// Where the baselines work.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) run: &'a RunDir,
    pub(super) dataset: &'a Dataset,
    pub(super) device: Device,
    pub(super) output: &'a Output,
}

/// A baseline that is ready to rank, with its settings and the seconds that it took.
type Ready = (Box<dyn Baseline>, Value, f64);

impl Args {
    /// Whether one is trained, in the run directory.
    pub(super) fn trains(&self) -> bool {
        self.asks_for(Method::SasRec)
    }

    fn asks_for(&self, method: Method) -> bool {
        self.baselines.iter().flatten().any(|&asked_for| asked_for == method)
    }

    /// Baselines that are not evaluated, though options of theirs are given.
    fn unused(&self) -> impl Iterator<Item = Method> {
        let of_sasrec =
            self.sasrec != sasrec::Settings::DEFAULT || self.sasrec_max_minutes.is_some();
        [
            (Method::ItemKnn, self.item_knn != item_knn::Settings::DEFAULT),
            (Method::SemanticKnn, self.semantic_knn != semantic_knn::Settings::DEFAULT),
            (Method::SasRec, of_sasrec),
        ]
        .into_iter()
        .filter_map(|(method, is_set)| (is_set && !self.asks_for(method)).then_some(method))
    }

    /// Whether any was named.
    pub(super) fn are_named(&self) -> bool {
        !self.baselines.is_empty()
    }

    /// Refuses options before anything long begins.
    pub(super) fn validate(&self) -> Result<()> {
        self.item_knn.validate()?;
        self.semantic_knn.validate()?;
        self.sasrec.validate()?;
        self.sasrec_budget()?;
        Ok(())
    }

    /// The time that the training of SASRec may take.
    fn sasrec_budget(&self) -> Result<Option<Duration>> {
        minutes("--sasrec-max-minutes", self.sasrec_max_minutes)
    }

    /// The figures of popularity and of every baseline that was asked for.
    pub(super) fn evaluate(
        &self,
        place: Place<'_>,
        protocol: Protocol,
    ) -> Result<BTreeMap<Method, OfBaseline>> {
        let asked_for = |method: Method| method == Method::Popularity || self.asks_for(method);
        let unused: Vec<&str> = self.unused().map(Method::name).collect();
        // A study has the options of all baselines in one file.
        if !unused.is_empty() && !place.output.is_silent() {
            let unused = unused.join(", ");
            place.output.note(format!(
                "options of {unused} are without effect: --baselines does not name it"
            ));
        }
        let mut figures = BTreeMap::new();
        // The quick ones first, so that what they lack is said before the long work.
        for &method in Method::value_variants().iter().filter(|&&method| asked_for(method)) {
            let (baseline, settings, seconds) = self.ready(method, place)?;
            let progress = place.output.progress(place.dataset.sequences.len() as u64, "users");
            progress.set_message(method.title());
            let metrics = baselines::evaluate(&*baseline, place.dataset, protocol, &progress);
            progress.finish_and_clear();
            figures.insert(method, OfBaseline { metrics, settings, seconds });
        }
        Ok(figures)
    }

    fn ready(&self, method: Method, place: Place<'_>) -> Result<Ready> {
        let begin = Instant::now();
        let (baseline, settings): (Box<dyn Baseline>, Value) = match method {
            Method::Popularity => (Box::new(Popularity::fit(place.dataset)), Value::Null),
            Method::ItemKnn => {
                (Box::new(ItemKnn::fit(place.dataset, self.item_knn)?), json!(self.item_knn))
            }
            Method::SemanticKnn => {
                let path = place.run.vectors();
                if !path.exists() {
                    return Err(TrainError::file(
                        path,
                        "not found, and semantic-knn needs it; make it with `tigret embed`, or leave \
                         semantic-knn out of --baselines",
                    ));
                }
                let vectors = Vectors::load(place.run, &place.dataset.items)?;
                let knn = SemanticKnn::new(place.dataset, vectors, self.semantic_knn)?;
                (Box::new(knn), json!(self.semantic_knn))
            }
            Method::SasRec => return self.trained_sasrec(place),
        };
        Ok((baseline, settings, begin.elapsed().as_secs_f64()))
    }

    fn trained_sasrec(&self, place: Place<'_>) -> Result<Ready> {
        let Place { run, dataset, device, output } = place;
        let folder = run.baseline(Method::SasRec.name());
        let budget = self.sasrec_budget()?;
        let on = device::name(device);
        let earlier = sasrec::earlier(&folder, dataset, self.sasrec, budget)?;
        match earlier {
            Earlier::Nothing => output.note(format!("training SASRec on {on}")),
            Earlier::Other => output.note(format!(
                "training SASRec anew on {on}: {} is of other settings, data or version of Tigret",
                folder.display()
            )),
            Earlier::Unfinished { steps } => {
                output.note(format!("SASRec goes on after {steps} steps, on {on}"));
            }
            Earlier::Finished => output.note(format!("SASRec as trained in {}", folder.display())),
        }
        let _watch = Watch::start()?;
        let progress = output.progress(1, "steps");
        let limits = Limits { budget, interrupted: &interrupt::is_requested, progress: &progress };
        let trained = sasrec::train(&folder, dataset, self.sasrec, device, limits)?;
        output.note(format!(
            "SASRec: best after epoch {:.0}, validation NDCG@10 {:.4}; {:.0} s of training",
            trained.best_epoch, trained.validation.ndcg_10, trained.seconds
        ));
        let mut settings = json!(self.sasrec);
        if let Some(minutes) = self.sasrec_max_minutes {
            settings["max_minutes"] = json!(minutes);
            // Within its limit a training takes that and its last validation.
            let taken = trained.seconds / 60.0;
            if earlier == Earlier::Finished && taken > LONGER * minutes {
                output.note(format!(
                    "that training took {taken:.1} minutes, longer than --sasrec-max-minutes \
                     {minutes}; remove {} to train within the limit",
                    folder.display()
                ));
            }
        }
        Ok((Box::new(trained.model), settings, trained.seconds))
    }
}
