//! `tigret prepare` and `tigret embed` as a user meets them: formats, tables, exit statuses.

use std::path::Path;

use serde_json::json;
use tigret_train::data::Dataset;
use tigret_train::embed::Vectors;
use tigret_train::run_dir::RunDir;

use crate::tigret::{Place, refuses, tigret, works, works_json};

fn load(place: &Path, run: &str) -> Dataset {
    Dataset::load(&RunDir::open(place.join(run)).unwrap()).unwrap()
}

/// User and item ids of every sequence.
fn sequences(dataset: &Dataset) -> Vec<String> {
    let id = |&at: &u32| dataset.items[at as usize].id.as_str();
    dataset
        .sequences
        .iter()
        .map(|s| format!("{}: {}", s.user, s.items.iter().map(id).collect::<Vec<_>>().join(" ")))
        .collect()
}

const ITEMS_JSONL: &str = r#"{"id": 1, "asin": "A1", "title": "Red lamp", "brand": null, "categories": [["Home", "Lamps"], ["Gifts"]], "keywords": "red"}
{"id": 2, "asin": "A2", "title": "Blue lamp!", "brand": "Lux", "categories": [], "keywords": ""}
{"id": 3, "asin": "A3", "title": null, "brand": "Lux", "categories": [["Home"]], "keywords": "chair"}
{"id": 4, "asin": "A4", "title": "Never bought", "brand": null, "categories": null, "keywords": null}
"#;

#[test]
fn the_research_format_keeps_order_and_text() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("sequences.txt", "7 1 2 3\n\n8 3 2\n9 2 1 3 1\n");
    let table = works(&place, "prepare --run r --sequences sequences.txt --items items.jsonl");
    assert!(table.contains("users                            2"), "{table}");
    let dataset = load(&place, "r");
    assert_eq!(sequences(&dataset), ["7: 1 2 3", "9: 2 1 3 1"], "a user with two items goes");
    let texts: Vec<&str> = dataset.items.iter().map(|item| item.text.as_str()).collect();
    assert_eq!(
        texts,
        ["Red lamp. Home, Lamps; Gifts. red.", "Blue lamp! Lux.", "Lux. Home. chair."]
    );
    assert!(!dataset.items[0].fields.contains_key("brand"), "null fields are left out");
    assert_eq!(dataset.items[0].fields["asin"], "A1");

    works(
        &place,
        "prepare --run r --sequences sequences.txt --items items.jsonl --id-column asin \
         --text-columns keywords,title",
    );
    let dataset = load(&place, "r");
    assert_eq!(sequences(&dataset), ["7: A1 A2 A3", "9: A2 A1 A3 A1"]);
    assert_eq!(dataset.items[0].text, "red. Red lamp.");

    let prepare = "prepare --run r --sequences sequences.txt --items items.jsonl";
    let table = works(&place, &format!("{prepare} --text-columns title"));
    assert!(table.contains("items without text               1"), "{table}");
    let report = works_json(&place, &format!("{prepare} --text-template {{title}}"));
    assert_eq!(report["without_text"], 1);
    assert!(works_json(&place, prepare).get("without_text").is_none());
}

#[test]
fn the_category_of_a_table_is_in_the_text_under_either_name() {
    let place = Place::new();
    place.write("items.csv", "id,title,category\n1,Red lamp,Lamps\n2,Stool,\n3,Mug,Kitchen\n");
    place.write("s.txt", "7 1 2 3\n");
    works(&place, "prepare --run r --sequences s.txt --items items.csv");
    let texts: Vec<String> = load(&place, "r").items.into_iter().map(|item| item.text).collect();
    assert_eq!(texts, ["Red lamp. Lamps.", "Stool.", "Mug. Kitchen."]);
}

