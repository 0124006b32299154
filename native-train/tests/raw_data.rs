//! Data as downloaded, through the command: small files of each format, written here.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::tigret::{Place, fails, golden, prints_json, succeeds, tigret};

fn prepare(at: &Path, line: &str) -> Command {
    tigret(at, &format!("prepare --run run {line}"))
}

/// What `tigret prepare --run run … --json` prints.
fn report(at: &Path, line: &str) -> Value {
    prints_json(&mut prepare(at, line))
}

/// The same with a template.
fn report_with(at: &Path, line: &str, template: &str) -> Value {
    prints_json(prepare(at, line).args(["--text-template", template]))
}

fn refused(at: &Path, line: &str) -> String {
    let errors = fails(&mut prepare(at, line));
    assert!(!at.join("run").exists(), "nothing is written");
    errors
}

/// The lines of a file of the run.
fn lines(at: &Place, name: &str) -> Vec<Value> {
    let text = at.read(&format!("run/{name}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sequences(at: &Place) -> Vec<String> {
    let joined = |line: Value| {
        let items: Vec<&str> =
            line["items"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
        format!("{}: {}", line["user"].as_str().unwrap(), items.join(" "))
    };
    lines(at, "sequences.jsonl").into_iter().map(joined).collect()
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
const AMAZON_OF_TWO: &str = "--amazon reviews.json.gz --items meta.json.gz --k-core 2";
const ORDER: [&str; 2] = ["ann: stool lamp kettle mug", "bob: lamp kettle stool mug"];

#[test]
fn amazon_of_2014_has_python_literals() {
    let at = &Place::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"reviewerID": u, "asin": i, "overall": r,
        "unixReviewTime": t, "helpful": [0, 1], "reviewText": "…"})
    };
    at.write("reviews.json.gz", reviews(line));
    at.write(
        "meta.json.gz",
        "{'asin': 'kettle', 'title': \"Nan's kettle\", 'price': 12.5, 'brand': u'Caf\\xe9', \
          'categories': [['Home', 'Kitchen']], 'imUrl': 'x', 'related': {'also_bought': ['mug']}}\n\
         {'asin': 'elsewhere', 'title': 'Not reviewed'}\n\
         {'asin': 'lamp', 'description': None, 'categories': [['Home']]}\n\
         {'asin': 'stool', 'title': 'Stool', 'salesRank': {'Home': 3}}\n",
    );
    let found = report(at, &format!("{AMAZON} --k-core 2"));
    assert_eq!(sequences(at), ORDER);
    assert_eq!(found["layout"], "amazon-2014/2018");
    assert_eq!((&found["left_out"]["duplicates"], &found["undescribed"]), (&json!(1), &json!(1)));
    assert_eq!(found["without_text"], 1);
    let items = lines(at, "items.jsonl");
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
        let at = &Place::new();
        at.write("reviews.json.gz", reviews(review));
        at.write("meta.json.gz", format!("{meta}\n"));
        let found = report(at, &format!("{AMAZON} --k-core 2"));
        assert_eq!(found["layout"], layout);
        assert_eq!(sequences(at), ORDER);
        let items = lines(at, "items.jsonl");
        let kettle = items.iter().find(|item| item["id"] == "kettle").unwrap();
        assert_eq!(kettle["text"], "Kettle. Brand: Nan. Category: Home.");
        assert!(kettle["description"].is_null(), "{kettle}");
        // A template may name what else the metadata have, which is kept then.
        let template = "[{title}: ][{description}][ {brand}]";
        report_with(at, &format!("{AMAZON} --k-core 2"), template);
        let items = lines(at, "items.jsonl");
        let kettle = items.iter().find(|item| item["id"] == "kettle").unwrap();
        assert_eq!(kettle["text"], "Kettle: Boils. Nan");
        assert_eq!(kettle["description"], json!(["Boils."]));
        let found = report(at, &format!("{AMAZON} --k-core 0 --from {twenty}"));
        assert_eq!(found["left_out"]["outside_time"], 2, "a date in the unit of {layout}");
        assert_eq!(found["times"], json!(["10", "40"]));
    }
}

