//! All steps from one file: what is done and unchanged is skipped, what was interrupted is taken
//! up (`tigret run`).

pub mod arguments;
pub mod config;
pub mod file_hashes;
pub mod lock;
pub mod stamp;
pub mod step;
pub mod store;

use std::ffi::OsString;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;

pub use arguments::Call;
pub use config::Config;
pub use lock::RunLock;
pub use step::Step;
pub use store::Store;

use crate::error::{MINUTES, Result, TrainError};
use crate::files::{remove_folder_if_there, remove_if_there};
use crate::interrupt;
use crate::run_dir::RunDir;
use crate::train;
use file_hashes::FileHashes;
use stamp::{Key, MAX_MINUTES, Stamp, State};

/// The verbs of the command, as a pipeline calls them.
pub trait Verbs {
    /// Looks at what a call would be refused for whatever its inputs are: its options, and the file
    /// that it is to write.
    ///
    /// # Errors
    /// [`TrainError::Usage`] or [`TrainError::File`], as the call would give it.
    fn check(&self, arguments: &[OsString]) -> Result<()>;

    /// Runs a verb; `arguments` stand behind `tigret`. Returns what it prints with `--json`.
    ///
    /// # Errors
    /// Whatever the verb reports.
    fn call(&self, arguments: &[OsString]) -> Result<Value>;

    /// Tells people what is going on.
    fn note(&self, text: &str);

    /// Shows people how far work is.
    fn progress(&self, total: u64, unit: &str) -> ProgressBar;
}

/// The steps of one run directory.
pub struct Pipeline<'a> {
    run: RunDir,
    calls: Vec<Call>,
    verbs: &'a dyn Verbs,
    store: Option<&'a Store>,
    quiet: bool,
}

/// Which steps are looked at, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// The first; what is before is taken as it is.
    pub from: Option<Step>,
    /// Whether steps that are done are done again.
    pub force: bool,
}

/// What became of a step.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// The step.
    pub step: Step,
    /// What was done about it.
    pub outcome: Outcome,
    /// What it took, now or when it was done.
    pub seconds: f64,
    /// What the verb prints with `--json`.
    pub result: Value,
}

/// What was done about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done already.
    Skipped,
    /// Another run had the same.
    Shared,
    /// It was done now.
    Done,
}

/// What would be done about a step.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// Whether it is done already; unknown where that depends on what an earlier step makes.
    pub done: Option<bool>,
    /// Why it is due.
    pub reason: String,
    /// What one would type.
    pub command: String,
}

impl<'a> Pipeline<'a> {
    /// The calls of a configuration.
    pub fn new(run: RunDir, calls: Vec<Call>, verbs: &'a dyn Verbs) -> Self {
        Self { run, calls, verbs, store: None, quiet: false }
    }

