//! Long runs: a training that is killed, interrupted, out of disk or out of numbers loses nothing.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::Value;
use tch::Device;
use tigret_train::data::Dataset;
use tigret_train::model::checkpoint::{HostWeights, read_tensors};
use tigret_train::model::presets::Preset;
use tigret_train::run_dir::RunDir;
use tigret_train::tokenizer::SemanticIds;
use tigret_train::train::{Batching, Precision, Settings, Trainer};

const TIGRET: &str = env!("CARGO_BIN_EXE_tigret");

/// Settings under which training takes some seconds and saves its state many times.
const TRAIN: [&str; 17] = [
    "train",
    "--run",
    "r",
    "--json",
    "--preset",
    "tiny",
    "--batch",
    "16",
    "--epochs",
    "3",
    "--validate-every",
    "15",
    "--validation-users",
    "20",
    "--validation-beams",
    "10",
    "--patience=1000",
];

fn tigret(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(TIGRET);
    command.current_dir(at).args(arguments).stdin(Stdio::null());
    command
}

fn works(at: &Path, arguments: &[&str]) -> String {
    let output = tigret(at, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A run that is ready to be trained, in `at/r`.
fn prepare(at: &Path) {
    works(at, &["prepare", "--run", "r", "--classics", "--readers", "40"]);
    works(at, &["embed", "--run", "r", "--dimensions", "16"]);
    let small = ["--codebook-size", "16", "--method", "rq-kmeans", "--collision-size", "64"];
    works(at, &[&["tokenize", "--run", "r"][..], &small].concat());
}

fn state(at: &Path) -> HostWeights {
    read_tensors(&at.join("r/model"), "last", "").unwrap().0
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Waits until the state on disk is another than `before`, or the process has ended.
fn wait_for_progress(at: &Path, child: &mut Child) {
    let path = at.join("r/model/last.safetensors");
    let written = || fs::metadata(&path).and_then(|m| m.modified()).ok();
    let (before, begin) = (written(), Instant::now());
    while written() == before && child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no state was ever saved");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn killed_and_interrupted_training_ends_as_if_it_had_not_been() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let whole: Value = serde_json::from_str(&works(at, &TRAIN)).unwrap();
    let expected = state(at);
    let log = fs::read_to_string(at.join("r/train.jsonl")).unwrap();
    let best = fs::read(at.join("r/model/model.safetensors")).unwrap();
    fs::remove_dir_all(at.join("r/model")).unwrap();

    let resume = [&TRAIN[..], &["--resume"]].concat();
    let mut arguments: &[&str] = &TRAIN;
    for (round, name) in ["-KILL", "-INT", "-KILL"].into_iter().enumerate() {
        let mut child =
            tigret(at, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_progress(at, &mut child);
        // Somewhere between two saves, and not at the same place each time.
        sleep(Duration::from_millis(37 * round as u64));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "the training ended before it was stopped");
        if name == "-INT" {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(errors.contains("go on with `tigret train --run r --resume`"), "{errors}");
        }
        arguments = &resume;
    }
    let outcome: Value = serde_json::from_str(&works(at, &resume)).unwrap();
    assert_eq!(state(at), expected);
    assert_eq!(fs::read(at.join("r/model/model.safetensors")).unwrap(), best);
    for key in ["steps", "best_step", "best", "stopped"] {
        assert_eq!(outcome[key], whole[key], "{key}");
    }
    // The log has every step of the whole run once, with the same losses; an interrupt may add
    // a line where it stopped.
    let losses = |text: &str| -> Vec<(u64, Value)> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["validation"].is_object())
            .map(|line| (line["step"].as_u64().unwrap(), line["validation"].clone()))
            .collect()
    };
    let resumed = fs::read_to_string(at.join("r/train.jsonl")).unwrap();
    assert_eq!(losses(&resumed), losses(&log));
}

#[test]
fn a_failed_write_or_a_loss_that_is_no_number_leaves_the_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    works(at, &[&TRAIN[..], &["--max-minutes", "0.01"]].concat());
    let good = state(at);

    // A limit on file sizes stands in for a full disk: it fails in the middle of a write as well.
    let line = format!("trap '' XFSZ; ulimit -f 200; exec {TIGRET} {} --resume", TRAIN.join(" "));
    let output = Command::new("bash").current_dir(at).args(["-c", &line]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("last.safetensors") && errors.contains("File too large"), "{errors}");
    assert_eq!(state(at), good);
    let left: Vec<String> = fs::read_dir(at.join("r/model"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // A training with other settings that fails at once: what it would have replaced is still there.
    let run = RunDir::open(at.join("r")).unwrap();
    let dataset = Dataset::load(&run).unwrap();
    let ids = SemanticIds::load(&run, &dataset).unwrap();
    let settings = Settings {
        config: Preset::Tiny.config(&ids.layout),
        batch: 16,
        batching: Batching::Samples,
        precision: Precision::F32,
        epochs: 1,
        // The command line refuses this.
        learning_rate: 1e38,
        warmup: 1,
        weight_decay: 0.0,
        clip: 1.0,
        drop_user: 0.0,
        validate_every: 3,
        patience: 10,
        validation_users: 5,
        validation_beams: 10,
        seed: 0,
    };
    let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
    let error = trainer.train(false, None, &AtomicBool::new(false), &ProgressBar::hidden());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the loss is not a number at step 3"), "{error}");
    assert_eq!(state(at), good);
}
