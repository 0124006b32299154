//! `tigret inspect` on a run: the figures, the summary, and the page that is sent around.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tigret_infer::WeightFormat;
use tigret_infer::testing::{Shape, random_bundle, random_bundle_with_quantizer};
use tigret_train::data::Dataset;
use tigret_train::embed::Vectors;
use tigret_train::run_dir::RunDir;

use crate::tigret::{Place, refuses, works, works_json};

/// A title that tries everything at once.
const ATTACK: &str =
    "</title><script>alert(1)</script><img src=x onerror='alert(2)'>\" {{facts}} & \u{202e}cba";

fn inspect(folder: &Path, line: &str) -> String {
    works(folder, &format!("inspect {line}"))
}

fn refused(folder: &Path, line: &str) -> String {
    refuses(folder, &format!("inspect {line}"))
}

/// Eight items in two categories. The first code is the category, the second halves it; two
/// pairs share both codes, one of them also the text. Vectors point along an axis for each
/// category, the last one's nowhere.
fn write_run(root: &Path, title: &str) {
    let run = RunDir::create(root).unwrap();
    let mut items = String::new();
    let mut catalog = Vec::new();
    let codes =
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 2, 0], [3, 0, 0], [3, 0, 1], [3, 1, 0], [3, 2, 0]];
    for (item, codes) in codes.iter().enumerate() {
        let category = if item < 4 { "Tea" } else { "Salt & <b>pepper</b>" };
        let title = if item == 0 { title.to_owned() } else { format!("thing {item}") };
        let text = if item < 2 { "the same".to_owned() } else { title.clone() };
        let line = json!({"id": format!("i{item}"), "text": text, "title": title,
            "categories": [["Shop", category, format!("kind {}", item % 2)]]});
        items += &format!("{line}\n");
        catalog.push(json!({"id": format!("i{item}"), "codes": codes}));
    }
    let level = |offset: u32, size: u32| json!({"offset": offset, "size": size});
    let tokens = json!({"pad": 0, "eos": 1, "decoder_start": 0, "append_eos": true, "max_items": 4,
        "levels": [level(2, 4), level(6, 4), level(10, 2)], "users": null});
    fs::write(run.items(), items).unwrap();
    fs::write(run.catalog(), json!({ "items": catalog }).to_string()).unwrap();
    fs::write(run.tokens(), tokens.to_string()).unwrap();
    let items = Dataset::load_items(&run).unwrap();
    let axes = (0..8).flat_map(|item| match item {
        0..4 => [1.0, 0.0],
        4..7 => [0.0, 2.0],
        _ => [0.0, 0.0],
    });
    let vectors = Vectors { dimensions: 2, data: axes.collect() };
    vectors.save(&run, &items, "by hand", false).unwrap();
}

/// The file a tokenizer of any kind may leave.
fn write_log(root: &Path) {
    let report = json!({"settings": {"method": "rq-vae", "autoencoder": {"batch": 4}},
        "reconstruction": 0.125, "training": {"epochs": 3, "converged": true}, "seconds": 2.0});
    fs::write(root.join("tokenizer.json"), report.to_string()).unwrap();
    let line = |epoch: u32| {
        json!({"epoch": epoch, "loss": 1.0 / f64::from(epoch + 1), "revived": 1,
        "note": "codewords were <i>dead</i>"})
    };
    let lines: Vec<String> = (0..3).map(|epoch| line(epoch).to_string()).collect();
    fs::write(root.join("tokenizer.jsonl"), lines.join("\n")).unwrap();
}

#[test]
fn the_figures_of_a_run_made_by_hand() {
    let at = &Place::new();
    write_run(&at.join("r"), "thing 0");
    let found = works_json(at, "inspect r");
    let ids = &found["semantic_ids"];
    assert_eq!(ids["levels"][0], json!({"used": 2, "codewords": 4, "perplexity": 2.0}));
    assert_eq!(ids["levels"].as_array().unwrap().len(), 2);
    assert_eq!(
        ids["collisions"],
        json!({"items": 8, "unique_items": 4, "distinct": 6, "largest_group": 2})
    );
    assert_eq!(ids["same_text"], 2);
    assert_eq!(ids["group_sizes"], json!([{"size": 1, "groups": 4}, {"size": 2, "groups": 2}]));
    assert_eq!(ids["largest_groups"][0], json!({"codes": [0, 0], "ids": ["i0", "i1"]}));
    // The first code is the category; the second says nothing of it.
    let category = &ids["categories"][0];
    assert_eq!((&category["field"], &category["depth"]), (&json!("categories"), &json!(1)));
    let close = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-6, "{value} is not {expected}");
    };
    close(&category["prefixes"][0]["nmi"], 1.0);
    close(&category["prefixes"][0]["ami"], 1.0);
    close(&category["levels"][1]["nmi"], 0.0);
    // Seven items have a vector; within a category they are parallel, across at right angles.
    let neighbours = &ids["neighbours"];
    assert_eq!(neighbours["sampled"], 7);
    close(&neighbours["by_shared"][0]["mean_cosine"], 0.0);
    close(&neighbours["by_shared"][1]["mean_cosine"], 1.0);
    assert_eq!(neighbours["by_shared"][2]["pairs"], 4);
    close(&neighbours["by_shared"][1]["by_chance"], 18.0 / 42.0);
    assert_eq!((&ids["encoder"], &ids["dimensions"]), (&json!("by hand"), &json!(2)));
}

