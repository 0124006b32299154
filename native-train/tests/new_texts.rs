//! New items that have only text: encoded by the run's own encoder, by `embed --texts` and by
//! `tokenize --assign`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::tigret::{Place, golden_encoder, refuses, succeeds, tigret, works_json};

const ITEMS: usize = 60;
const TEMPLATE: &str = "[{title}. ][By {brand}.]";

fn fields(item: usize) -> Value {
    let word = |n: usize| ["red", "blue", "old", "soft", "lamp", "oil", "car", "tea"][n % 8];
    json!({
        "title": format!("{} {} {}", word(item), word(item * 3 + 1), word(item * 5 + 2)),
        "brand": if item.is_multiple_of(3) { Value::Null } else { format!("b{}", item % 7).into() },
    })
}

fn line(id: &str, item: usize) -> String {
    let mut line = fields(item);
    line["id"] = id.into();
    format!("{line}\n")
}

/// A prepared run of [`ITEMS`] items with a template of its own.
fn new_world() -> Place {
    let world = Place::new();
    let lines =
        |name: &str| -> String { (0..ITEMS).map(|i| line(&format!("{name}-{i}"), i)).collect() };
    world.write("items.jsonl", lines("item"));
    world.write("copies.jsonl", lines("copy"));
    let users: String = (0..40)
        .map(|u| {
            format!("u{u} {}\n", [u, u + 1, u + 2, u + 20].map(|i| format!("item-{i}")).join(" "))
        })
        .collect();
    world.write("s.txt", users);
    let prepare = "prepare --run r --sequences s.txt --items items.jsonl --text-template";
    succeeds(tigret(&world, prepare).arg(TEMPLATE));
    world
}

fn refused(world: &Place, line: &str) -> String {
    refuses(world, &format!("{line} --json"))
}

fn tokenize(world: &Place) {
    let method = "--method rq-kmeans --codebook-size 4 --collision-size 200";
    works_json(world, &format!("tokenize --run r {method}"));
}

fn assert_copies_have_the_codes_of_their_originals(world: &Place) {
    let codes = world.read_codes("r/catalog.json");
    assert_eq!(codes.len(), 2 * ITEMS);
    for i in 0..ITEMS {
        let (old, copy) = (&codes[&format!("item-{i}")], &codes[&format!("copy-{i}")]);
        assert_eq!(old[..3], copy[..3], "{i}");
        assert_ne!(old[3], copy[3], "{i}");
    }
}

/// Rows of the one matrix of a safetensors file, and the ids in its metadata.
pub(crate) fn rows(path: &Path) -> (Vec<Vec<f32>>, Option<Vec<String>>) {
    let bytes = fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let ids = header.metadata().as_ref().unwrap().get("ids");
    let ids = ids.map(|ids| serde_json::from_str(ids).unwrap());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("vectors").unwrap();
    let values: Vec<f32> =
        tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (values.chunks(tensor.shape()[1]).map(<[f32]>::to_vec).collect(), ids)
}

/// Copies a golden encoder into a world.
fn copy_encoder(name: &str, to: &Path) {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::create_dir_all(to).unwrap();
        fs::copy(golden_encoder(name).join(file), to.join(file)).unwrap();
    }
}

#[test]
fn the_same_text_has_the_same_tf_idf_vector_bit_for_bit_and_the_same_codes() {
    let world = new_world();
    works_json(&world, "embed --run r --dimensions 8 --max-words 2");
    tokenize(&world);
    let report = works_json(&world, "embed --run r --texts copies.jsonl --out copies.safetensors");
    assert_eq!(report, json!({"texts": ITEMS, "dimensions": 8, "zero_vectors": 0}));
    let (copies, ids) = rows(&world.join("copies.safetensors"));
    assert_eq!(copies, rows(&world.join("r/vectors.safetensors")).0);
    assert_eq!(ids.unwrap()[..2], ["copy-0", "copy-1"]);
    assert!(!world.join("copies.safetensors.tigret.partial").exists());

    let assigned = works_json(&world, "tokenize --run r --assign copies.jsonl");
    assert_eq!((&assigned["new"], &assigned["zero_vectors"]), (&json!(ITEMS), &json!(0)));
    assert_copies_have_the_codes_of_their_originals(&world);
    let items = world.read("r/items.jsonl");
    let copy = items.lines().find(|line| line.contains("copy-1\"")).unwrap();
    let copy: Value = serde_json::from_str(copy).unwrap();
    assert_eq!(copy["text"], "blue lamp tea. By b1.", "as `prepare` does it");
}