#[test]
fn a_log_reads_the_same_from_csv_tsv_and_jsonl() {
    let place = Place::new();
    // u2's b and c have the same time and keep the order of the lines.
    let lines = [
        ("u1", "c", "30"),
        ("u2", "a", "9"),
        ("u1", "b", "20.5"),
        ("u2", "b", "10"),
        ("u2", "c", "10"),
        ("u1", "a", "-5"),
    ];
    let delimited = |separator: &str| {
        let row =
            |(user, item, time): &(&str, &str, &str)| [*time, "x", *user, *item].join(separator);
        let header = ["when", "other", "who", "what"].join(separator);
        let rows: Vec<String> = std::iter::once(header).chain(lines.iter().map(row)).collect();
        rows.join("\n")
    };
    place.write("log.csv", delimited(","));
    place.write("log.tsv", delimited("\t"));
    let line = |(user, item, time): &(&str, &str, &str)| {
        format!("{{\"who\": \"{user}\", \"what\": \"{item}\", \"when\": {time}}}\n")
    };
    place.write("log.jsonl", lines.iter().map(line).collect::<String>());
    place.write("items.csv", "sku,name,note\nc,Sea,\na,\"Apple, red\",n\nb,Bee,\nd,Unused,\n");
    for log in ["log.csv", "log.tsv", "log.jsonl"] {
        works(
            &place,
            &format!(
                "prepare --run r --interactions {log} --user-column who --item-column what \
             --time-column when --items items.csv --id-column sku --text-columns name,note --k-core 0"
            ),
        );
        let dataset = load(&place, "r");
        assert_eq!(sequences(&dataset), ["u1: a b c", "u2: a b c"], "{log}");
        let items: Vec<_> =
            dataset.items.iter().map(|i| (i.id.as_str(), i.text.as_str())).collect();
        assert_eq!(items, [("c", "Sea."), ("a", "Apple, red. n."), ("b", "Bee.")], "{log}");
    }
}

#[test]
fn dates_order_a_log_and_the_core_is_five_by_default() {
    let place = Place::new();
    let mut log = String::from("user,item,timestamp\n");
    for user in 0..5 {
        for item in 0..5 {
            // Later items are written first.
            log += &format!("u{user},i{},2020-01-0{}T00:00:00+0{user}:00\n", 4 - item, 5 - item);
        }
    }
    log += "u0,rare,2021-01-01T00:00:00Z\n";
    place.write("log.csv", &log);
    let item = |id: &str| format!("{{\"id\": \"{id}\", \"title\": \"{id}\"}}\n");
    let items: String = ["i0", "i1", "i2", "i3", "i4", "rare"].map(item).concat();
    place.write("items.jsonl", &items);
    let prepare = "prepare --run r --interactions log.csv --items items.jsonl";
    let mut report = works_json(&place, prepare);
    assert_eq!((&report["users"], &report["items"]), (&5.into(), &5.into()));
    assert_eq!((&report["interactions"], &report["k_core"]), (&25.into(), &5.into()));
    let left = json!({"users": 0, "items": 1, "interactions": 1});
    assert_eq!(report["left_by_core"], left);
    assert_eq!(sequences(&load(&place, "r"))[0], "u0: i0 i1 i2 i3 i4");
    let times = report.as_object_mut().unwrap().remove("times");
    let expected = json!(["2019-12-31T20:00:00Z", "2021-01-01T00:00:00Z"]);
    assert_eq!(times, Some(expected));
    assert_eq!(place.read_json("r/dataset.json"), report);
}

