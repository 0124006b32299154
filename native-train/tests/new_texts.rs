//! New items that have only text: encoded by the run's own encoder, by `embed --texts` and by
//! `tokenize --assign`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::tigret::{golden_encoder, refuses, succeeds, tigret, works_json};

const ITEMS: usize = 60;
const TEMPLATE: &str = "[{title}. ][By {brand}.]";

struct World(tempfile::TempDir);

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

impl World {
    /// A prepared run of [`ITEMS`] items with a template of its own.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let items: String = (0..ITEMS).map(|i| line(&format!("item-{i}"), i)).collect();
        fs::write(world.at("items.jsonl"), items).unwrap();
        let users: String = (0..40)
            .map(|u| {
                format!(
                    "u{u} {}\n",
                    [u, u + 1, u + 2, u + 20].map(|i| format!("item-{i}")).join(" ")
                )
            })
            .collect();
        fs::write(world.at("s.txt"), users).unwrap();
        let copies: String = (0..ITEMS).map(|i| line(&format!("copy-{i}"), i)).collect();
        fs::write(world.at("copies.jsonl"), copies).unwrap();
        let prepare = "prepare --run r --sequences s.txt --items items.jsonl --text-template";
        succeeds(tigret(world.0.path(), prepare).arg(TEMPLATE));
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ok(&self, arguments: &str) -> Value {
        works_json(self.0.path(), arguments)
    }

    fn refuse(&self, arguments: &str) -> String {
        refuses(self.0.path(), &format!("{arguments} --json"))
    }

    fn tokenize(&self) {
        self.ok("tokenize --run r --method rq-kmeans --codebook-size 4 --collision-size 200");
    }

    fn codes(&self) -> BTreeMap<String, Vec<u64>> {
        let file: Value =
            serde_json::from_str(&fs::read_to_string(self.at("r/catalog.json")).unwrap()).unwrap();
        let items = file["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| {
                let codes = item["codes"].as_array().unwrap();
                (
                    item["id"].as_str().unwrap().into(),
                    codes.iter().flat_map(Value::as_u64).collect(),
                )
            })
            .collect()
    }

    fn assert_copies_have_the_codes_of_their_originals(&self) {
        let codes = self.codes();
        assert_eq!(codes.len(), 2 * ITEMS);
        for i in 0..ITEMS {
            let (old, copy) = (&codes[&format!("item-{i}")], &codes[&format!("copy-{i}")]);
            assert_eq!(old[..3], copy[..3], "{i}");
            assert_ne!(old[3], copy[3], "{i}");
        }
    }
}

/// Rows of the one matrix of a safetensors file, and the ids in its metadata.
fn rows(path: &Path) -> (Vec<Vec<f32>>, Option<Vec<String>>) {
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
    let world = World::new();
    world.ok("embed --run r --dimensions 8 --max-words 2");
    world.tokenize();
    let report = world.ok("embed --run r --texts copies.jsonl --out copies.safetensors");
    assert_eq!(report, json!({"texts": ITEMS, "dimensions": 8, "zero_vectors": 0}));
    let (copies, ids) = rows(&world.at("copies.safetensors"));
    assert_eq!(copies, rows(&world.at("r/vectors.safetensors")).0);
    assert_eq!(ids.unwrap()[..2], ["copy-0", "copy-1"]);
    assert!(!world.at("copies.safetensors.partial").exists());

    let assigned = world.ok("tokenize --run r --assign copies.jsonl");
    assert_eq!((&assigned["new"], &assigned["zero_vectors"]), (&json!(ITEMS), &json!(0)));
    world.assert_copies_have_the_codes_of_their_originals();
    let items = fs::read_to_string(world.at("r/items.jsonl")).unwrap();
    let copy = items.lines().find(|line| line.contains("copy-1\"")).unwrap();
    let copy: Value = serde_json::from_str(copy).unwrap();
    assert_eq!(copy["text"], "blue lamp tea. By b1.", "as `prepare` does it");
}

