//! Data as downloaded, through the command: small files of each format, written here.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::tigret::{fails, golden, prints_json, tigret};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with(".gz") {
            true => fs::write(path, gzip(bytes.as_ref())).unwrap(),
            false => fs::write(path, bytes).unwrap(),
        }
    }

    fn prepare(&self, line: &str) -> Command {
        tigret(self.0.path(), &format!("prepare --run run {line}"))
    }

    /// What `tigret prepare --run run … --json` prints.
    fn report(&self, line: &str) -> Value {
        prints_json(&mut self.prepare(line))
    }

    /// The same with a template.
    fn report_with(&self, template: &str, line: &str) -> Value {
        prints_json(self.prepare(line).args(["--text-template", template]))
    }

    fn refused(&self, line: &str) -> String {
        let errors = fails(&mut self.prepare(line));
        assert!(!self.path("run").exists(), "nothing is written");
        errors
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("run").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn sequences(&self) -> Vec<String> {
        let joined = |line: Value| {
            let items: Vec<&str> =
                line["items"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
            format!("{}: {}", line["user"].as_str().unwrap(), items.join(" "))
        };
        self.lines("sequences.jsonl").into_iter().map(joined).collect()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// User, item, stars and time of some reviews, not in order of time; one stands there twice.
const REVIEWS: [(&str, &str, f64, i64); 9] = [
    ("ann", "kettle", 5.0, 30),
    ("bob", "lamp", 4.0, 10),
    ("ann", "lamp", 2.0, 20),
    ("ann", "stool", 5.0, 10),
    ("bob", "kettle", 5.0, 20),
    ("bob", "kettle", 5.0, 20),
    ("bob", "stool", 3.0, 30),
    ("ann", "mug", 4.0, 40),
    ("bob", "mug", 1.0, 40),
];

fn reviews(line: impl Fn(&str, &str, f64, i64) -> Value) -> String {
    REVIEWS.iter().map(|(u, i, r, t)| format!("{}\n", line(u, i, *r, *t))).collect()
}

const AMAZON: &str = "--amazon reviews.json.gz --items meta.json.gz";
const ORDER: [&str; 2] = ["ann: stool lamp kettle mug", "bob: lamp kettle stool mug"];

#[test]
fn amazon_of_2014_has_python_literals() {
    let world = World::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"reviewerID": u, "asin": i, "overall": r,
        "unixReviewTime": t, "helpful": [0, 1], "reviewText": "…"})
    };
    world.write("reviews.json.gz", reviews(line));
    world.write(
        "meta.json.gz",
        "{'asin': 'kettle', 'title': \"Nan's kettle\", 'price': 12.5, 'brand': u'Caf\\xe9', \
          'categories': [['Home', 'Kitchen']], 'imUrl': 'x', 'related': {'also_bought': ['mug']}}\n\
         {'asin': 'elsewhere', 'title': 'Not reviewed'}\n\
         {'asin': 'lamp', 'description': None, 'categories': [['Home']]}\n\
         {'asin': 'stool', 'title': 'Stool', 'salesRank': {'Home': 3}}\n",
    );
    let report = world.report(&format!("{AMAZON} --k-core 2"));
    assert_eq!(world.sequences(), ORDER);
    assert_eq!(report["layout"], "amazon-2014/2018");
    assert_eq!((&report["left_out"]["duplicates"], &report["undescribed"]), (&json!(1), &json!(1)));
    assert_eq!(report["without_text"], 1);
    let items = world.lines("items.jsonl");
    let text = |id: &str| {
        items.iter().find(|item| item["id"] == id).unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text("kettle"), "Nan's kettle. Price: 12.5. Brand: Café. Category: Home, Kitchen.");
    assert_eq!(text("lamp"), "Category: Home.");
    assert_eq!(text("mug"), "");
    assert_eq!(items.len(), 4);
    assert!(items.iter().all(|item| item.get("related").is_none()));
}