#[test]
fn wrong_input_names_file_and_line_and_writes_nothing() {
    let items = ("items.jsonl", ITEMS_JSONL);
    let log = "user,item,timestamp\nu,1,5\n";
    for (files, arguments, expected) in [
        (vec![items, ("s.txt", "1 1 2\n2 1 99\n")], "--sequences s.txt", "s.txt:2: item \"99\""),
        (vec![items, ("s.txt", "1 1 2\n1 1 2\n")], "--sequences s.txt", "s.txt:2: user \"1\""),
        (vec![items, ("s.txt", "1\n")], "--sequences s.txt", "s.txt:1: user \"1\" has no items"),
        (vec![items], "--sequences none.txt", "none.txt: not found"),
        (
            vec![("items.jsonl", "{\"id\": 1}\n{\"id\": 1}\n"), ("s.txt", "1 1 1 1")],
            "--sequences s.txt",
            "items.jsonl:2: id \"1\" stands already on line 1",
        ),
        (
            vec![("items.jsonl", "{\"id\": 1}\n[2]\n"), ("s.txt", "1 1 1 1")],
            "--sequences s.txt",
            "items.jsonl:2: is not a JSON object",
        ),
        (
            vec![("items.jsonl", "{\"asin\": 1}\n"), ("s.txt", "1 1 1 1")],
            "--sequences s.txt",
            "items.jsonl:1: no \"id\" that is a string or a number; the sequences name items by it, so",
        ),
        (
            vec![("items.jsonl", "{\"id\": 1}\n"), ("s.txt", "1 1 1 1")],
            "--sequences s.txt --id-column sku",
            "items.jsonl:1: no \"sku\" that is a string or a number; name the id column with --id-col",
        ),
        (
            vec![items, ("s.txt", "1 1 1 1")],
            "--sequences s.txt --text-columns title,colour",
            "items.jsonl: no item has the text column \"colour\"",
        ),
        (
            vec![items, ("s.txt", "1 1 2\n")],
            "--sequences s.txt",
            "no user is left: no user has 3 items; give more data",
        ),
        (
            vec![items, ("s.txt", "1 1 2 3\n")],
            "--sequences s.txt --k-core 4",
            "no user is left: the 4-core is empty or no user has 3 items; lower --k-core",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\n")],
            "--interactions l.csv",
            "no user is left: there are no interactions in the data; check the file",
        ),
        (
            vec![items, ("l.jsonl", "\n")],
            "--interactions l.jsonl",
            "no user is left: there are no interactions in the data; check the file",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp,stars\nu,9,5,5\nu,8,5,5\nu,1,5,3\n")],
            "--interactions l.csv --skip-unknown-items --rating-column stars --min-rating 4",
            "no user is left: all 3 interactions were left out, 2 of items that the items file does \
             not have, 1 below --min-rating",
        ),
        (
            vec![items, ("l.csv", log)],
            "--interactions l.csv --user-column who",
            "l.csv:1: no column \"who\" among user, item, timestamp; name the column with --user-column",
        ),
        (
            vec![items, ("l.csv", "user;item;timestamp\nu;1;5\n")],
            "--interactions l.csv",
            "l.csv:1: its columns are separated by semicolons; save it with commas",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\nu,1,5\nu,1\n")],
            "--interactions l.csv",
            "l.csv:3: has 2 columns, the header has 3",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\nu,1,5\n,1,6\n")],
            "--interactions l.csv",
            "l.csv:3: \"user\" is empty",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\nu,1,5\nu,1,soon\n")],
            "--interactions l.csv",
            "l.csv:3: time \"soon\" is neither a number nor a date such as 2024-05-21, 2024-",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\nu,1,5\nu,1,2020-01-01T00:00:00Z\n")],
            "--interactions l.csv",
            "l.csv:3: the time is a date, on line 2 it is a number",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\nu,1,5\nu,9,6\n")],
            "--interactions l.csv",
            "l.csv:3: item \"9\" is not in items.jsonl; add it there or pass --skip-unknown-items",
        ),
        (
            vec![items, ("l.csv", "user,user,item,timestamp\n")],
            "--interactions l.csv",
            "l.csv:1: column \"user\" stands twice",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\r\nu,1,5\r\nu,1,soon\r\nu,1,6\r\n")],
            "--interactions l.csv",
            "l.csv:3: time \"soon\"",
        ),
        (
            vec![items, ("l.csv", "user,item,timestamp\r\nu,1,5\r\n\r\nu,1")],
            "--interactions l.csv",
            "l.csv:4: has 2 columns",
        ),
        (
            vec![items, ("l.csv", "\nuser,item,timestamp\n\n\nu,1,5\nu,1,soon")],
            "--interactions l.csv",
            "l.csv:6: time \"soon\"",
        ),
        (
            vec![items, ("l.csv", "user,item,note,timestamp\r\nu,1,\"a\r\nb\",5\r\nu,1,,soon")],
            "--interactions l.csv",
            "l.csv:4: time \"soon\"",
        ),
        (
            vec![("s.txt", ""), ("i.csv", "id,title\r\n1,a\r\n\r\n1,b\r\n")],
            "--sequences s.txt --items i.csv",
            "i.csv:4: id \"1\" stands already on line 2",
        ),
        (vec![items, ("l.csv", "")], "--interactions l.csv", "l.csv: is empty"),
        (vec![items, ("l.txt", log)], "--interactions l.txt", "l.txt: its extension"),
        (
            vec![items, ("l.jsonl", "{\"user\": 1, \"item\": 1}\n")],
            "--interactions l.jsonl",
            "l.jsonl:1: no \"timestamp\"",
        ),
        (
            vec![items, ("l.jsonl", "{\"user\": 1,\n")],
            "--interactions l.jsonl",
            "l.jsonl:1: is not a JSON object",
        ),
    ] {
        let place = Place::new();
        files.iter().for_each(|(name, text)| place.write(name, text));
        let items = if arguments.contains("--items") { "" } else { "--items items.jsonl" };
        let error = refuses(&place, &format!("prepare --run r {items} {arguments}"));
        assert!(error.contains(expected), "\"{error}\" does not say \"{expected}\"");
        assert!(!place.join("r").exists(), "nothing may be written: {expected}");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_by_line() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("s.txt", b"1 1 2 3\n2 1 \xff 3\n");
    place.write("l.csv", b"user,item,timestamp\nu,1,5\n\xff,1,6\n");
    let error = refuses(&place, "prepare --run r --items items.jsonl --sequences s.txt");
    assert!(error.contains("s.txt:2: is not UTF-8 text"), "{error}");
    let error = refuses(&place, "prepare --run r --items items.jsonl --interactions l.csv");
    assert!(error.contains("l.csv:3: is not UTF-8 text; save the file as UTF-8"), "{error}");
    let utf_16: Vec<u8> =
        "\u{feff}user,item,timestamp\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    place.write("l.csv", utf_16);
    let error = refuses(&place, "prepare --run r --items items.jsonl --interactions l.csv");
    assert!(error.contains("l.csv: is UTF-16 text; save it as UTF-8"), "{error}");
    place.write("l.csv", b"\x1f\x8b\x08");
    let error = refuses(&place, "prepare --run r --items items.jsonl --interactions l.csv");
    assert!(error.contains("l.csv: is packed by gzip; let its name end in .gz"), "{error}");
    let error = refuses(&place, "prepare --run s.txt --items items.jsonl --sequences s.txt");
    assert!(error.contains("s.txt: is a file; name a folder for the run"), "{error}");
}

#[test]
fn unknown_items_can_be_skipped_and_are_counted() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("l.csv", "user,item,timestamp\nu,1,5\nu,9,6\nu,2,7\nu,8,8\nu,3,9\n");
    let report = works_json(
        &place,
        "prepare --run r --items items.jsonl --interactions l.csv --skip-unknown-items --k-core 0",
    );
    assert_eq!(report["skipped_lines"], 2);
    assert_eq!(sequences(&load(&place, "r")), ["u: 1 2 3"]);
}

