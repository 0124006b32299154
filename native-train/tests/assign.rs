//! New items under a frozen tokenizer, through the command.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tigret_infer::Quantizer;

use crate::new_texts::rows;
use crate::tigret::{Made, Place, fails, tigret, works_json};

const PREPARE: &str = "prepare --run run --sequences sequences.txt --items items.jsonl";
const TRAIN: &str = "train --run run --preset tiny --epochs 1";
const EXPORT: &str = "export --run run --out m.safetensors";
const RQ_KMEANS: &str = "--method rq-kmeans --collision-size 64";

fn vector(item: usize) -> Vec<f32> {
    (0..6).map(|d| ((item * (d + 3)) as f32 * 0.7).sin() + (item % 5) as f32).collect()
}

fn write_items(world: &Place, file: &str, items: std::ops::Range<usize>, inline: bool) {
    let lines: String = items
        .map(|i| {
            let mut line = json!({"id": format!("item-{i}"), "title": format!("Title {i}")});
            if inline {
                line["embedding"] = json!(vector(i));
            }
            format!("{line}\n")
        })
        .collect();
    world.write(file, lines);
}

/// A run of 60 items with vectors of six numbers, and 30 more in a file of new items.
static WITH_VECTORS: LazyLock<Made> =
    LazyLock::new(|| Made::of(&world_of_histories(|u| vec![u, u + 1, u + 2, u + 20])));

/// The same with semantic IDs.
fn new_world(tokenize: &str) -> Place {
    let world = WITH_VECTORS.place();
    works_json(&world, &format!("tokenize --run run --codebook-size 4 {tokenize}"));
    world
}

/// Vectors and no IDs yet, with other histories of the 40 users.
fn world_of_histories(history: impl Fn(usize) -> Vec<usize>) -> Place {
    let world = Place::new();
    write_items(&world, "items.jsonl", 0..60, false);
    let users: String = (0..40)
        .map(|u| {
            let items: Vec<_> = history(u).iter().map(|i| format!("item-{i}")).collect();
            format!("u{u} {}\n", items.join(" "))
        })
        .collect();
    world.write("sequences.txt", users);
    world.write_matrix("vectors.safetensors", 6, (0..60).flat_map(vector));
    write_items(&world, "new.jsonl", 60..90, true);
    works_json(&world, PREPARE);
    works_json(&world, "embed --run run --vectors vectors.safetensors");
    world
}

/// Writes a file of new items with the content of the run's own.
fn write_copies(world: &Place, file: &str) {
    let lines: String = (0..60)
        .map(|i| format!("{}\n", json!({"id": format!("copy-{i}"), "embedding": vector(i)})))
        .collect();
    world.write(file, lines);
}

fn assign(world: &Place, file: &str) -> Value {
    works_json(world, &format!("tokenize --run run --assign {file}"))
}

fn refused(world: &Place, line: &str) -> String {
    fails(&mut tigret(world, line))
}

fn codes(world: &Place) -> BTreeMap<String, Vec<u64>> {
    world.read_codes("run/catalog.json")
}

#[test]
fn new_items_get_ids_and_old_ones_keep_theirs() {
    for method in [
        "rq-vae --epochs 5 --hidden 8 --latent 4",
        "vq-vae --epochs 5 --hidden 8 --latent 4",
        "rq-kmeans",
        "hierarchical-kmeans",
        "lsh",
        "random",
        "opq",
    ] {
        let world = new_world(&format!("--collision-size 64 --method {method}"));
        let before = codes(&world);
        let report = assign(&world, "new.jsonl");
        assert_eq!((&report["new"], &report["known"]), (&json!(30), &json!(0)), "{method}");
        let after = codes(&world);
        assert_eq!(after.len(), 90);
        assert!(before.iter().all(|(id, codes)| after[id] == *codes), "{method}");
        let mut different: Vec<_> = after.values().collect();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 90, "{method}: every ID is another");
        // The same items again change nothing.
        let report = assign(&world, "new.jsonl");
        assert_eq!((&report["new"], &report["known"]), (&json!(0), &json!(30)));
        assert_eq!(codes(&world), after);
        let items = world.read("run/items.jsonl");
        assert_eq!(items.lines().count(), 90);
        assert!(!items.contains("embedding") && items.contains("Title 89"));
    }
}