#[test]
fn a_pipe_is_refused_since_texts_are_read_twice() {
    use std::process::Stdio;

    use crate::tigret::fails;

    let world = new_world();
    works_json(&world, "embed --run r --dimensions 8");
    let line = "embed --run r --texts /dev/stdin --out new.safetensors";
    let said = fails(tigret(&world, line).stdin(Stdio::piped()));
    assert!(said.contains("/dev/stdin: is read twice, and is no file that keeps"), "{said}");
}

#[test]
fn a_text_with_the_id_is_made_alike_whatever_the_table_calls_it() {
    let world = Place::new();
    world.write_shop();
    let items = world.read("items.jsonl");
    world.write("products.jsonl", items.replace("\"id\"", "\"sku\""));
    let prepare = "prepare --run r --interactions log.csv --items products.jsonl --id-column sku";
    for recipe in [["--text-columns", "title,sku"], ["--text-template", "[{title}: ]{sku}"]] {
        succeeds(tigret(&world, prepare).args(recipe));
        works_json(&world, "embed --run r --dimensions 8 --min-texts 1");
        works_json(&world, "embed --run r --texts items.jsonl --out new.safetensors");
        let (made, again) =
            (rows(&world.join("r/vectors.safetensors")), rows(&world.join("new.safetensors")));
        assert_eq!(made.0, again.0, "{recipe:?}");
        let vectors: std::collections::BTreeSet<String> =
            made.0.iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(vectors.len(), 30, "ids are parts of the texts");
    }
}

#[test]
fn the_text_of_a_line_goes_before_its_fields_and_its_embedding_before_both() {
    let world = new_world();
    works_json(&world, "embed --run r --dimensions 8");
    tokenize(&world);
    let (vectors, _) = rows(&world.join("r/vectors.safetensors"));
    let original: Value =
        serde_json::from_str(world.read("r/items.jsonl").lines().nth(5).unwrap()).unwrap();
    let lines = [
        json!({"id": "text", "text": original["text"], "title": "quite another"}),
        json!({"id": "embedding", "text": "quite another", "embedding": vectors[5]}),
        json!({"id": "unknown", "text": "zyx wvu"}),
        json!({"id": 7, "title": fields(5)["title"], "brand": fields(5)["brand"]}),
    ];
    world.write("new.jsonl", lines.map(|line| format!("{line}\n")).concat());
    let report = works_json(&world, "tokenize --run r --assign new.jsonl");
    assert_eq!((&report["new"], &report["zero_vectors"]), (&json!(4), &json!(1)));
    let codes = world.read_codes("r/catalog.json");
    for id in ["text", "embedding", "7"] {
        assert_eq!(codes[id][..3], codes["item-5"][..3], "{id}");
    }
    // Where there are vectors for all, none is encoded.
    works_json(&world, "embed --run r --texts new.jsonl --out new.safetensors");
    fs::remove_file(world.join("r/encoder.safetensors")).unwrap();
    let again = works_json(&world, "tokenize --run r --assign new.jsonl --vectors new.safetensors");
    assert_eq!(again["known"], json!(4));
}

#[test]
fn a_sentence_encoder_is_found_again_and_refused_when_it_is_gone_or_has_changed() {
    let world = new_world();
    copy_encoder("bert", &world.join("model"));
    works_json(&world, "embed --run r --encoder model --device cpu");
    tokenize(&world);
    works_json(&world, "tokenize --run r --assign copies.jsonl");
    assert_copies_have_the_codes_of_their_originals(&world);
    works_json(&world, "embed --run r --texts copies.jsonl --out a.safetensors --device cpu");
    let (found, _) = rows(&world.join("a.safetensors"));
    let (expected, _) = rows(&world.join("r/vectors.safetensors"));
    let off = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) < 1e-6);

    fs::rename(world.join("model"), world.join("moved")).unwrap();
    world.write("one.jsonl", line("one", 1));
    for command in [
        "tokenize --run r --assign one.jsonl",
        "embed --run r --texts one.jsonl --out o.safetensors",
    ] {
        let error = refused(&world, command);
        assert!(error.contains("model: made the vectors of this run and is not there"), "{error}");
    }
    works_json(
        &world,
        "embed --run r --texts one.jsonl --out o.safetensors --encoder moved --device cpu",
    );
    copy_encoder("mpnet", &world.join("model"));
    let error = refused(&world, "tokenize --run r --assign one.jsonl");
    assert!(error.contains("one.jsonl:1: has no \"embedding\""), "{error}");
    assert!(error.contains("is not the encoder that made the vectors of this run"), "{error}");
    assert!(!world.read_codes("r/catalog.json").contains_key("one"));
}