#[test]
fn amazon_of_2018_and_2023_are_json() {
    for (layout, twenty, review, meta) in [
        (
            "amazon-2014/2018",
            "1970-01-01T00:00:20Z",
            &(|u: &str, i: &str, r: f64, t: i64| json!({"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t, "vote": "3"}))
                as &dyn Fn(&str, &str, f64, i64) -> Value,
            json!({"asin": "kettle", "title": "Kettle", "brand": "Nan", "category": ["Home"],
                   "description": ["Boils."]}),
        ),
        (
            "amazon-2023",
            "1970-01-01T00:00:00.020Z",
            &|u, i, r, t| json!({"user_id": u, "asin": "variant", "parent_asin": i, "rating": r, "timestamp": t}),
            json!({"parent_asin": "kettle", "title": "Kettle", "store": "Nan",
                   "categories": ["Home"], "price": null, "description": ["Boils."]}),
        ),
    ] {
        let world = World::new();
        world.write("reviews.json.gz", reviews(review));
        world.write("meta.json.gz", format!("{meta}\n"));
        let report = world.report(&format!("{AMAZON} --k-core 2"));
        assert_eq!(report["layout"], layout);
        assert_eq!(world.sequences(), ORDER);
        let items = world.lines("items.jsonl");
        let kettle = items.iter().find(|item| item["id"] == "kettle").unwrap();
        assert_eq!(kettle["text"], "Kettle. Brand: Nan. Category: Home.");
        assert!(kettle["description"].is_null(), "{kettle}");
        // A template may name what else the metadata have, which is kept then.
        let template = "[{title}: ][{description}][ {brand}]";
        world.report_with(template, &format!("{AMAZON} --k-core 2"));
        let items = world.lines("items.jsonl");
        let kettle = items.iter().find(|item| item["id"] == "kettle").unwrap();
        assert_eq!(kettle["text"], "Kettle: Boils. Nan");
        assert_eq!(kettle["description"], json!(["Boils."]));
        let report = world.report(&format!("{AMAZON} --k-core 0 --from {twenty}"));
        assert_eq!(report["left_out"]["outside_time"], 2, "a date in the unit of {layout}");
        assert_eq!(report["times"], json!(["10", "40"]));
    }
}

#[test]
fn odd_metadata_stop_nothing_and_odd_prices_are_left_out() {
    let world = World::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        let note = if t == 10 { "half \\ud83d" } else { "" };
        format!(
            "{{\"user_id\": \"{u}\", \"parent_asin\": \"{i}\", \"rating\": {r}, \
                 \"timestamp\": {t}, \"text\": \"{note}\", \"helpful_vote\": NaN}}\n"
        )
    };
    let all: String = REVIEWS.iter().map(|(u, i, r, t)| line(u, i, *r, *t)).collect();
    world.write("reviews.json.gz", all);
    let meta = |id: &str, rest: &str| format!("{{\"parent_asin\": \"{id}\"{rest}}}\n");
    world.write(
        "meta.json.gz",
        [
            meta("nobody's", ", \"title\": \"half \\ud83d\", \"average_rating\": NaN"),
            meta("kettle", ", \"title\": \"Kettle \\ud83d\\ude00\", \"price\": \"—\""),
            // A second line that says nothing takes nothing away, one that does counts.
            meta("kettle", ""),
            meta("lamp", ", \"title\": \"Old\""),
            meta("lamp", ", \"title\": \"Lamp \\ud83d\", \"price\": \"None\""),
            meta("stool", ", \"title\": \"Stool\", \"price\": \"from 12.99\""),
            meta("mug", ", \"title\": \"Mug\", \"price\": \".a{border:1px solid #fff}\""),
        ]
        .concat(),
    );
    let report = world.report(&format!("{AMAZON} --k-core 2"));
    assert_eq!(report["undescribed"], 0);
    let items = world.lines("items.jsonl");
    let mut texts: Vec<&str> = items.iter().map(|item| item["text"].as_str().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["Kettle 😀.", "Lamp \u{fffd}.", "Mug.", "Stool. Price: from 12.99."]);
    assert!(items.iter().all(|item| item["id"] == "stool" || item.get("price").is_none()));
}

#[test]
fn ratings_and_times_and_duplicates_can_be_left_out_or_kept() {
    let world = World::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"reviewerID": u, "asin": i, "overall": r,
        "unixReviewTime": t})
    };
    world.write("reviews.json.gz", reviews(line));
    world.write("meta.json.gz", "");
    let report = world.report(&format!("{AMAZON} --k-core 0 --min-rating 3"));
    assert_eq!(report["left_out"]["below_rating"], 2);
    assert_eq!(world.sequences(), ["ann: stool kettle mug", "bob: lamp kettle stool"]);
    let times = "--k-core 0 --from 20 --until 40 --keep-duplicates";
    let report = world.report(&format!("{AMAZON} {times}"));
    assert_eq!(report["left_out"], json!({"below_rating": 0, "outside_time": 4, "duplicates": 0}));
    assert_eq!(world.sequences(), ["bob: kettle kettle stool"]);
    let whole = "--k-core 0 --from -0.3 --until 41";
    assert_eq!(world.report(&format!("{AMAZON} {whole}"))["left_out"]["outside_time"], 0);
    let error = fails(&mut world.prepare(&format!("{AMAZON} --until -1")));
    assert!(error.contains("go from 10 to 40"), "{error}");
    // Something was in the range, though nothing is left: it is not the range that is refused.
    let neither = format!("{AMAZON} --k-core 0 --until 20 --min-rating 9");
    let error = fails(&mut world.prepare(&neither));
    assert!(error.contains("no user is left"), "{error}");
}

