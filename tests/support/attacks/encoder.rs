//! Bad files of a sentence-transformers folder.

use serde_json::{Value, json};

use super::{Attack, replaced, with, with_data, with_field, with_header, with_name};

pub(crate) fn encoder_bert(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "[".repeat(5000) =>
            "config.json: recursion limit exceeded",
        "architecture-unknown.json": with(good, "/model_type", json!("gpt2")) =>
            "config.json: names the architecture \"gpt2\"",
        "width-none.json": with(good, "/hidden_size", json!(0)) =>
            "config.json: has hidden_size 0, outside 1..=16777216",
        "heads-none.json": with(good, "/num_attention_heads", json!(0)) =>
            "config.json: has num_attention_heads 0, outside 1..=16777216",
        "width-2-to-the-32.json": with(good, "/hidden_size", json!(1u64 << 32)) =>
            "config.json: has hidden_size 4294967296, outside 1..=16777216",
        "layers-2-to-the-64.json": with(good, "/num_hidden_layers", json!(u64::MAX)) =>
            "model.safetensors: does not fit config.json: cannot find tensor encoder.layer.2",
        "vocabulary-none.json": with(good, "/vocab_size", json!(0)) =>
            "config.json: has vocab_size 0, outside 1..=16777216",
        "epsilon-negative.json": with(good, "/layer_norm_eps", json!(-1e9)) =>
            "is not finite; its weights are broken",
        "positions-fewer-than-the-weights-have.json":
            with(good, "/max_position_embeddings", json!(4)) =>
            "model.safetensors: does not fit config.json: shape mismatch",
    }
}

pub(crate) fn encoder_mpnet(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "width-none.json": with(good, "/hidden_size", json!(0)) =>
            "config.json: has hidden_size 0, outside 1..=16777216",
        "buckets-2-to-the-32.json":
            with(good, "/relative_attention_num_buckets", json!(1u64 << 32)) =>
            "config.json: has 4294967296 relative_attention_num_buckets, which do not suit distances",
        "positions-none.json": with(good, "/max_position_embeddings", json!(0)) =>
            "config.json: has max_position_embeddings 0, outside 1..=16777216",
    }
}

pub(crate) fn encoder_t5(good: &[u8]) -> Vec<Attack> {
    let many = json!(1u64 << 32);
    attacks! {
        "heads-2-to-the-64.json":
            with(&with(good, "/num_heads", many.clone()), "/d_kv", many) =>
            "config.json: has d_kv 4294967296, outside 1..=16777216",
        "width-none.json": with(good, "/d_model", json!(0)) =>
            "config.json: has d_model 0, outside 1..=16777216",
        "buckets-none.json": with(good, "/relative_attention_num_buckets", json!(0)) =>
            "config.json: has 0 relative_attention_num_buckets, which do not suit distances",
        "layers-2-to-the-64.json": with(good, "/num_layers", json!(u64::MAX)) =>
            "model.safetensors: does not fit config.json: cannot find tensor",
        "layer-unknown.json": with(good, "/feed_forward_proj", json!("gated-x")) =>
            "config.json: has the feed-forward layer \"gated-x\"",
    }
}

pub(crate) fn encoder_weights(good: &[u8]) -> Vec<Attack> {
    let name = "embeddings.word_embeddings.weight";
    attacks! {
        "empty.safetensors": "" =>
            "model.safetensors: cannot be read: header too small",
        "truncated.safetensors": &good[..good.len() - 5] =>
            "model.safetensors: cannot be read: incomplete metadata",
        "header-of-2-to-the-64.safetensors": [&u64::MAX.to_le_bytes(), &good[8..]].concat() =>
            "model.safetensors: cannot be read: header too large",
        "offsets-beyond-the-file.safetensors":
            with_field(good, name, "data_offsets", json!([0, u64::MAX / 2])) =>
            "model.safetensors: cannot be read: invalid offset for tensor",
        "weight-nan.safetensors":
            with_data(good, "embeddings.LayerNorm.weight", &f32::NAN.to_le_bytes()) =>
            "the encoder's vector of text 1 is not finite; its weights are broken",
        "weight-missing.safetensors": with_name(good, name, "embeddings.words") =>
            "model.safetensors: does not fit config.json: cannot find tensor",
        "weight-of-another-shape.safetensors": with_header(good, |json| {
            json[name]["shape"].as_array_mut().unwrap().reverse();
        }) =>
            "model.safetensors: does not fit config.json: shape mismatch",
        "weight-of-bytes.safetensors": with_header(good, |json| {
            let shape = &mut json[name]["shape"];
            let width = shape[1].as_u64().unwrap();
            shape[1] = json!(4 * width);
            json[name]["dtype"] = json!("U8");
        }) =>
            "model.safetensors: does not fit config.json: shape mismatch",
    }
}

pub(crate) fn encoder_modules(good: &[u8]) -> Vec<Attack> {
    let list: Vec<Value> = serde_json::from_slice(good).unwrap();
    let dense = list[2].clone();
    let many: Vec<Value> = list[..2].iter().cloned().chain(vec![dense; 5000]).collect();
    attacks! {
        "not-json.json": "Transformer, Pooling" =>
            "modules.json: expected value",
        "none.json": "[]" =>
            "modules.json: lists no module",
        "deep.json": "[".repeat(5000) =>
            "modules.json: invalid type: sequence, expected a string",
        "modules-5000.json": serde_json::to_vec(&many).unwrap() =>
            "modules.json: lists 5002 modules; at most 64 are read",
        "module-unknown.json": with(good, "/2/type", json!("os.system")) =>
            "modules.json: asks for the module \"system\"",
        "no-pooling.json": with(good, "/1/type", json!("a.Dropout")) =>
            "modules.json: has \"Dense\" where it cannot stand",
        "module-elsewhere.json": with(good, "/2/path", json!("/proc")) =>
            "config.json: not found; the folder is not complete",
    }
}

