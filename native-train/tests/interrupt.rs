//! Ctrl-C of the commands that take long: they stop in order, and the same command goes on and
//! ends as if nothing had been.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use clap::CommandFactory;
use indicatif::ProgressBar;
use serde_json::Value;
use tigret_train::cli::Cli;
use tigret_train::error::Result;
use tigret_train::interrupt::{Watch, is_requested};
use tigret_train::pipeline::{Choice, Config, Pipeline, RunLock, Verbs};

use crate::tigret::{Place, golden_encoder, succeeds, tigret, works};

/// Doublings of the work until a command is slow enough to be interrupted.
const MOST_DOUBLINGS: u32 = 8;

/// A run of items with texts of many lengths.
fn new_world(items: usize) -> Place {
    let world = Place::new();
    let text = |i: usize| format!("red lamp {} {}", i * 7919 % 1000, "oil ".repeat(i % 50));
    let lines: String =
        (0..items).map(|i| format!("{{\"id\": \"i{i}\", \"title\": \"{}\"}}\n", text(i))).collect();
    world.write("items.jsonl", lines);
    let users: String = (0..items - 3)
        .map(|u| format!("u{u} {}\n", [u, u + 1, u + 3].map(|i| format!("i{i}")).join(" ")))
        .collect();
    world.write("s.txt", users);
    works(&world, "prepare --run r --sequences s.txt --items items.jsonl");
    world
}

/// Starts a command, and interrupts it as soon as it says that this can be done. `None` where it
/// was done before it noticed; else its message.
fn interrupt(world: &Place, line: &str) -> Option<String> {
    let mut child = tigret(world, line).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ctrl-C stops") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it never listens to Ctrl-C");
    }
    // What runs in the background of a script ignores SIGINT.
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    if status.success() {
        return None;
    }
    assert!(killed.success());
    assert_eq!(status.signal(), Some(15), "it ends by the signal: {rest}");
    Some(rest)
}

fn golden(name: &str) -> String {
    golden_encoder(name).to_str().unwrap().to_owned()
}

#[test]
fn an_interrupted_embed_goes_on_and_ends_with_the_same_bytes() {
    let command = format!("embed --run r --device cpu --encoder {}", golden("bert"));
    for doubling in 0..MOST_DOUBLINGS {
        let world = new_world(400 << doubling);
        let Some(message) = interrupt(&world, &command) else { continue };
        assert!(message.contains("interrupted; the same command goes on where it stopped"));
        assert!(world.join("r/encoding.partial.safetensors").exists());
        assert!(!world.join("r/vectors.safetensors").exists(), "nothing half-made is left");
        // Other vectors in the meantime are not what it was about.
        works(&world, "embed --run r");
        assert!(world.join("r/encoding.partial.safetensors").exists());
        works(&world, &command);
        assert!(!world.join("r/encoding.partial.safetensors").exists());
        let read = || fs::read(world.join("r/vectors.safetensors")).unwrap();
        let resumed = read();
        works(&world, &command);
        assert_eq!(read(), resumed);
        return;
    }
    panic!("no number of texts kept the command busy");
}

#[test]
fn an_interrupted_tokenize_goes_on_and_ends_with_the_same_codes() {
    let world = new_world(300);
    works(&world, "embed --run r");
    let made = ["catalog.json", "tokens.json", "tokenizer.safetensors", "tokenizer.jsonl"];
    let read = || made.map(|name| fs::read(world.join(format!("r/{name}"))).unwrap());
    let command = |epochs: u64| {
        format!(
            "tokenize --run r --device cpu --codebook-size 16 --hidden 32 --latent 8 \
             --collision-size 300 --epochs {epochs}"
        )
    };
    // Longer than anyone waits: it cannot be done before it is interrupted.
    let message = interrupt(&world, &command(1_000_000)).unwrap();
    assert!(message.contains("interrupted; the same command goes on where it stopped"));
    assert!(world.join("r/tokenizer.partial.safetensors").exists());
    assert!(made.iter().all(|name| !world.join(format!("r/{name}")).exists()), "no half-made file");
    // Other settings do not take that up, and say so.
    let errors = succeeds(&mut tigret(&world, &command(20))).1;
    assert!(errors.contains("tokenizer.partial.safetensors is of other settings"), "{errors}");
    assert!(!world.join("r/tokenizer.partial.safetensors").exists());

    for doubling in 0..MOST_DOUBLINGS {
        let command = command(100 << doubling);
        works(&world, &command);
        let whole = read();
        if interrupt(&world, &command).is_none() {
            continue;
        }
        assert_eq!(read(), whole, "what was there stays until the new is whole");
        works(&world, &command);
        assert_eq!(read(), whole);
        assert!(!world.join("r/tokenizer.partial.safetensors").exists());
        return;
    }
    panic!("no number of epochs kept the command busy");
}

