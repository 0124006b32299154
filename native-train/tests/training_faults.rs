//! Long runs: a training that is killed, interrupted, out of disk or out of numbers loses nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tch::Device;
use tigret_infer::testing::skipped;
use tigret_train::data::Dataset;
use tigret_train::model::checkpoint::{HostWeights, read_tensors};
use tigret_train::model::presets::Preset;
use tigret_train::run_dir::RunDir;
use tigret_train::tokenizer::SemanticIds;
use tigret_train::train::{Limits, OptimizerKind, Options, Precision, Settings, Trainer};

use crate::tigret::{Made, Place, fails, succeeds};

/// Settings under which training takes some seconds and saves its state many times.
///
/// The schedule depends on the number of all steps, so a resumed training has more to get right.
const TRAIN: &str = "train --run r --json --preset tiny --batch 16 --epochs 3 --schedule linear \
                     --validate-every 15 --validation-users 20 --validation-beams 10 \
                     --patience=1000 --ema 0.99";

/// With as many threads as there are processors: what they add up must not depend on their turns.
fn tigret(at: &Path, line: &str) -> Command {
    let mut command = crate::tigret::tigret(at, line);
    command.env_remove("OMP_NUM_THREADS");
    command
}

fn works(at: &Path, line: &str) -> String {
    succeeds(&mut tigret(at, line)).0
}

/// A run `r` that is ready to be trained.
static PREPARED: LazyLock<Made> = LazyLock::new(|| {
    let at = &Place::new();
    works(at, "prepare --run r --classics --readers 40");
    works(at, "embed --run r --dimensions 16");
    works(at, "tokenize --run r --codebook-size 16 --method rq-kmeans --collision-size 64");
    Made::of(at)
});

fn state(at: &Path) -> HostWeights {
    read_tensors(&at.join("r/model"), "last", "").unwrap().0
}

/// That two states are the same to the bit; else says where they differ, which all numbers would not.
fn assert_same(found: &HostWeights, expected: &HostWeights, when: &str) {
    assert!(found.keys().eq(expected.keys()), "{when}: other tensors");
    let mut differing = Vec::new();
    for (name, (_, expected)) in expected {
        let pairs = || found[name].1.iter().zip(expected).filter(|(a, b)| a != b);
        if let Some(largest) = pairs().map(|(a, b)| (a - b).abs()).reduce(f32::max) {
            let (count, of) = (pairs().count(), expected.len());
            differing.push(format!("{name}: {count} of {of}, by {largest:e} at most"));
        }
    }
    assert!(differing.is_empty(), "{when}:\n{}", differing.join("\n"));
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
    let at = &PREPARED.place();
    let whole: Value = serde_json::from_str(&works(at, TRAIN)).unwrap();
    let expected = state(at);
    let log = at.read("r/train.jsonl");
    let best = fs::read(at.join("r/model/model.safetensors")).unwrap();
    fs::remove_dir_all(at.join("r/model")).unwrap();

    let resume = format!("{TRAIN} --resume");
    let mut line = TRAIN;
    for (round, name) in ["-KILL", "-TERM", "-KILL"].into_iter().enumerate() {
        let mut child =
            tigret(at, line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_progress(at, &mut child);
        // Somewhere between two saves, and not at the same place each time.
        sleep(Duration::from_millis(37 * round as u64));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "the training ended before it was stopped");
        if name == "-TERM" {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.signal(), Some(15), "{errors}");
            assert!(errors.contains("go on with `tigret train --run=r --resume`"), "{errors}");
        }
        line = &resume;
    }
    let outcome: Value = serde_json::from_str(&works(at, &resume)).unwrap();
    assert_same(&state(at), &expected, "in the end");
    assert!(fs::read(at.join("r/model/model.safetensors")).unwrap() == best, "the best model");
    for key in ["steps", "best_step", "best", "stopped"] {
        assert_eq!(outcome[key], whole[key], "{key}");
    }
    // The log has every validation of the whole run once; an interrupt may add a line where it
    // stopped.
    let validations = |text: &str| -> Vec<(u64, Value)> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["validation"].is_object())
            .map(|line| (line["step"].as_u64().unwrap(), line["validation"].clone()))
            .collect()
    };
    let resumed = at.read("r/train.jsonl");
    assert_eq!(validations(&resumed), validations(&log));
}

