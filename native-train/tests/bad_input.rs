//! Bad input of `embed` and `tokenize`, through the command: one clear line, status 2, and nothing
//! written.

use std::fs;

use crate::tigret::{Place, files, golden_encoder, refuses, succeeds, tigret, works};

const ITEMS: usize = 20;
const WIDTH: usize = 4;

/// A run of [`ITEMS`] items with these texts.
fn new_world(text: impl Fn(usize) -> String) -> Place {
    let world = Place::new();
    let items: String =
        (0..ITEMS).map(|i| format!("{{\"id\": \"i{i}\", \"title\": \"{}\"}}\n", text(i))).collect();
    world.write("items.jsonl", items);
    let users: String =
        (0..ITEMS - 2).map(|u| format!("u{u} i{u} i{} i{}\n", u + 1, u + 2)).collect();
    world.write("s.txt", users);
    works(&world, "prepare --run r --sequences s.txt --items items.jsonl");
    world
}

/// A run with texts and a file of vectors for it.
fn world_of(number: impl Fn(usize, usize) -> f32) -> Place {
    let world = new_world(|i| format!("lamp {i}"));
    let numbers = (0..ITEMS * WIDTH).map(|at| number(at / WIDTH, at % WIDTH));
    world.write_matrix("v.safetensors", WIDTH, numbers);
    world
}

/// The command must fail with one line that says all of `reasons`, and leave the run alone.
fn refused(world: &Place, line: &str, reasons: &[&str]) {
    let before = files(&world.join("r"));
    let errors = refuses(world, line);
    for reason in reasons {
        assert!(errors.contains(reason), "\"{errors}\" does not say \"{reason}\"");
    }
    assert_eq!(files(&world.join("r")), before, "tigret {line}");
}

fn number(row: usize, column: usize) -> f32 {
    ((row * (column + 3)) as f32 * 0.7).sin()
}

#[test]
fn vectors_that_are_no_numbers_are_refused_and_nothing_is_written() {
    let world = world_of(|r, c| if r == 3 { f32::NAN } else { number(r, c) });
    let embed = "embed --run r --vectors v.safetensors";
    refused(&world, embed, &["v.safetensors: row 3 (item \"i3\") has NaN at dimension 0"]);
}

#[test]
fn a_constant_column_is_refused_by_its_number() {
    let world = world_of(|r, c| if c == 2 { 0.5 } else { number(r, c) });
    works(&world, "embed --run r --vectors v.safetensors");
    refused(
        &world,
        "tokenize --run r --codebook-size 4",
        &["number 2 of the vectors (counted from 0) is 0.5 for every item", "leave that column"],
    );
    works(&world, "tokenize --run r --codebook-size 4 --method random");
}

#[test]
fn fewer_items_than_codewords_are_refused_where_codewords_are_fitted() {
    let world = world_of(number);
    works(&world, "embed --run r --vectors v.safetensors");
    refused(
        &world,
        "tokenize --run r --codebook-size 4,32",
        &["20 items cannot fill 32 codewords; use --codebook-size 20 or less"],
    );
    works(&world, "tokenize --run r --codebook-size 4,32 --method lsh");
}

#[test]
fn settings_that_do_not_suit_are_told_of() {
    let world = world_of(number);
    works(&world, "embed --run r --vectors v.safetensors");
    let errors = |arguments: &str| succeeds(&mut tigret(&world, arguments)).1;
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
    let output = tigret(&world, both).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("cannot be used with"), "{errors}");
}

#[test]
fn texts_that_are_all_empty_are_refused_by_every_encoder() {
    let world = new_world(|_| " ".to_owned());
    for encoder in [String::new(), format!("--encoder {}", golden_encoder("bert").display())] {
        refused(
            &world,
            &format!("embed --run r {encoder}"),
            &["items.jsonl: the text of every item is empty; name columns with `tigret prepare"],
        );
    }
    // One text is enough to go on with.
    let world = new_world(|i| if i < 2 { "red lamp".to_owned() } else { String::new() });
    works(&world, "embed --run r");
}

#[test]
fn a_folder_that_is_no_run_is_named_and_left_as_it_is() {
    let folder = Place::new();
    folder.write("photo.jpg", "of a cat");
    for verb in ["embed", "tokenize", "train", "evaluate"] {
        let error = refuses(&folder, &format!("{verb} --run ."));
        assert!(error.contains(".: is not a run directory; make one with `tigret prep"), "{error}");
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 1, "{verb}");
    }
}

#[test]
fn equal_vectors_are_the_reason_that_is_given_for_their_collisions() {
    let world =
        new_world(|i| if i < 12 { "red lamp".into() } else { format!("blue car {}", i / 2) });
    works(&world, "embed --run r");
    let tokenize = "tokenize --run r --method rq-kmeans --codebook-size 4";
    refused(
        &world,
        &format!("{tokenize} --collision-size 8"),
        &[
            "12 items have the same vector",
            "raise --collision-size, or give the items better texts",
        ],
    );
    // Work of an autoencoder that was not done goes with the first tokenizer that is.
    let partial = world.join("r/tokenizer.partial.safetensors");
    fs::write(&partial, "half of it").unwrap();
    let said = succeeds(&mut tigret(&world, &format!("{tokenize} --collision-size 16"))).0;
    assert!(said.contains("look at: 100 % of the items have the same vector"), "{said}");
    assert!(!said.contains("More levels"), "{said}");
    assert!(!partial.exists());
    let said = succeeds(&mut tigret(&world, "inspect r")).0;
    assert!(said.contains("100 % of the items have the same vector"), "{said}");
}
