//! Bad files of a run directory, and of those that its commands read beside it.

use serde_json::{Value, json};

use super::{Attack, replaced, with, with_data, with_field, with_header, with_metadata, with_name};

pub(crate) fn run_items(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.jsonl": "{\"id\":[".repeat(3000) =>
            "items.jsonl:1: is not a JSON object: recursion limit exceeded",
        "not-utf-8.jsonl": b"{\"id\":\"i0\",\"text\":\"\xff\"}\n" =>
            "items.jsonl:1: is not UTF-8 text",
        "id-a-number.jsonl": "{\"id\":0,\"text\":\"t\"}\n" =>
            "items.jsonl:1: has no string \"id\"",
        "text-missing.jsonl": "{\"id\":\"i0\"}\n" =>
            "items.jsonl:1: has no string \"text\"",
        "id-twice.jsonl": good.repeat(2) =>
            "items.jsonl:13: item \"i0\" stands already on line 1",
        "packed.jsonl": [0x1f, 0x8b, 8, 0] =>
            "items.jsonl: is packed by gzip; let its name end in .gz",
        "texts-empty.jsonl": (0..12)
            .map(|item| format!("{{\"id\":\"i{item}\",\"text\":\"\"}}\n"))
            .collect::<String>() =>
            "items.jsonl: the text of every item is empty",
    }
}

pub(crate) fn run_sequences(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.jsonl": format!("{{\"user\":{}", "[".repeat(5000)) =>
            "sequences.jsonl:1: invalid type: sequence, expected a string",
        "not-utf-8.jsonl": b"{\"user\":\"\xff\",\"items\":[]}\n" =>
            "sequences.jsonl:1: is not UTF-8 text",
        "items-none.jsonl": "{\"user\":\"u\",\"items\":[]}\n" =>
            "sequences.jsonl:1: has 0 items, at least 3 are needed",
        "item-unknown.jsonl":
            [good, b"{\"user\":\"u\",\"items\":[\"i0\",\"i1\",\"i99\"]}\n"].concat() =>
            "sequences.jsonl:21: item \"i99\" is not in items.jsonl",
        "items-numbers.jsonl": "{\"user\":\"u\",\"items\":[0,1,2]}\n" =>
            "sequences.jsonl:1: invalid type: integer `0`, expected a string",
    }
}

pub(crate) fn run_summaries(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-json.json": "items = 12" =>
            "dataset.json: expected value",
        "deep.json": "{\"text\":".repeat(5000) =>
            "dataset.json: unknown variant `text`, expected `template` or `columns`",
        "users-2-to-the-64.json": replaced(good, "\"users\": 20", "\"users\": 18446744073709551616") =>
            "dataset.json: invalid type: floating point `1.8446744073709552e+19`, expected usize",
        "template-open.json":
            with(good, "/text", json!({"template": "{title"})) =>
            "dataset.json: \"{title\" has no \"}\" after it",
        "recipe-unknown.json": with(good, "/text", json!({"script": "x"})) =>
            "dataset.json: unknown variant `script`, expected `template` or `columns`",
    }
}

pub(crate) fn run_vectors(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "vectors.safetensors: is cut off in its header",
        "truncated.safetensors": &good[..good.len() - 5] =>
            "vectors.safetensors: ends before its tensors do; was it cut short?",
        "value-nan.safetensors": with_data(good, "vectors", &f32::NAN.to_le_bytes()) =>
            "vectors.safetensors: the vector of item \"i0\" is not finite",
        "axes-three.safetensors": with_header(good, |json| {
            let shape = json["vectors"]["shape"].as_array_mut().unwrap();
            shape.push(json!(1));
        }) =>
            "vectors.safetensors: \"vectors\" has 3 axes, not 2",
        "rows-too-few.safetensors": with_header(good, |json| {
            let shape = json["vectors"]["shape"].as_array_mut().unwrap();
            let [rows, width] = [0, 1].map(|axis: usize| shape[axis].as_u64().unwrap());
            *shape = vec![json!(rows / 2), json!(width * 2)];
        }) =>
            "not F32 [12, ≥ 1], a row for each item",
        "rows-of-no-width.safetensors": with_header(good, |json| {
            json["vectors"]["shape"] = json!([12, 0]);
            json["vectors"]["data_offsets"] = json!([0, 0]);
        }) =>
            "vectors.safetensors: is not a safetensors file: incomplete metadata",
        "of-other-items.safetensors": with_field(good, "__metadata__", "ids_hash", json!("0")) =>
            "vectors.safetensors: was made for other items than items.jsonl has",
        "of-other-texts.safetensors": with_field(good, "__metadata__", "texts_hash", json!("0")) =>
            "vectors.safetensors: was made of other texts than items.jsonl has",
        "of-another-name.safetensors": with_name(good, "vectors", "vector") =>
            "vectors.safetensors: tensor `vectors` not found",
    }
}

