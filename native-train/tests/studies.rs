//! `tigret study` in small, on the embedded classics: every study runs to its end, its figures are
//! sane, and the same command reads what is done.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tigret::{Place, fails, succeeds, tigret};

/// What makes trials smaller still: their training takes a second.
const SMALL: &str = "--data classics --smoke --set prepare.readers=60 --set train.epochs=1 \
                     --set users=30 --json";

/// `tigret study …`
fn study(folder: &Path, line: &str) -> Command {
    tigret(folder, &format!("study {line}"))
}

/// Studies in small, which must succeed; settings of the line prevail.
fn works(folder: &Path, line: &str) {
    succeeds(&mut study(folder, &format!("--out out {SMALL} {line}")));
}

/// What a study says that must refuse; before it comes the account of the variants.
fn refuses(folder: &Path, line: &str) -> String {
    fails(&mut study(folder, line))
}

/// The rows of a CSV file by the heads of its columns.
fn rows(folder: &Path, file: &str) -> Vec<BTreeMap<String, String>> {
    let path = folder.join("out").join(file);
    let mut csv = csv::Reader::from_path(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    csv.deserialize().map(Result::unwrap).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|e| panic!("{column} of {row:?}: {e}"))
}

/// What every report has: a page that shows its plots, and metrics that fit together.
fn is_whole(folder: &Path, name: &str) {
    let out = folder.join("out").join(name);
    let page = fs::read_to_string(out.join(format!("{name}.md"))).unwrap();
    assert!(page.starts_with("# ") && page.contains("--smoke") && page.contains("| "), "{page}");
    if !["cold-start", "tuning"].contains(&name) {
        assert!(page.contains("Test users: "), "{page}");
    }
    let mut plots = 0;
    for shown in page.lines().filter(|line| line.starts_with("![")) {
        let file = shown.rsplit_once('(').unwrap().1.trim_end_matches(')');
        let svg = fs::read_to_string(out.join(file)).unwrap();
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{file}");
        plots += 1;
    }
    assert!(plots > 0);
    for row in rows(folder, &format!("{name}/{name}.csv")) {
        // One item is to be found: what the longer list finds is more, and where it stands discounts.
        for [less, more] in [
            ["Recall@5", "Recall@10"],
            ["NDCG@5", "NDCG@10"],
            ["NDCG@5", "Recall@5"],
            ["NDCG@10", "Recall@10"],
        ] {
            let value = |column: &str| row.get(column).and_then(|value| value.parse::<f64>().ok());
            if let (Some(less), Some(more)) = (value(less), value(more)) {
                assert!(less <= more, "{row:?}");
            }
        }
    }
}

#[test]
fn comparisons_have_a_row_for_each_variant_and_share_what_is_the_same() {
    let at = &Place::new();
    works(at, "main ids layers user");
    for name in ["main", "ids", "layers", "user"] {
        is_whole(at, name);
    }
    let names = |file: &str, column: &str| -> Vec<String> {
        rows(at, file).iter().map(|row| row[column].clone()).collect()
    };
    assert_eq!(
        names("main/main.csv", "method"),
        ["popularity", "item-KNN", "Semantic_KNN", "SASRec", "TIGER"]
    );
    assert_eq!(names("layers/layers.csv", "layers"), ["3 layers", "4 layers", "5 layers"]);
    let ids = names("ids/ids.csv", "tokenizer");
    assert_eq!(ids.len(), 8);
    assert!(ids.contains(&"hierarchical-kmeans".into()) && ids.contains(&"random".into()));
    // One data set and one training for what is the same in several studies.
    let count = |step: &str| {
        let entries = fs::read_dir(at.join("out/store")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(step)).count()
    };
    assert_eq!((count("prepare"), count("embed")), (1, 1));
    // One more for no user tokens; `method` and `collaborative` are the same written down or not.
    assert_eq!(count("tokenize"), ids.len() + 1);
    // TIGER, the seven other tokenizers, three of layers, one without user tokens.
    assert_eq!(count("train"), 12);
    let figure = |file: &str, key: (&str, &str)| {
        number(rows(at, file).iter().find(|row| row[key.0] == key.1).unwrap(), "Recall@10")
    };
    let tiger = figure("main/main.csv", ("method", "TIGER"));
    assert_eq!(tiger, figure("ids/ids.csv", ("tokenizer", "rq-vae")));
    assert_eq!(tiger, figure("user/user.csv", ("variant", "user token")));
}