#[test]
fn odd_metadata_stop_nothing_and_odd_prices_are_left_out() {
    let at = &Place::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        let note = if t == 10 { "half \\ud83d" } else { "" };
        format!(
            "{{\"user_id\": \"{u}\", \"parent_asin\": \"{i}\", \"rating\": {r}, \
                 \"timestamp\": {t}, \"text\": \"{note}\", \"helpful_vote\": NaN}}\n"
        )
    };
    let all: String = REVIEWS.iter().map(|(u, i, r, t)| line(u, i, *r, *t)).collect();
    at.write("reviews.json.gz", all);
    let meta = |id: &str, rest: &str| format!("{{\"parent_asin\": \"{id}\"{rest}}}\n");
    at.write(
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
    let found = report(at, &format!("{AMAZON} --k-core 2"));
    assert_eq!(found["undescribed"], 0);
    let items = lines(at, "items.jsonl");
    let mut texts: Vec<&str> = items.iter().map(|item| item["text"].as_str().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["Kettle 😀.", "Lamp \u{fffd}.", "Mug.", "Stool. Price: from 12.99."]);
    assert!(items.iter().all(|item| item["id"] == "stool" || item.get("price").is_none()));
}

/// Reviews of 2014 or 2018, written to where [`AMAZON`] has them.
fn write_reviews(at: &Place) {
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"reviewerID": u, "asin": i, "overall": r,
        "unixReviewTime": t})
    };
    at.write("reviews.json.gz", reviews(line));
}

#[test]
fn what_belongs_to_amazons_pages_is_no_part_of_texts() {
    let at = &Place::new();
    write_reviews(at);
    let script = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();";
    let meta = [
        json!({"asin": "kettle", "title": "Nan&#39;s <i>Caf&eacute;</i>\n  kettle", "brand": "A &amp; B",
               "category": ["Home &amp; Kitchen", "</span></span></span>", "Size < 5"]}),
        // Neither is worth the title before it.
        json!({"asin": "kettle", "title": script, "brand": "B"}),
        json!({"asin": "kettle", "brand": "C"}),
        json!({"asin": "lamp", "title": script, "brand": "<br>", "store": "Lux\n\nLamps"}),
        json!({"asin": "mug", "title": script, "description": ["<p>Holds</p><p>tea.</p>"]}),
        json!({"asin": "mug", "title": "Mug"}),
        json!({"asin": "stool", "title": "Stool"}),
        json!({"asin": "stool", "title": "Bar stool"}),
    ];
    at.write("meta.json.gz", meta.map(|line| format!("{line}\n")).concat());
    report(at, &format!("{AMAZON} --k-core 2"));
    let items = lines(at, "items.jsonl");
    let item = |id: &str| items.iter().find(|item| item["id"] == id).unwrap();
    let kettle = json!({
        "id": "kettle", "title": "Nan's Café kettle", "brand": "A & B",
        "categories": ["Home & Kitchen", "Size < 5"],
        "text": "Nan's Café kettle. Brand: A & B. Category: Home & Kitchen, Size < 5."});
    assert_eq!(item("kettle"), &kettle);
    let lamp = json!({"id": "lamp", "brand": "Lux Lamps", "text": "Brand: Lux Lamps."});
    assert_eq!(item("lamp"), &lamp);
    assert_eq!(
        (&item("mug")["text"], &item("stool")["text"]),
        (&json!("Mug."), &json!("Bar stool."))
    );
    // A line with a text counts more than a later one that has only a title.
    report_with(at, &format!("{AMAZON} --k-core 2"), "{description}");
    let items = lines(at, "items.jsonl");
    assert_eq!(items.iter().find(|item| item["id"] == "mug").unwrap()["text"], "Holds tea.");
}

#[test]
fn files_that_describe_other_items_are_refused() {
    let at = &Place::new();
    write_reviews(at);
    at.write("meta.json.gz", "{\"asin\": \"elsewhere\", \"title\": \"Not reviewed\"}\n");
    let error = refused(at, AMAZON_OF_TWO);
    assert!(
        error.contains("meta.json.gz: describes none of the 4 items of the interactions"),
        "{error}"
    );
    let error = refused(at, "--amazon reviews.json.gz --items reviews.json.gz --k-core 2");
    assert!(
        error.contains("reviews.json.gz:1: is a review; --items takes the metadata"),
        "{error}"
    );
    let review = json!({"user_id": "u", "parent_asin": "kettle", "rating": 1, "timestamp": 1});
    at.write("meta.json.gz", format!("{review}\n"));
    let error = refused(at, AMAZON_OF_TWO);
    assert!(error.contains("meta.json.gz:1: is a review"), "{error}");
    at.write("meta.json.gz", "{\"asin\": \"kettle\", \"title\": \"Kettle\"}\n");
    let table = succeeds(&mut prepare(at, AMAZON_OF_TWO)).0;
    assert!(table.contains("undescribed items                3"), "{table}");

    let ratings: String = (0..4).map(|movie| format!("1::{movie}::5::{movie}\n")).collect();
    at.write("ml/ratings.dat", ratings);
    at.write("ml/movies.dat", "7::Another (1999)::Drama\n");
    fs::remove_dir_all(at.join("run")).unwrap();
    let error = refused(at, "--movielens ml --k-core 0");
    assert!(error.contains("ml: describes none of the 4 items of the interactions"), "{error}");
}