#[test]
fn lines_that_lack_something_can_be_skipped_and_are_counted() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("l.csv", "user,item,timestamp\nu,1,5\n,2,6\nu,2,7\nu,,8\nu,3,9\nu,3,\n");
    let line = |rest: &str| format!("{{\"item\": 1, \"timestamp\": 5{rest}}}\n");
    let lines = [", \"user\": \"u\"", "", ", \"user\": null", ", \"user\": \"\""].map(line);
    let whole = [(2, 7), (3, 9)].map(|(item, time)| {
        format!("{{\"user\": \"u\", \"item\": {item}, \"timestamp\": {time}}}\n")
    });
    place.write("l.jsonl", [lines.concat(), whole.concat()].concat());
    for log in ["l.csv", "l.jsonl"] {
        let prepare =
            format!("prepare --run r --items items.jsonl --k-core 0 --interactions {log}");
        let error = refuses(&place, &prepare);
        assert!(error.contains(&format!("{log}:")) && error.contains("\"user\""), "{error}");
        let report = works_json(&place, &format!("{prepare} --skip-incomplete"));
        assert_eq!(report["incomplete_lines"], 3);
        assert_eq!(report["times"], json!(["5", "9"]));
        assert_eq!(sequences(&load(&place, "r")), ["u: 1 2 3"]);
    }
    // What no line has is misspelt, not lacking.
    let error = refuses(
        &place,
        "prepare --run r --items items.jsonl --interactions l.jsonl --skip-incomplete \
         --user-column visitor",
    );
    assert!(error.contains("no line has \"visitor\"; name the column with"), "{error}");
}