#[test]
fn the_text_of_a_line_goes_before_its_fields_and_its_embedding_before_both() {
    let world = World::new();
    world.ok("embed --run r --dimensions 8");
    world.tokenize();
    let (vectors, _) = rows(&world.at("r/vectors.safetensors"));
    let original: Value = serde_json::from_str(
        fs::read_to_string(world.at("r/items.jsonl")).unwrap().lines().nth(5).unwrap(),
    )
    .unwrap();
    let lines = [
        json!({"id": "text", "text": original["text"], "title": "quite another"}),
        json!({"id": "embedding", "text": "quite another", "embedding": vectors[5]}),
        json!({"id": "unknown", "text": "zyx wvu"}),
        json!({"id": 7, "title": fields(5)["title"], "brand": fields(5)["brand"]}),
    ];
    fs::write(world.at("new.jsonl"), lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let report = world.ok("tokenize --run r --assign new.jsonl");
    assert_eq!((&report["new"], &report["zero_vectors"]), (&json!(4), &json!(1)));
    let codes = world.codes();
    for id in ["text", "embedding", "7"] {
        assert_eq!(codes[id][..3], codes["item-5"][..3], "{id}");
    }
    // Where there are vectors for all, none is encoded.
    world.ok("embed --run r --texts new.jsonl --out new.safetensors");
    fs::remove_file(world.at("r/encoder.safetensors")).unwrap();
    let again = world.ok("tokenize --run r --assign new.jsonl --vectors new.safetensors");
    assert_eq!(again["known"], json!(4));
}

#[test]
fn a_sentence_encoder_is_found_again_and_refused_when_it_is_gone_or_has_changed() {
    let world = World::new();
    copy_encoder("bert", &world.at("model"));
    world.ok("embed --run r --encoder model --device cpu");
    world.tokenize();
    world.ok("tokenize --run r --assign copies.jsonl");
    world.assert_copies_have_the_codes_of_their_originals();
    world.ok("embed --run r --texts copies.jsonl --out a.safetensors --device cpu");
    let (found, _) = rows(&world.at("a.safetensors"));
    let (expected, _) = rows(&world.at("r/vectors.safetensors"));
    let off = found.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) < 1e-6);

    fs::rename(world.at("model"), world.at("moved")).unwrap();
    fs::write(world.at("one.jsonl"), line("one", 1)).unwrap();
    for command in [
        "tokenize --run r --assign one.jsonl",
        "embed --run r --texts one.jsonl --out o.safetensors",
    ] {
        let error = world.refuse(command);
        assert!(error.contains("model: made the vectors of this run and is not there"), "{error}");
    }
    world.ok("embed --run r --texts one.jsonl --out o.safetensors --encoder moved --device cpu");
    copy_encoder("mpnet", &world.at("model"));
    let error = world.refuse("tokenize --run r --assign one.jsonl");
    assert!(error.contains("one.jsonl:1: has no \"embedding\""), "{error}");
    assert!(error.contains("is not the encoder that made the vectors of this run"), "{error}");
    assert!(!world.codes().contains_key("one"));
}