#[test]
fn a_missing_description_is_told_before_the_interactions_are_read() {
    let at = &Place::new();
    at.write("reviews.json.gz", "no review");
    let error = refused(at, AMAZON);
    assert!(error.contains("meta.json.gz: not found"), "{error}");
    for (ratings, movies) in
        [("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"), ("u.data", "u.item")]
    {
        let at = &Place::new();
        at.write(Path::new("ml").join(ratings), "no ratings\n");
        let error = refused(at, "--movielens ml");
        assert!(error.contains(&format!("{movies}: not found")), "{error}");
    }
}

#[test]
fn the_id_is_a_field_of_every_template() {
    let at = &Place::new();
    write_reviews(at);
    let meta = "{\"asin\": \"kettle\", \"title\": \"Kettle\", \"id\": 7, \"text\": \"T\"}\n";
    at.write("meta.json.gz", meta);
    let text_of = |id: &str| {
        let items = lines(at, "items.jsonl");
        items.iter().find(|item| item["id"] == id).unwrap()["text"].clone()
    };
    report_with(at, AMAZON_OF_TWO, "[{title} ]{id}");
    assert_eq!(text_of("kettle"), "Kettle kettle");
    report_with(at, AMAZON_OF_TWO, "{title} {text}");
    assert_eq!(text_of("kettle"), "Kettle T");
    let ratings: String = (0..4).map(|movie| format!("1::{movie}::5::{movie}\n")).collect();
    at.write("ml/ratings.dat", ratings);
    at.write("ml/movies.dat", "2::Another (1999)::Drama\n");
    report_with(at, "--movielens ml --k-core 0", "[{title} ]{id}");
    assert_eq!(text_of("2"), "Another 2");
    let mut command = prepare(at, "--movielens ml --k-core 0");
    let error = fails(command.args(["--text-template", "{title} {text}"]));
    assert!(error.contains("no item has the field text; the fields are genres, id, t"), "{error}");
}

#[test]
fn ratings_and_times_and_duplicates_can_be_left_out_or_kept() {
    let at = &Place::new();
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"reviewerID": u, "asin": i, "overall": r,
        "unixReviewTime": t})
    };
    at.write("reviews.json.gz", reviews(line));
    at.write("meta.json.gz", "{\"asin\": \"kettle\"}\n{\"asin\": \"lamp\"}\n");
    let found = report(at, &format!("{AMAZON} --k-core 0 --min-rating 3"));
    assert_eq!(found["left_out"]["below_rating"], 2);
    assert_eq!(sequences(at), ["ann: stool kettle mug", "bob: lamp kettle stool"]);
    let times = "--k-core 0 --from 20 --until 40 --keep-duplicates";
    let found = report(at, &format!("{AMAZON} {times}"));
    assert_eq!(found["left_out"], json!({"below_rating": 0, "outside_time": 4, "duplicates": 0}));
    assert_eq!(sequences(at), ["bob: kettle kettle stool"]);
    let whole = "--k-core 0 --from -0.3 --until 41";
    assert_eq!(report(at, &format!("{AMAZON} {whole}"))["left_out"]["outside_time"], 0);
    let error = fails(&mut prepare(at, &format!("{AMAZON} --until -1")));
    assert!(error.contains("go from 10 to 40"), "{error}");
    // Seconds among milliseconds would leave out nothing, without a word.
    let line = |u: &str, i: &str, r: f64, t: i64| {
        json!({"user_id": u, "parent_asin": i, "rating": r,
        "timestamp": 1_600_000_000_000 + t})
    };
    at.write("2023.json", reviews(line));
    at.write("meta.json", "{\"parent_asin\": \"kettle\"}\n");
    let files = "--amazon 2023.json --items meta.json --k-core 0";
    let error = fails(&mut prepare(at, &format!("{files} --from 1500000000")));
    let said = "--from looks like seconds, but a time of the data like milliseconds";
    assert!(error.contains(said), "{error}");
    let found = report(at, &format!("{files} --from 1600000000020"));
    assert_eq!(found["left_out"]["outside_time"], 2);
    // Something was in the range, though nothing is left: it is not the range that is refused.
    let neither = format!("{AMAZON} --k-core 0 --until 20 --min-rating 9");
    let error = fails(&mut prepare(at, &neither));
    assert!(error.contains("no user is left"), "{error}");
}