#[test]
fn the_summary_is_for_people() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    write_log(root);
    let text = inspect(at, "r");
    for expected in [
        "tokenizer   rq-vae, 2 levels of 4 codewords, converged after 3 epochs, \
         reconstruction error 0.125",
        "level 1     2 of 4 codewords used, perplexity 2.0",
        "unique      4 of 8 items (50.0 %) after 2 levels; the largest group has 2",
        "the first code tells 100 % of 2 values of \"categories\"",
        "look at     level 1 uses only 50.0 % of its codewords",
    ] {
        assert!(text.contains(expected), "no \"{expected}\" in:\n{text}");
    }
    assert!(!text.contains(['{', '}']), "{text}");
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    write_log(root);
    inspect(at, "r --html page.html");
    let page = at.read("page.html");
    assert_balanced(&page);
    for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "fetch("] {
        assert!(!page.contains(reference), "the page has {reference}");
    }
    for part in ["rq-vae", "Level 2", "ends at 0.333", "thing 3", "by hand", "Not measured"] {
        assert_eq!(page.contains(part), part != "Not measured", "{part}");
    }
    assert!(page.contains("codewords were &lt;i&gt;dead&lt;/i&gt;"));
    assert!(!at.join("page.html.tigret.partial").exists());
    inspect(at, "r --html new/folder/again.html");
    let again = at.join("new/folder/again.html");
    assert_eq!(fs::read_to_string(again).unwrap(), page);
    // It takes the place of an earlier one, and of an empty file.
    at.write("again.html", "");
    for _ in 0..2 {
        inspect(at, "r --html again.html");
        assert_eq!(at.read("again.html"), page);
    }
}

#[test]
fn a_group_is_mostly_of_a_category_that_more_than_half_of_it_has() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    let groups_with_one = || {
        inspect(at, "r --html page.html");
        let page = at.read("page.html");
        page.matches("</span>, mostly ").count()
    };
    assert_eq!(groups_with_one(), 2);
    let items = fs::read_to_string(root.join("items.jsonl")).unwrap();
    fs::write(root.join("items.jsonl"), items.replacen("Tea", "Salt & <b>pepper</b>", 1)).unwrap();
    assert_eq!(groups_with_one(), 1, "one of the first group's two is of another category");
}

#[test]
fn a_page_goes_through_a_link_and_into_no_device_or_pipe() {
    let at = &Place::new();
    write_run(&at.join("r"), "thing 0");
    inspect(at, "r --html page.html");
    let page = fs::read(at.join("page.html")).unwrap();
    at.write("page.html", "");
    std::os::unix::fs::symlink("page.html", at.join("link.html")).unwrap();
    inspect(at, "r --html link.html");
    assert!(at.join("link.html").is_symlink());
    assert_eq!(fs::read(at.join("page.html")).unwrap(), page);
    std::os::unix::fs::symlink("r/catalog.json", at.join("bad.html")).unwrap();
    assert!(refused(at, "r --html bad.html").contains("is a file of the run r"));
    assert!(Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
    assert!(refused(at, "r --html pipe").contains("pipe: is a device or a pipe"));
    assert!(!at.join("pipe").is_file());
}

#[test]
fn a_title_cannot_become_markup() {
    let at = &Place::new();
    // The attack stands in a collision group, the tree, a table, and among the neighbours; also
    // the run's own name is not ours.
    write_run(&at.join("r<i>&"), ATTACK);
    inspect(at, "r<i>& --html page.html");
    let page = at.read("page.html");
    assert_balanced(&page);
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("<title>Semantic IDs of r&lt;i&gt;&amp;</title>").count(), 1);
    for raw in ["<img", "<b>pepper", "<i>&", "onerror='", "\u{202e}"] {
        assert!(!page.contains(raw), "the page has {raw}");
    }
    assert!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() >= 3);
    assert!(page.contains("{{facts}}") && page.contains("Salt &amp; &lt;b&gt;pepper&lt;/b&gt;"));

    // And if it could, the page's policy would not run it: only the one script has that hash.
    let (_, script) = page.split_once("<script>").unwrap();
    let (script, _) = script.split_once("</script>").unwrap();
    let policy = format!("script-src 'sha256-{}'", base64(&Sha256::digest(script)));
    assert!(page.contains(&policy), "the policy should have {policy}");
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn what_is_not_there_is_named() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    fs::remove_file(root.join("vectors.safetensors")).unwrap();
    let items = fs::read_to_string(root.join("items.jsonl")).unwrap();
    fs::write(root.join("items.jsonl"), items.replace("categories", "colour")).unwrap();
    let text = inspect(at, "r --html page.html");
    assert!(text.contains("not there"), "{text}");
    let page = at.read("page.html");
    assert_balanced(&page);
    assert_eq!(page.matches("Not measured:").count(), 2);
    assert!(page.contains("make it with `tigret embed`"));
    assert!(page.contains("no log of losses"));
}