/// `TIGRET_FAULT_ROUNDS` sets how often training is killed; the default is for every test run,
/// 50 for trust.
#[test]
fn training_that_is_killed_at_any_moment_ends_with_the_same_weights() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let rounds = number("TIGRET_FAULT_ROUNDS").unwrap_or(2);
    let seed = number("TIGRET_FAULT_SEED").unwrap_or(1);
    println!("{rounds} rounds of seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let at = &PREPARED.place();
    let model = at.join("r/model");
    let begin = Instant::now();
    works(at, TRAIN);
    let whole = begin.elapsed();
    let best = fs::read(model.join("model.safetensors")).unwrap();
    let expected = state(at);

    let (mut before, mut between, mut amid, mut ended) = (0, 0, 0, 0);
    for round in 0..rounds {
        fs::remove_dir_all(&model).unwrap();
        let mut child = tigret(at, TRAIN).stdout(Stdio::null()).spawn().unwrap();
        let moment = whole.mul_f64(random.random::<f64>());
        let begin = Instant::now();
        let is_writing = || {
            let mut files = fs::read_dir(&model).into_iter().flatten().flatten();
            files.any(|file| {
                file.file_name().to_string_lossy().ends_with(".safetensors.tigret.partial")
            })
        };
        // Every other time in the middle of a write, of which there are few moments.
        while child.try_wait().unwrap().is_none()
            && (begin.elapsed() < moment || round % 2 == 1 && !is_writing())
        {
            sleep(Duration::from_micros(200));
        }
        let _ = child.kill();
        let was_killed = child.wait().unwrap().signal() == Some(9);
        let has_state = model.join("last.safetensors").exists();
        *match (was_killed, has_state, is_writing()) {
            (false, ..) => &mut ended,
            (true, _, true) => &mut amid,
            (true, true, _) => &mut between,
            (true, false, _) => &mut before,
        } += 1;
        let resume = format!("{TRAIN} --resume");
        works(at, if has_state { &resume } else { TRAIN });
        let when = format!("round {round}, resumed from a state: {has_state}");
        assert_same(&state(at), &expected, &when);
        assert!(
            fs::read(model.join("model.safetensors")).unwrap() == best,
            "{when}: the best model"
        );
    }
    println!(
        "killed {before} times before the first state, {between} between two, {amid} in the middle \
         of a write; {ended} times it had ended by itself"
    );
    // Of two rounds both may be over before they are to be killed, on a machine that has become faster.
    assert!(rounds < 10 || before + between + amid >= rounds / 2, "it was hardly ever killed");
}