pub(crate) fn run_encoders(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "encoder.safetensors: is damaged (header too small); run `tigret embed` again",
        "truncated.safetensors": &good[..good.len() - 5] =>
            "encoder.safetensors: is damaged (incomplete metadata, file not fully covered)",
        "kind-unknown.safetensors": replaced(good, "tf-idf+svd", "tf-idf+pca") =>
            "encoder.safetensors: names the encoder \"tf-idf+pca\", which this tigret does not know",
        "weight-nan.safetensors": with_data(good, "idf", &f32::NAN.to_le_bytes()) =>
            "encoder.safetensors: is damaged (idf holds numbers that are not finite)",
        "term-twice.safetensors": with_data(good, "terms", b"\n\n") =>
            "encoder.safetensors: is damaged (its parts do not fit together)",
        "terms-not-utf-8.safetensors": with_data(good, "terms", b"\xff") =>
            "encoder.safetensors: is damaged (terms)",
        "words-negative.safetensors": with_field(good, "__metadata__", "max_words", json!("-1")) =>
            "encoder.safetensors: is damaged (max_words)",
        "another.safetensors": with_data(good, "idf", &1f32.to_le_bytes()) =>
            "encoder.safetensors: is not the encoder of vectors.safetensors",
    }
}

pub(crate) fn texts(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.jsonl": "" =>
            "new.jsonl: has no items",
        "deep.jsonl": "{\"id\":[".repeat(3000) =>
            "new.jsonl:1: is not a JSON object: recursion limit exceeded",
        "not-utf-8.jsonl": b"{\"id\":\"n\",\"text\":\"\xff\"}\n" =>
            "new.jsonl:1: is not UTF-8 text",
        "id-twice.jsonl": good.repeat(2) =>
            "new.jsonl:4: item \"n1\" stands already on line 1",
        "text-missing.jsonl": "{\"id\":\"n\"}\n" =>
            "new.jsonl:1: item \"n\" has no text; give \"text\", or one of the fields title, brand",
    }
}

pub(crate) fn assigned_items(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-utf-8.jsonl": b"{\"id\":\"n\",\"text\":\"\xff\"}\n" =>
            "new.jsonl:1: is not UTF-8 text",
        "id-twice.jsonl": good.repeat(2) =>
            "new.jsonl:4: item \"n1\" stands already on line 1",
        "embedding-short.jsonl": "{\"id\":\"n\",\"embedding\":[1.0]}\n" =>
            "new.jsonl:1: \"embedding\" has 1 numbers, the tokenizer was trained on ",
        "embedding-of-text.jsonl": "{\"id\":\"n\",\"embedding\":\"NaN\"}\n" =>
            "new.jsonl:1: \"embedding\" is not a list of numbers",
    }
}