#[test]
fn the_same_command_reads_what_is_done_and_seeds_give_deviations() {
    let at = &Place::new();
    // Few codewords and little training, so that part of what is generated names an item and part does
    // not: with ten epochs some processors come to models that name hardly anything else.
    let invalid = "invalid --seeds 0,1 --set tokenize.codebook-size=4 --set train.epochs=3 \
                   --set train.warmup=10 --set train.max-minutes=60";
    works(at, invalid);
    is_whole(at, "invalid");
    let first = at.read("out/invalid/invalid.csv");
    let table = rows(at, "invalid/invalid.csv");
    assert_eq!(table.iter().map(|row| row["beams"].as_str()).collect::<Vec<_>>(), ["10", "20"]);
    for row in &table {
        // Two seeds are two models.
        assert!(number(row, "invalid of all beams, % deviation") > 0.0, "{row:?}");
        // Taking invalid IDs out moves nothing down.
        assert!(number(row, "Recall@10 filtered") >= number(row, "Recall@10 unconstrained"));
    }
    // After so little training much of what is generated names no item.
    assert!(number(&table[0], "invalid of the first 10, %") > 1.0);

    // Nothing is trained or measured again, which one could tell by the time of the files.
    let measured = at.join("out/invalid/measured/classics-tiger-seed1.json");
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let model = at.join("out/runs/classics/tiger-seed1/model/model.safetensors");
    let before = (time(&measured), time(&model));
    works(at, invalid);
    assert_eq!(before, (time(&measured), time(&model)));
    assert_eq!(at.read("out/invalid/invalid.csv"), first);
    // Another number of users is another measurement, on the same model.
    works(at, &format!("{invalid} --set users=20"));
    assert!(time(&measured) > before.0 && time(&model) == before.1);
}

#[test]
fn unseen_items_have_their_share_and_no_more() {
    let at = &Place::new();
    // With four prefixes in all, unseen items share those of seen ones, whatever little was learned.
    works(
        at,
        "cold-start --set prepare.readers=120 --set users=120 --set tokenize.codebook-size=2 \
         --set tokenize.levels=2",
    );
    is_whole(at, "cold-start");
    let curve = rows(at, "cold-start/cold-start.csv");
    assert_eq!(curve.len(), 20);
    for column in ["TIGER, all users", "Semantic_KNN, all users", "TIGER, unseen test item"] {
        let column = format!("Recall@K {column}");
        let recalls: Vec<f64> = curve.iter().map(|row| number(row, &column)).collect();
        assert!(recalls.is_sorted(), "a longer list holds the shorter one: {recalls:?}");
    }
    // Lists of fewer than ten have no room for a tenth.
    assert_eq!(number(&curve[8], "Recall@K TIGER, unseen test item"), 0.0);
    let epsilons = rows(at, "cold-start/cold-start-epsilon.csv");
    for row in &epsilons {
        let share = number(row, "most unseen of 10, %") / 100.0;
        assert!(share <= number(row, "epsilon") + 1e-9, "{row:?}");
    }
    assert!(number(&epsilons[7], "most unseen of 10, %") > 0.0, "none was ever reached");
    assert_eq!(number(&epsilons[0], "Recall@10 TIGER, unseen test item"), 0.0);
    // The model never saw the items that are unseen, and all others.
    let count = |file: &str| {
        fs::read_to_string(at.join("out/runs/classics").join(file)).unwrap().lines().count()
    };
    let (seen, all) = (count("cold-start-seed0/items.jsonl"), count("tiger-seed0/items.jsonl"));
    assert!(seen < all && all == count("cold-start-seed0/unseen/items.jsonl"), "{seen} of {all}");
}