#[test]
fn a_range_of_times_that_cannot_be_meant_is_refused() {
    let at = &Place::new();
    let items = table("items");
    for (name, range, said) in [
        ("whole", "--until 10", "go from 10 to 40"),
        ("whole", "--from 2020-01-21T00:00:00Z", "give it as they are"),
        ("dates", "--from 20", "their first is 2020-01-"),
        ("dates", "--from 2024-01-01T00:00:00Z", "no interaction is in the range"),
    ] {
        let log = table(name);
        let files = format!("--interactions {log} --items {items} --k-core 0");
        let error = refused(at, &format!("{files} {range}"));
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
    let at = &Place::new();
    at.write("ml/ratings.dat", rows("::"));
    // Latin-1, as the old releases are.
    let movies = "0::Caf\u{e9}, The (1999)::Drama|Comedy\n1::Lamp (2001)::Drama\n3::Untitled::(no genres listed)\n";
    at.write("ml/movies.dat", movies.chars().map(|c| c as u8).collect::<Vec<u8>>());
    let found = report(at, "--movielens ml --k-core 2");
    assert_eq!(sequences(at), expected);
    assert_eq!((&found["source"], &found["undescribed"]), (&json!("movielens"), &json!(1)));
    let items = lines(at, "items.jsonl");
    let text = |id: &str| items.iter().find(|i| i["id"] == id).unwrap()["text"].clone();
    assert_eq!(text("0"), "Café, The (1999). Genres: Drama, Comedy.");
    assert_eq!(text("3"), "Untitled.");
    // 10M has the same format in UTF-8.
    at.write("ml/movies.dat", movies);
    report(at, "--movielens ml --k-core 2");
    let items = lines(at, "items.jsonl");
    assert_eq!(items.iter().find(|i| i["id"] == "0").unwrap()["title"], "Café, The");
    let from = "--movielens ml --k-core 0 --from 1970-01-01T00:00:20Z";
    assert_eq!(report(at, from)["left_out"]["outside_time"], 2);

    let at = &Place::new();
    at.write("ml/ratings.csv", format!("userId,movieId,rating,timestamp\n{}", rows(",")));
    at.write("ml/movies.csv", "movieId,title,genres\n0,\"Café, The (1999)\",Drama|Comedy\n");
    report_with(at, "--movielens ml --k-core 2", "{title} [of {year}]");
    assert_eq!(sequences(at), expected);
    let items = lines(at, "items.jsonl");
    assert_eq!(items.iter().find(|i| i["id"] == "0").unwrap()["text"], "Café, The of 1999");
}

#[test]
fn movielens_100k_has_its_genres_in_columns() {
    let at = &Place::new();
    let ratings = [(1, 0), (1, 2), (2, 1), (1, 1), (2, 2), (2, 0)];
    let ratings = ratings.iter().zip(10..).map(|((u, m), t)| format!("{u}\t{m}\t3\t{t}\n"));
    at.write("ml/u.data", ratings.collect::<String>());
    let movies = "0|Caf\u{e9}, The (1995)|01-Jan-1995||http://movies/?Caf%E9|0|1|1\n\
                  1|unknown||||1|0|0\n2|Lamp (1996)|01-Jan-1996|||0|0|1\n";
    let latin: Vec<u8> = movies.chars().map(|c| c as u8).collect();
    at.write("ml/u.item", &latin);
    at.write("ml/u.genre", "unknown|0\nDrama|1\nFilm-Noir|2\n\n");
    let found = report(at, "--movielens ml --k-core 2");
    assert_eq!((&found["source"], &found["undescribed"]), (&json!("movielens"), &json!(0)));
    assert_eq!(sequences(at), ["1: 0 2 1", "2: 1 2 0"]);
    let cafe = json!({"id": "0", "title": "Café, The", "year": 1995, "genres": ["Drama", "Film-Noir"],
                      "text": "Café, The (1995). Genres: Drama, Film-Noir."});
    let unknown = json!({"id": "1", "title": "unknown", "genres": [], "text": "unknown."});
    let items = lines(at, "items.jsonl");
    assert_eq!(items.iter().find(|item| item["id"] == "0"), Some(&cafe));
    assert_eq!(items.iter().find(|item| item["id"] == "1"), Some(&unknown));

    fs::remove_dir_all(at.join("run")).unwrap();
    for (file, text, said) in [
        ("ml/u.item", "1|Lamp (1996)|||\n", "u.item:1: does not have 8 columns: movie, title, two"),
        ("ml/u.genre", "Drama|1\n", "u.genre:1: does not have a genre and its number"),
        ("ml/u.data", "1\t2\t3\n", "u.data:1: does not have four columns"),
    ] {
        let good = fs::read(at.join(file)).unwrap();
        at.write(file, text);
        let error = refused(at, "--movielens ml --k-core 0");
        assert!(error.contains(said), "{error}");
        at.write(file, good);
    }
    fs::remove_file(at.join("ml/u.genre")).unwrap();
    let error = refused(at, "--movielens ml");
    assert!(error.contains("u.genre: not found"), "{error}");
}

#[test]
fn movielens_may_be_packed_and_is_one_release() {
    let at = &Place::new();
    let ratings: String = (0..4).map(|movie| format!("1,{movie},5,{movie}\n")).collect();
    at.write("ml/ratings.csv.gz", format!("userId,movieId,rating,timestamp\n{ratings}"));
    at.write("ml/movies.csv.gz", "movieId,title,genres\n2,Lamp (2001),Drama\n");
    report(at, "--movielens ml --k-core 0");
    assert_eq!(sequences(at), ["1: 0 1 2 3"]);
    fs::remove_dir_all(at.join("run")).unwrap();
    at.write("ml/ratings.dat", ratings.replace(',', "::"));
    let error = refused(at, "--movielens ml");
    assert!(
        error.contains("ml: has ratings.dat and ratings.csv; leave the files of one"),
        "{error}"
    );
}

#[test]
fn compressed_logs_read_like_plain_ones() {
    let log: String = std::iter::once("user,item,timestamp,stars\n".to_owned())
        .chain(REVIEWS.iter().map(|(u, i, r, t)| format!("{u},{i},{t},{r}\n")))
        .collect();
    let items = "id,title\nkettle,Kettle\nlamp,Lamp\nstool,Stool\nmug,Mug\n";
    for suffix in ["", ".gz"] {
        let at = &Place::new();
        let (log_name, items_name) = (format!("log.csv{suffix}"), format!("items.csv{suffix}"));
        at.write(&log_name, &log);
        at.write(&items_name, items);
        let files = format!("--interactions {log_name} --items {items_name} --k-core 2");
        report(at, &files);
        assert_eq!(sequences(at)[1], "bob: lamp kettle kettle stool mug");
        let stars = "--deduplicate --rating-column stars --min-rating 2";
        let found = report(at, &format!("{files} {stars}"));
        assert_eq!(
            found["left_out"],
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
    let at = &Place::new();
    at.write("log.csv", &csv);
    at.write("log.tsv.gz", csv.replace(',', "\t"));
    at.write("log.jsonl", jsonl);
    at.write("items.csv", "id,title\n0,Kettle\n1,Lamp\n2,Stool\n");
    for log in ["log.csv", "log.tsv.gz", "log.jsonl"] {
        let files = format!("--interactions {log} --items items.csv --k-core 0");
        let choice = |events| format!("{files} --event-column what --events {events}");
        let found = report(at, &choice("purchase,cart"));
        assert_eq!(sequences(at), ["bob: 0 2 1", "ann: 1 0 2"], "{log}");
        assert_eq!(found["other_events"], 7, "{log}");
        fs::remove_dir_all(at.join("run")).unwrap();
        let error = refused(at, &choice("purchase,crt"));
        assert!(error.contains("no line has the event \"crt\""), "{log}: {error}");
        assert!(error.contains("\"cart\"") && error.contains("\"view\""), "{log}: {error}");
        let misspelt = format!("{files} --event-column event --events cart");
        let error = refused(at, &misspelt);
        assert!(error.contains("name the column with --event-column"), "{log}: {error}");
        let error = refused(at, &format!("{files} --event-column what"));
        assert!(error.contains("--events"), "{log}: {error}");
    }
    // What lines of other events lack does not matter; what the others lack does.
    let anonymous =
        "{\"item\": [1], \"what\": \"view\"}\n{\"user\": \"ann\", \"what\": \"view\"}\n";
    at.write("log.csv", csv + ",1,never,view\nann,,,\n");
    at.write("log.jsonl", at.read("log.jsonl") + anonymous);
    for log in ["log.csv", "log.jsonl"] {
        let events = "--event-column what --events purchase,cart --k-core 0";
        let files = format!("--interactions {log} --items items.csv {events}");
        for skip in ["", " --skip-incomplete"] {
            let found = report(at, &format!("{files}{skip}"));
            assert_eq!(found["other_events"], 9, "{log}");
            assert!(
                ["0", "null"].contains(&found["incomplete_lines"].to_string().as_str()),
                "{log}"
            );
            assert_eq!(sequences(at), ["bob: 0 2 1", "ann: 1 0 2"], "{log}");
        }
        let incomplete = match log {
            "log.csv" => ",1,3,cart\n",
            _ => "{\"user\": null, \"item\": 1, \"timestamp\": 3, \"what\": \"cart\"}\n",
        };
        at.write(log, at.read(log) + incomplete);
        let error = fails(&mut prepare(at, &files));
        assert!(error.contains("\"user\""), "{error}");
        assert_eq!(report(at, &format!("{files} --skip-incomplete"))["incomplete_lines"], 1);
    }
    // Of Parquet, too, where kinds of events may be numbers.
    let (log, items) = (table("fraction"), table("items"));
    let choice = "--k-core 0 --event-column stars --events 5,4";
    let found = report(at, &format!("--interactions {log} --items {items} {choice}"));
    assert_eq!(found["other_events"], 3);
}

#[test]
fn what_cannot_be_read_is_refused_by_file_and_line() {
    let at = &Place::new();
    let good = json!({"reviewerID": "a", "asin": "b", "overall": 1.0, "unixReviewTime": 1});
    at.write("meta.json.gz", "");
    at.write("cut.json.gz", format!("{good}\n").repeat(5000));
    let packed = fs::read(at.join("cut.json.gz")).unwrap();
    fs::write(at.join("cut.json.gz"), &packed[..packed.len() / 2]).unwrap();
    at.write("empty.json.gz", "\n");
    at.write("other.jsonl", format!("{good}\n{{\"user\": \"a\"}}\n"));
    at.write("latin.jsonl", b"{\"reviewerID\": \"\xe9\"}\n");
    at.write("no-item.jsonl", "{\"reviewerID\": \"a\", \"unixReviewTime\": 1}\n");
    fs::write(at.join("plain.json.gz"), "not gzip").unwrap();
    for (file, message) in [
        ("cut.json.gz", "cannot be read"),
        ("plain.json.gz", "plain.json.gz: is not packed by gzip; take .gz off its name"),
        ("empty.json.gz", "empty.json.gz: has no reviews"),
        ("other.jsonl", "other.jsonl:2: is no review"),
        ("latin.jsonl", "latin.jsonl:1: is not UTF-8"),
        ("no-item.jsonl", "no-item.jsonl:1: has neither \"asin\" nor \"parent_asin\""),
        ("missing.json", "missing.json: not found"),
    ] {
        let error = refused(at, &format!("--amazon {file} --items meta.json.gz"));
        assert!(error.contains(message), "\"{error}\" does not say \"{message}\"");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let reviews = format!("{good}\n").repeat(3);
    at.write("reviews.json", reviews);
    at.write("meta.json", "{'asin': 'b'}\n{'asin': \n");
    let keep = "--amazon reviews.json --items meta.json --keep-duplicates --k-core 0";
    let error = refused(at, keep);
    assert!(error.contains("meta.json:2: is neither JSON"), "{error}");
    // What a template decides is not asked for by columns.
    for source in ["--amazon r.gz --items m.gz", "--movielens ."] {
        for column in ["--text-columns title", "--id-column asin"] {
            let error = refused(at, &format!("{source} {column}"));
            assert!(error.contains("cannot be used with"), "{error}");
        }
    }
    let error = refused(at, "--movielens .");
    assert!(error.contains("neither ratings.dat nor ratings.csv"), "{error}");
    at.write("ml/movies.dat", "");
    at.write("ml/ratings.dat", "1::2::five::3\n");
    let error = refused(at, "--movielens ml");
    assert!(error.contains("ratings.dat:1: has a rating that is no number"), "{error}");
    at.write("ml/ratings.dat", "1::2::5\n");
    let error = refused(at, "--movielens ml");
    assert!(error.contains("ratings.dat:1: does not have four columns"), "{error}");
    let refused_template = |template: &str| {
        let errors = fails(prepare(at, keep).args(["--text-template", template]));
        assert!(!at.join("run").exists(), "nothing is written");
        errors
    };
    let error = refused_template("[{title}");
    assert!(error.contains("\"[\" without \"]\""), "{error}");
    at.write("meta.json", "{'asin': 'b', 'title': 'Boat', 'description': 'Red.', 'store': 'X'}\n");
    // One field of two that is misspelt would be missing from every text without a word.
    let fields = "the fields are asin, brand, description, id, store, title";
    let error = refused_template("[{title}. ][{descriptoin}]");
    assert!(error.contains(&format!("no item has the field descriptoin; {fields}")), "{error}");
    let error = refused_template("{titel} {brnad}");
    assert!(error.contains(&format!("no item has the field titel or brnad; {fields}")), "{error}");
    let error = refused_template("[{title}. ][{text}]");
    assert!(error.contains(&format!("no item has the field text; {fields}")), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn cells_with_their_quotes_wrong_swallow_nothing() {
    let at = &Place::new();
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
    at.write("items.csv", "id,title\ni0,a\ni1,b\ni2,12\" disk\ni3,d\ni4,e\ni5,f\n");
    let files = "--interactions log.csv --items items.csv";
    for (u6, u15, said) in [
        ("\"unclosed", "lamp", "quote on line 43 goes on behind its second quote"),
        ("\"Heroes", "12\" disk", "quote on line 43 goes on behind its second quote"),
        ("lamp", "\"unclosed and \"\"last\"\"", "quote on line 94 goes on behind"),
    ] {
        at.write("log.csv", log(u6, u15));
        let error = refused(at, files);
        assert!(error.contains("log.csv: cannot be read: the cell that begins with a "), "{error}");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    at.write("log.csv", log("lamp", "lamp") + "u20,i0,1,\"last");
    let error = refused(at, files);
    assert!(error.contains("quote on line 122 has no end"), "{error}");
    at.write("log.csv", log("lamp", "12\" disk"));
    assert_eq!(report(at, files)["users"], 20);
}

#[test]
fn ids_of_more_digits_than_a_number_keeps_are_refused() {
    let at = &Place::new();
    at.write("items.jsonl", "{\"id\": 1}\n{\"id\": 18446744073709551615}\n");
    let rows = |id: &str| format!("{{\"user\": {id}, \"item\": 1, \"timestamp\": 2}}\n");
    let files = "--interactions log.jsonl --items items.jsonl --k-core 0";
    at.write(
        "log.jsonl",
        rows("18446744073709551615") + &rows("340282366920938463463374607431768211456"),
    );
    let said = "is a number of more digits than a computer keeps of it; write it as text";
    let error = refused(at, files);
    assert!(error.contains(&format!("log.jsonl:2: \"user\" {said}")), "{error}");
    at.write("log.jsonl", rows("1"));
    at.write("items.jsonl", "{\"id\": 1e300}\n");
    let error = refused(at, files);
    assert!(error.contains(&format!("items.jsonl:1: \"id\" {said}")), "{error}");
}

#[test]
fn a_run_is_not_made_where_its_data_lie() {
    let at = &Place::new();
    let items: String = (0..6)
        .map(|i| format!("{{\"id\": \"i{i}\", \"text\": \"own\", \"title\": \"t\"}}\n"))
        .collect();
    at.write("run/items.jsonl", &items);
    at.write("run/log.csv", "user,item,timestamp\n");
    for path in ["run/items.jsonl", "./run/../run/items.jsonl"] {
        let files = format!("--interactions run/log.csv --items {path}");
        let error = fails(&mut prepare(at, &files));
        assert!(error.contains("items.jsonl: is where the run's own file would"), "{error}");
    }
    assert_eq!(fs::read_to_string(at.join("run/items.jsonl")).unwrap(), items);
    for folder in ["run", "./run/../run"] {
        let error = fails(&mut prepare(at, &format!("--movielens {folder}")));
        assert!(error.contains("is the run's own folder; give the run another"), "{error}");
    }
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
        let at = &Place::new();
        let (log, items) = (table(name), table("items"));
        let files = format!("--interactions {log} --items {items} --k-core 2");
        report(at, &files);
        let orders = ["ann: stool lamp kettle mug", "bob: lamp kettle kettle stool mug"];
        assert_eq!(sequences(at), orders, "{name}");
        let stars = "--deduplicate --rating-column stars --min-rating 2";
        let found = report(at, &format!("{files} {stars}"));
        let expected = json!({"below_rating": 1, "outside_time": 0, "duplicates": 1});
        assert_eq!(found["left_out"], expected, "{name}");
    }
}

#[test]
fn one_parquet_column_may_say_two_things() {
    let at = &Place::new();
    let (log, items) = (table("whole"), table("items"));
    let files = format!("--interactions {log} --items {items} --k-core 0");
    let rating = "--rating-column timestamp --min-rating 20";
    let found = report(at, &format!("{files} {rating}"));
    assert_eq!(found["left_out"]["below_rating"], 2);
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
        let at = &Place::new();
        let log = table(name);
        let files = format!("--interactions {log} --items {items} --k-core 0");
        let found = report(at, &format!("{files} --from {from}"));
        assert_eq!(found["left_out"]["outside_time"], 2, "{name}");
    }
}

#[test]
fn parquet_ids_may_be_numbers_and_items_may_be_nested() {
    let at = &Place::new();
    at.write("items.csv", "id\n0\n1\n2\n3\n");
    let log = table("numbered");
    report(at, &format!("--interactions {log} --items items.csv --k-core 2"));
    assert_eq!(sequences(at), ["7: 2 1 0 3", "-1: 1 0 0 2 3"]);
    let number = |item: usize| format!("{}{item}", 10u128.pow(36));
    let numbers: String = (0..4).map(|item| number(item) + "\n").collect();
    at.write("long.csv", format!("id\n{numbers}"));
    let log = table("long-ids");
    report(at, &format!("--interactions {log} --items long.csv --k-core 2"));
    let ids = |items: [usize; 4]| items.map(number).join(" ");
    let expected = ids([2, 1, 0, 3]);
    assert_eq!(sequences(at)[0], format!("76561198000000001: {expected}"));
    assert!(sequences(at)[1].starts_with("76561198000000002: "));

    let (log, items) = (table("uuids"), table("items"));
    report(at, &format!("--interactions {log} --items {items} --k-core 2"));
    let users: Vec<Value> =
        lines(at, "sequences.jsonl").into_iter().map(|line| line["user"].clone()).collect();
    let ids = ["00112233-4455-6677-8899-aabbccddeeff", "f0000000-0000-4000-8000-00000000000f"];
    assert_eq!(users, ids);

    let log = table("whole");
    let structs = table("structs");
    report(at, &format!("--interactions {log} --items {structs} --k-core 2"));
    let first = &lines(at, "items.jsonl")[0];
    assert_eq!(first["last"], json!({"stock": 5, "name": "a", "sku": ids[0]}));
    assert_eq!(first["first"], json!({"sku": ids[0], "stock": 5}));

    let template = "[{title}. ][{price}. ][{categories}. ][{maker}. ][{listed}.]";
    report_with(at, &format!("--interactions {log} --items {items} --k-core 2"), template);
    let texts: Vec<Value> =
        lines(at, "items.jsonl").into_iter().map(|item| item["text"].clone()).collect();
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
    let at = &Place::new();
    let whole = fs::read(table("whole")).unwrap();
    at.write("cut.parquet", &whole[..whole.len() / 2]);
    at.write("text.parquet", "user,item,timestamp\n");
    at.write("packed.parquet.gz", &whole);
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
        let error = refused(at, &format!("--interactions {log} --items {items}"));
        assert!(error.contains(message), "\"{error}\" does not say \"{message}\"");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = refused(at, &format!("--interactions {} --items {items}", table("no-rows")));
    assert!(error.contains("no user is left"), "{error}");
}