#[test]
fn texts_that_cannot_be_encoded_are_refused_with_what_to_do() {
    let world = new_world();
    let vectors: String = (0..ITEMS).map(|i| format!("item-{i}\n")).collect();
    world.write("ids.txt", vectors);
    world.write_matrix("v.safetensors", 2, (0..2 * ITEMS).map(|i| (i as f32).sin()));

    let embed = "embed --run r --texts copies.jsonl --out new.safetensors";
    let error = refused(&world, embed);
    assert!(
        error.contains("encoder.safetensors: not found; make it with `tigret embed`"),
        "{error}"
    );
    works_json(&world, "embed --run r --vectors v.safetensors --ids ids.txt");
    tokenize(&world);
    let error = refused(&world, embed);
    assert!(
        error.contains("was made by another program, which has to encode new texts"),
        "{error}"
    );
    let error = refused(&world, "tokenize --run r --assign copies.jsonl");
    assert!(error.contains("copies.jsonl:1: has no \"embedding\" of 2 numbers"), "{error}");
    assert!(error.contains("takes their vectors with --vectors, or as"), "{error}");

    // Embedded again, not tokenized again: the codes would be of another space.
    works_json(&world, "embed --run r --dimensions 2");
    let error = refused(&world, "tokenize --run r --assign copies.jsonl");
    assert!(error.contains("was trained on vectors of another encoder"), "{error}");
    tokenize(&world);
    // Nor are vectors taken that say that they are of another one.
    works_json(&world, "embed --run r --dimensions 2 --seed 1");
    works_json(&world, "embed --run r --texts copies.jsonl --out other.safetensors");
    let error =
        refused(&world, "tokenize --run r --assign copies.jsonl --vectors other.safetensors");
    assert!(error.contains("other.safetensors: has vectors of the encoder tf-idf+svd:"), "{error}");
    world.write("inline.jsonl", "{\"id\": \"new\", \"text\": \"x\", \"embedding\": [1, 2]}\n");
    let error = refused(&world, "tokenize --run r --assign inline.jsonl");
    assert!(error.contains("was trained on vectors of another encoder"), "{error}");
    works_json(&world, "embed --run r --dimensions 2");
    for (text, reason) in [
        (
            "{\"id\": 1}\n",
            "item \"1\" has no text; give \"text\", or one of the fields title, brand",
        ),
        ("{\"id\": 1, \"text\": \" \"}\n", "item \"1\" has no text"),
        ("{\"id\": 1, \"embedding\": \"x\"}\n", "\"embedding\" is not a list of numbers"),
        ("{\"id\": 1, \"embedding\": [1]}\n", "has 1 numbers, the tokenizer was trained on 2"),
    ] {
        world.write("bad.jsonl", text);
        let error = refused(&world, "tokenize --run r --assign bad.jsonl");
        assert!(error.contains("bad.jsonl:1: ") && error.contains(reason), "{error}");
    }
    world.write("bad.jsonl", "");
    let error = refused(&world, "embed --run r --texts bad.jsonl --out new.safetensors");
    assert!(error.contains("bad.jsonl: has no items"), "{error}");
    let error = refused(&world, "embed --run r --texts copies.jsonl --out new.npy");
    assert!(error.contains("must end in .safetensors"), "{error}");
    // Not over a file that is something else, and over its own.
    world.write("bundle.safetensors", "a bundle");
    let error = refused(&world, "embed --run r --texts copies.jsonl --out bundle.safetensors");
    assert!(error.contains("is there already and holds no vectors of texts"), "{error}");
    // Vectors of another run are not those of these texts.
    fs::copy(world.join("r/vectors.safetensors"), world.join("another.safetensors")).unwrap();
    let error = refused(&world, "embed --run r --texts copies.jsonl --out another.safetensors");
    assert!(error.contains("is there already and holds no vectors of texts"), "{error}");
    let own = "embed --run r --texts copies.jsonl --out own.safetensors";
    works_json(&world, own);
    works_json(&world, own);
    // Unfinished work is known by its header: of these texts it is taken up, of others begun anew.
    let whole = fs::read(world.join("own.safetensors")).unwrap();
    let partial = world.join("own.safetensors.tigret.partial");
    fs::write(&partial, "a diary").unwrap();
    let error = refused(&world, own);
    let reason = "own.safetensors.tigret.partial: is there already and holds no unfinished work";
    assert!(error.contains(reason), "{error}");
    assert_eq!(fs::read(&partial).unwrap(), b"a diary");
    world.write("one.jsonl", line("one", 1));
    works_json(&world, "embed --run r --texts one.jsonl --out one.safetensors");
    let other = fs::read(world.join("one.safetensors")).unwrap();
    for work in
        [&whole[..0], &whole[..20], &whole[..whole.len() - 3], &other, &other[..other.len() - 3]]
    {
        fs::write(&partial, work).unwrap();
        works_json(&world, own);
        assert_eq!(fs::read(world.join("own.safetensors")).unwrap(), whole);
        assert!(!partial.exists());
    }
    let before = fs::read(world.join("r/vectors.safetensors")).unwrap();
    let error = refused(&world, "embed --run r --texts copies.jsonl --out r/vectors.safetensors");
    assert!(error.contains("vectors.safetensors: is a file of the run "), "{error}");
    assert_eq!(fs::read(world.join("r/vectors.safetensors")).unwrap(), before);
    let error =
        refused(&world, "embed --run r --texts copies.jsonl --out new.safetensors --encoder x");
    assert!(error.contains("are of TF-IDF, which the run holds itself"), "{error}");
    assert!(!world.join("new.safetensors").exists());
    // A run of before the recipe was kept.
    let mut summary = world.read_json("r/dataset.json");
    assert_eq!(summary["text"], json!({"template": TEMPLATE}));
    summary.as_object_mut().unwrap().remove("text");
    world.write("r/dataset.json", summary.to_string());
    let error = refused(&world, embed);
    assert!(error.contains("dataset.json does not say how to make it"), "{error}");
}

