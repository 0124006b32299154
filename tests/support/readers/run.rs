//! Files of a run directory, and those that its commands read beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{BASE, Folder, Memory, Outcome, Reader, log, npy, prepare, tigret};

const EMBED: &str = "embed --run ./run --dimensions 8";
const TOKENIZE: &str = "tokenize --run ./run --method rq-kmeans --levels 2 --codebook-size 4 --collision-size 16 --users 10 --max-items 8";
const TRAIN: &str = "train --run ./run --device cpu --precision f32 --preset tiny --layers 1 \
                     --width 8 --heads 2 --d-kv 4 --d-ff 8 --epochs 1 --batch 32 \
                     --validation-users 5 --validation-beams 10";
const RESUME: &str = "train --run ./run --device cpu --precision f32 --preset tiny --layers 1 \
                      --width 8 --heads 2 --d-kv 4 --d-ff 8 --epochs 1 --batch 32 \
                      --validation-users 5 --validation-beams 10 --resume";
const EVALUATE: &str = "evaluate --run ./run --device cpu --beams 10";
const SASREC: &str = "evaluate --run ./run --device cpu --baselines sasrec --baselines-only \
                      --sasrec-epochs 1 --sasrec-dim 8 --sasrec-heads 2 --sasrec-layers 1 \
                      --sasrec-max-minutes 1";
const INSPECT: &str = "inspect ./run --html ./page.html";
const ASSIGN: &str = "tokenize --run ./run --assign ./new.jsonl";
const TEXTS: &str = "embed --run ./run --texts ./new.jsonl --out ./new.safetensors";

/// Files for commands, and a run of twelve items with which these were called.
pub(super) fn run_after(commands: &[&str]) -> Folder {
    let folder = Folder::new();
    let (log, items) =
        (folder.write("log.csv", log()), folder.write("items.jsonl", super::items()));
    folder.write("vectors.npy", npy());
    folder.write("ids.txt", (0..12).map(|item| format!("i{item}\n")).collect::<String>());
    folder.write(
        "sequences.txt",
        (0..9).map(|user| format!("u{user} i1 i{user} i{}\n", user + 3)).collect::<String>(),
    );
    folder.write(
        "new.jsonl",
        "{\"id\":\"n1\",\"text\":\"i3, red\"}\n{\"id\":\"n2\",\"title\":\"red\",\"brand\":\"B1\"}\n\
         {\"id\":\"i1\",\"text\":\"red\"}\n",
    );
    prepare(&folder, &log, &items).unwrap();
    for command in commands {
        call(&folder, command).unwrap();
    }
    folder
}

/// Calls `tigret` with the words of a line, of which those after `./` are files of the folder.
fn call(folder: &Folder, line: &str) -> Outcome {
    let words: Vec<PathBuf> = line
        .split_whitespace()
        .map(|word| word.strip_prefix("./").map_or(word.into(), |name| folder.path(name)))
        .collect();
    let words: Vec<&dyn AsRef<_>> = words.iter().map(|word| word as &dyn AsRef<_>).collect();
    tigret(&words)
}

/// A command that reads a file of a folder, which is as it was before each call.
pub(super) fn in_folder(
    name: &'static str,
    folder: Folder,
    file: impl Into<String>,
    command: &'static str,
) -> Reader {
    let (file, mut kept) = (file.into(), Vec::new());
    keep(folder.0.path(), &mut kept);
    Reader {
        name,
        good: vec![("made", fs::read(folder.path(&file)).unwrap())],
        rounds: 100,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            restore(folder.0.path(), &kept);
            folder.write(&file, bytes);
            call(&folder, command)
        }),
    }
}

/// All files of a folder and of the folders in it.
fn keep(folder: &Path, kept: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => keep(&path, kept),
            false => kept.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
}

fn restore(folder: &Path, kept: &[(PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(folder).unwrap();
    for (path, bytes) in kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub(super) fn research(name: &'static str) -> Reader {
    let prepare = "prepare --run ./other --k-core 0 --sequences ./sequences.txt \
                   --items ./items.jsonl --text-columns title,brand";
    in_folder(name, run_after(&[]), "sequences.txt", prepare)
}

pub(super) fn ids(name: &'static str) -> Reader {
    let embed = "embed --run ./run --vectors ./vectors.npy --ids ./ids.txt";
    in_folder(name, run_after(&[]), "ids.txt", embed)
}

pub(super) fn items(name: &'static str) -> Reader {
    in_folder(name, run_after(&[]), "run/items.jsonl", EMBED)
}

pub(super) fn sequences(name: &'static str) -> Reader {
    in_folder(name, run_after(&[]), "run/sequences.jsonl", EMBED)
}

pub(super) fn summary(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED]), "run/dataset.json", TEXTS)
}

