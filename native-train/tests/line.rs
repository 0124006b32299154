//! The whole line through the command: from a log of interactions to recommendations, and what the
//! command says of bad input.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tigret_infer::testing::{Shape, random_bundle_with_quantizer};
use tigret_infer::{Bundle, WeightFormat};

use crate::tigret::{Made, Place, fails, golden, refuses, succeeds, tigret, works, works_json};

/// Whether a bundle has no part in which interactions could be.
fn holds_weights_and_catalogue_only(bundle: &[u8]) -> bool {
    let length = u64::from_le_bytes(bundle[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bundle[8..8 + length]).unwrap();
    let names = |value: &Value| -> Vec<String> {
        value.as_object().unwrap().keys().map(String::clone).collect()
    };
    let is_weight = |name: &String| name.ends_with(".weight") || name.ends_with(".weight.scale");
    let mut others = names(&header);
    others.retain(|name| !is_weight(name));
    others == ["__metadata__", "catalog.codes", "catalog.id_bytes", "catalog.id_offsets"]
        && names(&header["__metadata__"]) == ["config", "format", "quantization", "tokens"]
}

const TRAIN: &str = "train --run r --preset tiny --batch 32 --warmup 5";

/// The shop with the run `r` that was made of its log and trained.
static TRAINED: LazyLock<Made> = LazyLock::new(|| {
    let at = &Place::new();
    at.write_shop();
    works(at, "prepare --run r --interactions log.csv --items items.jsonl");
    works(at, "embed --run r");
    let report = works_json(at, "tokenize --run r --codebook-size 8 --epochs 3 --users 10");
    assert_eq!(report["collisions"]["items"], 30);
    let outcome = works_json(at, &format!("{TRAIN} --epochs 3"));
    assert!(outcome["steps"].as_u64().unwrap() > 1);
    Made::of(at)
});

/// A trained run with its bundle in a format and two histories.
fn exported(format: &str) -> Place {
    let at = TRAINED.place();
    works(&at, &format!("export --run r --quantize {format} --out m.safetensors"));
    at.write(
        "h.jsonl",
        "{\"history\": [\"i3\", \"nothing\", \"i4\"]}\n{\"history\": [], \"user_token\": 3}\n",
    );
    at
}

#[test]
fn a_training_is_not_resumed_with_other_settings_unless_it_is_longer_which_is_said() {
    let at = &TRAINED.place();
    refuses(at, &format!("{TRAIN} --epochs 4 --dropout 0.2 --resume --json"));
    let line = refuses(at, &format!("{TRAIN} --epochs 2 --resume --json"));
    assert!(line.contains("with other settings (--epochs 3, not 2); give the same"), "{line}");
    let (_, errors) = succeeds(&mut tigret(at, &format!("{TRAIN} --epochs 4 --resume")));
    let longer = "goes on longer than it was to: --epochs 4, was 3";
    assert!(errors.contains(longer), "{errors}");
}

#[test]
fn a_bundle_in_f32_has_the_figures_of_its_model_also_without_histories() {
    let at = &exported("f32");
    let evaluate = "evaluate --run r --beams 30";
    let of_model = works_json(at, evaluate);
    let settings = json!({"split": "test", "exclude_history": false, "beams": 30, "batch": 128,
                          "user_token": true});
    assert_eq!(of_model["settings"], settings);
    assert!(of_model["share_of_history"].as_f64().unwrap() > 0.0);
    assert!(of_model["model"]["recall@10"].as_f64().unwrap() >= 0.0);
    let of_bundle = works_json(at, &format!("{evaluate} --bundle m.safetensors"));
    assert_eq!(of_bundle["model"], of_model["model"]);
    assert_eq!(of_bundle["share_of_history"], of_model["share_of_history"]);

    let training = &of_model["training"];
    assert_eq!(training["semantic_ids"], json!({"method": "rq-vae", "sizes": [8, 8, 8]}));
    assert_eq!(training["epochs"], 3);
    assert_eq!(of_model["config"]["dropout_rate"], 0.1);
    let (weights, steps) = (&of_model["weights"], &training["steps"]);
    let made = format!("{weights} weights, {steps} steps on semantic IDs of rq-vae, 8 x 8 x 8");
    assert!(works(at, evaluate).contains(&made), "{made}");
    assert!(of_bundle.get("weights").is_none(), "a bundle does not say how it was made");

    // Without their histories nobody is shown what they had.
    let unseen = works_json(at, &format!("{evaluate} --exclude-history"));
    assert_eq!(unseen["settings"]["exclude_history"], true);
    assert_eq!(unseen["share_of_history"], 0.0);
    let of_bundle = works_json(at, &format!("{evaluate} --exclude-history --bundle m.safetensors"));
    assert_eq!(of_bundle["model"], unseen["model"]);
}

#[test]
fn a_bundle_in_f32_has_the_figures_of_its_model_without_users_and_on_validation() {
    let at = &exported("f32");
    for (option, setting, value) in [
        ("--no-user", "user_token", Value::Bool(false)),
        ("--split validation", "split", "validation".into()),
    ] {
        let evaluate = format!("evaluate --run r --beams 30 {option}");
        let of_model = works_json(at, &evaluate);
        let of_bundle = works_json(at, &format!("{evaluate} --bundle m.safetensors"));
        assert_eq!(of_model["settings"][setting], value);
        assert_eq!(of_bundle["settings"][setting], value);
        assert_eq!(of_bundle["model"], of_model["model"], "{option}");
        assert_eq!(of_bundle["share_of_history"], of_model["share_of_history"], "{option}");
    }
}

#[test]
fn a_bundle_holds_nothing_of_those_whom_its_model_was_trained_on() {
    for format in ["f32", "f16", "q8", "q4"] {
        let at = exported(format);
        works(&at, "inspect m.safetensors");
        let bytes = fs::read(at.join("m.safetensors")).unwrap();
        // Nor texts of items.
        for private in ["customer-", "of kind"] {
            let found = bytes.windows(private.len()).any(|window| window == private.as_bytes());
            assert!(!found, "the bundle in {format} has \"{private}\" in it");
        }
        assert!(holds_weights_and_catalogue_only(&bytes), "{format}");
    }
}

#[test]
fn a_bundle_replaces_a_bundle_and_nothing_else() {
    let at = &exported("f32");
    works(at, "export --run r --quantize f32 --out m.safetensors");
    at.write("reserved.safetensors", "");
    works(at, "export --run r --out reserved.safetensors");
    for (out, part) in [
        ("log.csv", "log.csv: is there already and is no bundle"),
        (
            "r/vectors.safetensors",
            "r/vectors.safetensors: is a file of the run r; choose another name",
        ),
        ("r", "r: is a folder; name a file"),
        (
            "r/model/model.safetensors",
            "model.safetensors: is a file of the run r; choose another name",
        ),
    ] {
        let before = fs::read(at.join(out)).ok();
        let line = refuses(at, &format!("export --run r --out {out}"));
        assert!(line.contains(part), "{line}");
        assert_eq!(fs::read(at.join(out)).ok(), before);
    }
}

#[test]
fn every_history_is_answered_with_the_best_items_and_their_codes() {
    let at = &exported("q8");
    let recommend = "recommend --model m.safetensors --histories h.jsonl";
    let (answers, errors) = succeeds(&mut tigret(at, &format!("{recommend} --top 5 --json")));
    assert!(errors.contains("skipped 1 history items"), "{errors}");
    let answers: Vec<Value> = answers.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items.len(), 5);
        assert!(items[0]["id"].is_string() && items[0]["codes"].as_array().unwrap().len() == 4);
        assert!(items[0]["score"].as_f64() >= items[4]["score"].as_f64());
    }
    let line = refuses(at, &format!("{recommend} --top 60"));
    assert!(line.contains("top is 60") && !line.contains("h.jsonl"), "{line}");
}

