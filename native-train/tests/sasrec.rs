//! Training SASRec: what it learns, what it must not see, and that it can be interrupted anywhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use tch::Device;
use tigret_train::baselines::sasrec::{Earlier, Limits, Settings, Trained, earlier, train};
use tigret_train::baselines::{Baseline, evaluate, recommend};
use tigret_train::data::{Dataset, Item, Sequence};
use tigret_train::evaluate::{Protocol, Split};
use tigret_train::model::checkpoint::{HostWeights, read_tensors};
use tigret_train::{Result, TrainError};

const TINY: Settings = Settings {
    dim: 16,
    layers: 1,
    heads: 1,
    dropout: 0.1,
    batch: 8,
    epochs: 3,
    learning_rate: 0.01,
    ..Settings::DEFAULT
};

/// libtorch has one generator for all threads: trainings side by side would draw from each other.
static GENERATOR: Mutex<()> = Mutex::new(());

/// While this lives, no other test that asks for it draws.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Walks around a circle of items; what comes next follows from the item before.
fn circle(items: u32, users: u32) -> Dataset {
    let item = |i| Item { id: format!("{i}"), text: String::new(), fields: Default::default() };
    let walk = |user: u32| Sequence {
        user: format!("{user}"),
        items: (0..5 + user % 4).map(|step| (user + step) % items).collect(),
    };
    Dataset { items: (0..items).map(item).collect(), sequences: (0..users).map(walk).collect() }
}

/// The same with other items from the `last` ones on.
fn with_other_ends(dataset: &Dataset, last: usize, item: u32) -> Dataset {
    let mut other = dataset.clone();
    for sequence in &mut other.sequences {
        let first = sequence.items.len() - last;
        sequence.items[first..].fill(item);
    }
    other
}

struct Session {
    folder: tempfile::TempDir,
    interrupted: AtomicBool,
    progress: ProgressBar,
    _alone: MutexGuard<'static, ()>,
}

impl Session {
    /// Sessions exclude each other.
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            interrupted: AtomicBool::new(false),
            progress: ProgressBar::hidden(),
            _alone: alone(),
        }
    }

    /// The same session in a new folder.
    fn anew(&mut self) -> &mut Self {
        self.folder = tempfile::tempdir().unwrap();
        self
    }

    fn train(&self, dataset: &Dataset, settings: Settings) -> Result<Trained> {
        self.train_for(dataset, settings, None)
    }

    fn train_for(
        &self,
        dataset: &Dataset,
        settings: Settings,
        budget: Option<Duration>,
    ) -> Result<Trained> {
        let interrupted = || self.interrupted.load(Ordering::Relaxed);
        let limits = Limits { budget, interrupted: &interrupted, progress: &self.progress };
        train(self.folder.path(), dataset, settings, Device::Cpu, limits)
    }

    fn earlier(&self, dataset: &Dataset, settings: Settings) -> Earlier {
        earlier(self.folder.path(), dataset, settings, None).unwrap()
    }

    fn weights(&self, stem: &str) -> HostWeights {
        read_tensors(self.folder.path(), stem, "").unwrap().0
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("train.jsonl")).unwrap()
    }
}

#[test]
fn learns_a_pattern_and_finds_what_comes_next() {
    let data = circle(12, 60);
    let trained = Session::new().train(&data, Settings { epochs: 60, ..TINY }).unwrap();
    let hidden = ProgressBar::hidden();
    let metrics = evaluate(&trained.model, &data, Protocol::of(Split::Test), &hidden);
    assert!(metrics.ndcg_10 > 0.95, "{metrics:?}");
    let best = recommend(&trained.model, &[&[3, 4, 5], &[], &[11]], 12, &hidden);
    assert_eq!((best[0][0].item, best[2][0].item), (6, 0));
    assert!(best[1].iter().all(|hit| hit.score == 0.0), "no history, no preference");
}

#[test]
fn scores_do_not_depend_on_the_histories_beside() {
    let model = Session::new().train(&circle(12, 20), TINY).unwrap().model;
    let long: Vec<u32> = (0..80).map(|i| i % 12).collect();
    let alone = model.scores(&[&[7, 8]]);
    let together = model.scores(&[&long, &[7, 8]]);
    for (a, b) in alone.iter().zip(&together[12..]) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }
    assert_eq!(model.scores(&[&long]), model.scores(&[&long[30..]]), "the latest 50 are read");
}