#[test]
fn an_interaction_without_a_rating_counts() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("l.csv", "user,item,timestamp,stars\nu,1,5,\nu,2,6,5\nu,4,7,1\nu,3,9, \n");
    let line = |item: u32, stars: &str| {
        format!("{{\"user\": \"u\", \"item\": {item}, \"timestamp\": {item}{stars}}}\n")
    };
    let lines = [(1, ""), (2, ", \"stars\": 5"), (4, ", \"stars\": 1"), (3, ", \"stars\": null")];
    let lines = lines.map(|(item, stars)| line(item, stars)).concat();
    place.write("l.jsonl", &lines);
    for log in ["l.csv", "l.jsonl"] {
        let prepare =
            format!("prepare --run r --items items.jsonl --interactions {log} --k-core 0");
        works(&place, &format!("{prepare} --rating-column stars --min-rating 2"));
        assert_eq!(sequences(&load(&place, "r")), ["u: 1 2 3"], "{log}");
        let error = refuses(&place, &format!("{prepare} --rating-column star --min-rating 2"));
        assert!(error.contains("name the column with --rating-column"), "{log}: {error}");
    }
    place.write("l.csv", "user,item,timestamp,stars\nu,1,5,good\n");
    let error = refuses(
        &place,
        "prepare --run r --items items.jsonl --interactions l.csv --rating-column stars \
         --min-rating 2",
    );
    assert!(error.contains("l.csv:2: rating \"good\" is not a number"), "{error}");
}