pub(super) fn vectors(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED]), "run/vectors.safetensors", TOKENIZE)
}

pub(super) fn encoder(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED]), "run/encoder.safetensors", TEXTS)
}

pub(super) fn texts(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED]), "new.jsonl", TEXTS)
}

pub(super) fn tokenizer(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED, TOKENIZE]), "run/tokenizer.safetensors", ASSIGN)
}

pub(super) fn tokenizer_report(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED, TOKENIZE]), "run/tokenizer.json", ASSIGN)
}

pub(super) fn assigned_items(name: &'static str) -> Reader {
    in_folder(name, run_after(&[EMBED, TOKENIZE]), "new.jsonl", ASSIGN)
}

/// The log of an autoencoder, as `inspect` draws it.
pub(super) fn tokenizer_log(name: &'static str) -> Reader {
    let folder = run_after(&[EMBED, TOKENIZE]);
    let line = |epoch: u32| {
        format!(
            "{{\"epoch\":{epoch},\"seconds\":0.5,\"loss\":{},\"revived\":3,\
             \"levels\":[{{\"used\":4,\"perplexity\":3.5}}],\"note\":\"the rate falls\"}}\n",
            2.5 / f64::from(epoch)
        )
    };
    folder.write("run/tokenizer.jsonl", (1..6).map(line).collect::<String>());
    let mut reader = in_folder(name, folder, "run/tokenizer.jsonl", INSPECT);
    // What no chart can show is left out, not refused.
    let names: String = (0..2000).map(|name| format!("\"loss {name}\":{name},")).collect();
    let odd = format!(
        "{{{names}\"epoch\":0,\"revived\":{most},\"a\":0,\"b\":-1.7e308}}\n\
         {{{names}\"epoch\":5e-324,\"revived\":{most},\"a\":5e-324,\"b\":1.7e308}}\n",
        most = u64::MAX
    );
    reader.good.insert(0, ("odd", odd.into()));
    reader
}

/// What the best recommender reaches, which `prepare` writes for simulated readers alone.
pub(super) fn oracle(name: &'static str) -> Reader {
    let folder = run_after(&[]);
    let figures = r#"{"recall@5":0.25,"ndcg@5":0.125,"recall@10":0.5,"ndcg@10":0.25}"#;
    folder.write("run/oracle.json", figures);
    in_folder(name, folder, "run/oracle.json", "evaluate --run ./run --baselines-only")
}

pub(super) fn evaluation(name: &'static str) -> Reader {
    let folder = run_after(&[EMBED, TOKENIZE, "evaluate --run ./run --baselines-only"]);
    in_folder(name, folder, "run/evaluation.json", INSPECT)
}

fn trained() -> Folder {
    run_after(&[EMBED, TOKENIZE, TRAIN])
}

pub(super) fn model_config(name: &'static str) -> Reader {
    in_folder(name, trained(), "run/model/config.json", EVALUATE)
}

pub(super) fn model(name: &'static str) -> Reader {
    in_folder(name, trained(), "run/model/model.safetensors", EVALUATE)
}

/// A model in several files, of which there is one.
pub(super) fn model_index(name: &'static str) -> Reader {
    let folder = trained();
    let part = "model-0-00001-of-00001.safetensors";
    let (whole, part_path) = (folder.path("run/model/model.safetensors"), folder.path("run/model"));
    let bytes = fs::read(&whole).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.keys().filter(|name| *name != "__metadata__");
    let map: Map<String, Value> = tensors.map(|name| (name.clone(), part.into())).collect();
    fs::rename(&whole, part_path.join(part)).unwrap();
    let index = "run/model/model.safetensors.index.json";
    folder.write(index, json!({ "metadata": {}, "weight_map": map }).to_string());
    in_folder(name, folder, index, EVALUATE)
}

pub(super) fn training(name: &'static str) -> Reader {
    in_folder(name, trained(), "run/model/last.safetensors", RESUME)
}

pub(super) fn training_log(name: &'static str) -> Reader {
    in_folder(name, trained(), "run/train.jsonl", RESUME)
}

pub(super) fn baseline(name: &'static str) -> Reader {
    in_folder(name, run_after(&[SASREC]), "run/baselines/sasrec/last.safetensors", SASREC)
}