#[test]
fn interrupted_after_every_step_it_trains_the_same() {
    let data = circle(12, 30);
    let mut session = Session::new();
    session.train(&data, TINY).unwrap();
    let files = ["last", "model"];
    let whole = files.map(|file| session.weights(file));
    session.anew();
    let mut sessions = 0;
    // The flag is read after a step, so each session does one.
    session.interrupted.store(true, Ordering::Relaxed);
    while session.earlier(&data, TINY) != Earlier::Finished {
        match session.train(&data, TINY) {
            Err(TrainError::Interrupted) => sessions += 1,
            other => panic!("{other:?}"),
        }
        let found = session.earlier(&data, TINY);
        assert!(found == Earlier::Unfinished { steps: sessions } || found == Earlier::Finished);
    }
    assert_eq!(sessions, 12, "4 steps an epoch, 3 epochs");
    assert_eq!(session.log().lines().count(), 12);
    for (file, whole) in files.iter().zip(whole) {
        assert!(session.weights(file) == whole, "{file} differs");
    }
}

#[test]
fn a_training_is_taken_as_it_is_for_the_same_settings_and_data_only() {
    let data = circle(12, 20);
    let session = Session::new();
    assert_eq!(session.earlier(&data, TINY), Earlier::Nothing);
    let first = session.train(&data, TINY).unwrap();
    assert_eq!(session.earlier(&data, TINY), Earlier::Finished);
    let log = session.log();
    let again = session.train(&data, TINY).unwrap();
    assert_eq!(session.log(), log, "nothing was trained");
    assert_eq!(first.model.scores(&[&[1]]), again.model.scores(&[&[1]]));
    assert_eq!(session.earlier(&data, Settings { seed: 1, ..TINY }), Earlier::Other);
    assert_eq!(session.earlier(&circle(12, 21), TINY), Earlier::Other);
    let other = session.train(&data, Settings { seed: 1, ..TINY }).unwrap();
    assert_ne!(first.model.scores(&[&[1]]), other.model.scores(&[&[1]]));
    // What another version wrote, which knew no setting of this name.
    let path = session.folder.path().join("last.safetensors");
    let mut state = std::fs::read(&path).unwrap();
    let name = state.windows(8).position(|bytes| bytes == b"patience").unwrap();
    state[name] = b'x';
    std::fs::write(&path, state).unwrap();
    assert_eq!(session.earlier(&data, Settings { seed: 1, ..TINY }), Earlier::Other);
}

#[test]
fn nothing_of_validation_and_test_is_trained_on() {
    let data = circle(12, 20);
    let mut session = Session::new();
    session.train(&data, TINY).unwrap();
    let (last, best) = (session.weights("last"), session.weights("model"));
    // Another last item changes nothing at all; another validation item may change which epoch is
    // the best, and never the weights of an epoch.
    let other_test = with_other_ends(&data, 1, 0);
    assert_eq!(session.earlier(&other_test, TINY), Earlier::Finished);
    // Were they validated on, some of these items would be ranked best after an earlier epoch.
    for item in 0..12 {
        session.anew().train(&with_other_ends(&data, 1, item), TINY).unwrap();
        assert!(session.weights("last") == last, "{item}");
        assert!(session.weights("model") == best, "{item}");
    }
    session.anew().train(&with_other_ends(&data, 2, 5), TINY).unwrap();
    assert!(session.weights("last") == last);
}

#[test]
fn the_time_is_counted_over_all_sessions() {
    let data = circle(12, 20);
    let session = Session::new();
    let budget = Some(Duration::from_nanos(1));
    session.train_for(&data, TINY, budget).unwrap();
    assert_eq!(session.earlier(&data, TINY), Earlier::Unfinished { steps: 1 });
    let found = earlier(session.folder.path(), &data, TINY, budget).unwrap();
    assert_eq!(found, Earlier::Finished);
    session.train_for(&data, TINY, budget).unwrap();
    assert_eq!(session.earlier(&data, TINY), Earlier::Unfinished { steps: 1 });
}

#[test]
fn a_data_set_without_two_training_items_is_refused() {
    let mut data = circle(12, 3);
    data.sequences.iter_mut().for_each(|sequence| sequence.items.truncate(3));
    let error = Session::new().train(&data, TINY).unwrap_err().to_string();
    assert!(error.contains("nothing to train SASRec on"), "{error}");
}
