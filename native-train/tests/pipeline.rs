//! `tigret run`: what is done again and what is not, what goes on after an interruption, and what
//! the command says of a wrong file.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tigret_train::pipeline::RunLock;

use crate::tigret::{Place, fails, succeeds, tigret, works};

/// A pipeline that takes a second or two.
const PIPELINE: &str = r#"
run = "run"
[prepare]
interactions = "log.csv"
items = "items.jsonl"
text_columns = ["title", "brand"]
k-core = 0
[embed]
dimensions = 8
[tokenize]
method = "rq-kmeans"
codebook-size = [8, 8]
collision-size = 30
[train]
preset = "tiny"
batch = 16
epochs = 1
[evaluate]
beams = 10
"#;

/// What a command says that must refuse; before it comes the account of the steps.
fn refused(folder: &Path, line: &str) -> String {
    fails(&mut tigret(folder, line))
}

/// The steps that `tigret run` did, the others having been skipped.
fn done(folder: &Path, more: &str) -> Vec<String> {
    let steps = works(folder, &format!("run p.toml --json {more}"));
    let steps: Vec<Value> = serde_json::from_str(&steps).unwrap();
    let is_done = |step: &&Value| match step["outcome"].as_str().unwrap() {
        "done" => true,
        "skipped" => false,
        other => panic!("{other}"),
    };
    steps.iter().filter(is_done).map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

/// A shop, and a pipeline over it.
fn shop() -> Place {
    let at = Place::new();
    at.write_shop();
    at.write("p.toml", PIPELINE);
    at
}

#[test]
fn only_what_has_changed_is_done_again() {
    let at = &shop();
    let all = ["prepare", "embed", "tokenize", "train", "evaluate", "export"];
    assert_eq!(done(at, ""), all);
    assert!(at.join("run/bundle.safetensors").is_file());
    assert_eq!(done(at, ""), [""; 0]);

    // Another option of the last but one step; the options of a file and of --set are the same.
    // A list of none is as if it were not there.
    assert!(done(at, "--set evaluate.baselines=[]").is_empty());
    // Options of a baseline that is not named change nothing.
    assert!(done(at, "--set evaluate.sasrec-dim=8").is_empty());
    assert_eq!(done(at, "--set evaluate.beams=12"), ["evaluate"]);
    at.write("p.toml", PIPELINE.replace("beams = 10", "beams = 12"));
    assert_eq!(done(at, ""), [""; 0]);
    // A default that is written down is the same option.
    assert_eq!(done(at, "--set train.warmup=1000"), [""; 0]);
    assert_eq!(done(at, "--set train.learning-rate=0.03"), [""; 0]);
    // The same content under another time.
    let log = fs::read(at.join("log.csv")).unwrap();
    at.write("log.csv", &log);
    assert_eq!(done(at, ""), [""; 0]);
    // Another content of a raw file: the items stay, so their vectors do.
    let more = [&log[..], b"customer-0,i29,99\n"].concat();
    at.write("log.csv", more);
    assert_eq!(done(at, ""), ["prepare", "tokenize", "train", "evaluate", "export"]);
    // An artefact that is gone is made again, and as it comes out the same, nothing else is.
    fs::remove_file(at.join("run/catalog.json")).unwrap();
    assert_eq!(done(at, ""), ["tokenize"]);
    // Somebody trains by hand: the file is what counts, and figures go with their model.
    works(at, "train --run run --preset tiny --epochs 1 --seed 5");
    assert!(!at.join("run/evaluation.json").exists());
    assert_eq!(done(at, ""), ["train", "evaluate"]);
    // Other codes by hand: the model cannot be used any more, so its figures are of nothing.
    works(at, "tokenize --run run --method lsh --codebook-size 8 --collision-size 30");
    assert!(!at.join("run/evaluation.json").exists());
    assert_eq!(done(at, ""), ["tokenize", "evaluate"]);
    assert_eq!(done(at, "--from evaluate --force"), ["evaluate", "export"]);
    // What is before --from is taken as it is.
    assert_eq!(done(at, "--from train --set embed.dimensions=4"), [""; 0]);
    let knn = "--set evaluate.baselines=item-knn";
    assert_eq!(done(at, knn), ["evaluate"]);
    let decay = format!("{knn} --set evaluate.item-knn-decay=0.5");
    assert_eq!(done(at, &decay), ["evaluate"]);
    assert_eq!(done(at, "--set evaluate=false --force"), [&all[..4], &all[5..]].concat());
}

#[test]
fn a_dry_run_says_what_and_why_and_writes_nothing() {
    let at = &shop();
    let plan = |more: &str| works(at, &format!("run p.toml --dry-run {more}"));
    let text = plan("");
    assert!(text.contains("prepare   not done yet: tigret prepare --run="), "{text}");
    assert!(text.contains("--text-columns=title,brand"), "{text}");
    assert!(text.contains("embed     depends on what prepare makes"), "{text}");
    assert!(!at.join("run").exists());
    works(at, "run p.toml");
    assert_eq!(plan("").matches("done already").count(), 6);
    let text = plan("--set train.batch=32");
    assert!(text.contains("train     --batch is 32, was 16: tigret train"), "{text}");
    assert!(text.contains("export    depends on what train makes"), "{text}");
    assert_eq!(text.matches("done already").count(), 3, "{text}");
    let steps = works(at, "run p.toml --dry-run --json");
    let steps: Vec<Value> = serde_json::from_str(&steps).unwrap();
    assert!(steps.iter().all(|step| step["done"] == true), "{steps:?}");
}

#[test]
fn relative_paths_count_from_the_file() {
    let (shop, elsewhere) = (shop(), Place::new());
    let run = "run --set export.out=out/b.safetensors --set inspect.html=r.html";
    succeeds(tigret(&elsewhere, run).arg(shop.join("p.toml")));
    assert!(shop.join("out/b.safetensors").is_file() && shop.join("r.html").is_file());
    // A moved project is done all the same: names of folders do not count.
    let moved = elsewhere.join("moved");
    fs::rename(&*shop, &moved).unwrap();
    assert_eq!(done(&moved, ""), ["export"], "its bundle is another one than out/b.safetensors");
}

/// A training of a few seconds, which is validated and saved often.
const LONGER: &str = "--set train.epochs=20 --set train.validate-every=10 \
                      --set train.patience=1000 --set train.validation-users=5";

/// Kills `tigret run` with [`LONGER`] after its training has written a state.
fn killed_in_training(at: &Path) {
    let mut child = tigret(at, &format!("run p.toml {LONGER}"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !at.join("run/model/last.safetensors").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no state was written");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_interrupted_training_outlives_what_is_refused_and_what_goes_on_with_it() {
    let at = &shop();
    killed_in_training(at);
    // The line of `train` in a dry run.
    let plan = |more: &str| {
        let text = works(at, &format!("run p.toml --dry-run {LONGER} {more}"));
        text.lines().find(|line| line.starts_with("train ")).unwrap().to_owned()
    };
    let (goes_on, train) = ("train     was interrupted, goes on: tigret train", "train --run run");
    assert!(plan("").starts_with(goes_on), "{}", plan(""));
    let line = refused(at, &format!("{train} --resume --preset tiny"));
    assert!(line.contains("with other settings"), "{line}");
    refused(at, &format!("{train} --dropout 2"));
    assert!(plan("").starts_with(goes_on), "{}", plan(""));
    let anew = "train     was interrupted and begins anew: --warmup is 30, was 1000: tigret train";
    let planned = plan("--set train.warmup=30");
    assert!(planned.starts_with(anew), "{planned}");

    // By hand with the same settings it is the same training.
    let same = "--resume --preset tiny --batch 16 --epochs 20";
    let often = "--validate-every 10 --patience 1000 --validation-users 5";
    works(at, &format!("{train} {same} {often}"));
    let log = || fs::read(at.join("run/train.jsonl")).unwrap();
    let by_hand = log();
    let errors = succeeds(&mut tigret(at, &format!("run p.toml {LONGER}"))).1;
    assert!(errors.contains("train: was interrupted, goes on"), "{errors}");
    assert!(errors.contains("tokenize: done already"), "{errors}");
    assert!(log() == by_hand, "nothing was left to train");

    // With more epochs it goes on from its end, and that is known when it is asked for again.
    let more = format!("run p.toml {LONGER} --set train.epochs=21");
    let errors = succeeds(&mut tigret(at, &more)).1;
    assert!(errors.contains("train: --epochs is 21, was 20, goes on"), "{errors}");
    assert!(log().starts_with(&by_hand) && log().len() > by_hand.len(), "its log goes on");
    assert!(succeeds(&mut tigret(at, &more)).1.contains("train: done already"));
    assert!(plan("").starts_with("train     --epochs is 20, was 21: tigret train"), "{}", plan(""));
}

#[test]
fn a_state_of_other_inputs_or_of_a_training_by_hand_is_not_taken_up() {
    let at = &shop();
    killed_in_training(at);
    let other = format!("run p.toml {LONGER} --set tokenize.seed=1 --set tokenize.method=lsh");
    let errors = succeeds(&mut tigret(at, &other)).1;
    let anew = "train: was interrupted and begins anew: catalog.json has changed";
    assert!(errors.contains(anew), "{errors}");
    // A training by hand has taken the place of the one that is done.
    works(at, "train --run run --preset tiny --epochs 1");
    let errors = succeeds(&mut tigret(at, &other)).1;
    assert!(errors.contains("train: model/config.json is not what it wrote"), "{errors}");
    assert!(!errors.contains("goes on"), "{errors}");
}

#[test]
fn a_training_in_the_place_of_one_whose_model_is_gone_can_be_interrupted_too() {
    let at = &shop();
    let run = format!("run p.toml {LONGER}");
    works(at, &run);
    fs::remove_dir_all(at.join("run/model")).unwrap();
    killed_in_training(at);
    let errors = succeeds(&mut tigret(at, &run)).1;
    assert!(errors.contains("train: was interrupted, goes on"), "{errors}");
    assert!(succeeds(&mut tigret(at, &run)).1.contains("train: done already"));
}

#[test]
fn what_a_verb_refuses_leaves_what_is_done_and_what_was_interrupted() {
    let at = &shop();
    let plan = |more: &str| works(at, &format!("run p.toml --dry-run {more}"));
    let refused_by_the_verb = || {
        // Terabytes, which the verb sees and the options do not tell.
        let large = "--set train.layers=64 --set train.width=4096 --set train.d-ff=16384 \
                     --set train.heads=64 --set train.d-kv=512";
        for how in ["", "--from train --force"] {
            let line = refused(at, &format!("run p.toml {large} {how}"));
            assert!(line.contains("train: "), "{line}");
        }
        fs::create_dir_all(at.join("encoder")).unwrap();
        let other = "--set embed.dimensions=false --set embed.encoder=encoder";
        let line = refused(at, &format!("run p.toml {other}"));
        assert!(line.contains("embed: "), "{line}");
    };
    killed_in_training(at);
    let before = plan(LONGER);
    assert!(before.contains("train     was interrupted, goes on: tigret train"), "{before}");
    refused_by_the_verb();
    assert_eq!(plan(LONGER), before);

    works(at, "run p.toml");
    let done = plan("");
    assert!(!done.contains("tigret train"), "{done}");
    refused_by_the_verb();
    assert_eq!(plan(""), done);
}

#[test]
fn a_second_command_in_the_same_run_is_refused() {
    let at = &shop();
    works(at, "run p.toml --set train=false --set evaluate=false --set export=false");
    let lock = RunLock::acquire(&at.join("run"), "tigret train").unwrap();
    for arguments in [
        "run p.toml",
        "prepare --run run --classics",
        "embed --run run",
        "tokenize --run run",
        "train --run run",
        "evaluate --run run",
    ] {
        let line = refused(at, arguments);
        assert!(line.contains("another command is writing into this run"), "{line}");
        assert!(line.contains("`tigret train`, process"), "{line}");
    }
    // Reading is allowed.
    works(at, "inspect run");
    works(at, "run p.toml --dry-run");
    drop(lock);
    works(at, "embed --run run");
}

#[cfg(target_os = "linux")]
#[test]
fn work_goes_on_where_nobody_can_read_standard_error() {
    let at = &shop();
    let status = |line: &str, stderr: Stdio| {
        tigret(at, line).stderr(stderr).stdout(Stdio::null()).status().unwrap().code()
    };
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let first = "--set train=false --set evaluate=false --set export=false";
    assert_eq!(status(&format!("run p.toml {first}"), full()), Some(0));
    assert!(at.join("run/catalog.json").is_file());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(status("run p.toml", writer.into()), Some(0));
    assert!(at.join("run/bundle.safetensors").is_file());
    assert_eq!(status("run gone.toml", full()), Some(2));
}

#[test]
fn a_wrong_file_is_refused_by_name_and_table() {
    let at = &shop();
    for (change, to, expected) in [
        (
            "preset = \"tiny\"",
            "presett = \"tiny\"",
            "p.toml: [train] unexpected argument '--presett'",
        ),
        ("preset = \"tiny\"", "preset = \"huge\"", "[train] invalid value 'huge' for '--preset"),
        ("epochs = 1", "epochs = 0", "[train] invalid value '0' for '--epochs"),
        ("epochs = 1", "epochs = { a = 1 }", "[train] `epochs` holds something else than values"),
        ("epochs = 1", "resume = true", "[train] `resume` is not for a pipeline"),
        ("epochs = 1", "device = \"gpu\"", "[train] invalid value 'gpu' for '--device"),
        // What only the verb itself refuses is refused before the first step, too.
        ("epochs = 1", "dropout = 1", "train: --dropout 1 is outside 0..=0.99"),
        ("interactions = \"log.csv\"", "", "prepare: say where the data is"),
        ("k-core = 0", "min-rating = 3", "prepare: --min-rating needs the log's column"),
        ("beams = 10", "[export]\nout = \"/dev/null\"", "export: /dev/null: is a device"),
        ("beams = 10", "[export]\nout = \"\"", "is a folder; name a file"),
        ("beams = 10", "[export]\nout = \"log.csv/m\"", "log.csv is a file, not a folder"),
        ("beams = 10", "[inspect]\nhtml = \"log.csv/a/b\"", "log.csv is a file, not a folder"),
        ("beams = 10", "[export]\nout = \"run/model/config.json\"", "is a file of the run"),
        ("beams = 10", "[inspect]\nhtml = \"run/items.jsonl\"", "is a file of the run"),
        ("epochs = 1", "help = true", "[train] `help` and `version` are not for a pipeline"),
        ("[embed]", "[embedd]", "\"embedd\" is neither `run` nor a step (prepare, embed,"),
        ("run = \"run\"", "", "`run` is missing"),
        ("run = \"run\"", "run = 3", "`run` is not the name of a folder"),
        ("k-core = 0", "k-core = [1, 2]", "[prepare] the argument '--k-core <K>' cannot be used"),
        ("k-core = 0", "k-core = ", "p.toml:7:"),
        ("items = \"items.jsonl\"", "", "[prepare] the following required arguments"),
        (
            "interactions = \"log.csv\"",
            "interactions = \"gone.csv\"",
            "gone.csv: not found; correct",
        ),
        // That of a later step before the first begins.
        ("dimensions = 8", "encoder = \"gone\"", "embed: "),
        ("dimensions = 8", "encoder = \"gone\"", "gone: not found; correct `encoder`"),
    ] {
        let text = PIPELINE.replace(change, to);
        assert_ne!(text, PIPELINE);
        at.write("p.toml", text);
        let line = refused(at, "run p.toml");
        assert!(line.contains(expected), "{to}: {line}");
        assert!(!at.join("run/items.jsonl").exists(), "{to}");
    }
    assert!(!at.join("run").exists(), "no empty folder is left behind");
    for (arguments, expected) in [
        ("run gone.toml", "gone.toml: not found; name the TOML file"),
        ("run p.toml --set run", "--set run: is not KEY=VALUE"),
        ("run p.toml --set run.x=1", "--set run.x=1: \"run\" is a value"),
        ("run p.toml --from inspect", "leaves this step out"),
    ] {
        at.write("p.toml", PIPELINE);
        let line = refused(at, arguments);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn the_example_is_a_pipeline() {
    let at = &Place::new();
    let example = works(at, "run --example");
    at.write("p.toml", &example);
    let plan = works(at, "run p.toml --dry-run");
    assert_eq!(plan.lines().count(), 7, "{plan}");
    assert!(plan.contains("--with-tokenizer") && !plan.contains("--sinkhorn"), "{plan}");
}
