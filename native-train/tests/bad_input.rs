//! Bad input of `embed` and `tokenize`, through the command: one clear line, status 2, and nothing
//! written.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};

use crate::tigret::{golden_encoder, refuses, succeeds, tigret, works};

const ITEMS: usize = 20;
const WIDTH: usize = 4;

struct World(tempfile::TempDir);

impl World {
    /// A run of [`ITEMS`] items with these texts.
    fn new(text: impl Fn(usize) -> String) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let items: String = (0..ITEMS)
            .map(|i| format!("{{\"id\": \"i{i}\", \"title\": \"{}\"}}\n", text(i)))
            .collect();
        fs::write(world.at("items.jsonl"), items).unwrap();
        let users: String =
            (0..ITEMS - 2).map(|u| format!("u{u} i{u} i{} i{}\n", u + 1, u + 2)).collect();
        fs::write(world.at("s.txt"), users).unwrap();
        world.ok("prepare --run r --sequences s.txt --items items.jsonl");
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ok(&self, arguments: &str) {
        works(self.0.path(), arguments);
    }

    /// The command must fail with one line that says all of `reasons`, and leave the run alone.
    fn refused(&self, arguments: &str, reasons: &[&str]) {
        let files = || {
            let entries = fs::read_dir(self.at("r")).unwrap().map(Result::unwrap);
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let before = files();
        let errors = refuses(self.0.path(), arguments);
        for reason in reasons {
            assert!(errors.contains(reason), "\"{errors}\" does not say \"{reason}\"");
        }
        assert_eq!(files(), before, "tigret {arguments}");
    }
}

fn number(row: usize, column: usize) -> f32 {
    ((row * (column + 3)) as f32 * 0.7).sin()
}

fn write(path: &Path, rows: usize, number: impl Fn(usize, usize) -> f32) {
    let numbers = (0..rows * WIDTH).map(|at| number(at / WIDTH, at % WIDTH));
    let data: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, vec![rows, WIDTH], &data).unwrap();
    fs::write(path, safetensors::serialize([("v", view)], None::<HashMap<_, _>>).unwrap()).unwrap();
}

/// Every method but `random`, which needs no vectors.
const METHODS: [&str; 6] = ["rq-vae", "vq-vae", "rq-kmeans", "hierarchical-kmeans", "lsh", "opq"];

#[test]
fn vectors_with_nan_or_of_another_number_of_rows_are_refused() {
    let world = World::new(|i| format!("lamp {i}"));
    let embed = "embed --run r --vectors v.safetensors";
    write(&world.at("v.safetensors"), ITEMS, |r, c| if r == 3 { f32::NAN } else { number(r, c) });
    world.refused(embed, &["v.safetensors: row 3 (item \"i3\") has NaN at dimension 0"]);
    for rows in [ITEMS - 1, ITEMS + 1, 0] {
        write(&world.at("v.safetensors"), rows, number);
        let expected = format!("has {rows} rows for {ITEMS} items; give the ids");
        world.refused(embed, &[&expected]);
    }
    // In the artefact itself, whoever wrote it.
    write(&world.at("v.safetensors"), ITEMS, number);
    world.ok(embed);
    let path = world.at("r/vectors.safetensors");
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let tokenize = "tokenize --run r --codebook-size 4";
    world.refused(tokenize, &["vectors.safetensors: the vector of item \"i19\" is not finite"]);
    fs::write(&path, &good[..end - 1]).unwrap();
    world.refused(tokenize, &["vectors.safetensors: "]);
    fs::write(&path, &good).unwrap();
    let items = fs::read_to_string(world.at("r/items.jsonl")).unwrap();
    fs::write(world.at("r/items.jsonl"), items.replace("\"i19\"", "\"i99\"")).unwrap();
    let users = fs::read_to_string(world.at("r/sequences.jsonl")).unwrap();
    fs::write(world.at("r/sequences.jsonl"), users.replace("\"i19\"", "\"i99\"")).unwrap();
    world.refused(tokenize, &["was made for other items than items.jsonl has; run `tigret embed`"]);
}

#[test]
fn a_constant_column_is_refused_by_its_number() {
    let world = World::new(|i| format!("lamp {i}"));
    write(&world.at("v.safetensors"), ITEMS, |r, c| if c == 2 { 0.5 } else { number(r, c) });
    world.ok("embed --run r --vectors v.safetensors");
    for method in METHODS {
        world.refused(
            &format!("tokenize --run r --codebook-size 4 --method {method}"),
            &[
                "number 2 of the vectors (counted from 0) is 0.5 for every item",
                "leave that column",
            ],
        );
    }
    world.ok("tokenize --run r --codebook-size 4 --method random");
}