/// What the bundle `m` answers to each line of some histories.
fn answers(at: &Place, histories: &str, options: &str) -> Vec<Value> {
    at.write("h", histories);
    let answers = works(at, &format!("recommend --model m --histories h --json {options}"));
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids of an answer's items.
fn ids(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_line_says_who_asks_and_what_may_be_answered() {
    let at = &Place::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    let (tokens, catalog) = (&bundle.tokens, &bundle.catalog);
    let users = tokens.users.unwrap();
    let token = tokens.user_token("customer-17").unwrap() - users.offset;
    let other = (token + 1) % users.count;
    let line = |fields: Value| format!("{fields}\n");
    let asked = [
        line(json!({"history": []})),
        line(json!({"history": [], "user": "customer-17"})),
        line(json!({"history": [], "user_token": token})),
        line(json!({"history": [], "user_token": other})),
    ];
    let of_users = answers(at, &asked.concat(), "");
    assert_eq!(of_users[1], of_users[2], "the user has this token");
    assert!(of_users[0] != of_users[1] && of_users[3] != of_users[1], "and nobody else's");

    // More items than the model reads, the first of them among those.
    let had: Vec<&str> = (0..12).map(|rank| catalog.id_of(rank)).collect();
    let allow: Vec<&str> = (0..15).map(|rank| catalog.id_of(rank)).collect();
    let best = &ids(&of_users[0])[0];
    let asked = [
        line(json!({"history": [], "exclude": [best]})),
        line(json!({"history": had, "allow": allow})),
        line(json!({"history": had, "allow": allow, "exclude": [allow[0], allow[13]]})),
    ];
    let sorted = |answer: &Value| {
        let mut ids = ids(answer);
        ids.sort();
        ids
    };
    let of = |ranks: &[u32]| {
        let mut ids: Vec<&str> = ranks.iter().map(|&rank| catalog.id_of(rank)).collect();
        ids.sort_unstable();
        ids
    };
    let all = answers(at, &asked.concat(), "");
    assert!(ids(&all[0]).len() == 20 && !ids(&all[0]).contains(best));
    assert_eq!(sorted(&all[1]), of(&Vec::from_iter(0..15)));
    assert_eq!(sorted(&all[2]), of(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]));
    let unseen = answers(at, &asked.concat(), "--exclude-history");
    assert_eq!(sorted(&unseen[1]), of(&[12, 13, 14]));
    assert_eq!(sorted(&unseen[2]), of(&[12, 14]));
}

#[test]
fn each_line_has_a_seed_of_its_own_by_its_number() {
    let at = &Place::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    let line = "{\"history\": []}\n";
    let sample = |histories: &str, seed: u64| {
        answers(at, histories, &format!("--top 5 --temperature 1 --seed {seed}"))
    };
    // An empty line has no answer, and is counted.
    let three = format!("{line}{line}\n{line}");
    let largest = (1 << 53) - 1;
    for (seed, of_lines) in [(7, [7, 8, 10]), (largest, [largest, 0, 2])] {
        let found = sample(&three, seed);
        assert_eq!(found, of_lines.map(|seed| sample(line, seed).remove(0)), "from {seed} on");
        assert!(found[0] != found[1] && found[1] != found[2], "from {seed} on");
    }
    let without = "recommend --model m --histories h --seed 7";
    assert!(fails(&mut tigret(at, without)).contains("--temperature"));
}

#[test]
fn a_sample_follows_from_its_seed_and_temperatures() {
    for format in ["f16", "q4"] {
        let at = &exported(format);
        let recommend = "recommend --model m.safetensors --histories h.jsonl --temperature";
        let sample = |options: &str| works(at, &format!("{recommend} {options} --json"));
        let first = sample("2 --seed 5");
        assert_eq!(first.lines().count(), 2);
        assert_eq!(sample("2,2,2,2 --seed 5"), first);
        assert_ne!(sample("2 --seed 6"), first);
        for (temperature, part) in [
            ("0", "temperature is 0, not a finite number above 0"),
            ("nan", "temperature is NaN"),
            ("1,2", "temperature has 2 values, the model has 4 levels"),
        ] {
            let line = refuses(at, &format!("{recommend} {temperature}"));
            assert!(line.contains(part), "{line}");
        }
    }
}

#[test]
fn codes_are_chosen_by_the_samples_of_a_run_where_it_has_them() {
    let at = &exported("q4");
    let bundle = |name: &str| fs::read(at.join(name)).unwrap();
    // Whether or not the model says what it was trained on.
    let mut config = at.read_json("r/model/config.json");
    config.as_object_mut().unwrap().remove("tigret_trained_on").unwrap();
    at.write("r/model/config.json", config.to_string());
    works(at, "export --run r --quantize q4 --out unsaid.safetensors");
    let same = bundle("m.safetensors") == bundle("unsaid.safetensors");
    assert!(same, "another bundle than that of a model that says");
    let files = "--checkpoint r/model --tokens r/tokens.json --catalog r/catalog.json";
    works(at, &format!("import --quantize q4 --out nearest.safetensors {files}"));
    assert!(bundle("m.safetensors") != bundle("nearest.safetensors"), "the nearest codes");
    fs::remove_file(at.join("r/sequences.jsonl")).unwrap();
    works(at, "export --run r --quantize q4 --out unsaid.safetensors");
    assert!(bundle("unsaid.safetensors") == bundle("nearest.safetensors"));
}

#[test]
fn a_model_goes_with_the_semantic_ids_that_it_was_trained_on() {
    let at = &Place::new();
    at.write_shop();
    works(at, "prepare --run r --interactions log.csv --items items.jsonl");
    works(at, "embed --run r");
    let tokenize = "tokenize --run r --method random --codebook-size 8";
    works(at, tokenize);
    let train = "train --run r --preset tiny --batch 64 --epochs 1";
    works(at, train);
    let resume = format!("{train} --resume --json");
    let uses = ["evaluate --run r", "export --run r --out m.safetensors"];

    // New items leave the IDs that there are as they are.
    at.write("new.jsonl", "{\"id\": \"new\", \"title\": \"a new thing\"}\n");
    works(at, "tokenize --run r --assign new.jsonl");
    for arguments in uses {
        works(at, arguments);
    }
    assert!(works(at, "inspect m.safetensors").contains("31 items"));
    assert!(refuses(at, &resume).contains("was trained with fewer items"));
    // It does not matter in which order a catalogue of the user's own has them.
    let mut catalog = at.read_json("r/catalog.json");
    catalog["items"].as_array_mut().unwrap().reverse();
    at.write("r/catalog.json", catalog.to_string());
    for arguments in uses {
        works(at, arguments);
    }

    // A catalogue from elsewhere is held to the model as well, in the order of then.
    let files = "--checkpoint r/model --tokens r/tokens.json";
    let import = |catalog| format!("import --out i.safetensors {files} --catalog {catalog}");
    let line = refuses(at, &import("r/catalog.json"));
    assert!(line.contains("r/model: was trained on other semantic IDs than those of"), "{line}");
    catalog["items"].as_array_mut().unwrap().reverse();
    at.write("catalog.json", catalog.to_string());
    works(at, &import("catalog.json"));

    works(at, &format!("{tokenize} --seed 1"));
    for arguments in uses {
        let line = refuses(at, arguments);
        assert!(line.contains("r/model: was trained on other semantic IDs"), "{line}");
    }
    let line = refuses(at, &resume);
    assert!(line.contains("was trained on other semantic IDs; give the same,"), "{line}");
    let baselines = "evaluate --run r --baselines sasrec";
    assert!(refuses(at, baselines).contains("was trained on other semantic IDs"));
    assert!(!at.join("r/baselines").exists(), "it is said before a baseline is trained");

    // A checkpoint that does not say is taken at its word.
    let mut config = at.read_json("r/model/config.json");
    for (said, part) in [("of then", Some("train again, or remove it")), ("", None)] {
        config["tigret_trained_on"] = if said.is_empty() { Value::Null } else { said.into() };
        at.write("r/model/config.json", config.to_string());
        for arguments in uses {
            match part {
                Some(part) => assert!(refuses(at, arguments).contains(part)),
                None => drop(works(at, arguments)),
            }
        }
    }

    works(at, &tokenize.replace("--codebook-size 8", "--codebook-size 32"));
    let line = refuses(at, &resume);
    assert!(line.contains("was trained on other semantic IDs"), "{line}");
    let line = refuses(at, uses[1]);
    assert!(line.contains("tokens.json: ") && line.contains("the vocabulary has"), "{line}");
    works(at, train);
    for arguments in uses {
        works(at, arguments);
    }
}

#[test]
fn a_site_is_laid_whole_or_not_at_all() {
    let at = &Place::new();
    at.write_shop();
    works(at, "prepare --run r --interactions log.csv --items items.jsonl");
    works(at, "embed --run r");
    works(at, "tokenize --run r --method rq-kmeans --codebook-size 8");
    fs::create_dir(at.join("page")).unwrap();
    at.write("page/index.html", "<!doctype html>");
    let demo = "demo r --page page --out site";
    assert!(refuses(at, demo).contains("tigret train"));
    works(at, "train --run r --preset tiny --batch 64 --epochs 1");
    let with_new = format!("{demo} --new-items new.jsonl");
    at.write("new.jsonl", "{\"id\": \"i3\", \"title\": \"a thing\"}\n");
    let line = refuses(at, &with_new);
    assert!(line.contains("new.jsonl:1: item \"i3\" is in the catalogue already"), "{line}");
    let line = refuses(at, "demo r --page page --out r");
    assert!(line.contains("model.safetensors: is a file of the run r"), "{line}");
    assert!(!at.join("site").exists() && !at.join("r/index.html").exists());
    // A copy in what is copied would have a copy of itself, and so on.
    let line = refuses(at, "demo r --page page --out page/new/site");
    assert!(line.contains("page/new/site: lies in the page that is to be copied there"), "{line}");
    assert_eq!(fs::read_dir(at.join("page")).unwrap().count(), 1);

    at.write("new.jsonl", "{\"id\": \"new\", \"title\": \"a thing\"}\n");
    works(at, &with_new);
    let laid = at.read("site/model/new.jsonl");
    assert!(laid.lines().count() == 1 && laid.contains("embedding"), "{laid}");
    assert!(at.join("site/index.html").is_file() && at.join("site/model/about.json").is_file());
    works(at, demo);
    assert!(!at.join("site/model/new.jsonl").exists());
}

#[test]
fn figures_of_a_model_of_other_sequences_are_told_of() {
    let at = &Place::new();
    at.write_shop();
    let prepare = "prepare --run r --interactions log.csv --items items.jsonl";
    works(at, prepare);
    works(at, "tokenize --run r --method random --codebook-size 8");
    let train = "train --run r --preset tiny --batch 64 --epochs 1";
    let said = succeeds(&mut tigret(at, train)).1;
    assert!(said.contains("--warmup 1000 is long for the 4 steps of all epochs"), "{said}");
    let evaluate = || {
        let said = succeeds(&mut tigret(at, "evaluate --run r")).1;
        let written = at.read_json("r/evaluation.json");
        (said, written["trained_on_other_sequences"].as_bool().unwrap_or(false))
    };
    assert_eq!(evaluate(), (String::new(), false));

    // An earlier cut: the model has seen what is now to be found.
    works(at, &format!("{prepare} --until 1007"));
    assert!(!at.join("r/evaluation.json").exists(), "figures of other sequences");
    let (said, written) = evaluate();
    assert!(said.contains("r/model was trained on other sequences than the run has now"), "{said}");
    assert!(written);
}

#[test]
fn baselines_are_evaluated_beside_the_model_and_without_one() {
    let at = &Place::new();
    at.write_shop();
    works(at, "prepare --run r --interactions log.csv --items items.jsonl");
    assert!(refuses(at, "evaluate --run r").contains("name --baselines"));
    let line = refuses(at, "evaluate --run r --baselines semantic-knn");
    assert!(line.contains("make it with `tigret embed`, or leave semantic-knn out of"), "{line}");
    works(at, "embed --run r");

    let evaluate = "evaluate --run r --baselines all --sasrec-epochs 60 --sasrec-dim 16 \
                    --sasrec-learning-rate 0.01 --sasrec-dropout 0.1";
    let printed = works_json(at, evaluate);
    assert!(printed.get("model").is_none() && printed["popularity"]["ndcg@10"].is_number());
    let ndcg = |name: &str| printed["baselines"][name]["ndcg@10"].as_f64().unwrap();
    // Customers walk on from item to item: both that learn from sequences find it out.
    assert!(ndcg("sasrec") > 0.9 && ndcg("item-knn") > 0.3, "{printed}");
    assert_eq!(printed["baselines"]["sasrec"]["settings"]["dim"], 16);
    let written = || at.read_json("r/evaluation.json");
    assert_eq!(written(), printed);

    let log_of_training = || at.read("r/baselines/sasrec/train.jsonl");
    let before = log_of_training();
    let again = works_json(at, evaluate);
    assert_eq!(again["baselines"]["sasrec"], printed["baselines"]["sasrec"]);
    assert_eq!(log_of_training(), before, "it is not trained again");
    let said = |line: &str| succeeds(&mut tigret(at, line)).1;
    // A limit that the training did not have is told of, and stands in the figures.
    let errors = said(&format!("{evaluate} --sasrec-max-minutes 0.001"));
    assert!(errors.contains("longer than --sasrec-max-minutes 0.001; remove r/baselines/sasrec"));
    assert_eq!(log_of_training(), before);
    assert_eq!(written()["baselines"]["sasrec"]["settings"]["max_minutes"], 0.001);
    let errors = said("evaluate --run r --baselines popularity --sasrec-dim 8");
    assert!(errors.contains("options of sasrec are without effect"), "{errors}");

    works(at, "tokenize --run r --codebook-size 8 --epochs 3");
    works(at, "train --run r --preset tiny --batch 64 --epochs 1");
    let table = works(at, &format!("{evaluate} --beams 30"));
    for row in ["model ", "popularity ", "item-KNN ", "Semantic_KNN ", "SASRec "] {
        assert!(table.lines().any(|line| line.starts_with(row)), "{table}");
    }
    assert!(table.contains("SASRec is ahead of the model by 0."), "{table}");
    let with_model = written();
    assert!(with_model["model"]["ndcg@10"].is_number());
    let alone = works_json(at, "evaluate --run r --baselines item-knn --baselines-only");
    let nothing_searched = json!({"split": "test", "exclude_history": false});
    assert_eq!(alone["settings"], nothing_searched);
    assert_eq!(written(), with_model, "baselines alone do not replace the model's figures");

    fs::create_dir(at.join("nobody")).unwrap();
    fs::copy(at.join("r/items.jsonl"), at.join("nobody/items.jsonl")).unwrap();
    at.write("nobody/sequences.jsonl", "");
    let line = refuses(at, "evaluate --run nobody --baselines popularity");
    assert!(line.contains("sequences.jsonl: has no users to rank for"), "{line}");

    for option in ["--sasrec-dim 15", "--item-knn-decay 2"] {
        let line = refuses(at, &format!("evaluate --run r {option}"));
        assert!(line.contains(option), "{line}");
    }
}

#[test]
fn a_checkpoint_of_transformers_becomes_a_bundle() {
    let golden = golden("tied");
    let at = &Place::new();
    let with = |tokens: &Path, catalog: &Path| {
        format!(
            "import --checkpoint {} --tokens {} --catalog {} --quantize f32 --out m.safetensors",
            golden.display(),
            tokens.display(),
            catalog.display()
        )
    };
    let import = |tokens: &Path| with(tokens, &golden.join("catalog.json"));
    let line = import(&golden.join("tokens.json"));
    works(at, &line);
    assert!(works(at, "inspect m.safetensors").contains("60 items"));
    at.write("m.safetensors", "a text");
    let line = refuses(at, &line);
    assert!(line.contains("m.safetensors: is there already and is no bundle"), "{line}");

    let layout = fs::read_to_string(golden.join("tokens.json")).unwrap();
    at.write("tokens.json", layout.replacen("\"size\": 16", "\"size\": 99", 1));
    fs::remove_file(at.join("m.safetensors")).unwrap();
    let line = refuses(at, &import(Path::new("tokens.json")));
    assert!(line.contains("tokens.json") && line.contains("level 0"), "{line}");
    assert!(!at.join("m.safetensors").exists());

    at.write("catalog.json", r#"[{"id": "a", "codes": [0, 0, 0, 0]}]"#);
    let line = refuses(at, &with(&golden.join("tokens.json"), Path::new("catalog.json")));
    assert!(line.contains("catalog.json: is an array; it has to be an object"), "{line}");

    // Where two files say two things, one of them is said to count, and the bundle says but this.
    at.write("tokens.json", layout.replacen("\"decoder_start\": 0", "\"decoder_start\": 1", 1));
    let (_, told) = succeeds(&mut tigret(at, &import(Path::new("tokens.json"))));
    let expected = "the decoder starts with token 1, as tokens.json says, and not with 0";
    assert!(told.contains(expected), "{told}");
    let bundle = Bundle::from_bytes(&fs::read(at.join("m.safetensors")).unwrap()).unwrap();
    assert_eq!(bundle.config.decoder_start_token_id, 1);
}

#[test]
fn damaged_bundles_are_refused_with_the_field_named() {
    let at = &Place::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    let good = bundle.to_bytes().unwrap();
    let format = good.windows(8).position(|bytes| bytes == b"tigret/1").unwrap();
    let other = [&good[..format], b"tigret/9", &good[format + 8..]].concat();
    for (name, bytes, expected) in [
        ("cut-off", &good[..good.len() - 100], "not a valid safetensors file"),
        ("of-another-format", &other[..], "`format`"),
    ] {
        at.write(name, bytes);
        let line = refuses(at, &format!("inspect {name}"));
        assert!(line.contains(expected) && line.contains(name), "{name}: {line}");
    }
}

#[test]
fn histories_are_answered_in_order_up_to_a_line_at_fault() {
    let at = &Place::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    let id = bundle.catalog.id_of(0);
    let line = format!("{{\"history\": [\"{id}\"]}}\n");
    let nulls = line.replace('}', ", \"user\": null, \"exclude\": null, \"allow\": null}");
    // A byte order mark, a blank line, a carriage return, fields that are null.
    let text = format!("\u{feff}{line}\n{}\r\n{nulls}", line.trim_end());
    at.write("h.jsonl", &text);
    at.write("h.jsonl.gz", &text);

    let recommend = |histories: &str, more: &str| -> Output {
        let line = format!("recommend --model m --histories {histories} {more}");
        tigret(at, &line).output().unwrap()
    };
    let shown = recommend("h.jsonl", "").stdout;
    let shown_text = String::from_utf8_lossy(&shown);
    let numbers: Vec<&str> = shown_text.lines().filter(|l| l.starts_with("history")).collect();
    assert_eq!(numbers, ["history 1", "history 3", "history 4"]);
    for (histories, batch) in [("h.jsonl", "1"), ("h.jsonl", "2"), ("h.jsonl.gz", "32")] {
        let batch = format!("--batch {batch}");
        assert_eq!(recommend(histories, &batch).stdout, shown, "{histories} {batch}");
    }

    // Never more items than beams, so that a narrow search is no mistake.
    let narrow = recommend("h.jsonl", "--json --beams 3");
    assert!(narrow.status.success(), "{}", String::from_utf8_lossy(&narrow.stderr));
    for answer in String::from_utf8_lossy(&narrow.stdout).lines() {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["items"].as_array().unwrap().len(), 3, "{answer}");
    }

    at.write("wrong", format!("{line}{line}{line}{{}}\n{line}"));
    for batch in ["1", "2", "3", "18446744073709551615"] {
        let output = recommend("wrong", &format!("--json --batch {batch}"));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3, "{batch}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains("wrong:4: missing field `history`"), "{errors}");
    }
    // The field at fault is named, and what was skipped before is counted all the same.
    for (fault, said) in [
        ("{\"history\": \"x\"}", "fault:2: `history`: invalid type: string \"x\", expected a seq"),
        ("{\"history\": [], \"user_token\": \"3\"}", "fault:2: `user_token`: invalid type: string"),
        ("{\"history\": [], \"users\": 3}", "fault:2: unknown field `users`"),
    ] {
        at.write("fault", format!("{{\"history\": [\"nobody\"]}}\n{fault}\n"));
        let errors = String::from_utf8(recommend("fault", "--json").stderr).unwrap();
        assert!(errors.contains(said), "{errors}");
        assert!(errors.contains("skipped 1 history items"), "{errors}");
    }
    let many = "--temperature 1 --seed 9007199254740992";
    assert_eq!(recommend("h.jsonl", many).status.code(), Some(2));

    // With batches of one an answer is there before the next line is asked for.
    let one = "recommend --model m --histories /dev/stdin --json --batch 1";
    let mut program = tigret(at, one).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut asks, answers) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
    let mut answers = BufReader::new(answers);
    for _ in 0..3 {
        asks.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"items\":[{"), "{answer}");
    }
    // A reader that has had enough is no fault.
    drop(answers);
    asks.write_all(line.as_bytes()).unwrap();
    drop(asks);
    assert!(program.wait().unwrap().success());
}