#[test]
fn interrupted_further_texts_go_on_and_end_with_the_same_file() {
    for doubling in 0..MOST_DOUBLINGS {
        let world = new_world(40);
        works(&world, &format!("embed --run r --device cpu --encoder {}", golden("bert")));
        let line = |i: u32| {
            format!("{{\"id\": {i}, \"text\": \"lamp {i} {}\"}}\n", "oil ".repeat(i as usize % 60))
        };
        let lines: String = (0..1500 << doubling).map(line).collect();
        world.write("new.jsonl", lines);
        let command =
            |out: &str| format!("embed --run r --texts new.jsonl --out {out}.safetensors");
        if interrupt(&world, &command("a")).is_none() {
            continue;
        }
        assert!(
            world.join("a.safetensors.tigret.partial").exists()
                && !world.join("a.safetensors").exists()
        );
        works(&world, &command("a"));
        works(&world, &command("b"));
        assert!(!world.join("a.safetensors.tigret.partial").exists());
        let read = |name| fs::read(world.join(name)).unwrap();
        assert_eq!(read("a.safetensors"), read("b.safetensors"));
        return;
    }
    panic!("no number of texts kept the command busy");
}

/// Verbs that do nothing; `tokenize` is interrupted after it has last looked.
#[derive(Default)]
struct Idle {
    called: Mutex<Vec<String>>,
}

impl Verbs for Idle {
    fn check(&self, _: &[OsString]) -> Result<()> {
        Ok(())
    }

    fn call(&self, arguments: &[OsString]) -> Result<Value> {
        let verb = arguments[0].to_string_lossy().into_owned();
        if verb == "tokenize" {
            let _watch = Watch::start()?;
            let own = std::process::id().to_string();
            assert!(Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
            while !is_requested() {
                sleep(Duration::from_millis(1));
            }
        }
        self.called.lock().unwrap().push(verb);
        Ok(Value::Null)
    }

    fn note(&self, _: &str) {}

    fn progress(&self, _: u64, _: &str) -> ProgressBar {
        ProgressBar::hidden()
    }
}

#[test]
fn a_signal_that_nohup_has_switched_off_stays_off() {
    let world = Place::new();
    works(&world, "prepare --run r --classics --readers 40");
    works(&world, "embed --run r --dimensions 16");
    let line = "tokenize --run r --codebook-size 16 --epochs 100000";
    // A shell's `trap ''` is what nohup does.
    let program = tigret(&world, line);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program.get_program());
    shell.args(program.get_args()).current_dir(&*world).env("OMP_NUM_THREADS", "1");
    let mut child = shell.stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C stops") {
        assert!(errors.read_line(&mut said).unwrap() > 0, "it never listens: {said}");
    }
    let id = child.id().to_string();
    let kill = |signal: &str| {
        assert!(Command::new("kill").args([signal, id.as_str()]).status().unwrap().success());
    };
    kill("-HUP");
    sleep(Duration::from_millis(500));
    let after_hangup = child.try_wait().unwrap();
    kill("-TERM");
    assert_eq!((after_hangup, child.wait().unwrap().signal()), (None, Some(15)));
    // It was the first signal that the command saw: at the second one it says nothing.
    errors.read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted; the same command goes on"), "{said}");
}

#[test]
fn a_step_that_is_too_near_to_its_end_to_notice_is_the_last() {
    let folder = Place::new();
    folder.write("p.toml", "run = \"r\"\n[prepare]\nclassics = true\n");
    let file = folder.join("p.toml");
    let (run, calls) = Config::load(&file, &[]).unwrap().pipeline(&Cli::command()).unwrap();
    let _lock = RunLock::acquire(run.root(), "test").unwrap();
    let verbs = Idle::default();
    let pipeline = Pipeline::new(run, calls, &verbs);
    let error = pipeline.run(Choice::default()).unwrap_err().to_string();
    assert!(error.starts_with("train: interrupted; the same command goes on where"), "{error}");
    assert_eq!(*verbs.called.lock().unwrap(), ["prepare", "embed", "tokenize"]);
    // With --force it would not: what is done already would be done again.
    let error = pipeline.run(Choice { from: None, force: true }).unwrap_err().to_string();
    assert!(error.contains("; the same command without --force goes on where"), "{error}");
}