pub(crate) fn run_tokenizers(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "tokenizer.safetensors: is not a valid safetensors file: header too small",
        "truncated.safetensors": &good[..good.len() - 5] =>
            "tokenizer.safetensors: is not a valid safetensors file: incomplete metadata",
        "codeword-nan.safetensors":
            with_data(good, "quantizer.codebook.0", &f32::NAN.to_le_bytes()) =>
            "tokenizer.safetensors: tensor `quantizer.codebook.0`: value 0 is not finite",
        "input-2-to-the-32.safetensors":
            with_metadata(good, "quantizer", "/input", json!(1u64 << 32)) =>
            "metadata field `quantizer`: a width of 4294967296, outside 1..=65536",
        "level-of-no-width.safetensors":
            with_metadata(good, "quantizer", "/sizes/0", json!(0)) =>
            "metadata field `quantizer`: a level of 0 codes, outside 1..=65536",
        "of-smaller-levels.safetensors": with_metadata(good, "quantizer", "/sizes/0", json!(3)) =>
            "tensor `quantizer.codebook.0`: is F32 [4, 3], which is not what `quantizer` says",
        "of-other-ids.safetensors": with_header(good, |json| {
            let ids = &mut json["__metadata__"]["semantic_ids"];
            *ids = ids.as_str().unwrap().replacen("\"items\":12", "\"items\":11", 1).into();
        }) =>
            "tokenizer.safetensors: gave other semantic IDs than those of catalog.json",
        "ids-deep.safetensors":
            with_field(good, "__metadata__", "semantic_ids", "[".repeat(5000).into()) =>
            "tokenizer.safetensors: `semantic_ids`: invalid type: sequence, expected usize",
    }
}

pub(crate) fn run_tokenizer_reports(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-json.json": "method = 1" =>
            "tokenizer.json: expected value",
        "deep.json": "[".repeat(5000) =>
            "tokenizer.json: recursion limit exceeded",
        "not-utf-8.json": b"{\"encoder\": \"\xff\"}" =>
            "tokenizer.json: is not UTF-8 text; save the file as UTF-8",
        "of-another-encoder.json": with(good, "/encoder", json!("tf-idf+svd:0")) =>
            "was trained on vectors of another encoder than the run's",
        "encoder-missing.json": with(good, "/encoder", Value::Null) =>
            "was trained on vectors of another encoder than the run's",
    }
}

pub(crate) fn run_tokenizer_logs(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-utf-8.jsonl": [good, b"\xff"].concat() =>
            "tokenizer.jsonl: is not UTF-8 text; save the file as UTF-8",
        "cut-off.jsonl": &good[..good.len() - 2] =>
            "tokenizer.jsonl:5: EOF while parsing",
        "deep.jsonl": "[".repeat(5000) =>
            "tokenizer.jsonl:1: recursion limit exceeded",
        "loss-1e999.jsonl": replaced(good, "2.5", "1e999") =>
            "tokenizer.jsonl:1: number out of range",
    }
}

pub(crate) fn run_evaluations(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-json.json": "users = 20" =>
            "evaluation.json: expected value",
        "cut-off.json": &good[..good.len() / 2] =>
            "evaluation.json: EOF while parsing",
        "deep.json": "{\"model\":".repeat(5000) =>
            "evaluation.json: recursion limit exceeded",
        "users-1e999.json": replaced(good, "\"users\": 20", "\"users\": 1e999") =>
            "evaluation.json: number out of range",
    }
}

pub(crate) fn run_model_configs(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "{\"a\":".repeat(5000) =>
            "config.json: metadata field `config`: EOF while parsing a value",
        // What the largest model of all would take is 50 GB for these alone.
        "sizes-that-no-memory-has.json":
            with(&with(good, "/vocab_size", json!(1 << 20)), "/d_model", json!(8192)) =>
            "model: weight `shared.weight` has shape [36, 8], the model asks for [1048576, 8192]",
        "layers-64.json": with(good, "/num_layers", json!(64)) =>
            "model: weight `encoder.block.1.layer.0.SelfAttention.q.weight` is missing",
        "width-none.json": with(good, "/d_model", json!(0)) =>
            "config.json: metadata field `config`: d_model is 0, outside 1..=8192",
        "vocabulary-small.json": with(good, "/vocab_size", json!(8)) =>
            "model: has a smaller vocabulary than tokens.json",
        "trained-on-nothing.json": with(good, "/tigret_trained_on", json!([])) =>
            "config.json: `tigret_trained_on`: invalid type: sequence, expected struct Provenance",
    }
}

pub(crate) fn run_models(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "model.safetensors: not a valid safetensors file: header too small",
        "weight-nan.safetensors": with_data(good, "shared.weight", &f32::NAN.to_le_bytes()) =>
            "model.safetensors: tensor `shared.weight`: value 0 is not finite",
        "weight-missing.safetensors": with_name(good, "shared.weight", "shared.wait") =>
            "model: weight `shared.weight` is missing",
        "weight-of-another-shape.safetensors": with_header(good, |json| {
            json["shared.weight"]["shape"].as_array_mut().unwrap().reverse();
        }) =>
            "model: weight `shared.weight` has shape [8, ",
    }
}