    /// Takes steps that other runs have done from `store`, and leaves its own there.
    #[must_use]
    pub fn sharing(mut self, store: &'a Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Says nothing of steps that are done already.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// The run directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Does what is to be done. The caller holds the run's [`RunLock`].
    ///
    /// # Errors
    /// [`TrainError::Step`] of the step that fails; [`TrainError::Paused`] at the time limit.
    pub fn run(&self, choice: Choice) -> Result<Vec<Done>> {
        self.check(choice)?;
        let mut hashes = FileHashes::open(self.run.hashes());
        // With --force it would begin again.
        let interrupted = match choice.force {
            true => "interrupted; the same command without --force goes on where it stopped",
            false => "interrupted; the same command goes on where it stopped",
        };
        let mut done = Vec::new();
        for call in self.chosen(choice) {
            // The step before may have been too near to its end to notice.
            if interrupt::is_requested() {
                return Err(match interrupt::is_paused() {
                    true => TrainError::Paused,
                    false => TrainError::step(call.step, TrainError::Stopped(interrupted.into())),
                });
            }
            done.push(self.step(call, choice.force, &mut hashes).map_err(|e| match e {
                TrainError::Stopped(_) | TrainError::Interrupted if interrupt::is_paused() => {
                    TrainError::Paused
                }
                TrainError::Stopped(_) | TrainError::Interrupted => {
                    TrainError::step(call.step, TrainError::Stopped(interrupted.into()))
                }
                other => TrainError::step(call.step, other),
            })?);
            hashes.save()?;
        }
        Ok(done)
    }

    /// What [`Pipeline::run`] would do once its files are there; nothing is written.
    ///
    /// # Errors
    /// [`TrainError::Step`] for options that a step refuses, [`TrainError::File`] for an input that
    /// cannot be read.
    pub fn plan(&self, choice: Choice) -> Result<Vec<Planned>> {
        self.check_options(choice)?;
        let mut hashes = FileHashes::open(self.run.hashes());
        let mut planned: Vec<Planned> = Vec::new();
        for call in self.chosen(choice) {
            let earlier = planned.iter().find(|earlier| {
                let writes = self.calls.iter().find(|c| c.step == earlier.step);
                let writes = writes.map(|c| c.step.writes(&self.run)).unwrap_or_default();
                earlier.done != Some(true)
                    && call.step.reads(&self.run).iter().any(|path| writes.contains(path))
            });
            let (done, reason) = match (choice.force, earlier) {
                (true, _) => (Some(false), "--force".to_owned()),
                (_, Some(earlier)) => (None, format!("depends on what {} makes", earlier.step)),
                (_, None) => {
                    let key = Key::new(call, &self.run, &mut hashes)?;
                    match stamp::state(&key, &self.run, &mut hashes)? {
                        State::Done(_) => (Some(true), String::new()),
                        State::Unfinished(why) => (Some(false), goes_on(&why)),
                        State::Further => (Some(false), goes_on(FURTHER)),
                        State::Outdated(reason) | State::Due(reason) => (Some(false), reason),
                    }
                }
            };
            planned.push(Planned { step: call.step, done, reason, command: call.line() });
        }
        Ok(planned)
    }

    /// A step that cannot begin is known before the hours of those before it.
    ///
    /// # Errors
    /// [`TrainError::Step`] for options that a step refuses, and for files that are not there.
    pub fn check(&self, choice: Choice) -> Result<()> {
        self.check_options(choice)?;
        self.chosen(choice)
            .try_for_each(|call| call.check_files().map_err(|e| TrainError::step(call.step, e)))
    }

    fn check_options(&self, choice: Choice) -> Result<()> {
        self.chosen(choice).try_for_each(|call| {
            let checked = self.verbs.check(&call.arguments);
            checked.map_err(|e| TrainError::step(call.step, e))
        })
    }

    fn chosen(&self, choice: Choice) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| choice.from.is_none_or(|from| call.step >= from))
    }

    fn step(&self, call: &Call, force: bool, hashes: &mut FileHashes) -> Result<Done> {
        let step = call.step;
        let key = Key::new(call, &self.run, hashes)?;
        let mut resumed = None;
        let mut store = self.store;
        if !force {
            let say = |what: &str| {
                if !self.quiet {
                    self.verbs.note(&format!("{step}: {what}"));
                }
            };
            match stamp::state(&key, &self.run, hashes)? {
                State::Done(stamp) => {
                    say("done already");
                    let Stamp { seconds, result, .. } = *stamp;
                    return Ok(Done { step, outcome: Outcome::Skipped, seconds, result });
                }
                State::Unfinished(why) => {
                    resumed = resume(call, &key, &self.run);
                    self.verbs.note(&format!("{step}: {}", goes_on(&why)));
                }
                State::Further => {
                    // What the store has is less.
                    store = None;
                    resumed = resume(call, &key, &self.run);
                    self.verbs.note(&format!("{step}: {}", goes_on(FURTHER)));
                }
                State::Outdated(why) | State::Due(why) => say(&why),
            }
            if let Some(store) = store
                && let Some(stamp) = store.find(&key, hashes)?
            {
                say("another run has the same");
                self.forget_model_that_was_there(step)?;
                store.lay_into(&key, &stamp, &self.run)?;
                stamp::finish(&stamp, &self.run)?;
                let Stamp { seconds, result, .. } = stamp;
                return Ok(Done { step, outcome: Outcome::Shared, seconds, result });
            }
        }
        let (arguments, before) = match resumed {
            Some(arguments) => (arguments, None),
            None => (begun_by(call, &key), stamp::forget(&key, &self.run)?),
        };
        self.verbs.note(&format!("{step}: {}", call.line()));
        let begin = Instant::now();
        let result = match self.verbs.call(&arguments) {
            Ok(result) => result,
            Err(error) => {
                if let Some(stamp) = before
                    && !error.is_interrupted()
                    && matches!(stamp.outdated(&self.run, hashes), Ok(None))
                {
                    // What the verb says matters more than that this fails.
                    let _ = stamp::finish(&stamp, &self.run);
                }
                return Err(error);
            }
        };
        let outputs = stamp::outputs(call, &self.run, hashes)?;
        let seconds = begin.elapsed().as_secs_f64();
        let stamp = Stamp { key, outputs, seconds, result };
        stamp::finish(&stamp, &self.run)?;
        if let Some(store) = self.store {
            store.keep(&stamp, &self.run)?;
        }
        Ok(Done { step, outcome: Outcome::Done, seconds, result: stamp.result })
    }

    /// Before the files of a step come from another run: what is there of another model goes.
    fn forget_model_that_was_there(&self, step: Step) -> Result<()> {
        if step <= Step::Train {
            remove_if_there(&self.run.evaluation())?;
        }
        if step == Step::Train {
            train::forget(&self.run.model())?;
            remove_if_there(&self.run.train_log())?;
            remove_folder_if_there(&self.run.tensorboard())?;
        }
        Ok(())
    }
}