#[test]
fn vectors_that_embed_has_brought_to_length_1_are_so_for_new_items_too() {
    let world = WITH_VECTORS.place();
    works_json(&world, "embed --run run --vectors vectors.safetensors --normalize");
    works_json(&world, &format!("tokenize --run run --codebook-size 4 {RQ_KMEANS}"));
    let scaled = |by: f32| (0..60).flat_map(vector).map(move |x| x * by);
    world.write_matrix("copies.safetensors", 6, scaled(37.0));
    write_copies(&world, "copies.jsonl");
    works_json(&world, "tokenize --run run --assign copies.jsonl --vectors copies.safetensors");
    let codes = codes(&world);
    for item in 0..60 {
        let [own, copy] = [format!("item-{item}"), format!("copy-{item}")];
        assert_eq!(codes[&own][..3], codes[&copy][..3], "{item}");
    }
    let (rows, _) = rows(&world.join("run/vectors.safetensors"));
    assert_eq!(rows.len(), 120);
    for row in rows.iter().filter(|row| row.iter().any(|x| *x != 0.0)) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
}

#[test]
fn an_id_is_the_same_however_a_table_writes_its_number() {
    let world = Place::new();
    let items = |ids: &[&str]| {
        ids.iter().map(|id| format!("{{\"id\": {id}, \"title\": \"t\"}}\n")).collect::<String>()
    };
    world.write("items.jsonl", items(&["17.0", "18", "\"19\"", "20.5"]));
    world.write("sequences.txt", "u 17 18 19 20.5\n");
    works_json(&world, PREPARE);
    works_json(&world, "tokenize --run run --method random --codebook-size 4");
    world.write("again.jsonl", items(&["17", "18.0", "19", "20.5", "21.0"]));
    let report = assign(&world, "again.jsonl");
    assert_eq!((&report["new"], &report["known"]), (&json!(1), &json!(4)));
    assert_eq!(codes(&world).into_keys().collect::<Vec<_>>(), ["17", "18", "19", "20.5", "21"]);
}

#[test]
fn an_item_that_was_tokenized_gets_the_same_codes_again_under_another_id() {
    let world = new_world(RQ_KMEANS);
    write_copies(&world, "copies.jsonl");
    let report = assign(&world, "copies.jsonl");
    assert_eq!(report["collided"], json!(60));
    let catalog = codes(&world);
    for i in 0..60 {
        let (old, copy) = (&catalog[&format!("item-{i}")], &catalog[&format!("copy-{i}")]);
        assert_eq!(old[..3], copy[..3]);
    }
}

#[test]
fn vectors_of_a_file_and_of_the_lines_give_the_same_ids() {
    let opq = "--method opq --collision-size 64";
    let (inline, file) = (new_world(opq), new_world(opq));
    assign(&inline, "new.jsonl");
    file.write_matrix("new.safetensors", 6, (60..90).flat_map(vector));
    write_items(&file, "bare.jsonl", 60..90, false);
    works_json(&file, "tokenize --run run --assign bare.jsonl --vectors new.safetensors");
    assert_eq!(codes(&inline), codes(&file));
}

#[test]
fn to_a_collaborative_tokenizer_a_new_item_is_one_without_training_interactions() {
    // Everybody had the items 0..50, so the mean of what interactions tell is far from zero; the
    // others are in nobody's training part.
    let history = |u: usize| {
        let targets = [50 + u % 10, 50 + (u + 1) % 10];
        (0..50).map(|i| (u + i) % 50).chain(targets).collect()
    };
    let made = Made::of(&world_of_histories(history));
    for normalize in ["none", "center", "standardize"] {
        let method = "--method rq-kmeans --codebook-size 8 --collision-size 128";
        let world = made.place();
        let settings = format!("{method} --collaborative 0.5 --normalize {normalize}");
        works_json(&world, &format!("tokenize --run run {settings}"));
        write_copies(&world, "copies.jsonl");
        assign(&world, "copies.jsonl");
        let catalog = codes(&world);
        let same =
            |i: usize| catalog[&format!("item-{i}")][..3] == catalog[&format!("copy-{i}")][..3];
        assert!((50..60).all(same), "{normalize}");
        assert!(!(0..50).any(same), "{normalize}: interactions decide nothing here");
    }
}