#[test]
fn texts_that_cannot_be_encoded_are_refused_with_what_to_do() {
    let world = World::new();
    let vectors: String = (0..ITEMS).map(|i| format!("item-{i}\n")).collect();
    fs::write(world.at("ids.txt"), vectors).unwrap();
    let data: Vec<u8> = (0..2 * ITEMS).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![ITEMS, 2], &data);
    let none = std::collections::HashMap::new();
    let file = safetensors::serialize([("v", view.unwrap())], Some(none)).unwrap();
    fs::write(world.at("v.safetensors"), file).unwrap();

    let embed = "embed --run r --texts copies.jsonl --out new.safetensors";
    let error = world.refuse(embed);
    assert!(
        error.contains("encoder.safetensors: not found; make it with `tigret embed`"),
        "{error}"
    );
    world.ok("embed --run r --vectors v.safetensors --ids ids.txt");
    world.tokenize();
    let error = world.refuse(embed);
    assert!(
        error.contains("was made by another program, which has to encode new texts"),
        "{error}"
    );
    let error = world.refuse("tokenize --run r --assign copies.jsonl");
    assert!(error.contains("copies.jsonl:1: has no \"embedding\" of 2 numbers"), "{error}");
    assert!(error.contains("takes their vectors with --vectors, or as"), "{error}");

    // Embedded again, not tokenized again: the codes would be of another space.
    world.ok("embed --run r --dimensions 2");
    let error = world.refuse("tokenize --run r --assign copies.jsonl");
    assert!(error.contains("was trained on vectors of another encoder"), "{error}");
    world.tokenize();
    // Nor are vectors taken that say that they are of another one.
    world.ok("embed --run r --dimensions 2 --seed 1");
    world.ok("embed --run r --texts copies.jsonl --out other.safetensors");
    let error = world.refuse("tokenize --run r --assign copies.jsonl --vectors other.safetensors");
    assert!(error.contains("other.safetensors: has vectors of the encoder tf-idf+svd:"), "{error}");
    world.ok("embed --run r --dimensions 2");
    for (text, reason) in [
        (
            "{\"id\": 1}\n",
            "item \"1\" has no text; give \"text\", or one of the fields title, brand",
        ),
        ("{\"id\": 1, \"text\": \" \"}\n", "item \"1\" has no text"),
        ("{\"id\": 1, \"embedding\": \"x\"}\n", "\"embedding\" is not a list of numbers"),
        ("{\"id\": 1, \"embedding\": [1]}\n", "has 1 numbers, the tokenizer was trained on 2"),
    ] {
        fs::write(world.at("bad.jsonl"), text).unwrap();
        let error = world.refuse("tokenize --run r --assign bad.jsonl");
        assert!(error.contains("bad.jsonl:1: ") && error.contains(reason), "{error}");
    }
    fs::write(world.at("bad.jsonl"), "").unwrap();
    let error = world.refuse("embed --run r --texts bad.jsonl --out new.safetensors");
    assert!(error.contains("bad.jsonl: has no items"), "{error}");
    let error = world.refuse("embed --run r --texts copies.jsonl --out new.npy");
    assert!(error.contains("must end in .safetensors"), "{error}");
    // Not over a file that is something else, and over its own.
    fs::write(world.at("bundle.safetensors"), "a bundle").unwrap();
    let error = world.refuse("embed --run r --texts copies.jsonl --out bundle.safetensors");
    assert!(error.contains("is there already and holds no vectors of texts"), "{error}");
    // Vectors of another run are not those of these texts.
    fs::copy(world.at("r/vectors.safetensors"), world.at("another.safetensors")).unwrap();
    let error = world.refuse("embed --run r --texts copies.jsonl --out another.safetensors");
    assert!(error.contains("is there already and holds no vectors of texts"), "{error}");
    let own = "embed --run r --texts copies.jsonl --out own.safetensors";
    world.ok(own);
    world.ok(own);
    // Unfinished work is known by its header: of these texts it is taken up, of others begun anew.
    let whole = fs::read(world.at("own.safetensors")).unwrap();
    let partial = world.at("own.safetensors.partial");
    fs::write(&partial, "a diary").unwrap();
    let error = world.refuse(own);
    let reason = "own.safetensors.partial: is there already and holds no unfinished work";
    assert!(error.contains(reason), "{error}");
    assert_eq!(fs::read(&partial).unwrap(), b"a diary");
    fs::write(world.at("one.jsonl"), line("one", 1)).unwrap();
    world.ok("embed --run r --texts one.jsonl --out one.safetensors");
    let other = fs::read(world.at("one.safetensors")).unwrap();
    for work in
        [&whole[..0], &whole[..20], &whole[..whole.len() - 3], &other, &other[..other.len() - 3]]
    {
        fs::write(&partial, work).unwrap();
        world.ok(own);
        assert_eq!(fs::read(world.at("own.safetensors")).unwrap(), whole);
        assert!(!partial.exists());
    }
    let before = fs::read(world.at("r/vectors.safetensors")).unwrap();
    let error = world.refuse("embed --run r --texts copies.jsonl --out r/vectors.safetensors");
    assert!(error.contains("vectors.safetensors: is a file of the run "), "{error}");
    assert_eq!(fs::read(world.at("r/vectors.safetensors")).unwrap(), before);
    let error =
        world.refuse("embed --run r --texts copies.jsonl --out new.safetensors --encoder x");
    assert!(error.contains("are of TF-IDF, which the run holds itself"), "{error}");
    assert!(!world.at("new.safetensors").exists());
    // A run of before the recipe was kept.
    let summary = fs::read_to_string(world.at("r/dataset.json")).unwrap();
    let mut summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["text"], json!({"template": TEMPLATE}));
    summary.as_object_mut().unwrap().remove("text");
    fs::write(world.at("r/dataset.json"), summary.to_string()).unwrap();
    let error = world.refuse(embed);
    assert!(error.contains("dataset.json does not say how to make it"), "{error}");
}