/// Why a training is due that was trained after it had finished.
const FURTHER: &str = "was trained further";

/// Why a training is due that does not begin anew.
fn goes_on(why: &str) -> String {
    format!("{why}, goes on")
}

/// The arguments of a step; the state of a training bears the key, by which it is known again.
fn begun_by(call: &Call, key: &Key) -> Vec<OsString> {
    let mut arguments = call.arguments.clone();
    if call.step == Step::Train {
        arguments.push(format!("--begun-by={}", key.text()).into());
    }
    arguments
}

/// The arguments with which a training goes on; `None` where its state is gone.
fn resume(call: &Call, key: &Key, run: &RunDir) -> Option<Vec<OsString>> {
    let spent = train::begun(&run.model())?.seconds / 60.0;
    let minutes: Option<f64> =
        call.options.get(MAX_MINUTES).and_then(|values| values.first()?.parse().ok());
    let mut arguments = begun_by(call, key);
    arguments.push("--resume".into());
    if let Some(minutes) = minutes {
        // The limit is one of the whole training, not of each of its pieces; the least is one step and
        // a validation.
        let left = (minutes - spent).max(*MINUTES.start());
        let limit = format!("--{MAX_MINUTES}=");
        arguments.retain(|argument| !argument.to_string_lossy().starts_with(&limit));
        arguments.push(format!("{limit}{left}").into());
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;
    use crate::model::Params;
    use crate::model::optimizer::AdamW;
    use crate::model::params::{Init, Spec};
    use crate::train::state::{Progress, save};

    /// The calls of a configuration with this text, in a run of this folder.
    fn calls(folder: &Path, run: &Path, text: &str) -> (RunDir, Vec<Call>) {
        let text = format!("run = {run:?}\n{text}");
        let config = Config::of_table("p.toml", folder, text.parse().unwrap());
        config.pipeline(&Cli::command()).unwrap()
    }

    /// Writes the state of a training of one weight into a run.
    fn state(run: &RunDir, begun_by: Option<String>, seconds: f64) {
        fs::create_dir_all(run.model()).unwrap();
        let spec = Spec::new("w".to_owned(), vec![1], Init::Constant(0.0));
        let params = Params::new(vec![spec], 0, tch::Device::Cpu);
        let progress = Progress {
            identity: (),
            step: 3,
            begun_by,
            seconds,
            best: None,
            validations_without_gain: 0,
        };
        save(&run.model(), &params, &AdamW::new(&params, 0.0), None, &progress).unwrap();
    }

    #[test]
    fn a_training_that_goes_on_has_the_minutes_that_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::named(folder.path().join("r"));
        state(&run, None, 90.0);
        let left = |options: &str| -> Vec<String> {
            let (_, calls) = calls(folder.path(), run.root(), &format!("[train]\n{options}"));
            let train = calls.iter().find(|call| call.step == Step::Train).unwrap();
            let key = Key::new(train, &run, &mut FileHashes::open(run.hashes())).unwrap();
            let arguments = resume(train, &key, &run).unwrap();
            assert!(arguments.contains(&"--resume".into()));
            let text = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
            text.filter(|argument| argument.starts_with("--max-minutes")).collect()
        };
        assert_eq!(left("max-minutes = 2"), ["--max-minutes=0.5"]);
        assert_eq!(left("max-minutes = 1"), [format!("--max-minutes={}", MINUTES.start())]);
        assert!(left("epochs = 5").is_empty());
    }

    #[test]
    fn a_training_that_may_take_longer_or_was_trained_further_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let with = |options: &str| {
            let text = format!("[train]\n{options}");
            let (run, calls) = calls(folder.path(), &folder.path().join("r"), &text);
            let train = calls.into_iter().find(|call| call.step == Step::Train).unwrap();
            let key = Key::new(&train, &run, &mut FileHashes::open(run.hashes())).unwrap();
            (run, train, key)
        };
        let told = |options: &str| {
            let (run, _, key) = with(options);
            match stamp::state(&key, &run, &mut FileHashes::open(run.hashes())).unwrap() {
                State::Done(_) => "done".to_owned(),
                State::Unfinished(why) => goes_on(&why),
                State::Further => goes_on(FURTHER),
                State::Outdated(why) | State::Due(why) => why,
            }
        };
        let [hour, two, half] = [60, 120, 30].map(|minutes| format!("max-minutes = {minutes}"));
        let (run, call, key) = with(&hour);
        let begun = |options: &str| state(&run, Some(with(options).2.text()), 3600.0);
        // After an hour and three steps.
        begun(&hour);
        assert_eq!(told(&hour), "was interrupted, goes on");
        let longer = "--max-minutes is 120, was 60, goes on";
        assert_eq!(told(&two), longer);
        assert_eq!(told(""), "--max-minutes is not given, was 60, goes on");
        let shorter = "--max-minutes is 30, was 60";
        assert_eq!(told(&half), format!("was interrupted and begins anew: {shorter}"));
        let of_another = || fs::write(run.model().join("config.json"), "of another").unwrap();
        let finished = |steps: u64| {
            fs::write(run.model().join("config.json"), "its").unwrap();
            let outputs = stamp::outputs(&call, &run, &mut FileHashes::open(run.hashes()));
            let (key, outputs) = (key.clone(), outputs.unwrap());
            let result = serde_json::json!({ "steps": steps });
            stamp::finish(&Stamp { key, outputs, seconds: 3600.0, result }, &run).unwrap();
        };
        finished(3);
        assert_eq!(told(&hour), "done");
        assert_eq!(told(&two), longer);
        assert_eq!(told(&half), shorter);
        for (option, why) in [
            ("epochs = 101", "--epochs is 101, was 100, goes on"),
            ("patience = 11", "--patience is 11, was 10, goes on"),
            ("learning-rate = 0.01", "--learning-rate is 0.01, was 0.03"),
            ("epochs = 99", "--epochs is 99, was 100"),
            ("patience = 9", "--patience is 9, was 10"),
        ] {
            assert_eq!(told(&format!("{hour}\n{option}")), why);
        }
        let linear = told(&format!("{hour}\nschedule = \"linear\"\nepochs = 101"));
        assert!(!linear.ends_with("goes on"), "{linear}");
        // From its end it goes on only with its model.
        of_another();
        assert_eq!(told(&hour), "model/config.json is not what it wrote");
        assert_eq!(told(&two), "--max-minutes is 120, was 60");
        // What was trained further has another model, and is not given up for what another run has.
        finished(2);
        let store = Store::named(folder.path().join("store"));
        let stamp = stamp::state(&key, &run, &mut FileHashes::open(run.hashes()));
        let State::Done(stamp) = stamp.unwrap() else { panic!("it has finished") };
        store.keep(&stamp, &run).unwrap();
        fs::remove_file(run.model().join("config.json")).unwrap();
        of_another();
        assert_eq!(told(&two), longer);
        for interrupted in [true, false] {
            assert_eq!(told(&hour), "was trained further, goes on", "{interrupted}");
            let (run, verbs) = (RunDir::named(run.root()), Failing { interrupted });
            let pipeline = Pipeline::new(run, vec![call.clone()], &verbs).sharing(&store);
            assert!(pipeline.run(Choice::default()).is_err());
        }
        assert_eq!(told(&hour), "was trained further, goes on");
        // What went on as another training is the other one's, and was not trained further by hand.
        finished(2);
        of_another();
        begun(&two);
        assert_eq!(told(&two), "was interrupted, goes on");
        assert_eq!(told(&hour), "model/config.json is not what it wrote");
    }

    #[test]
    fn a_default_that_is_written_down_is_the_same_step() {
        let folder = tempfile::tempdir().unwrap();
        let key = |options: &str| {
            let text = format!("[train]\n{options}");
            let (run, calls) = calls(folder.path(), &folder.path().join("r"), &text);
            let train = calls.iter().find(|call| call.step == Step::Train).unwrap();
            Key::new(train, &run, &mut FileHashes::open(run.hashes())).unwrap().id()
        };
        assert_eq!(key("preset = \"small\"\nlearning-rate = 0.03"), key(""));
        assert_ne!(key("preset = \"tiny\""), key(""));
        // What is the default depends on other options.
        let adamw = "optimizer = \"adamw\"\nlearning-rate =";
        assert_eq!(key(&format!("{adamw} 0.001")), key("optimizer = \"adamw\""));
        assert_ne!(key(&format!("{adamw} 0.03")), key("optimizer = \"adamw\""));
    }

    /// Verbs of which `train` does nothing but fail, refused or interrupted.
    struct Failing {
        interrupted: bool,
    }

    impl Verbs for Failing {
        fn check(&self, _: &[OsString]) -> Result<()> {
            Ok(())
        }

        fn call(&self, arguments: &[OsString]) -> Result<Value> {
            match (arguments[0] == "train", self.interrupted) {
                (false, _) => Pretending.call(arguments),
                (true, true) => Err(TrainError::Interrupted),
                (true, false) => Err(TrainError::usage("refused")),
            }
        }

        fn note(&self, _: &str) {}

        fn progress(&self, _: u64, _: &str) -> ProgressBar {
            ProgressBar::hidden()
        }
    }

    #[test]
    fn a_training_that_is_repeated_and_does_not_begin_is_never_done_by_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (run, calls) =
            calls(folder.path(), &folder.path().join("r"), "[prepare]\nclassics = true\n");
        let go = |verbs: &dyn Verbs, force: bool| {
            let pipeline = Pipeline::new(RunDir::named(run.root()), calls.clone(), verbs);
            let from = Some(Step::Train);
            let done = pipeline.run(Choice { from, force });
            done.map(|done| done.iter().find(|done| done.step == Step::Train).unwrap().outcome)
        };
        // Its state, which the verb leaves at its end, bears its key.
        let finished = || {
            fs::create_dir_all(run.model()).unwrap();
            Pipeline::new(RunDir::named(run.root()), calls.clone(), &Pretending)
                .run(Choice::default())
                .unwrap();
            let train = calls.iter().find(|call| call.step == Step::Train).unwrap();
            let key = Key::new(train, &run, &mut FileHashes::open(run.hashes())).unwrap();
            state(&run, Some(key.text()), 90.0);
        };
        for interrupted in [true, false] {
            // Asked for again: one that is refused stays done, one that is interrupted is done again.
            finished();
            assert!(go(&Failing { interrupted }, true).is_err());
            let then = if interrupted { Outcome::Done } else { Outcome::Skipped };
            assert_eq!(go(&Pretending, false).unwrap(), then, "{interrupted}");
            // With the model gone, by force or not, it is done again in either case.
            for force in [true, false] {
                finished();
                fs::remove_file(run.model().join("config.json")).unwrap();
                assert!(go(&Failing { interrupted }, force).is_err());
                assert!(train::begun(&run.model()).is_none(), "its state is at its end");
                assert_eq!(go(&Pretending, false).unwrap(), Outcome::Done);
            }
        }
        // The state of another training is left to that.
        finished();
        state(&run, Some("another".to_owned()), 90.0);
        fs::remove_file(run.model().join("config.json")).unwrap();
        assert!(go(&Failing { interrupted: false }, false).is_err());
        assert_eq!(train::begun(&run.model()).unwrap().by.as_deref(), Some("another"));
    }

    /// Verbs that write one file each.
    struct Pretending;

    impl Verbs for Pretending {
        fn check(&self, _: &[OsString]) -> Result<()> {
            Ok(())
        }

        fn call(&self, arguments: &[OsString]) -> Result<Value> {
            let run =
                arguments.iter().find_map(|argument| argument.to_str()?.strip_prefix("--run="));
            let run = RunDir::named(run.unwrap());
            let step = Step::from_str(arguments[0].to_str().unwrap(), false).unwrap();
            let own = step.out().map(|(_, name)| run.root().join(name));
            let file = own.unwrap_or_else(|| step.writes(&run)[0].clone());
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "new").unwrap();
            Ok(Value::Null)
        }

        fn note(&self, _: &str) {}

        fn progress(&self, _: u64, _: &str) -> ProgressBar {
            ProgressBar::hidden()
        }
    }

    #[test]
    fn a_model_of_another_run_does_not_stand_beside_what_was_there_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::named(at("store"));
        let trained = |run: &Path| {
            let (run, calls) = calls(folder.path(), run, "[prepare]\nclassics = true\n");
            let pipeline = Pipeline::new(run, calls, &Pretending).sharing(&store);
            let done = pipeline.run(Choice::default()).unwrap();
            done.into_iter().find(|done| done.step == Step::Train).unwrap().outcome
        };
        assert_eq!(trained(&at("a")), Outcome::Done);
        fs::create_dir_all(at("b/model")).unwrap();
        let earlier = ["b/model/last.safetensors", "b/train.jsonl"];
        for name in earlier {
            fs::write(at(name), "of an earlier one").unwrap();
        }
        fs::write(at("b/evaluation.json"), "of an earlier one").unwrap();
        assert_eq!(trained(&at("b")), Outcome::Shared);
        assert!(at("b/model/config.json").exists());
        assert!(earlier.iter().all(|name| !at(name).exists()));
        assert_eq!(fs::read_to_string(at("b/evaluation.json")).unwrap(), "new");
    }
}