/// A state whose progress has other numbers.
fn with_progress(good: &[u8], pointer: &str, value: Value) -> Vec<u8> {
    with_metadata(good, "progress", pointer, value)
}

pub(crate) fn run_trainings(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "last.safetensors: not a valid safetensors file: header too small",
        "truncated.safetensors": &good[..good.len() - 5] =>
            "last.safetensors: not a valid safetensors file: incomplete metadata",
        "step-2-to-the-64.safetensors": with_progress(good, "/step", json!(u64::MAX)) =>
            "model: holds a damaged state (step 18446744073709551615 after ",
        "seconds-negative.safetensors": with_progress(good, "/seconds", json!(-1.0)) =>
            " after -1.0 seconds)",
        "seconds-of-ages.safetensors": with_progress(good, "/seconds", json!(1e300)) =>
            " after 1e300 seconds)",
        "of-other-settings.safetensors": with_progress(good, "/settings/batch", json!(7)) =>
            "model: was trained with other settings (--batch 7, not 32); give the same",
        "progress-missing.safetensors": with_header(good, |json| {
            json["__metadata__"].as_object_mut().unwrap().remove("progress");
        }) =>
            "model: holds no training state: no `progress`",
        "progress-deep.safetensors":
            with_field(good, "__metadata__", "progress", "[".repeat(5000).into()) =>
            "model: holds the state of another version of Tigret",
        "moment-infinite.safetensors":
            with_data(good, "first_moment/shared.weight", &f32::INFINITY.to_le_bytes()) =>
            "last.safetensors: tensor `first_moment/shared.weight`: value 0 is not finite",
        "moment-missing.safetensors":
            with_name(good, "second_moment/shared.weight", "second_moment/shared.wait") =>
            "model: second_moment/: weight `shared.weight` is missing",
    }
}

pub(crate) fn run_training_logs(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-utf-8.jsonl": [good, b"\xff\n"].concat() =>
            "train.jsonl: is not UTF-8 text; save the file as UTF-8",
    }
}

pub(crate) fn run_baselines(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "last.safetensors: is cut off in its header",
        "seconds-negative.safetensors": with_progress(good, "/seconds", json!(-1.0)) =>
            "sasrec: holds a damaged state (step ",
        "step-2-to-the-64.safetensors": with_progress(good, "/step", json!(u64::MAX)) =>
            "sasrec: holds a damaged state (step 18446744073709551615 after ",
        "progress-a-list.safetensors": with_field(good, "__metadata__", "progress", json!("[]")) =>
            "sasrec: holds the state of another version of Tigret",
    }
}

pub(crate) fn run_model_indices(good: &[u8]) -> Vec<Attack> {
    let to = |file: &str| with(good, "/weight_map/shared.weight", json!(file));
    attacks! {
        "deep.json": "[".repeat(5000) =>
            "model.safetensors.index.json: invalid type: sequence, expected a map",
        "part-above-its-folder.json": to("../last.safetensors") =>
            "index.json: names \"../last.safetensors\", which is not a file beside it",
        "part-elsewhere.json": to("/dev/zero") =>
            "index.json: names \"/dev/zero\", which is not a file beside it",
        "part-missing.json": to("gone.safetensors") =>
            "gone.safetensors: not found; ",
        "part-of-another-kind.json": to("config.json") =>
            "config.json: not a valid safetensors file: ",
        "weight-in-no-part.json": replaced(good, "shared.weight", "shared.wait") =>
            "index.json: `shared.wait` is in none of the files it names",
    }
}

pub(crate) fn run_oracles(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-json.json": "recall = 1" =>
            "oracle.json: expected value",
        "figure-missing.json": replaced(good, "ndcg@5", "x") =>
            "oracle.json: missing field `ndcg@5`",
        "figure-1e999.json": replaced(good, "0.125", "1e999") =>
            "oracle.json: number out of range",
    }
}