#[test]
fn fewer_items_than_codewords_are_refused_where_codewords_are_fitted() {
    let world = World::new(|i| format!("lamp {i}"));
    write(&world.at("v.safetensors"), ITEMS, number);
    world.ok("embed --run r --vectors v.safetensors");
    for method in METHODS.into_iter().filter(|method| *method != "lsh") {
        world.refused(
            &format!("tokenize --run r --codebook-size 4,32 --method {method}"),
            &["20 items cannot fill 32 codewords; use --codebook-size 20 or less"],
        );
    }
    world.ok("tokenize --run r --codebook-size 4,32 --method lsh");
}

#[test]
fn settings_that_do_not_suit_are_told_of() {
    let world = World::new(|i| format!("lamp {i}"));
    write(&world.at("v.safetensors"), ITEMS, number);
    world.ok("embed --run r --vectors v.safetensors");
    let errors = |arguments: &str| succeeds(&mut tigret(world.0.path(), arguments)).1;
    let tokenize = "tokenize --run r --method rq-kmeans --codebook-size";
    let note = errors(&format!("{tokenize} 16"));
    assert!(note.contains("20 items are few for 16 codewords"), "{note}");
    assert!(note.contains("--codebook-size 8 suits them better"), "{note}");
    assert_eq!(errors(&format!("{tokenize} 8,16")), "");

    // A setting that changes nothing is told of as well.
    let note = errors(&format!("{tokenize} 8 --epochs 5 --latent 16"));
    assert_eq!(
        note.trim_end(),
        "--latent, --epochs without effect: --method rq-kmeans trains no autoencoder"
    );
    let random = "tokenize --run r --method random --codebook-size 8";
    assert_eq!(errors(random), "");
    assert_eq!(
        errors(&format!("{random} --collaborative 0.5 --normalize scale --latent 16")),
        "--latent without effect: --method random trains no autoencoder\n\
         --normalize, --collaborative without effect: --method random uses no vectors\n"
    );
    let both = "tokenize --run r --codebook-size 8 --epochs 5 --max-epochs 9";
    let output = tigret(world.0.path(), both).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("cannot be used with"), "{errors}");
}

#[test]
fn texts_that_are_all_empty_are_refused_by_every_encoder() {
    let world = World::new(|_| " ".to_owned());
    for encoder in [String::new(), format!("--encoder {}", golden_encoder("bert").display())] {
        world.refused(
            &format!("embed --run r {encoder}"),
            &["items.jsonl: the text of every item is empty; name columns with `tigret prepare"],
        );
    }
    // One text is enough to go on with.
    let world = World::new(|i| if i < 2 { "red lamp".to_owned() } else { String::new() });
    world.ok("embed --run r");
}

#[test]
fn a_folder_that_is_no_run_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("photo.jpg"), "of a cat").unwrap();
    for verb in ["embed", "tokenize", "train", "evaluate"] {
        let error = refuses(folder.path(), &format!("{verb} --run ."));
        assert!(error.contains(".: is not a run directory; make one with `tigret prep"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{verb}");
    }
}

#[test]
fn equal_vectors_are_the_reason_that_is_given_for_their_collisions() {
    let world =
        World::new(|i| if i < 12 { "red lamp".into() } else { format!("blue car {}", i / 2) });
    world.ok("embed --run r");
    let tokenize = "tokenize --run r --method rq-kmeans --codebook-size 4";
    world.refused(
        &format!("{tokenize} --collision-size 8"),
        &[
            "12 items have the same vector",
            "raise --collision-size, or give the items better texts",
        ],
    );
    // Work of an autoencoder that was not done goes with the first tokenizer that is.
    let partial = world.at("r/tokenizer.partial.safetensors");
    fs::write(&partial, "half of it").unwrap();
    let said = succeeds(&mut tigret(world.0.path(), &format!("{tokenize} --collision-size 16"))).0;
    assert!(said.contains("look at: 100 % of the items have the same vector"), "{said}");
    assert!(!said.contains("More levels"), "{said}");
    assert!(!partial.exists());
    let said = succeeds(&mut tigret(world.0.path(), "inspect r")).0;
    assert!(said.contains("100 % of the items have the same vector"), "{said}");
}