#[test]
fn a_range_of_times_that_cannot_be_meant_is_refused() {
    let world = World::new();
    let items = table("items");
    for (name, range, said) in [
        ("whole", "--until 10", "go from 10 to 40"),
        ("whole", "--from 2020-01-21T00:00:00Z", "give it as they are"),
        ("dates", "--from 20", "their first is 2020-01-"),
        ("dates", "--from 2024-01-01T00:00:00Z", "no interaction is in the range"),
    ] {
        let log = table(name);
        let files = format!("--interactions {log} --items {items} --k-core 0");
        let error = world.refused(&format!("{files} {range}"));
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[test]
fn movielens_reads_both_kinds_of_release() {
    let numbered = |name: &str| ["kettle", "lamp", "stool", "mug"].iter().position(|i| *i == name);
    let rows = |separator: &str| -> String {
        REVIEWS
            .iter()
            .map(|(u, i, r, t)| {
                let row = [
                    u.to_string(),
                    format!("{}", numbered(i).unwrap()),
                    r.to_string(),
                    t.to_string(),
                ];
                row.join(separator) + "\n"
            })
            .collect()
    };
    let expected = ["ann: 2 1 0 3", "bob: 1 0 2 3"];
    let world = World::new();
    world.write("ml/ratings.dat", rows("::"));
    // Latin-1, as the old releases are.
    let movies = "0::Caf\u{e9}, The (1999)::Drama|Comedy\n1::Lamp (2001)::Drama\n3::Untitled::(no genres listed)\n";
    world.write("ml/movies.dat", movies.chars().map(|c| c as u8).collect::<Vec<u8>>());
    let report = world.report("--movielens ml --k-core 2");
    assert_eq!(world.sequences(), expected);
    assert_eq!((&report["source"], &report["undescribed"]), (&json!("movielens"), &json!(1)));
    let items = world.lines("items.jsonl");
    let text = |id: &str| items.iter().find(|i| i["id"] == id).unwrap()["text"].clone();
    assert_eq!(text("0"), "Café, The (1999). Genres: Drama, Comedy.");
    assert_eq!(text("3"), "Untitled.");
    // 10M has the same format in UTF-8.
    world.write("ml/movies.dat", movies);
    world.report("--movielens ml --k-core 2");
    let items = world.lines("items.jsonl");
    assert_eq!(items.iter().find(|i| i["id"] == "0").unwrap()["title"], "Café, The");
    let from = "--movielens ml --k-core 0 --from 1970-01-01T00:00:20Z";
    assert_eq!(world.report(from)["left_out"]["outside_time"], 2);

    let world = World::new();
    world.write("ml/ratings.csv", format!("userId,movieId,rating,timestamp\n{}", rows(",")));
    world.write("ml/movies.csv", "movieId,title,genres\n0,\"Café, The (1999)\",Drama|Comedy\n");
    world.report_with("{title} [of {year}]", "--movielens ml --k-core 2");
    assert_eq!(world.sequences(), expected);
    let items = world.lines("items.jsonl");
    assert_eq!(items.iter().find(|i| i["id"] == "0").unwrap()["text"], "Café, The of 1999");
}

#[test]
fn compressed_logs_read_like_plain_ones() {
    let log: String = std::iter::once("user,item,timestamp,stars\n".to_owned())
        .chain(REVIEWS.iter().map(|(u, i, r, t)| format!("{u},{i},{t},{r}\n")))
        .collect();
    let items = "id,title\nkettle,Kettle\nlamp,Lamp\nstool,Stool\nmug,Mug\n";
    for suffix in ["", ".gz"] {
        let world = World::new();
        let (log_name, items_name) = (format!("log.csv{suffix}"), format!("items.csv{suffix}"));
        world.write(&log_name, &log);
        world.write(&items_name, items);
        let files = format!("--interactions {log_name} --items {items_name} --k-core 2");
        world.report(&files);
        assert_eq!(world.sequences()[1], "bob: lamp kettle kettle stool mug");
        let stars = "--deduplicate --rating-column stars --min-rating 2";
        let report = world.report(&format!("{files} {stars}"));
        assert_eq!(
            report["left_out"],
            json!({"below_rating": 1, "outside_time": 0, "duplicates": 1})
        );
    }
}

#[test]
fn events_of_a_log_can_be_chosen() {
    // Behind a view of what the items file does not have.
    let events = ["view", "purchase", "cart", "view"];
    let rows = || (0..12).map(|at| (["ann", "bob"][at % 2], at / 2 % 3, events[at % 4], at));
    let csv: String = std::iter::once("user,item,timestamp,what\nann,gone,0,view\n".to_owned())
        .chain(rows().map(|(user, item, event, time)| format!("{user},{item},{time},{event}\n")))
        .collect();
    let jsonl: String = std::iter::once(json!({"user": "ann", "item": "gone", "timestamp": 0}))
        .chain(rows().map(|(user, item, event, time)| {
            json!({"user": user, "item": item, "timestamp": time, "what": event})
        }))
        .map(|line| format!("{line}\n"))
        .collect();
    let world = World::new();
    world.write("log.csv", &csv);
    world.write("log.tsv.gz", csv.replace(',', "\t"));
    world.write("log.jsonl", jsonl);
    world.write("items.csv", "id,title\n0,Kettle\n1,Lamp\n2,Stool\n");
    for log in ["log.csv", "log.tsv.gz", "log.jsonl"] {
        let files = format!("--interactions {log} --items items.csv --k-core 0");
        let choice = |events| format!("{files} --event-column what --events {events}");
        let report = world.report(&choice("purchase,cart"));
        assert_eq!(world.sequences(), ["bob: 0 2 1", "ann: 1 0 2"], "{log}");
        assert_eq!(report["other_events"], 7, "{log}");
        fs::remove_dir_all(world.path("run")).unwrap();
        let error = world.refused(&choice("purchase,crt"));
        assert!(error.contains("no line has the event \"crt\""), "{log}: {error}");
        assert!(error.contains("\"cart\"") && error.contains("\"view\""), "{log}: {error}");
        let misspelt = format!("{files} --event-column event --events cart");
        let error = world.refused(&misspelt);
        assert!(error.contains("name the column with --event-column"), "{log}: {error}");
        let error = world.refused(&format!("{files} --event-column what"));
        assert!(error.contains("--events"), "{log}: {error}");
    }
    // Of Parquet, too, where kinds of events may be numbers.
    let (log, items) = (table("fraction"), table("items"));
    let choice = "--k-core 0 --event-column stars --events 5,4";
    let report = world.report(&format!("--interactions {log} --items {items} {choice}"));
    assert_eq!(report["other_events"], 3);
}

#[test]
fn what_cannot_be_read_is_refused_by_file_and_line() {
    let world = World::new();
    let good = json!({"reviewerID": "a", "asin": "b", "overall": 1.0, "unixReviewTime": 1});
    world.write("meta.json.gz", "");
    let mut cut = gzip(format!("{good}\n").repeat(5000).as_bytes());
    cut.truncate(cut.len() / 2);
    fs::write(world.path("cut.json.gz"), cut).unwrap();
    world.write("empty.json.gz", "\n");
    world.write("other.jsonl", format!("{good}\n{{\"user\": \"a\"}}\n"));
    world.write("latin.jsonl", b"{\"reviewerID\": \"\xe9\"}\n");
    world.write("no-item.jsonl", "{\"reviewerID\": \"a\", \"unixReviewTime\": 1}\n");
    fs::write(world.path("plain.json.gz"), "not gzip").unwrap();
    for (file, message) in [
        ("cut.json.gz", "cannot be read"),
        ("plain.json.gz", "plain.json.gz: is not packed by gzip; take .gz off its name"),
        ("empty.json.gz", "empty.json.gz: has no reviews"),
        ("other.jsonl", "other.jsonl:2: is no review"),
        ("latin.jsonl", "latin.jsonl:1: is not UTF-8"),
        ("no-item.jsonl", "no-item.jsonl:1: has neither \"asin\" nor \"parent_asin\""),
        ("missing.json", "missing.json: not found"),
    ] {
        let error = world.refused(&format!("--amazon {file} --items meta.json.gz"));
        assert!(error.contains(message), "\"{error}\" does not say \"{message}\"");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let reviews = format!("{good}\n").repeat(3);
    world.write("reviews.json", reviews);
    world.write("meta.json", "{'asin': 'b'}\n{'asin': \n");
    let keep = "--amazon reviews.json --items meta.json --keep-duplicates --k-core 0";
    let error = world.refused(keep);
    assert!(error.contains("meta.json:2: is neither JSON"), "{error}");
    // What a template decides is not asked for by columns.
    for source in ["--amazon r.gz --items m.gz", "--movielens ."] {
        for column in ["--text-columns title", "--id-column asin"] {
            let error = world.refused(&format!("{source} {column}"));
            assert!(error.contains("cannot be used with"), "{error}");
        }
    }
    let error = world.refused("--movielens .");
    assert!(error.contains("neither ratings.dat nor ratings.csv"), "{error}");
    world.write("ml/ratings.dat", "1::2::five::3\n");
    let error = world.refused("--movielens ml");
    assert!(error.contains("ratings.dat:1: has a rating that is no number"), "{error}");
    world.write("ml/ratings.dat", "1::2::5\n");
    let error = world.refused("--movielens ml");
    assert!(error.contains("ratings.dat:1: does not have four columns"), "{error}");
    let error = world.refused(&format!("{keep} --text-template [{{title}}"));
    assert!(error.contains("\"[\" without \"]\""), "{error}");
    world.write(
        "meta.json",
        "{'asin': 'b', 'title': 'Boat', 'description': 'Red.', 'store': 'X'}\n",
    );
    // One field of two that is misspelt would be missing from every text without a word.
    let refused = |template: &str| fails(world.prepare(keep).args(["--text-template", template]));
    let error = refused("[{title}. ][{descriptoin}]");
    assert!(error.contains("no item has the field descriptoin; the fields are brand, "), "{error}");
    let error = refused("{titel} {brnad}");
    let said = "no item has the field titel or brnad; the fields are brand, title";
    assert!(error.contains(said), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn cells_with_their_quotes_wrong_swallow_nothing() {
    let world = World::new();
    let log = |u6: &str, u15: &str| -> String {
        let row = |user: usize, item: usize| {
            let title = match (user, item) {
                (6, 5) => u6,
                (15, 2) => u15,
                _ => "lamp, not lit",
            };
            let title = if title.contains(',') { format!("\"{title}\"") } else { title.to_owned() };
            format!("u{user},i{item},{item},{title}\n")
        };
        let rows = (0..20).flat_map(|user| (0..6).map(move |item| (user, item)));
        rows.fold("user,item,timestamp,title\n".to_owned(), |all, (u, i)| all + &row(u, i))
    };
    world.write("items.csv", "id,title\ni0,a\ni1,b\ni2,12\" disk\ni3,d\ni4,e\ni5,f\n");
    let files = "--interactions log.csv --items items.csv";
    for (u6, u15, said) in [
        ("\"unclosed", "lamp", "quote on line 43 goes on behind its second quote"),
        ("\"Heroes", "12\" disk", "quote on line 43 goes on behind its second quote"),
        ("lamp", "\"unclosed and \"\"last\"\"", "quote on line 94 goes on behind"),
    ] {
        world.write("log.csv", log(u6, u15));
        let error = world.refused(files);
        assert!(error.contains("log.csv: cannot be read: the cell that begins with a "), "{error}");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    world.write("log.csv", log("lamp", "lamp") + "u20,i0,1,\"last");
    let error = world.refused(files);
    assert!(error.contains("quote on line 122 has no end"), "{error}");
    world.write("log.csv", log("lamp", "12\" disk"));
    assert_eq!(world.report(files)["users"], 20);
}

#[test]
fn ids_of_more_digits_than_a_number_keeps_are_refused() {
    let world = World::new();
    world.write("items.jsonl", "{\"id\": 1}\n{\"id\": 18446744073709551615}\n");
    let rows = |id: &str| format!("{{\"user\": {id}, \"item\": 1, \"timestamp\": 2}}\n");
    let files = "--interactions log.jsonl --items items.jsonl --k-core 0";
    world.write(
        "log.jsonl",
        rows("18446744073709551615") + &rows("340282366920938463463374607431768211456"),
    );
    let said = "is a number of more digits than a computer keeps of it; write it as text";
    let error = world.refused(files);
    assert!(error.contains(&format!("log.jsonl:2: \"user\" {said}")), "{error}");
    world.write("log.jsonl", rows("1"));
    world.write("items.jsonl", "{\"id\": 1e300}\n");
    let error = world.refused(files);
    assert!(error.contains(&format!("items.jsonl:1: \"id\" {said}")), "{error}");
}

#[test]
fn a_run_is_not_made_where_its_data_lie() {
    let world = World::new();
    let items: String = (0..6)
        .map(|i| format!("{{\"id\": \"i{i}\", \"text\": \"own\", \"title\": \"t\"}}\n"))
        .collect();
    world.write("run/items.jsonl", &items);
    world.write("run/log.csv", "user,item,timestamp\n");
    for path in ["run/items.jsonl", "./run/../run/items.jsonl"] {
        let files = format!("--interactions run/log.csv --items {path}");
        let error = fails(&mut world.prepare(&files));
        assert!(error.contains("items.jsonl: is where the run's own file would"), "{error}");
    }
    assert_eq!(fs::read_to_string(world.path("run/items.jsonl")).unwrap(), items);
}

/// A table that `pyarrow` wrote, see `tests/golden/make_parquet_golden.py`.
fn table(name: &str) -> String {
    golden("parquet").join(name).with_extension("parquet").display().to_string()
}

#[test]
fn parquet_logs_read_whatever_their_types_and_packing_are() {
    for name in [
        "whole",
        "unsigned",
        "fraction",
        "millis",
        "micros",
        "nanos",
        "int96",
        "text",
        "dates",
        "decimal",
        "categories",
    ] {
        let world = World::new();
        let (log, items) = (table(name), table("items"));
        let files = format!("--interactions {log} --items {items} --k-core 2");
        world.report(&files);
        let orders = ["ann: stool lamp kettle mug", "bob: lamp kettle kettle stool mug"];
        assert_eq!(world.sequences(), orders, "{name}");
        let stars = "--deduplicate --rating-column stars --min-rating 2";
        let report = world.report(&format!("{files} {stars}"));
        let expected = json!({"below_rating": 1, "outside_time": 0, "duplicates": 1});
        assert_eq!(report["left_out"], expected, "{name}");
    }
}

#[test]
fn one_parquet_column_may_say_two_things() {
    let world = World::new();
    let (log, items) = (table("whole"), table("items"));
    let files = format!("--interactions {log} --items {items} --k-core 0");
    let rating = "--rating-column timestamp --min-rating 20";
    let report = world.report(&format!("{files} {rating}"));
    assert_eq!(report["left_out"]["below_rating"], 2);
}

#[test]
fn parquet_times_compare_with_the_limits_of_the_command() {
    let items = table("items");
    for (name, from) in [
        ("whole", "20"),
        ("millis", "2020-01-21T00:00:00Z"),
        ("nanos", "2020-01-21T00:00:00Z"),
        ("dates", "2020-01-20T23:59:59Z"),
    ] {
        let world = World::new();
        let log = table(name);
        let files = format!("--interactions {log} --items {items} --k-core 0");
        let report = world.report(&format!("{files} --from {from}"));
        assert_eq!(report["left_out"]["outside_time"], 2, "{name}");
    }
}

#[test]
fn parquet_ids_may_be_numbers_and_items_may_be_nested() {
    let world = World::new();
    world.write("items.csv", "id\n0\n1\n2\n3\n");
    let log = table("numbered");
    world.report(&format!("--interactions {log} --items items.csv --k-core 2"));
    assert_eq!(world.sequences(), ["7: 2 1 0 3", "-1: 1 0 0 2 3"]);
    let number = |item: usize| format!("{}{item}", 10u128.pow(36));
    let numbers: String = (0..4).map(|item| number(item) + "\n").collect();
    world.write("long.csv", format!("id\n{numbers}"));
    let log = table("long-ids");
    world.report(&format!("--interactions {log} --items long.csv --k-core 2"));
    let ids = |items: [usize; 4]| items.map(number).join(" ");
    let expected = ids([2, 1, 0, 3]);
    assert_eq!(world.sequences()[0], format!("76561198000000001: {expected}"));
    assert!(world.sequences()[1].starts_with("76561198000000002: "));

    let (log, items) = (table("uuids"), table("items"));
    world.report(&format!("--interactions {log} --items {items} --k-core 2"));
    let users: Vec<Value> =
        world.lines("sequences.jsonl").into_iter().map(|line| line["user"].clone()).collect();
    let ids = ["00112233-4455-6677-8899-aabbccddeeff", "f0000000-0000-4000-8000-00000000000f"];
    assert_eq!(users, ids);

    let log = table("whole");
    let structs = table("structs");
    world.report(&format!("--interactions {log} --items {structs} --k-core 2"));
    let first = &world.lines("items.jsonl")[0];
    assert_eq!(first["last"], json!({"stock": 5, "name": "a", "sku": ids[0]}));
    assert_eq!(first["first"], json!({"sku": ids[0], "stock": 5}));

    let template = "[{title}. ][{price}. ][{categories}. ][{maker}. ][{listed}.]";
    world.report_with(template, &format!("--interactions {log} --items {items} --k-core 2"));
    let texts: Vec<Value> =
        world.lines("items.jsonl").into_iter().map(|item| item["text"].clone()).collect();
    let texts: Vec<&str> = texts.iter().map(|text| text.as_str().unwrap()).collect();
    let listed = "2020-01-01T00:00:00Z.";
    let expected = [
        format!("Nan's kettle. 12.5. Home, Kitchen. Café, 1900. {listed}"),
        "Home.".to_owned(),
        format!("Stool. 4.2. {listed}"),
        format!("Mug. 3.0. Eve. {listed}"),
    ];
    assert_eq!(texts, expected);
}

#[test]
fn parquet_that_cannot_be_read_is_refused_by_table_and_row() {
    let world = World::new();
    let whole = fs::read(table("whole")).unwrap();
    world.write("cut.parquet", &whole[..whole.len() / 2]);
    world.write("text.parquet", "user,item,timestamp\n");
    world.write("packed.parquet.gz", &whole);
    let items = table("items");
    for (log, message) in [
        (table("null-cell"), "null-cell.parquet:7: \"user\" is empty or missing"),
        (table("time-of-day"), "column \"timestamp\" is of a type that is not read (a time of"),
        (table("time-of-day-nanos"), "column \"timestamp\" is of a type that is not read (a ti"),
        (table("float-ids"), "float-ids.parquet:1: \"user\" is a number of more digits than"),
        (table("list"), "list.parquet:1: \"item\" is neither a string nor a number"),
        (table("items"), "no column \"user\" among id, title"),
        (table("no-such"), "no-such.parquet: not found"),
        ("cut.parquet".to_owned(), "cut.parquet: is not a Parquet file"),
        ("text.parquet".to_owned(), "text.parquet: is not a Parquet file"),
        ("packed.parquet.gz".to_owned(), "its extension does not tell the format"),
    ] {
        let error = world.refused(&format!("--interactions {log} --items {items}"));
        assert!(error.contains(message), "\"{error}\" does not say \"{message}\"");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = world.refused(&format!("--interactions {} --items {items}", table("no-rows")));
    assert!(error.contains("no user is left"), "{error}");
}

/// Whatever byte of a table is damaged, the command ends with a sentence.
#[test]
fn damaged_parquet_never_panics() {
    let world = World::new();
    let whole = fs::read(table("whole")).unwrap();
    let items = table("items");
    let files = format!("--interactions damaged.parquet --items {items} --k-core 2");
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        world.write("damaged.parquet", &damaged);
        let output = world.prepare(&files).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 2)), "byte {at}: {error}");
        assert!(!error.contains("panicked"), "byte {at}: {error}");
    }
}