#[test]
fn a_column_text_of_the_source_is_what_it_was_for_the_items_of_the_run() {
    let world = Place::new();
    let lines = |name: &str| -> String {
        (0..ITEMS)
            .map(|i| {
                let mut line = fields(i);
                line["id"] = format!("{name}-{i}").into();
                line["text"] = format!("made of {}", fields((i * 7 + 3) % ITEMS)["title"]).into();
                format!("{line}\n")
            })
            .collect()
    };
    world.write("items.jsonl", lines("item"));
    world.write("copies.jsonl", lines("copy"));
    let users: String =
        (0..40).map(|u| format!("u{u} item-{u} item-{} item-{}\n", u + 1, u + 20)).collect();
    world.write("s.txt", users);
    let prepare = "prepare --run r --sequences s.txt --items items.jsonl";
    let noted = |more: &str| {
        let command = format!("{prepare} {more}");
        succeeds(&mut tigret(&world, &command)).1.contains("the items have a column \"text\"")
    };
    assert!(noted("--text-columns title") && noted(""));
    assert!(!noted("--text-template [{title}:][{text}]"));
    assert!(!noted("--text-columns title,text"));
    let items = world.read("r/items.jsonl");
    let first: Value = serde_json::from_str(items.lines().next().unwrap()).unwrap();
    let title = fields(0)["title"].clone();
    let text = format!("{}. made of {}.", title.as_str().unwrap(), fields(3)["title"]);
    assert_eq!(first["text"], text);
    assert_eq!(items.lines().next().unwrap().matches("\"text\":").count(), 1);

    works_json(&world, "embed --run r --dimensions 8");
    tokenize(&world);
    works_json(&world, "tokenize --run r --assign copies.jsonl");
    assert_copies_have_the_codes_of_their_originals(&world);
    let items = world.read("r/items.jsonl");
    let copy: Value =
        serde_json::from_str(items.lines().find(|line| line.contains("copy-0\"")).unwrap())
            .unwrap();
    assert_eq!(copy["text"], text);
}

#[test]
fn a_page_gets_no_tokenizer_of_another_encoder_than_the_runs() {
    let world = new_world();
    works_json(&world, "embed --run r --dimensions 8");
    tokenize(&world);
    works_json(&world, "train --run r --preset tiny --epochs 1");
    let export = "export --run r --with-tokenizer --out m.safetensors";
    works_json(&world, export);
    // The same again changes nothing.
    works_json(&world, "embed --run r --dimensions 8");
    works_json(&world, export);
    works_json(&world, "embed --run r --dimensions 8 --max-words 2");
    let error = refused(&world, export);
    assert!(error.contains("tokenizer.safetensors: was trained on vectors of another"), "{error}");
    works_json(&world, "export --run r --out m.safetensors");
    // Who gives vectors knows what they are.
    fs::copy(world.join("r/vectors.safetensors"), world.join("v.safetensors")).unwrap();
    works_json(&world, "embed --run r --vectors v.safetensors");
    works_json(&world, export);
}

#[test]
fn prepare_says_that_vectors_are_of_texts_of_another_kind() {
    let world = new_world();
    let prepare = |template: &str| {
        let line = "prepare --run r --sequences s.txt --items items.jsonl --text-template";
        succeeds(tigret(&world, line).arg(template)).1
    };
    let note = "the items' texts are made in another way than before";
    assert!(!prepare("{title}").contains(note), "there are no vectors");
    works_json(&world, "embed --run r --dimensions 8");
    assert!(!prepare("{title}").contains(note));
    let said = prepare(TEMPLATE);
    assert!(said.contains(note) && said.contains("with the earlier --text-columns"), "{said}");
}