pub(crate) fn encoder_poolings(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-json.json": "mean" =>
            "1_Pooling/config.json: expected value",
        "deep.json": "[".repeat(5000) =>
            "1_Pooling/config.json: invalid type: sequence, expected a map",
        "pooling-unknown.json": with(good, "/pooling_mode", json!("lasttoken")) =>
            "1_Pooling/config.json: asks for \"lasttoken\"",
        "poolings-none.json": with(good, "/pooling_mode", json!([])) =>
            "1_Pooling/config.json: chooses no pooling",
        "poolings-5000.json": with(good, "/pooling_mode", json!(vec!["mean"; 5000])) =>
            "1_Pooling/config.json: asks for \"mean\" twice",
    }
}

pub(crate) fn encoder_dense(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "{\"a\":".repeat(5000) =>
            "2_Dense/config.json: recursion limit exceeded",
        "features-none.json": with(good, "/out_features", json!(0)) =>
            "2_Dense/config.json: gives no features (out_features)",
        "features-2-to-the-64.json": with(good, "/out_features", json!(u64::MAX)) =>
            "2_Dense/model.safetensors: does not fit config.json: shape mismatch",
        "features-of-another.json": with(good, "/in_features", json!(u64::MAX)) =>
            "2_Dense/config.json: takes 18446744073709551615 features, but 16 come in",
        "activation-unknown.json": with(good, "/activation_function", json!("os.system")) =>
            "2_Dense/config.json: has the activation \"system\"",
    }
}

pub(crate) fn encoder_wordpieces(good: &[u8]) -> Vec<Attack> {
    let pieces =
        |id: u64| json!({"type": "BertProcessing", "sep": ["[SEP]", id], "cls": ["[CLS]", 2]});
    attacks! {
        "not-json.json": "[CLS]" =>
            "tokenizer.json: expected value",
        "deep.json": "[".repeat(5000) =>
            "tokenizer.json: recursion limit exceeded",
        "model-unknown.json": with(good, "/model/type", json!("Unknown")) =>
            "tokenizer.json: data did not match any variant",
        "token-beyond-the-weights.json": with(good, "/model/vocab/[PAD]", json!(u32::MAX)) =>
            "tokenizer.json: has token 4294967295, but config.json says that there are 118",
        "special-token-beyond-the-weights.json":
            with(good, "/post_processor", pieces(4_294_967_294)) =>
            "the encoder failed: ",
        "pattern-open.json": with(good, "/pre_tokenizer", json!({
            "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false,
        })) =>
            "tokenizer.json: Parsing error at position 1: Opening parenthesis without closing",
    }
}

pub(crate) fn encoder_unigrams(good: &[u8]) -> Vec<Attack> {
    let table = |table: &str| json!({"type": "Precompiled", "precompiled_charsmap": table});
    let template: Vec<Value> = vec![json!({"SpecialToken": {"id": "</s>", "type_id": 0}}); 300];
    attacks! {
        // A table of 4 GB without a byte of it, which were 8 GB in memory.
        "table-of-4-gigabytes.json": with(good, "/normalizer", table("/////w==")) =>
            "tokenizer.json: has a precompiled_charsmap that is longer than it is",
        "table-of-nothing.json": with(good, "/normalizer", table("AAAAAA==")) =>
            "tokenizer.json is damaged",
        "table-that-leads-out.json": with(good, "/normalizer", table("BAAAAAD8//8=")) =>
            "tokenizer.json is damaged",
        "table-not-base-64.json": with(good, "/normalizer", table("?")) =>
            "tokenizer.json: is damaged",
        "tokens-of-its-own.json": with(good, "/post_processor/single", json!(template)) =>
            "tokenizer.json: adds 300 tokens to each text, but the folder allows ",
        "unknown-token-beyond.json": with(good, "/model/unk_id", json!(1u64 << 32)) =>
            "tokenizer.json: Unable to load vocab UnkIdNotInVocabulary",
        "score-text.json": replaced(good, "\"unk_id\": 2", "\"unk_id\": \"x\"") =>
            "tokenizer.json: invalid type: string \"x\", expected usize",
    }
}

pub(crate) fn encoder_tokenizers(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "{\"a\":".repeat(5000) =>
            "tokenizer_config.json: EOF while parsing a value",
        "length-none.json": with(good, "/model_max_length", json!(0)) =>
            "allows 0 tokens (model_max_length), too few for any text",
        "length-negative.json": with(good, "/model_max_length", json!(-1e300)) =>
            "allows 0 tokens (model_max_length), too few for any text",
        "length-text.json": with(good, "/model_max_length", json!("NaN")) =>
            "tokenizer_config.json: invalid type: string \"NaN\", expected f64",
    }
}

pub(crate) fn encoder_limits(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "length-none.json": "{\"max_seq_length\": 0}" =>
            "allows 0 tokens (max_seq_length), too few for any text",
        "length-negative.json": "{\"max_seq_length\": -1}" =>
            "sentence_bert_config.json: invalid value: integer `-1`, expected usize",
        "length-2-to-the-63.json": "{\"max_seq_length\": 9223372036854775808}" =>
            "sentence_bert_config.json: allows 9223372036854775808 tokens (max_seq_length), \
             but config.json has 64 positions",
    }
}

pub(crate) fn encoder_prompts(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "{\"prompts\":".repeat(5000) =>
            "config_sentence_transformers.json: invalid type: map, expected a string",
        "prompt-a-number.json": "{\"prompts\": {\"query\": 1}}" =>
            "config_sentence_transformers.json: invalid type: integer `1`, expected a string",
    }
}