#[test]
fn a_column_text_of_the_source_is_what_it_was_for_the_items_of_the_run() {
    let world = World(tempfile::tempdir().unwrap());
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
    fs::write(world.at("items.jsonl"), lines("item")).unwrap();
    fs::write(world.at("copies.jsonl"), lines("copy")).unwrap();
    let users: String =
        (0..40).map(|u| format!("u{u} item-{u} item-{} item-{}\n", u + 1, u + 20)).collect();
    fs::write(world.at("s.txt"), users).unwrap();
    let prepare = "prepare --run r --sequences s.txt --items items.jsonl";
    let noted = |more: &str| {
        let command = format!("{prepare} {more}");
        succeeds(&mut tigret(world.0.path(), &command))
            .1
            .contains("the items have a column \"text\"")
    };
    assert!(noted("--text-columns title") && noted(""));
    assert!(!noted("--text-template [{title}:][{text}]"));
    assert!(!noted("--text-columns title,text"));
    let items = fs::read_to_string(world.at("r/items.jsonl")).unwrap();
    let first: Value = serde_json::from_str(items.lines().next().unwrap()).unwrap();
    let title = fields(0)["title"].clone();
    let text = format!("{}. made of {}.", title.as_str().unwrap(), fields(3)["title"]);
    assert_eq!(first["text"], text);
    assert_eq!(items.lines().next().unwrap().matches("\"text\":").count(), 1);

    world.ok("embed --run r --dimensions 8");
    world.tokenize();
    world.ok("tokenize --run r --assign copies.jsonl");
    world.assert_copies_have_the_codes_of_their_originals();
    let items = fs::read_to_string(world.at("r/items.jsonl")).unwrap();
    let copy: Value =
        serde_json::from_str(items.lines().find(|line| line.contains("copy-0\"")).unwrap())
            .unwrap();
    assert_eq!(copy["text"], text);
}

#[test]
fn a_page_gets_no_tokenizer_of_another_encoder_than_the_runs() {
    let world = World::new();
    world.ok("embed --run r --dimensions 8");
    world.tokenize();
    world.ok("train --run r --preset tiny --epochs 1");
    let export = "export --run r --with-tokenizer --out m.safetensors";
    world.ok(export);
    // The same again changes nothing.
    world.ok("embed --run r --dimensions 8");
    world.ok(export);
    world.ok("embed --run r --dimensions 8 --max-words 2");
    let error = world.refuse(export);
    assert!(error.contains("tokenizer.safetensors: was trained on vectors of another"), "{error}");
    world.ok("export --run r --out m.safetensors");
    // Who gives vectors knows what they are.
    fs::copy(world.at("r/vectors.safetensors"), world.at("v.safetensors")).unwrap();
    world.ok("embed --run r --vectors v.safetensors");
    world.ok(export);
}