#[test]
fn a_bundle_gives_the_ids_of_a_collaborative_tokenizer_that_the_run_would_give() {
    let more = "--normalize standardize --collaborative 0.5";
    the_bundle_and_the_run_agree(&format!("{RQ_KMEANS} {more}"));
}

#[test]
fn the_catalogue_with_new_items_trains_exports_and_answers() {
    let world = new_world(RQ_KMEANS);
    assign(&world, "new.jsonl");
    works_json(&world, TRAIN);
    works_json(&world, "evaluate --run run");
    let report = works_json(&world, &format!("{EXPORT} --with-tokenizer"));
    assert_eq!((&report["items"], &report["tokenizer"]), (&json!(90), &json!("rq-kmeans")));
}

#[test]
fn ids_tokenizer_model_and_vectors_stay_when_the_items_come_in_another_order() {
    let world = new_world(RQ_KMEANS);
    works_json(&world, TRAIN);
    let evaluate = "evaluate --run run --baselines semantic-knn";
    let then = works_json(&world, evaluate);
    let prepare_backwards = |items: usize| {
        write_items(&world, "items.jsonl", 0..items, false);
        let backwards: Vec<String> =
            world.read("items.jsonl").lines().rev().map(str::to_owned).collect();
        world.write("items.jsonl", backwards.join("\n"));
        works_json(&world, PREPARE);
        let first = format!("{{\"id\":\"item-{}\"", items - 1);
        assert!(world.read("run/items.jsonl").starts_with(&first));
    };
    prepare_backwards(60);
    let now = works_json(&world, evaluate);
    assert_eq!(now.get("trained_on_other_sequences"), None);
    assert_eq!(now["model"], then["model"]);
    let ndcg = |report: &Value| report["baselines"]["semantic-knn"]["ndcg@10"].clone();
    assert!(ndcg(&now).is_f64() && ndcg(&now) == ndcg(&then));

    write_items(&world, "some.jsonl", 60..70, true);
    assert_eq!(assign(&world, "some.jsonl")["stale_vectors"], json!(false));
    let before = codes(&world);
    let newest: Vec<String> = (60..70).map(|i| format!("item-{i}")).collect();
    let users = world.read("sequences.txt") + &format!("v {}\n", newest.join(" "));
    world.write("sequences.txt", users);
    prepare_backwards(70);
    // The model of the first sixty, and one of all.
    let now = works_json(&world, evaluate);
    assert_eq!(now["trained_on_other_sequences"], json!(true));
    works_json(&world, TRAIN);
    works_json(&world, evaluate);
    works_json(&world, &format!("{EXPORT} --with-tokenizer"));
    let report = assign(&world, "new.jsonl");
    assert_eq!((&report["new"], &report["known"]), (&json!(20), &json!(10)));
    assert_eq!(report["stale_vectors"], json!(false));
    let after = codes(&world);
    assert!(before.iter().all(|(id, codes)| after[id] == *codes));
}