#[test]
fn entropies_stay_within_what_categories_allow() {
    let at = &Place::new();
    works(at, "diversity");
    is_whole(at, "diversity");
    let table = rows(at, "diversity/diversity.csv");
    let temperatures: Vec<&str> =
        table[..5].iter().map(|row| row["temperature"].as_str()).collect();
    assert_eq!(temperatures, ["none, the best", "1.0", "1.5", "2.0", "drawn evenly"]);
    for row in &table {
        for length in [10.0f64, 20.0, 50.0] {
            let entropy = number(row, &format!("entropy@{length}"));
            let most = number(row, "categories").min(length).ln();
            assert!((0.0..=most + 1e-9).contains(&entropy), "{row:?}");
        }
        // Among more items there are more categories.
        assert!(number(row, "entropy@10") < number(row, "entropy@50"), "{row:?}");
    }
    // The classics have more than one category, and lists are not all of one.
    assert!(number(&table[1], "entropy@50") > 0.2);
}

#[test]
fn coarser_numbers_make_smaller_files() {
    let at = &Place::new();
    works(at, "quantisation");
    is_whole(at, "quantisation");
    let page = at.read("out/quantisation/quantisation.md");
    assert!(page.contains("Test users: 30 (classics)."), "{page}");
    let table = rows(at, "quantisation/quantisation.csv");
    assert_eq!(
        table.iter().map(|row| row["format"].as_str()).collect::<Vec<_>>(),
        ["f32", "f16", "q8", "q4"]
    );
    for pair in table.windows(2) {
        assert!(number(&pair[0], "bytes") > number(&pair[1], "bytes"), "{pair:?}");
    }
    let (f32, f16) = (number(&table[0], "Recall@10"), number(&table[1], "Recall@10"));
    assert!((f32 - f16).abs() <= 1.0 / 30.0 + 1e-9, "one user of thirty: {f32} and {f16}");
}

#[test]
fn larger_models_cost_more() {
    let at = &Place::new();
    works(at, "scaling --set train.max-minutes=0.01");
    is_whole(at, "scaling");
    let table = rows(at, "scaling/scaling.csv");
    assert_eq!(table.len(), 7, "four of layers and four of widths, one of them in both");
    let layers: Vec<_> = table.iter().filter(|row| row["width"] == "64").collect();
    assert_eq!(
        layers.iter().map(|row| row["layers"].as_str()).collect::<Vec<_>>(),
        ["1", "2", "4", "8"]
    );
    for pair in layers.windows(2) {
        assert!(number(pair[0], "bytes") < number(pair[1], "bytes"));
        assert!(number(pair[0], "weights") < number(pair[1], "weights"));
    }
    assert!(number(layers[0], "ms") < number(layers[3], "ms"));
    assert!(table.iter().all(|row| number(row, "ms") > 0.0));
}

#[test]
fn settings_are_chosen_on_validation() {
    let at = &Place::new();
    works(at, "tuning");
    is_whole(at, "tuning");
    let trials = rows(at, "tuning/tuning-trials.csv");
    for chosen in rows(at, "tuning/tuning.csv") {
        let of: Vec<_> = trials.iter().filter(|row| row["method"] == chosen["method"]).collect();
        assert_eq!(of.len(), 3, "what is configured and two other values: {of:?}");
        assert_eq!(of[0]["settings"], "as configured");
        let ndcg = |row: &BTreeMap<String, String>| number(row, "validation NDCG@10");
        assert_eq!(ndcg(of[0]), number(&chosen, "validation NDCG@10 configured"));
        let best = of.iter().max_by(|a, b| ndcg(a).total_cmp(&ndcg(b))).unwrap();
        assert_eq!(ndcg(best), number(&chosen, "validation NDCG@10 chosen"));
        let row = of.iter().find(|row| row["settings"] == chosen["chosen"]).unwrap();
        assert_eq!(ndcg(row), ndcg(best), "{chosen:?}");
    }
    // The configured value is not tried again under another name.
    let tiger: Vec<_> = trials.iter().filter(|row| row["method"] == "TIGER").collect();
    assert_eq!(tiger[1]["settings"], "train.learning-rate=0.01");
    // What is left out is not tuned, and nothing cannot be.
    let of = "tuning --set study.tuning.train=false --set study.tuning.evaluate.baselines";
    works(at, &format!("{of}=item-knn"));
    let methods = rows(at, "tuning/tuning.csv");
    assert_eq!(methods.len(), 1);
    assert_eq!(methods[0]["method"], "item-KNN");
    let line = refuses(at, &format!("{of}=popularity --out out {SMALL}"));
    assert!(line.contains("nothing is left to tune"), "{line}");
}

