//! Where studies are done: variants of a pipeline, each in a run directory of its own, and
//! measurements on them. What is done already is read from its files.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::settings::{Data, Settings};
use crate::data::{Dataset, Sequence};
use crate::device::DeviceChoice;
use crate::error::{Result, TrainError};
use crate::evaluate::Evaluation;
use crate::files::{read_json, write_json};
use crate::hash::short_hex;
use crate::interrupt;
use crate::metrics::Metrics;
use crate::model::TrainedModel;
use crate::pipeline::config::{option, overlay};
use crate::pipeline::stamp::Stamp;
use crate::pipeline::{Call, Choice, Config, Pipeline, RunLock, Step, Store, Verbs};
use crate::run_dir::RunDir;
use crate::tokenizer::{Method, SemanticIds};

/// Runs and measures variants for one study.
pub(crate) struct Lab<'a> {
    pub(crate) settings: &'a Settings,
    study: &'static str,
    verbs: &'a dyn Verbs,
    command: clap::Command,
    store: Store,
}

/// A variant of the pipeline: options of steps beside those that all variants share.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    name: String,
    options: Table,
}

impl Variant {
    /// A variant without options of its own; its folder has the name.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: Table::new() }
    }

    /// With an option of a step.
    #[must_use]
    pub(crate) fn with(mut self, step: Step, option: &str, value: impl Into<Value>) -> Self {
        let table = self.options.entry(step.verb()).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(table) = table {
            table.insert(option.into(), value.into());
        }
        self
    }

    /// Without a step: what it would make is there already.
    #[must_use]
    pub(crate) fn without(mut self, step: Step) -> Self {
        self.options.insert(step.verb().into(), Value::Boolean(false));
        self
    }
}

/// A variant that is trained and evaluated.
#[derive(Debug, Clone)]
pub(crate) struct Trained {
    pub(crate) run: RunDir,
    /// Data set, variant and seed, as a name of files.
    pub(crate) name: String,
    /// The protocol's figures.
    pub(crate) metrics: Metrics,
    /// The users whose figures they are.
    pub(crate) users: usize,
    /// Where it is measured: the `device` of `evaluate`.
    pub(crate) device: DeviceChoice,
    /// Tells apart what measurements depend on.
    key: String,
}