#[test]
fn the_run_keeps_the_vectors_of_new_items() {
    let world = new_world(RQ_KMEANS);
    let run = world.join("run");
    let files = ["vectors.safetensors", "catalog.json", "items.jsonl"];
    let read = || files.map(|name| fs::read(run.join(name)).unwrap());
    let matrix = |bytes: &[u8]| -> Vec<f32> {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let tensor = tensors.tensor("vectors").unwrap();
        assert_eq!(tensor.shape()[1], 6);
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let before = read();
    write_items(&world, "some.jsonl", 60..70, true);
    assign(&world, "some.jsonl");
    assign(&world, "new.jsonl");
    let after = read();
    let expected: Vec<f32> = (0..90).flat_map(vector).collect();
    assert_eq!(matrix(&after[0]), expected);
    works_json(&world, "evaluate --run run --baselines semantic-knn");

    // Killed after the first file, and after the second one.
    for written in 1..3 {
        for (at, name) in files.into_iter().enumerate() {
            let state = if at < written { &after } else { &before };
            fs::write(run.join(name), &state[at]).unwrap();
        }
        fs::write(run.join("vectors.new.tigret.partial"), "half a row").unwrap();
        assign(&world, "new.jsonl");
        assert_eq!(matrix(&read()[0]), expected, "{written}");
        assert_eq!(read()[2], after[2], "{written}");
        assert!(!run.join("vectors.new.tigret.partial").exists());
    }

    // Vectors that are not those of the run's items are left alone.
    fs::write(run.join(files[0]), &before[0]).unwrap();
    fs::write(world.join("one.jsonl"), json!({"id": "one", "embedding": vector(3)}).to_string())
        .unwrap();
    assert_eq!(assign(&world, "one.jsonl")["stale_vectors"], json!(true));
    assert_eq!(read()[0], before[0]);
}

#[test]
fn a_bundle_of_another_catalogue_is_not_evaluated_in_silence() {
    let world = new_world(RQ_KMEANS);
    works_json(&world, TRAIN);
    works_json(&world, EXPORT);
    let evaluated = || works_json(&world, "evaluate --run run --bundle m.safetensors");
    assert_eq!(evaluated().get("not_in_bundle"), None);
    assign(&world, "new.jsonl");
    assert_eq!(evaluated()["not_in_bundle"], json!(30));
    // The same shop under other ids.
    for name in ["items.jsonl", "sequences.txt"] {
        let text = world.read(name).replace("item-", "other-");
        world.write(name, text);
    }
    works_json(&world, &PREPARE.replace("--run run", "--run other"));
    let error = refused(&world, "evaluate --run other --bundle m.safetensors");
    assert!(error.contains("m.safetensors: has none of the 60 items of"), "{error}");
}

#[test]
fn a_bundle_with_its_tokenizer_gives_the_ids_that_the_run_would_give() {
    the_bundle_and_the_run_agree(RQ_KMEANS);
}

fn the_bundle_and_the_run_agree(tokenize: &str) {
    let world = new_world(tokenize);
    works_json(&world, TRAIN);
    works_json(&world, &format!("{EXPORT} --with-tokenizer"));
    let lines = |embedding: bool| -> String {
        (60..90)
            .map(|i| {
                let mut line = json!({"id": format!("item-{i}")});
                if embedding {
                    line["embedding"] = json!(vector(i));
                }
                format!("{line}\n")
            })
            .collect()
    };
    world.write("add.jsonl", lines(true));
    let allow: Vec<String> = (60..90).map(|i| format!("item-{i}")).collect();
    let history = json!({"history": ["item-3", "item-70"], "allow": allow});
    world.write("h.jsonl", format!("{history}\n"));
    let recommend =
        "recommend --model m.safetensors --histories h.jsonl --top 30 --add-items add.jsonl";
    let answer = works_json(&world, recommend);
    assign(&world, "new.jsonl");
    let catalog = codes(&world);
    let picks = answer["items"].as_array().unwrap();
    assert_eq!(picks.len(), 30);
    for pick in picks {
        assert_eq!(pick["codes"], json!(catalog[pick["id"].as_str().unwrap()]));
    }
    works_json(&world, EXPORT);
    let error = refused(&world, recommend);
    assert!(error.contains("holds no tokenizer"), "{error}");
}

#[test]
fn a_tokenizer_that_gave_other_ids_gives_none() {
    let world = new_world(RQ_KMEANS);
    works_json(&world, TRAIN);
    let export = format!("{EXPORT} --with-tokenizer");
    // Items that it has given IDs since do not matter.
    assign(&world, "new.jsonl");
    works_json(&world, &export);
    let path = world.join("run/tokenizer.safetensors");
    let then = fs::read(&path).unwrap();
    let kept: Vec<(&str, Vec<u8>)> = ["catalog.json", "tokens.json"]
        .map(|name| (name, fs::read(world.join("run").join(name)).unwrap()))
        .into();
    works_json(&world, &format!("tokenize --run run --seed 7 --codebook-size 4 {RQ_KMEANS}"));
    for (name, bytes) in kept {
        fs::write(world.join("run").join(name), bytes).unwrap();
    }
    let error = refused(&world, &export);
    assert!(error.contains("tokenizer.safetensors: gave other semantic IDs than"), "{error}");
    let error = refused(&world, "tokenize --run run --assign new.jsonl");
    assert!(error.contains("restore the tokenizer.safetensors"), "{error}");
    fs::write(path, then).unwrap();
    works_json(&world, &export);
}

#[test]
fn a_wrong_token_layout_is_refused_by_name() {
    let world = new_world("--method rq-kmeans");
    let (layout, tokenizer) =
        (world.join("run/tokens.json"), world.join("run/tokenizer.safetensors"));
    let mut tokens: Value = serde_json::from_slice(&fs::read(&layout).unwrap()).unwrap();
    tokens["levels"][1]["offset"] = tokens["levels"][0]["offset"].clone();
    fs::write(layout, tokens.to_string()).unwrap();
    let quantizer = Quantizer::from_bytes(&fs::read(&tokenizer).unwrap()).unwrap();
    let silent = quantizer.to_bytes(Default::default()).unwrap();
    let catalog = codes(&world);
    // Also where the quantiser does not say which semantic IDs it gave.
    for file in [fs::read(&tokenizer).unwrap(), silent] {
        fs::write(&tokenizer, file).unwrap();
        let error = refused(&world, "tokenize --run run --assign new.jsonl");
        assert!(
            error.contains("tokens.json: token layout: level 0 and level 1 overlap"),
            "{error}"
        );
        assert_eq!(codes(&world), catalog);
    }
}

#[test]
fn what_cannot_be_assigned_is_refused_by_name_and_nothing_is_written() {
    let world = new_world("--method rq-kmeans --collision-size 4");
    let before = codes(&world);
    let line =
        |id: &str, embedding: Value| format!("{}\n", json!({"id": id, "embedding": embedding}));
    let crowd: String = (0..9).map(|i| line(&format!("twin-{i}"), json!(vector(0)))).collect();
    for (name, text, reason) in [
        ("full.jsonl", crowd, "all 4 semantic IDs under the codes"),
        ("short.jsonl", line("a", json!([1, 2])), "has 2 numbers, the tokenizer was trained on 6"),
        ("text.jsonl", line("a", json!(vec!["x"; 6])), "something else than finite numbers"),
        (
            "huge.jsonl",
            line("a", json!([0, 1e30, 0, 0, 0, 0])),
            "number 1 of the vector of item \"a\"",
        ),
        ("none.jsonl", "{\"id\": \"a\"}\n".into(), "has no \"embedding\" of 6 numbers"),
        ("id.jsonl", "{\"embedding\": []}\n".into(), "id.jsonl:1: has no \"id\""),
        ("twice.jsonl", line("a", json!(vector(0))).repeat(2), "twice.jsonl:2: item \"a\" stands"),
        ("json.jsonl", "{".into(), "json.jsonl:1"),
    ] {
        world.write(name, text);
        let error = refused(&world, &format!("tokenize --run run --assign {name}"));
        assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        assert_eq!(codes(&world), before, "{name}");
    }
    world.write_matrix("few.safetensors", 6, (60..70).flat_map(vector));
    let assign = "tokenize --run run --assign new.jsonl";
    let error = refused(&world, &format!("{assign} --vectors few.safetensors"));
    assert!(error.contains("has no vector: the vector file has 10 rows"), "{error}");
    let drawn = new_world("--method random");
    let error = refused(&drawn, &format!("{assign} --vectors few.safetensors"));
    assert!(error.contains("draws codes from ids alone; leave --vectors out"), "{error}");
    let error = refused(&world, &format!("{assign} --seed 3"));
    assert!(error.contains("cannot be used with"), "{error}");
    fs::remove_file(world.join("run/tokenizer.safetensors")).unwrap();
    let error = refused(&world, "tokenize --run run --assign new.jsonl");
    assert!(error.contains("tokenizer.safetensors: not found"), "{error}");
}

#[test]
fn items_that_prepare_brought_are_named_as_what_has_no_ids() {
    let world = new_world(RQ_KMEANS);
    works_json(&world, TRAIN);
    let old = ["items.jsonl", "sequences.txt"].map(|name| fs::read(world.join(name)).unwrap());
    // A day later: three new items stand last, and are bought.
    write_items(&world, "items.jsonl", 0..63, false);
    let bought = "day-2 item-60 item-61 item-62 item-3\n";
    let sequences = format!("{}{bought}", String::from_utf8(old[1].clone()).unwrap());
    world.write("sequences.txt", sequences);
    let kept = fs::read(world.join("run/items.jsonl")).unwrap();
    works_json(&world, PREPARE);
    write_items(&world, "new.jsonl", 60..63, true);
    let export = format!("{EXPORT} --with-tokenizer");
    let assign_new = "tokenize --run run --assign new.jsonl";
    for line in [assign_new, TRAIN, "evaluate --run run", &export, EXPORT] {
        let error = refused(&world, line);
        let lacks = "catalog.json: lacks items of the data set, such as \"item-6";
        assert!(error.contains(lacks), "{line}: {error}");
        assert!(error.contains("--assign` before `tigret prepare` brings them"), "{error}");
    }
    // In the order that is told it works, and the codes of the others stay.
    world.write("run/items.jsonl", kept);
    let before = codes(&world);
    assign(&world, "new.jsonl");
    works_json(&world, PREPARE);
    works_json(&world, TRAIN);
    works_json(&world, "evaluate --run run");
    works_json(&world, &export);
    let after = codes(&world);
    assert_eq!(after.len(), 63);
    assert!(before.iter().all(|(id, codes)| after[id] == *codes));
}

#[test]
fn what_is_missing_of_a_run_is_made_by_its_own_steps() {
    let world = new_world(RQ_KMEANS);
    works_json(&world, TRAIN);
    let evaluate = "evaluate --run run";
    for (file, step, commands) in [
        ("catalog.json", "tokenize", &[EXPORT][..]),
        ("tokens.json", "tokenize", &[EXPORT]),
        ("model/config.json", "train", &[EXPORT, evaluate]),
    ] {
        let path = world.join("run").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for command in commands {
            let error = refused(&world, command);
            let expected = format!("{file}: not found; make it with `tigret {step}`");
            assert!(error.contains(&expected), "{error}");
        }
        fs::write(&path, bytes).unwrap();
    }
    // Figures that find no place are printed all the same.
    fs::create_dir(world.join("run/evaluation.json")).unwrap();
    let output = tigret(&world, evaluate).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stdout).unwrap().contains("popularity"));
}

#[test]
fn items_that_were_edited_by_hand_go_on_with_a_line_of_their_own() {
    let world = new_world(RQ_KMEANS);
    world.write("run/items.jsonl", world.read("run/items.jsonl").trim_end());
    assign(&world, "new.jsonl");
    let items = world.read("run/items.jsonl");
    assert_eq!(items.lines().count(), 90);
    assert!(items.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{items}");
}

#[test]
fn a_pipe_is_refused_since_new_items_are_read_twice() {
    use std::process::Stdio;

    let world = new_world(RQ_KMEANS);
    let before = [world.read("run/catalog.json"), world.read("run/items.jsonl")];
    let line = "tokenize --run run --assign /dev/stdin";
    let said = fails(tigret(&world, line).stdin(Stdio::piped()));
    assert!(said.contains("/dev/stdin: is read twice, and is no file that keeps"), "{said}");
    assert_eq!([world.read("run/catalog.json"), world.read("run/items.jsonl")], before);
}