#[test]
fn sources_do_not_mix() {
    let place = Place::new();
    for arguments in [
        "prepare --run r",
        "prepare --run r --items i.jsonl",
        "prepare --run r --sequences s.txt",
        "prepare --run r --classics --items i.jsonl",
        "prepare --run r --classics --k-core 5",
        "prepare --run r --classics --sequences s.txt --items i.jsonl",
        "prepare --run r --sequences s.txt --items i.jsonl --readers 5",
    ] {
        let output = tigret(&place, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(!place.join("r").exists());
    }
}

#[test]
fn options_of_another_source_are_refused() {
    let place = Place::new();
    place.write("s.txt", "u a b c\n");
    place.write("i.jsonl", "{\"id\": \"a\", \"title\": \"A\"}\n");
    for options in [
        "--sequences s.txt --items i.jsonl --user-column u",
        "--sequences s.txt --items i.jsonl --skip-unknown-items",
        "--sequences s.txt --items i.jsonl --seed 3",
        "--interactions s.csv --items i.jsonl --readers 10",
        "--movielens ml --time-column t",
        "--classics --item-column i",
    ] {
        let prepare = format!("prepare --run r {options}");
        let output = tigret(&place, &prepare).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(error.contains("cannot be used with"), "{options}: {error}");
    }
}

#[test]
fn the_classics_are_marked_as_simulated_and_have_their_optimum() {
    let place = Place::new();
    let table = works(&place, "prepare --run r --classics --readers 200 --seed 3");
    assert!(table.contains("users (simulated)"), "{table}");
    let summary = place.read_json("r/dataset.json");
    assert_eq!((&summary["simulated"], &summary["seed"]), (&true.into(), &3.into()));
    let oracle = place.read_json("r/oracle.json");
    let figure = |name: &str| oracle[name].as_f64().unwrap();
    assert!(figure("recall@5") <= figure("recall@10") && figure("recall@10") < 1.0);
    assert!(figure("ndcg@5") <= figure("ndcg@10") && figure("ndcg@10") <= figure("recall@10"));

    // Another source in the same run: the optimum of the readers would be a lie there.
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("s.txt", "7 1 2 3\n");
    works(&place, "prepare --run r --sequences s.txt --items items.jsonl");
    assert!(!place.join("r/oracle.json").exists());
    assert_eq!(place.read_json("r/dataset.json")["simulated"], false);
}

fn vectors(run: &Path) -> Vectors {
    let run = RunDir::open(run).unwrap();
    Vectors::load(&run, &Dataset::load(&run).unwrap().items).unwrap()
}

#[test]
fn text_vectors_put_like_books_together() {
    let place = Place::new();
    works(&place, "prepare --run r --classics --readers 50");
    let report = works_json(&place, "embed --run r --dimensions 64");
    assert_eq!((&report["dimensions"], &report["zero_vectors"]), (&64.into(), &0.into()));
    let (dataset, found) = (load(&place, "r"), vectors(&place.join("r")));
    let likeness = |a: &str, b: &str| -> f32 {
        let row = |id| found.row(dataset.items.iter().position(|item| item.id == id).unwrap());
        row(a).iter().zip(row(b)).map(|(x, y)| x * y).sum()
    };
    let same = likeness("baum-ozma-of-oz", "baum-tik-tok-of-oz");
    let other = likeness("baum-ozma-of-oz", "zola-germinal");
    assert!(same > 0.8 && other < 0.3, "{same} and {other}");
    assert!((likeness("austen-emma", "austen-emma") - 1.0).abs() < 1e-5, "rows have length 1");
}

#[test]
fn vectors_of_another_encoder_are_taken_as_they_are() {
    let place = Place::new();
    place.write("items.jsonl", ITEMS_JSONL);
    place.write("s.txt", "7 1 2 3\n");
    works(&place, "prepare --run r --sequences s.txt --items items.jsonl");
    let mut npy = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    npy.extend(
        format!("{:<69}\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1), }").bytes(),
    );
    npy.extend([3.0f64, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()));
    place.write("v.npy", npy);
    // As some editors save it.
    place.write("ids.txt", "\u{feff}3\r\n1\r\n2\r\n");
    works(&place, "embed --run r --vectors v.npy --ids ids.txt");
    assert_eq!(vectors(&place.join("r")).data, [1.0, 2.0, 3.0]);
    works(&place, "embed --run r --vectors v.npy --ids ids.txt --normalize");
    assert_eq!(vectors(&place.join("r")).data, [1.0; 3]);

    place.write("ids.txt", "3\n1\nx\n");
    let error = refuses(&place, "embed --run r --vectors v.npy --ids ids.txt");
    assert!(error.contains("ids.txt: has no vector for 1 of 3 items, the first \"2\""), "{error}");
    assert_eq!(vectors(&place.join("r")).data, [1.0; 3], "the old vectors are still there");
}

#[test]
fn texts_without_a_common_term_are_refused() {
    let place = Place::new();
    place.write("items.jsonl", "{\"id\": 1, \"title\": \"a\"}\n{\"id\": 2}\n{\"id\": 3}\n");
    place.write("s.txt", "7 1 2 3\n");
    works(&place, "prepare --run r --sequences s.txt --items items.jsonl");
    let error = refuses(&place, "embed --run r");
    assert!(error.contains("items.jsonl: no term stands in enough texts"), "{error}");
    assert!(error.contains("lower --min-texts, or use --encoder or --vectors"), "{error}");
    let error = refuses(&place, "embed --run nowhere");
    assert!(error.contains("is not a run directory; make one with `tigret prepare`"), "{error}");
}