impl<'a> Lab<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        study: &'static str,
        verbs: &'a dyn Verbs,
        command: clap::Command,
    ) -> Self {
        let store = Store::named(settings.out.join("store"));
        Self { settings, study, verbs, command, store }
    }

    /// Tells people what is going on.
    pub(crate) fn note(&self, text: &str) {
        self.verbs.note(text);
    }

    /// Shows people how far a measurement over users is.
    pub(crate) fn progress(&self, users: usize, what: &str) -> ProgressBar {
        let progress = self.verbs.progress(users as u64, "users");
        progress.set_message(what.to_owned());
        progress
    }

    /// Where the run of a variant is.
    pub(crate) fn run_dir(&self, data: &Data, variant: &Variant, seed: u64) -> PathBuf {
        self.settings.out.join("runs").join(&data.name).join(file_name(variant, seed))
    }

    /// Trains and evaluates a variant, as far as that is not done. The seed is that of the
    /// tokenizer and of the training.
    ///
    /// # Errors
    /// That of the step that fails, with the name of the variant.
    pub(crate) fn train(&self, data: &Data, variant: &Variant, seed: u64) -> Result<Trained> {
        let Evaluation { users, model, .. } = self.evaluate(data, variant, seed)?;
        let run = RunDir::named(self.run_dir(data, variant, seed));
        let metrics = model
            .ok_or_else(|| TrainError::file(run.evaluation(), "has no figures of the model"))?;
        let stamp: Stamp = read_json(&run.stamp(Step::Evaluate.verb()), "")?;
        let name = format!("{}-{}", data.name, file_name(variant, seed));
        let device = self.option(data, variant, Step::Evaluate, "device", |name| {
            DeviceChoice::from_str(name, false)
        })?;
        let device = device.first().copied().unwrap_or(DeviceChoice::Auto);
        Ok(Trained { run, name, metrics, users, device, key: digest(&stamp.key.inputs) })
    }

    /// The values of an option of a variant's step as the verb understands it: the default where the
    /// option is not given, none where it has no default.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for options that a verb refuses, and for a value that `parse` does not
    /// take.
    pub(crate) fn option<T, E: Display>(
        &self,
        data: &Data,
        variant: &Variant,
        step: Step,
        option: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>> {
        let (name, _, calls) = self.calls(data, variant, self.settings.seeds[0], step)?;
        let call = calls.iter().find(|call| call.step == step);
        let values = call.and_then(|call| call.options.get(option)).into_iter().flatten();
        let wrong = |e| TrainError::usage(format!("{name}: [{step}] {option}: {e}"));
        values.map(|value| parse(value).map_err(wrong)).collect()
    }

    /// Does the steps of a variant up to its evaluation, and returns the figures.
    ///
    /// # Errors
    /// As [`Lab::steps`], and [`TrainError::File`] for figures that are none.
    pub(crate) fn evaluate(&self, data: &Data, variant: &Variant, seed: u64) -> Result<Evaluation> {
        let mut results = self.steps(data, variant, seed, Step::Evaluate)?;
        let found = results.remove(&Step::Evaluate).unwrap_or_default();
        serde_json::from_value(found).map_err(|e| {
            let run = RunDir::named(self.run_dir(data, variant, seed));
            TrainError::file(run.evaluation(), format!("no figures: {e}"))
        })
    }

    /// Does the steps of a variant up to `last`, and returns what each prints.
    ///
    /// # Errors
    /// That of the step that fails, with the name of the variant.
    pub(crate) fn steps(
        &self,
        data: &Data,
        variant: &Variant,
        seed: u64,
        last: Step,
    ) -> Result<BTreeMap<Step, Json>> {
        let (name, pipeline) = self.pipeline(data, variant, seed, last)?;
        self.note(&format!("{name}:"));
        let _lock = RunLock::acquire(pipeline.run_dir().root(), "tigret study")?;
        let done = pipeline.run(Choice::default()).map_err(|e| of_variant(&name, e))?;
        Ok(done.into_iter().map(|done| (done.step, done.result)).collect())
    }

    /// Refuses a variant of which some step cannot begin; nothing is done or written.
    ///
    /// # Errors
    /// As [`Pipeline::check`], with the name of the variant.
    pub(crate) fn check(&self, data: &Data, variant: &Variant) -> Result<()> {
        // The seeds change nothing of what is refused.
        let (name, pipeline) =
            self.pipeline(data, variant, self.settings.seeds[0], Step::Evaluate)?;
        pipeline.check(Choice::default()).map_err(|e| of_variant(&name, e))
    }

    /// The steps of a variant up to `last`, and what messages call them.
    fn pipeline(
        &self,
        data: &Data,
        variant: &Variant,
        seed: u64,
        last: Step,
    ) -> Result<(String, Pipeline<'_>)> {
        let (name, run, calls) = self.calls(data, variant, seed, last)?;
        Ok((name, Pipeline::new(run, calls, self.verbs).sharing(&self.store).quiet()))
    }

    /// What messages call a variant, its run directory, and the calls of its steps up to `last`.
    fn calls(
        &self,
        data: &Data,
        variant: &Variant,
        seed: u64,
        last: Step,
    ) -> Result<(String, RunDir, Vec<Call>)> {
        let mut options = self.settings.options(data, self.study);
        let mut own = Table::new();
        for step in [Step::Tokenize, Step::Train] {
            let seed = Value::Integer(seed as i64);
            let table = Table::from_iter([("seed".to_owned(), seed)]);
            own.insert(step.verb().into(), Value::Table(table));
        }
        overlay(&mut own, &variant.options);
        overlay(&mut options, &own);
        if self.settings.smoke {
            spare_epochs(&mut options);
        }
        for step in Step::value_variants().iter().filter(|step| **step > last) {
            options.insert(step.verb().into(), Value::Boolean(false));
        }
        let root = self.run_dir(data, variant, seed);
        options.insert("run".into(), Value::String(root.to_string_lossy().into_owned()));
        let name = format!("{}, {}, seed {seed}", data.name, variant.name);
        let config = Config::of_table(name.clone(), &self.settings.folder, options);
        let (run, calls) = config.pipeline(&self.command)?;
        Ok((name, run, calls))
    }

    /// A measurement on a variant, unless it was made before with the same `settings` on the same
    /// model. `revision` is raised when the measurement itself becomes another.
    ///
    /// # Errors
    /// Whatever `compute` reports, and [`TrainError::Paused`] at the time limit.
    pub(crate) fn measure<T: Serialize + DeserializeOwned>(
        &self,
        trained: &Trained,
        revision: u32,
        settings: impl Serialize,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let folder = self.settings.out.join(self.study).join("measured");
        let path = folder.join(format!("{}.json", trained.name));
        let key = digest(&json!([trained.key, revision, settings]));
        if let Ok(Kept { key: known, value }) = read_json::<Kept<T>>(&path, "")
            && known == key
        {
            return Ok(value);
        }
        if interrupt::is_paused() {
            return Err(TrainError::Paused);
        }
        // The training before may have been too near to its end to notice.
        if interrupt::is_requested() {
            return Err(TrainError::Interrupted);
        }
        self.note(&format!("{}: measuring", trained.name));
        let value = compute()?;
        fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
        let measured = Kept { key, value };
        write_json(&path, &measured)?;
        Ok(measured.value)
    }

    /// The test users of a measurement, spread evenly over all.
    pub(crate) fn users<'d>(&self, dataset: &'d Dataset) -> Vec<&'d Sequence> {
        dataset.spread(self.measured_users(dataset.sequences.len()))
    }

    /// How many of so many test users a measurement looks at.
    pub(crate) fn measured_users(&self, all: usize) -> usize {
        self.settings.users.unwrap_or(all).min(all)
    }
}