/// A training that is killed at the latest when its test ends, also where that fails.
struct Unfinished(Child);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_training_that_is_killed_before_it_saved_leaves_no_older_one_to_be_resumed() {
    let at = &PREPARED.place();
    works(at, &format!("{TRAIN} --max-minutes 0.01"));
    let older = at.join("r/model/last.safetensors");
    assert!(older.exists());
    // It saves after half a minute, or when it validates.
    let other = TRAIN
        .replace("--epochs 3", "--epochs 500")
        .replace("--validate-every 15", "--validate-every 1000000");
    let mut training = Unfinished(tigret(at, &other).stdout(Stdio::null()).spawn().unwrap());
    let (log, begin) = (at.join("r/train.jsonl"), Instant::now());
    let before = fs::read(&log).unwrap();
    // It empties the log, removes the state, and writes a line.
    while [&before[..], b""].contains(&&fs::read(&log).unwrap()[..]) {
        assert!(training.0.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(begin.elapsed() < Duration::from_secs(120), "it never wrote to its log");
        sleep(Duration::from_millis(2));
    }
    drop(training);
    assert!(!older.exists(), "its log is gone, so it must be, too");
    let said = fails(&mut tigret(at, &format!("{TRAIN} --resume")));
    assert!(said.contains("there is nothing to resume"), "{said}");
}

/// Runs a line of bash in which `tigret` is the command.
fn bash(at: &Path, line: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.current_dir(at)
        .env("TIGRET", env!("CARGO_BIN_EXE_tigret"))
        .args(["-c", &line.replace("tigret ", "\"$TIGRET\" ")]);
    bash
}

#[test]
fn a_state_that_cannot_be_read_is_named() {
    let at = &PREPARED.place();
    works(at, &format!("{TRAIN} --max-minutes 0.01"));
    let path = at.join("r/model/last.safetensors");
    let good = fs::read(&path).unwrap();
    let mut damaged = good.clone();
    damaged[8] ^= 0x40;
    let of_others = fs::read(at.join("r/model/model.safetensors")).unwrap();
    let mut without_schedule = good.clone();
    let name = good.windows(8).position(|bytes| bytes == b"schedule").unwrap();
    without_schedule[name] = b'x';
    let resume = format!("{TRAIN} --resume");
    for (bytes, sentence) in [
        (&good[..good.len() / 2], "not a valid safetensors file"),
        (&damaged, "not a valid safetensors file"),
        (b"", "not a valid safetensors file"),
        (&of_others, "holds no training state"),
        (
            &without_schedule,
            "holds the state of another version of Tigret (missing field `schedule`",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let said = fails(&mut tigret(at, &resume));
        assert!(said.contains(sentence) && said.contains("r/model"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "what could not be read is left as it was");
    }
    fs::remove_file(&path).unwrap();
    let said = fails(&mut tigret(at, &resume));
    assert!(said.contains("there is nothing to resume; train without --resume"), "{said}");
}

#[test]
fn a_run_that_cannot_be_written_to_is_refused_before_the_work() {
    let at = &PREPARED.place();
    works(at, &format!("{TRAIN} --max-minutes 0.01"));
    let (good, log) = (state(at), fs::read(at.join("r/train.jsonl")).unwrap());
    // Permissions do not bind root, unless it gives up the right to pass over them.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let bound = if is_root { "setpriv --bounding-set -dac_override " } else { "" };
    for closed in ["r", "r/model", "r/.tigret"] {
        let line = format!(
            "chmod -R a-w {closed}; {bound}tigret {TRAIN} --resume; status=$?; chmod -R u+w {closed}; \
             exit $status"
        );
        let said = fails(&mut bash(at, &line));
        assert!(said.contains("Permission denied") && said.contains("r/"), "{closed}: {said}");
        assert_eq!(state(at), good, "{closed}");
        assert_eq!(fs::read(at.join("r/train.jsonl")).unwrap(), log, "{closed}");
    }
}

#[test]
fn a_full_disk_leaves_the_last_good_state_and_space_lets_it_go_on() {
    let at = &PREPARED.place();
    // A disk of our own, for as long as the line runs, where the system lets us have one.
    let own_disk = "unshare --map-root-user --mount bash -c";
    let mount = "mkdir -p full && mount -t tmpfs -o size=64m none full";
    if !bash(at, &format!("{own_disk} '{mount}'")).output().unwrap().status.success() {
        skipped("training on a full disk: no file system can be mounted here");
        return;
    }
    let line = format!(
        "{own_disk} '
            {mount} && cp -r r full/r && cd full && tigret {TRAIN} --max-minutes 0.01 || exit 1
            cp r/model/last.safetensors ../before
            cat /dev/zero > filler
            tigret {TRAIN} --resume; test $? = 2 || exit 3
            cmp r/model/last.safetensors ../before && ! ls r/model | grep partial || exit 4
            rm filler; tigret {TRAIN} --resume && cp r/model/last.safetensors ..'"
    );
    let output = bash(at, &line).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let own: Vec<&str> = errors.lines().filter(|line| line.starts_with("tigret: ")).collect();
    assert!(matches!(own[..], [full] if full.contains("No space left on device")), "{errors}");
    works(at, TRAIN);
    assert_eq!(state(at), read_tensors(at, "last", "").unwrap().0);
}

/// The clock jumps by forty years in between, forwards and back.
#[test]
fn the_time_of_day_changes_nothing() {
    let at = &PREPARED.place();
    // Only the time of day is another: libtorch waits by the monotonic clock.
    let at_date = |date: &str, line: &str| {
        let line = format!("FAKETIME_DONT_FAKE_MONOTONIC=1 faketime \"{date}\" {line}");
        bash(at, &line)
    };
    if !at_date("2040-01-01", "true").status().unwrap().success() {
        skipped("training while the clock jumps: the program faketime is not there");
        return;
    }
    for (date, more) in [
        ("2040-01-01", "--max-minutes 0.01"),
        ("1999-12-31", "--resume --max-minutes 0.02"),
        ("2060-01-01", "--resume"),
    ] {
        succeeds(&mut at_date(date, &format!("tigret {TRAIN} {more}")));
    }
    let jumped = state(at);
    fs::remove_dir_all(at.join("r/model")).unwrap();
    works(at, TRAIN);
    assert_eq!(state(at), jumped);
}

#[test]
fn a_model_that_does_not_fit_into_memory_is_refused_by_a_sentence() {
    let at = &PREPARED.place();
    // What is more than the machine has is known beforehand; what a limit leaves, when it is asked for.
    let beyond = "--width 4096 --d-ff 16384 --layers 64 --heads 32 --d-kv 16";
    let said = fails(&mut tigret(at, &format!("{TRAIN} {beyond}")));
    assert!(said.contains("MB of memory are free; ask for smaller sizes"), "{said}");
    let line = format!("ulimit -v 6000000; tigret {TRAIN} --width 4096 --layers 32");
    let said = fails(&mut bash(at, &line));
    assert!(said.contains("out of memory; free some and go on"), "{said}");
}

#[test]
fn a_failed_write_or_a_loss_that_is_no_number_leaves_the_last_good_state() {
    let at = &PREPARED.place();
    works(at, &format!("{TRAIN} --max-minutes 0.01"));
    let good = state(at);

    // A limit on file sizes stands in for a full disk: it fails in the middle of a write as well.
    let line = format!("trap '' XFSZ; ulimit -f 200; exec tigret {TRAIN} --resume");
    let errors = fails(&mut bash(at, &line));
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
    let ids = SemanticIds::load(&run, &dataset.items).unwrap();
    let options = Options {
        batch: 16,
        optimizer: OptimizerKind::Adamw,
        // The command line refuses this.
        learning_rate: 1e38,
        warmup: 1,
        weight_decay: 0.0,
        drop_user: 0.0,
        validation_users: 5,
        ..Options::DEFAULT
    };
    let config = Preset::Tiny.config(&ids.layout);
    let settings = Settings { config, precision: Precision::F32, validate_every: 3, options };
    let _alone = crate::sasrec::alone();
    let mut trainer = Trainer::new(&run, &dataset, &ids, settings, Device::Cpu).unwrap();
    let limits = Limits { budget: None, interrupted: &|| false, progress: &ProgressBar::hidden() };
    let error = trainer.train(false, limits).unwrap_err().to_string();
    assert!(error.contains("the loss is not a number at step 3; lower --learning-rate"), "{error}");
    assert_eq!(state(at), good);
}