#[test]
fn pieces_come_to_the_same_end() {
    // With two trainings and little else to do, the last of so many pieces begins within a training.
    const ENOUGH: i32 = 3;
    // A fast machine has more to do, until it takes that many.
    let in_pieces = [4, 16, 64, 256].into_iter().any(|epochs| {
        let at = &Place::new();
        let user = format!("user --set train.epochs={epochs} --set train.max-minutes=60");
        let piece = format!("--out out {SMALL} {user} --stop-after-minutes 0.05");
        let mut pieces = 0;
        loop {
            let output = study(at, &piece).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            pieces += 1;
            match output.status.code() {
                Some(0) => break,
                Some(75) => assert!(errors.contains("the same command goes on"), "{errors}"),
                other => panic!("{other:?}: {errors}"),
            }
            assert!(pieces < 100, "{errors}");
        }
        let is_resumed = pieces >= ENOUGH;
        if is_resumed {
            let figures = at.read("out/user/user.csv");
            fs::remove_dir_all(at.join("out")).unwrap();
            works(at, &user);
            assert_eq!(at.read("out/user/user.csv"), figures);
        }
        is_resumed
    });
    assert!(in_pieces, "the machine is too fast for this test; add more epochs");
}

#[test]
fn a_file_sets_everything_and_wrong_settings_are_named() {
    let at = &Place::new();
    let file = r#"
        out = "out"
        seeds = [3]
        users = 25
        [data.toys]
        classics = true
        readers = 60
        [data.toys.tokenize]
        method = "rq-kmeans"
        codebook-size = 16
        collision-size = 64
        [train]
        preset = "tiny"
        batch = 64
        epochs = 1
        [evaluate]
        beams = 10
        sasrec-epochs = 1
        [study.main.train]
        learning-rate = 0.002
    "#;
    at.write("paper.toml", file);
    let (_, errors) = succeeds(&mut study(at, "main --config paper.toml"));
    assert!(
        !errors.contains("without effect"),
        "SASRec has its options, TIGER's runs none: {errors}"
    );
    let table = rows(at, "main/main.csv");
    // The name tells which of the paper's figures stand beside it.
    let sasrec = table.iter().find(|row| row["method"] == "SASRec").unwrap();
    assert_eq!(sasrec["paper Recall@10"], "0.0675");
    let caser = table.iter().find(|row| row["method"] == "Caser").unwrap();
    assert_eq!((caser["NDCG@5"].as_str(), caser["paper NDCG@5"].as_str()), ("", "0.0107"));
    assert_eq!(number(table.last().unwrap(), "paper NDCG@10"), 0.0432);
    let stamp = at.join("out/runs/toys/tiger-seed3/.tigret/train.json");
    let stamp = fs::read_to_string(stamp).unwrap();
    assert!(stamp.contains("0.002"), "{stamp}");

    for (change, to, expected) in [
        ("seeds = [3]", "seeds = [\"a\"]", "`seeds` holds something else than whole numbers"),
        ("users = 25", "users = 0", "`users` is not a number of users"),
        ("[train]", "[trian]", "\"trian\" is none of out, seeds, users, data, study, or a step"),
        ("[train]", "[export]\n[train]", "[export] is not for a study"),
        (
            "epochs = 1\n        [evaluate]",
            "epoch = 1\n        [evaluate]",
            "toys, tiger, seed 3: [train] unexpected argument '--epoch'",
        ),
        ("[study.main.train]", "[study.mian.train]", "`study.mian` is none of the studies"),
        ("data.toys.tokenize", "data.toys.more", "`data.toys.more` is no step"),
        ("out = \"out\"", "", "say where runs and reports go: --out DIR"),
    ] {
        let text = file.replace(change, to);
        assert_ne!(text, file);
        at.write("wrong.toml", text);
        let line = refuses(at, "main --config wrong.toml");
        assert!(line.contains(expected), "{to}: {line}");
    }
    for (arguments, expected) in [
        ("main --out o", "say on what data"),
        ("main --out o --data beauty=nowhere", "nowhere/sequences.txt"),
        ("main --out o --data=", "--data \"\" names no folder"),
        (
            "main --config nope.toml",
            "nope.toml: not found; docs/studies.md shows what the TOML file of a study holds",
        ),
        ("main --out o --data classics --data classics", "named classics, too"),
        ("main --out o --data classics --max-minutes 0", "--max-minutes 0 is"),
    ] {
        let line = refuses(at, arguments);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn what_cannot_begin_is_refused_before_anything_is_done() {
    let at = &Place::new();
    let two = r#"
        [data.a]
        classics = true
        [data.b]
        sequences = "nope/sequences.txt"
        items = "b.csv"
    "#;
    at.write("two.toml", two);
    at.write("b.csv", "id,title\n");
    for (study, setting, expected) in [
        ("main", "train.foo=1", "classics, tiger, seed 0: [train] unexpected argument '--foo'"),
        ("main", "train.dropout=2", "classics, tiger, seed 0: train: --dropout 2 is outside"),
        ("main", "evaluate.sasrec-dropout=2", "classics, baselines, seed 0: evaluate: "),
        ("all", "study.quantisation.train.clip=0", "classics, tiger, seed 0: train: --clip 0 is"),
        ("ids", "tokenize.beta=0", "classics, rq-vae, seed 0: tokenize: --beta 0 is"),
        ("user", "train.dropout=2", "classics, tiger, seed 0: train: --dropout 2 is"),
        ("tuning", "train.dropout=2", "classics, tuning-tiger, seed 0: train: --dropout 2 is"),
        (
            "tuning",
            "study.tuning.evaluate.baselines=foo",
            "[evaluate] invalid value 'foo' for '--baselines",
        ),
        ("main", "train=false", "tigret study: `train` is not a table of options"),
        ("all", "study.user.evaluate=false", "`study.user.evaluate` is not a table of options"),
        // What only one of the variants has is refused as well: twice the width.
        ("scaling", "train.width=4096", "[train] invalid value '8192' for '--width"),
    ] {
        let line = refuses(at, &format!("{study} --data classics --out out --set {setting}"));
        assert!(line.contains(expected), "{setting}: {line}");
        assert!(!at.join("out").exists(), "{setting}");
    }
    let line = refuses(at, "layers --config two.toml --out out");
    let expected = "nope/sequences.txt: not found; correct `sequences`, which names it";
    assert!(line.contains("b, layers-3, seed 0: prepare: ") && line.contains(expected), "{line}");
    assert!(!at.join("out").exists());
}

#[test]
fn what_the_data_lack_for_one_study_does_not_end_the_others() {
    let at = &Place::new();
    at.write_shop();
    let shop = "out = \"out\"\nusers = 10\n[data.shop]\ninteractions = \"log.csv\"\n\
                items = \"items.jsonl\"\n[train]\nepochs = 1\n";
    at.write("shop.toml", shop);
    let line =
        refuses(at, "diversity invalid --config shop.toml --smoke --set tokenize.codebook-size=8");
    assert!(line.contains("diversity: ") && line.contains("no field of categories"), "{line}");
    assert!(at.join("out/invalid/invalid.md").exists());
    assert!(!at.join("out/diversity").exists());
}