/// An error with the name of the variant that has it.
fn of_variant(name: &str, error: TrainError) -> TrainError {
    match error {
        TrainError::Paused => TrainError::Paused,
        other if other.is_interrupted() => TrainError::Stopped(format!("{name}: {other}")),
        other => TrainError::usage(format!("{name}: {other}")),
    }
}

/// Takes the epochs of a trial in small from tokenizers that have none, or are given their most.
fn spare_epochs(options: &mut Table) {
    let Some(Value::Table(tokenize)) = options.get_mut(Step::Tokenize.verb()) else { return };
    let method = option(tokenize, "method").and_then(Value::as_str);
    let method = method.and_then(|name| Method::from_str(name, false).ok());
    let has_none = method.is_some_and(|method| !method.has_autoencoder());
    if has_none || option(tokenize, "max-epochs").is_some() {
        tokenize.remove("epochs");
    }
}

fn file_name(variant: &Variant, seed: u64) -> String {
    format!("{}-seed{seed}", variant.name)
}

/// A measurement and what it was made of.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Kept<T> {
    key: String,
    value: T,
}

/// A trained model with its data, in memory.
pub(super) struct Loaded {
    pub(super) dataset: Dataset,
    pub(super) ids: SemanticIds,
    /// The network and its weights.
    pub(super) trained: TrainedModel,
}

impl Loaded {
    /// Reads the run of a variant, onto its device.
    ///
    /// # Errors
    /// [`TrainError::File`] for an artefact that is missing or wrong, [`TrainError::Usage`] where there
    /// is no such device.
    pub(super) fn new(of: &Trained) -> Result<Self> {
        Self::with_model_of(&of.run, of)
    }

    /// Reads items, sequences and IDs of one run, and the model of a variant with the same layout of
    /// tokens.
    ///
    /// # Errors
    /// As [`Loaded::new`].
    pub(super) fn with_model_of(run: &RunDir, of: &Trained) -> Result<Self> {
        let dataset = Dataset::load(run)?;
        let ids = SemanticIds::load(run, &dataset.items)?;
        let trained = TrainedModel::load(
            &of.run.model(),
            &ids.layout,
            |then| ids.are_of(then),
            of.device.torch()?,
        )?;
        Ok(Self { dataset, ids, trained })
    }
}