#[test]
fn bad_input_ends_with_one_line_and_status_2() {
    let at = &Place::new();
    assert!(refuses(at, "train --run nowhere").contains("tigret prepare"));
    let quantize = "export --run nowhere --out m --quantize q5";
    let output = tigret(at, quantize).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = "invalid value 'q5' for '--quantize <QUANTIZE>': use f32, f16, q8, q4";
    assert!(errors.contains(said), "{errors}");
    fs::create_dir(at.join("empty")).unwrap();
    for (verb, option, part) in [
        ("train", "--learning-rate", "--learning-rate -1 is outside"),
        ("tokenize", "--beta", "--beta -1 is not a positive number"),
        ("evaluate", "--item-knn-decay", "--item-knn-decay -1"),
    ] {
        let line = refuses(at, &format!("{verb} --run empty {option} -1"));
        assert!(line.contains(part), "{line}");
    }
    // What the help shows as the default can be given.
    assert!(works(at, "tokenize --help").contains("[default: 512,256,128]"));
    let hidden = "tokenize --run empty --hidden 512,256,128";
    assert!(refuses(at, hidden).contains("tigret prepare"));
    assert!(refuses(at, "tokenize --run empty").contains("tigret prepare"));
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    at.write("h", "{\"history\": []}\n{\"history\": 3}\n");
    // The answer to the line before is printed.
    let line = fails(&mut tigret(at, "recommend --model m --histories h"));
    assert!(line.starts_with("tigret: h:2:"), "{line}");
    // A list is no object, though its values would do in their order.
    for text in ["[[]]\n", "user,item\n"] {
        at.write("h", text);
        let line = refuses(at, "recommend --model m --histories h");
        assert!(line.contains("h:1: is not a JSON object; the file must be JSONL"), "{line}");
    }
    for (model, said) in [
        ("empty", "empty: is a folder, not a file; name a bundle that `tigret export` makes"),
        ("nosuch", "nosuch: not found; name a bundle that `tigret export` makes"),
    ] {
        let line = refuses(at, &format!("recommend --model {model} --histories h"));
        assert!(line.contains(said), "{line}");
    }
    let line = refuses(at, "inspect nosuch");
    assert!(line.contains("not found; name a run directory, or a bundle of"), "{line}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let at = &Place::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    at.write("m", bundle.to_bytes().unwrap());
    at.write("h", "{\"history\": []}\n".repeat(3));
    let recommend = "recommend --model m --histories h";
    let in_pieces = format!("{recommend} --json --batch 1");
    for arguments in ["inspect m", "inspect --json m", recommend, &in_pieces] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let errors = fails(tigret(at, arguments).stdout(full));
        assert!(errors.starts_with("tigret: standard output: cannot be written: "), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