#[test]
fn before_there_are_semantic_ids_the_vectors_are_told_of() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    fs::write(root.join("dataset.json"), "{\"items\": 8}").unwrap();
    fs::remove_file(root.join("catalog.json")).unwrap();
    let text = inspect(at, "r");
    assert!(text.contains("vectors    2 dimensions, by hand"), "{text}");
    assert!(text.contains("not there  semantic IDs: make them with `tigret tokenize`"), "{text}");
    let found = works_json(at, "inspect r");
    assert_eq!(found["vectors"], json!({"dimensions": 2, "encoder": "by hand"}));
    fs::remove_file(root.join("vectors.safetensors")).unwrap();
    assert!(inspect(at, "r").contains("make it with `tigret embed`"));
}

#[test]
fn a_bundle_says_whether_it_carries_its_tokenizer() {
    let at = &Place::new();
    let plain = random_bundle(&Shape::default(), WeightFormat::Q8, 1).to_bytes().unwrap();
    let with = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    let method = with.quantizer().unwrap().config().method.clone();
    at.write("plain", plain);
    at.write("with", with.to_bytes().unwrap());
    assert!(inspect(at, "plain").contains("tokenizer  none"));
    assert!(inspect(at, "with").contains(&format!("tokenizer  {method}")));
    let json = |name: &str| works_json(at, &format!("inspect {name}"));
    assert_eq!(json("plain")["tokenizer"], Value::Null);
    assert_eq!(json("with")["tokenizer"], json!(method));
}

#[test]
fn codes_that_say_nothing_of_the_vectors_are_worth_a_look() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    assert!(!inspect(at, "r").contains("no more alike"));
    let run = RunDir::open(root).unwrap();
    let items = Dataset::load_items(&run).unwrap();
    // The halves of each category point away from each other, and each to one of the other.
    let data = (0..8).flat_map(|item| if item % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] });
    Vectors { dimensions: 2, data: data.collect() }.save(&run, &items, "by hand", false).unwrap();
    let text = inspect(at, "r");
    assert!(text.contains("items that share the first code are no more alike"), "{text}");
    // Those that share more than the first code are alike, and they share the first, too.
    let axis = [0, 0, 1, 2, 3, 3, 4, 5];
    let data = axis.iter().flat_map(|&at| (0..6).map(move |i| if i == at { 1.0 } else { 0.0 }));
    Vectors { dimensions: 6, data: data.collect() }.save(&run, &items, "by hand", false).unwrap();
    assert!(!inspect(at, "r").contains("no more alike"));
}

#[test]
fn bad_input_ends_with_one_line_and_status_2() {
    let at = &Place::new();
    let root = &at.join("r");
    write_run(root, "thing 0");
    let line = refused(at, "r --html r/tokens.json/page.html");
    assert!(line.contains("r/tokens.json"), "{line}");
    let items = fs::read_to_string(root.join("items.jsonl")).unwrap();
    for place in ["r/items.jsonl", "r/../r/evaluation.json", "r/model/page.html"] {
        let line = refused(at, &format!("r --html {place}"));
        assert!(line.contains(": is a file of the run r; choose another name"), "{line}");
    }
    assert_eq!(fs::read_to_string(root.join("items.jsonl")).unwrap(), items);
    // Nor over a file of anybody else's, such as a page of another kind.
    write_run(&at.join("other"), "thing 0");
    at.write("index.html", "<!doctype html><title>Semantic</title>");
    for place in ["index.html", "other/catalog.json"] {
        let before = fs::read(at.join(place)).unwrap();
        let line = refused(at, &format!("r --html {place}"));
        assert!(line.contains("is there already and is no report of `tigret inspect`"), "{line}");
        assert_eq!(fs::read(at.join(place)).unwrap(), before);
    }
    assert!(refused(at, "r --html other").contains("other: is a folder; name a file"));
    fs::write(root.join("tokenizer.jsonl"), "{\"epoch\": 0}\nnot json\n").unwrap();
    assert!(refused(at, "r").contains("tokenizer.jsonl:2:"));
    fs::remove_file(root.join("tokenizer.jsonl")).unwrap();
    fs::remove_file(root.join("catalog.json")).unwrap();
    let line = refused(at, "r --html page.html");
    assert!(line.contains("catalog.json") && line.contains("tigret tokenize"), "{line}");
    assert!(!at.join("page.html").exists());
    fs::create_dir(at.join("empty")).unwrap();
    assert!(refused(at, "empty").contains("tigret prepare"));
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    assert!(refused(at, "m --html page.html").contains("needs a run directory"));
}

/// Every element that is opened is closed, in order.
fn assert_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').unwrap();
        rest = after;
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('!') || tag.ends_with('/') => {}
            _ if ["meta", "br"].contains(&name) => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}>"),
            _ => open.push(name),
        }
        // What stands in these is no markup.
        if ["style", "script"].contains(&tag) {
            rest = &rest[rest.find(&format!("</{tag}")).unwrap()..];
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        let digit = |at: usize| match at <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