fn digest(value: &impl Serialize) -> String {
    // Our own types have string keys and no failing serialisers.
    let text = serde_json::to_string(value).unwrap_or_default();
    short_hex(Sha256::new_with_prefix(text))
}

#[cfg(test)]
pub(super) mod testing {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::study::CommandLine;

    /// Verbs of a lab that does nothing.
    struct Idle;

    impl Verbs for Idle {
        fn check(&self, _: &[OsString]) -> Result<()> {
            Ok(())
        }

        fn call(&self, _: &[OsString]) -> Result<Json> {
            Ok(Json::Null)
        }

        fn note(&self, _: &str) {}

        fn progress(&self, _: u64, _: &str) -> ProgressBar {
            ProgressBar::hidden()
        }
    }

    /// Asks a lab of a study with these settings, on the data sets `a` and `b`.
    pub(in crate::study) fn ask<T>(
        study: &'static str,
        settings: &[&str],
        smoke: bool,
        what: impl Fn(&Lab<'_>, &Data) -> T,
    ) -> T {
        let file = "out = \"out\"\n[data]\na.classics = true\nb.classics = true";
        let config = Config::of_table("a.toml", "/", file.parse().unwrap());
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let line = CommandLine { settings, smoke, ..CommandLine::default() };
        let settings = Settings::new(config, &line).unwrap();
        what(&Lab::new(&settings, study, &Idle, Cli::command()), &settings.data[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Candidate, ids};
    use super::testing::ask;
    use super::*;

    #[test]
    fn simple_tokenizers_have_room_for_collisions_and_more_where_more_is_configured() {
        let sizes = |settings: &[&str]| {
            ask("ids", settings, false, |lab, data| {
                let of = |one: &Candidate| {
                    lab.option(data, &one.variant, Step::Tokenize, "collision-size", str::parse)
                };
                let all = ids::candidates(lab, data).unwrap();
                all.iter().map(|one| of(one).unwrap()).collect::<Vec<Vec<u32>>>()
            })
        };
        let rest = |all: Vec<Vec<u32>>| all[1..].iter().all(|size| *size == all[1]);
        for (settings, first, others) in [
            (&[][..], None, 256),
            (&["tokenize.collision-size=1024"][..], Some(1024), 1024),
            (&["tokenize.collision-size=16"][..], Some(16), 256),
            (&["tokenize.codebook-size=512"][..], None, 512),
        ] {
            let found = sizes(settings);
            assert_eq!(found[0].first().copied(), first, "{settings:?}");
            assert_eq!(found[1], [others], "{settings:?}");
            assert!(rest(found), "{settings:?}");
        }
    }

    #[test]
    fn a_trial_in_small_gives_epochs_to_autoencoders_alone() {
        let epochs = |lab: &Lab<'_>, data: &Data, variant: &Variant| -> Vec<u64> {
            lab.option(data, variant, Step::Tokenize, "epochs", str::parse).unwrap()
        };
        let with = ask("ids", &[], true, |lab, data| {
            let all = ids::candidates(lab, data).unwrap().into_iter();
            let with = all.filter(|one| epochs(lab, data, &one.variant) == [40]);
            with.map(|one| one.name).collect::<Vec<_>>()
        });
        assert_eq!(with, ["rq-vae", "rq-vae, collaborative", "vq-vae"]);
        // Their most stands for them.
        let most = ["tokenize.max-epochs=500"];
        let of_most = |lab: &Lab<'_>, data: &Data| epochs(lab, data, &Variant::new("v"));
        assert!(ask("main", &most, true, of_most).is_empty());
        let configured = ["tokenize.method=rq-kmeans"];
        let of = |lab: &Lab<'_>, data: &Data| epochs(lab, data, &Variant::new("v"));
        assert!(ask("main", &configured, true, of).is_empty());
        assert_eq!(ask("main", &[], true, of), [40]);
    }
}
