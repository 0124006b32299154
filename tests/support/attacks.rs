//! Bad files for every reader, and what must be said of each: a good file with one thing wrong, or
//! something that is no such file. Those that a fuzzer found lie in `tests/attacks`.

#![expect(clippy::unwrap_used, reason = "an attack that cannot be made fails the test")]

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::repository;

/// A bad file.
pub struct Attack {
    /// Its name, with the extension that its reader looks at.
    pub name: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// A part of the sentence that must refuse it.
    pub sentence: &'static str,
}

/// A list of `name: bytes => sentence`.
macro_rules! attacks {
    ($($name:literal: $bytes:expr => $sentence:literal,)*) => {
        vec![$(Attack { name: $name, bytes: $bytes.into(), sentence: $sentence }),*]
    };
}

// Below the macro, which they use.
mod encoder;
mod run;

pub(crate) use encoder::*;
pub(crate) use run::*;

/// A file that a fuzzer found.
fn found(name: &str) -> Vec<u8> {
    fs::read(repository().join("tests/attacks").join(name)).unwrap()
}

/// A good JSON file with one value changed.
fn with(good: &[u8], pointer: &str, value: Value) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(good).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

/// A file with other bytes in the place of those that it has first.
fn replaced(good: &[u8], from: &str, to: impl AsRef<[u8]>) -> Vec<u8> {
    let at = good.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    [&good[..at], to.as_ref(), &good[at + from.len()..]].concat()
}

/// Where the data of a safetensors file begin, and its header.
fn header(bytes: &[u8]) -> (usize, Value) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (8 + length, serde_json::from_slice(&bytes[8..8 + length]).unwrap())
}

/// A safetensors file with another header.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (start, mut json) = header(bytes);
    change(&mut json);
    let mut text = serde_json::to_vec(&json).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), &text[..], &bytes[start..]].concat()
}

/// A safetensors file with one field of its header changed.
fn with_field(bytes: &[u8], tensor: &str, field: &str, value: Value) -> Vec<u8> {
    with_header(bytes, |json| json[tensor][field] = value)
}

/// A safetensors file with a tensor under another name.
fn with_name(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    with_header(bytes, |json| {
        let tensor = json.as_object_mut().unwrap().remove(from).unwrap();
        json[to] = tensor;
    })
}

/// A safetensors file with other bytes at the start of a tensor.
fn with_data(bytes: &[u8], tensor: &str, data: &[u8]) -> Vec<u8> {
    let (start, json) = header(bytes);
    let at = start + json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut copy = bytes.to_vec();
    copy[at..at + data.len()].copy_from_slice(data);
    copy
}

/// A bundle with one field of its metadata, which is JSON in a string, changed.
fn with_metadata(bytes: &[u8], field: &str, pointer: &str, value: Value) -> Vec<u8> {
    with_header(bytes, |header| {
        let text = &mut header["__metadata__"][field];
        let mut inner: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        *inner.pointer_mut(pointer).unwrap() = value;
        *text = inner.to_string().into();
    })
}

/// A gzip that unpacks to so many MiB of a piece of text behind a start.
fn bomb(start: &str, piece: &str, mib: usize) -> Vec<u8> {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::best());
    zipped.write_all(start.as_bytes()).unwrap();
    for _ in 0..mib {
        zipped.write_all(piece.repeat((1 << 20) / piece.len()).as_bytes()).unwrap();
    }
    zipped.finish().unwrap()
}

pub(crate) fn bundles(good: &[u8]) -> Vec<Attack> {
    let (data, json) = header(good);
    let codes = data + json["catalog.codes"]["data_offsets"][0].as_u64().unwrap() as usize;
    let width = 2 * json["catalog.codes"]["shape"][1].as_u64().unwrap() as usize;
    let deep = "[".repeat(5000);
    attacks! {
        "empty": "" =>
            "the bundle is not a valid safetensors file: header too small",
        "truncated": &good[..good.len() / 2] =>
            "the bundle is not a valid safetensors file: invalid header length",
        "header-alone": &good[..data] =>
            "the bundle is not a valid safetensors file: \
             incomplete metadata, file not fully covered",
        "cut-off": &good[..good.len() - 100] =>
            "the bundle is not a valid safetensors file: \
             incomplete metadata, file not fully covered",
        "longer-than-its-tensors": [good, &[0; 16]].concat() =>
            "the bundle is not a valid safetensors file: \
             incomplete metadata, file not fully covered",
        "header-of-2-to-the-64": [&u64::MAX.to_le_bytes(), &good[8..]].concat() =>
            "the bundle is not a valid safetensors file: header too large",
        "header-deep": [&(deep.len() as u64).to_le_bytes(), deep.as_bytes()].concat() =>
            "the bundle is not a valid safetensors file: invalid JSON in header: \
             invalid type: sequence, expected struct HashMetadata",
        "header-not-json": replaced(good, "{", ";") =>
            "the bundle is not a valid safetensors file: invalid JSON in header: expected value",
        "overlapping-tensors":
            with_field(good, "catalog.id_bytes", "data_offsets", json!([0, 64])) =>
            "the bundle is not a valid safetensors file: \
             invalid offset for tensor `catalog.id_bytes`",
        "offsets-beyond-the-file":
            with_field(good, "shared.weight", "data_offsets", json!([0, u64::MAX / 2])) =>
            "the bundle is not a valid safetensors file: invalid offset for tensor `shared.weight`",
        "offsets-backwards": with_field(good, "shared.weight", "data_offsets", json!([64, 0])) =>
            "the bundle is not a valid safetensors file: invalid offset for tensor `shared.weight`",
        "shape-of-2-to-the-64":
            with_field(good, "shared.weight", "shape", json!([1u64 << 32, 1u64 << 32])) =>
            "the bundle is not a valid safetensors file: \
             overflow computing buffer size from shape and/or element type",
        "items-2-to-the-32": with_field(good, "catalog.codes", "shape", json!([1u64 << 32, 4])) =>
            "the bundle is not a valid safetensors file: \
             invalid shape, data type, or offset for tensor",
        "duplicate-codes": with_data(good, "catalog.codes", &good[codes + width..][..width]) =>
            "catalogue: items \"item-0\" and \"item-1\" share the semantic ID [1, 7, 14, 3]",
        "code-beyond-its-level": with_data(good, "catalog.codes", &[0xff, 0xff]) =>
            "catalogue: item \"item-0\" has code 65535 at level 0, outside 0..16",
        "scale-nan": with_data(good, "shared.weight.scale", &f32::NAN.to_le_bytes()) =>
            "tensor `shared.weight.scale`: value 0 is NaN",
        "scale-overflows": with_data(good, "shared.weight.scale", &3e38f32.to_le_bytes()) =>
            "tensor `shared.weight.scale`: the scale of row 0 is not positive, \
             or too large for 8-bit weights",
        "scale-infinite": with_data(good, "shared.weight.scale", &f32::INFINITY.to_le_bytes()) =>
            "tensor `shared.weight.scale`: value 0 is inf",
        "norm-infinite":
            with_data(good, "encoder.final_layer_norm.weight", &f32::INFINITY.to_le_bytes()) =>
            "tensor `encoder.final_layer_norm.weight`: value 0 is inf",
        "codeword-nan": with_data(good, "quantizer.codebook.1", &f32::NAN.to_le_bytes()) =>
            "tensor `quantizer.codebook.1`: value 0 is not finite",
        "tokenizer-of-a-smaller-level":
            replaced(good, r#"\"sizes\":[16,"#, r#"\"sizes\":[15,"#) =>
            "tensor `quantizer.codebook.0`: is F32 [16, 5], which is not what `quantizer` says",
        "id-not-utf-8": with_data(good, "catalog.id_bytes", &[0xc0, 0x80]) =>
            "tensor `catalog.id_bytes`: id 0 is not UTF-8",
        "id-offsets-descend": with_data(good, "catalog.id_offsets", &[9, 0, 0, 0, 1, 0, 0, 0]) =>
            "tensor `catalog.id_offsets`: entry 0 is out of range, or splits a character",
        "id-offset-beyond-the-ids":
            with_data(good, "catalog.id_offsets", &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]) =>
            "tensor `catalog.id_offsets`: entry 0 is out of range, or splits a character",
        "ids-that-begin-late": with_data(good, "catalog.id_offsets", &[1, 0, 0, 0]) =>
            "tensor `catalog.id_offsets`: it does not begin at 0 and end at",
        "format-unknown": replaced(good, "tigret/1", "tigret/9") =>
            "metadata field `format`: is \"tigret/9\", this reader knows \"tigret/1\"",
        "quantization-unknown": replaced(good, "\"q8\"", "\"q3\"") =>
            "metadata field `quantization`: \"q3\" is not one of f32, f16, q8, q4",
        "heads-misspelt": replaced(good, "num_heads", "num_hands") =>
            "metadata field `config`: missing field `num_heads`",
        "level-of-no-width": with_metadata(good, "tokens", "/levels/0/size", json!(0)) =>
            "token layout: level 0 has 0 codes, outside 1..=65536",
        "level-beyond-the-vocabulary":
            with_metadata(good, "tokens", "/levels/0/size", json!(u32::MAX)) =>
            "token layout: level 0 has 4294967295 codes, outside 1..=65536",
        "layers-2-to-the-32": with_metadata(good, "config", "/num_layers", json!(1u64 << 32)) =>
            "metadata field `config`: num_layers is 4294967296, outside 1..=64",
        "heads-none": with_metadata(good, "config", "/num_heads", json!(0)) =>
            "metadata field `config`: num_heads is 0, outside 1..=256",
        "metadata-deep":
            with_field(good, "__metadata__", "config", "{\"a\":".repeat(5000).into()) =>
            "metadata field `config`: EOF while parsing a value",
        "metadata-missing": with_header(good, |json| {
            json["__metadata__"].as_object_mut().unwrap().remove("tokens");
        }) =>
            "metadata field `tokens`: is missing: this is a safetensors file, \
             but not a Tigret bundle (write one with `tigret export` or `tigret import`)",
        "name-as-long-as-the-file": with_name(good, "shared.weight", &"w".repeat(20_000)) =>
            "tensor `shared.weight`: is missing",
    }
}

pub(crate) fn layouts(good: &[u8]) -> Vec<Attack> {
    let json: Value = serde_json::from_slice(good).unwrap();
    let first = json["levels"][0]["offset"].clone();
    attacks! {
        "not-json.json": "levels = 4" =>
            "tokens.json: metadata field `tokens`: expected value",
        "deep.json": "[".repeat(5000) =>
            "tokens.json: metadata field `tokens`: invalid type: sequence, expected u32",
        "not-utf-8.json": b"{\"pad\": \"\xff\"}" =>
            "tokens.json: is not UTF-8 text; save the file as UTF-8",
        "level-of-no-width.json": with(good, "/levels/0/size", json!(0)) =>
            "tokens.json: token layout: level 0 has 0 codes, outside 1..=65536",
        "level-of-2-to-the-32.json": with(good, "/levels/0/size", json!(1u64 << 32)) =>
            "tokens.json: metadata field `tokens`: \
             invalid value: integer `4294967296`, expected u32",
        "levels-overlap.json": with(good, "/levels/1/offset", first) =>
            "tokens.json: token layout: level 0 and level 1 overlap",
        "levels-none.json": with(good, "/levels", json!([])) =>
            "tokens.json: token layout: 0 levels, outside 2..=8",
        "history-endless.json": with(good, "/max_items", json!(u64::MAX)) =>
            "tokens.json: token layout: max_items is 18446744073709551615, outside 1..=512",
    }
}

pub(crate) fn catalogues(good: &[u8]) -> Vec<Attack> {
    let json: Value = serde_json::from_slice(good).unwrap();
    let first = |field: &str| json["items"][0][field].clone();
    attacks! {
        "not-json.json": "id,codes" =>
            "catalog.json: expected value",
        "deep.json": "{\"items\":[".repeat(3000) =>
            "catalog.json: EOF while parsing a list",
        "no-items.json": with(good, "/items", json!([])) =>
            "catalog.json: catalogue: it has no items",
        "duplicate-codes.json": with(good, "/items/1/codes", first("codes")) =>
            "catalog.json: catalogue: items \"item-0\" and \"item-1\" share the semantic ID \
             [7, 15, 11, 2]",
        "duplicate-id.json": with(good, "/items/1/id", first("id")) =>
            "catalog.json: catalogue: the id \"item-0\" occurs twice",
        "code-2-to-the-32.json": with(good, "/items/1/codes/0", json!(1u64 << 32)) =>
            "catalog.json: invalid value: integer `4294967296`, expected u32",
        "code-negative.json": with(good, "/items/1/codes/0", json!(-1)) =>
            "catalog.json: invalid value: integer `-1`, expected u32",
        "code-beyond-its-level.json": with(good, "/items/1/codes/0", json!(65_000)) =>
            "catalog.json: catalogue: item \"item-1\" has code 65000 at level 0, outside 0..16",
        "codes-short.json": with(good, "/items/1/codes", json!([1])) =>
            "catalog.json: catalogue: item \"item-1\" has 1 codes, the layout has 4 levels",
        "id-not-utf-8.json":
            replaced(&with(good, "/items/0/id", json!("?item-0")), "?", b"\xff") =>
            "catalog.json: is not UTF-8 text; save the file as UTF-8",
    }
}

pub(crate) fn configs(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": "{\"a\":".repeat(5000) =>
            "config.json: metadata field `config`: EOF while parsing a value",
        "width-none.json": with(good, "/d_model", json!(0)) =>
            "config.json: metadata field `config`: d_model is 0, outside 1..=8192",
        "width-2-to-the-32.json": with(good, "/d_model", json!(1u64 << 32)) =>
            "config.json: metadata field `config`: d_model is 4294967296, outside 1..=8192",
        "layers-2-to-the-64.json": with(good, "/num_layers", json!(u64::MAX)) =>
            "config.json: metadata field `config`: \
             num_layers is 18446744073709551615, outside 1..=64",
        "heads-negative.json": with(good, "/num_heads", json!(-6)) =>
            "config.json: metadata field `config`: \
             invalid value: integer `-6`, expected usize",
        "epsilon-text.json": with(good, "/layer_norm_epsilon", json!("NaN")) =>
            "config.json: metadata field `config`: \
             invalid type: string \"NaN\", expected f32",
        "vocabulary-none.json": with(good, "/vocab_size", json!(0)) =>
            "config.json: metadata field `config`: vocab_size is 0, outside 1..=1048576",
    }
}

pub(crate) fn checkpoints(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.safetensors": "" =>
            "model.safetensors: not a valid safetensors file: header too small",
        "truncated.safetensors": &good[..good.len() - 1000] =>
            "model.safetensors: not a valid safetensors file: \
             incomplete metadata, file not fully covered",
        "weight-nan.safetensors": with_data(good, "shared.weight", &f32::NAN.to_le_bytes()) =>
            "model.safetensors: tensor `shared.weight`: value 0 is not finite",
        "weight-missing.safetensors": with_name(good, "shared.weight", "shared.wait") =>
            "model.safetensors: tensor `shared.weight`: is missing",
        "weight-of-another-shape.safetensors":
            with_field(good, "shared.weight", "shape", json!([24, 59])) =>
            "model.safetensors: tensor `shared.weight`: \
             has shape [24, 59], the configuration asks for [59, 24]",
    }
}

pub(crate) fn histories(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.jsonl": format!("{{\"history\":{}", "[".repeat(5000)) =>
            "h.jsonl:1: invalid type: sequence, expected a string",
        "not-utf-8.jsonl": b"{\"history\":[\"\xff\xfe\"]}\n" =>
            "h.jsonl:1: is not UTF-8 text",
        "user-token-2-to-the-32.jsonl": "{\"history\":[],\"user_token\":4294967296}\n" =>
            "h.jsonl:1: `user_token`: invalid value: integer `4294967296`, expected u32",
        "history-of-numbers.jsonl": "{\"history\":[1,2,3]}\n" =>
            "h.jsonl:1: `history`: an id is a text: write \"1\" in place of 1",
        "unknown-field.jsonl": "{\"history\":[],\"__proto__\":{}}\n" =>
            "h.jsonl:1: unknown field `__proto__`, expected one of `history`, `user`, \
             `user_token`, `exclude`, `allow`",
        "cut-off.jsonl": "{\"history\":[\"item-1\"]}\n{\"history\":[\"item-" =>
            "h.jsonl:2: is not a JSON object: EOF while parsing a string",
    }
}

pub(crate) fn logs(good: &[u8]) -> Vec<Attack> {
    let open = format!("\"u1,i1,1,4\n{}", "x\n".repeat(500));
    attacks! {
        "empty.csv": "" =>
            "log.csv: is empty; the first line must name the columns",
        "header-alone.csv": "user,item,time\n" =>
            "no user is left: there are no interactions in the data; check the file",
        "not-utf-8.csv": [good, b"u1,\xff\xfe,1,4\n"].concat() =>
            "log.csv:162: is not UTF-8 text",
        "time-nan.csv": replaced(good, "1600000000", "NaN") =>
            "log.csv:2: time \"NaN\" is neither a number nor a date such as 2024-05-21",
        "time-1e400.csv": replaced(good, "1600000000", "1e400") =>
            "log.csv:2: time \"1e400\" is neither a number nor a date such as 2024-05-21",
        "cells-missing.csv": [good, b"u1\n"].concat() =>
            "log.csv:162: has 1 columns, the header has 4",
        "quote-open.csv": [good, open.as_bytes()].concat() =>
            "log.csv: cannot be read: \
             the cell that begins with a quote on line 162 has no end",
        "item-unknown.csv": [good, b"u1,i9999,1600000000,4\n"].concat() =>
            "log.csv:162: item \"i9999\" is not in",
        "columns-of-the-file.csv":
            (0..70_000).map(|at| format!("{at:x},")).collect::<String>() =>
            "cannot be read: line 1 has more than 65536 cells",
        "column-as-long-as-the-file.csv": format!("{},item,time\n", "u".repeat(100_000)) =>
            "log.csv:1: no column \"user\" among uuuuuuuuuuuuuuuuuuuuuuuuuu",
    }
}

pub(crate) fn logs_of_objects(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.jsonl": "[".repeat(5000) =>
            "log.jsonl:1: is not a JSON object; the file must be JSONL",
        "not-utf-8.jsonl": b"{\"user\":\"\xff\",\"item\":\"i1\",\"time\":1}\n" =>
            "log.jsonl:1: is not UTF-8 text",
        "user-null.jsonl": "{\"user\":null,\"item\":\"i1\",\"time\":1}\n" =>
            "log.jsonl:1: no \"user\" that is a string or a number; \
             name the column with --user-column",
        "time-1e999.jsonl": "{\"user\":\"u\",\"item\":\"i1\",\"time\":1e999}\n" =>
            "log.jsonl:1: is not a JSON object: number out of range",
        "user-a-list.jsonl": "{\"user\":[\"u\"],\"item\":\"i1\",\"time\":1}\n" =>
            "log.jsonl:1: no \"user\" that is a string or a number; \
             name the column with --user-column",
    }
}

pub(crate) fn packed_logs(good: &[u8]) -> Vec<Attack> {
    // Behind the ten bytes of gzip's header: a block of the kind that there is not.
    let mut damaged = good.to_vec();
    damaged[10] = 0b111;
    attacks! {
        "zip-bomb.csv.gz": bomb("user,item,time\nu1,", "a", 80) =>
            "log.csv.gz: cannot be read: the record on line 2 is longer than 8 MiB",
        "zip-bomb-of-lines.csv.gz": bomb("user,item,time\nu1,\"", "\n", 80) =>
            "log.csv.gz: cannot be read: the record on line 2 is longer than 8 MiB",
        "zip-bomb-of-cells.csv.gz": bomb("user,item,time", ",", 80) =>
            "cannot be read: line 1 has more than 65536 cells",
        "truncated.csv.gz": &good[..good.len() - 9] =>
            "log.csv.gz: cannot be read: incomplete deflate stream",
        "damaged.csv.gz": damaged =>
            "log.csv.gz: cannot be read: corrupt deflate stream",
        "not-gzip.csv.gz": "user,item,time\nu1,i1,1\n" =>
            "log.csv.gz: is not packed by gzip; take .gz off its name",
        "swelling-and-damaged.csv.gz": found("swelling-and-damaged.csv.gz") =>
            "cannot be read: line 2 has more than 65536 cells",
    }
}

pub(crate) fn parquet(good: &[u8]) -> Vec<Attack> {
    let mut footer = good.to_vec();
    let at = footer.len() - 8;
    footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    attacks! {
        "empty.parquet": "" =>
            "log.parquet: is not a Parquet file: \
             EOF: Parquet file too small. Size is 0 but need 8",
        "truncated.parquet": &good[..good.len() - 20] =>
            "log.parquet: is not a Parquet file: \
             Parquet error: Invalid Parquet file. Corrupt footer",
        "footer-of-4-gigabytes.parquet": footer =>
            "log.parquet: is not a Parquet file: \
             EOF: Parquet file too small. Size is 1670 but need 4294967303",
        "not-parquet.parquet": "user,item,time\nu1,i1,1\n" =>
            "log.parquet: is not a Parquet file: \
             Parquet error: Invalid Parquet file. Corrupt footer",
    }
}

pub(crate) fn items(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "zip-bomb.jsonl.gz": bomb("{\"id\":\"", "a", 80) =>
            "items.jsonl.gz:1: is longer than 8 MiB",
        "zip-bomb-of-numbers.jsonl.gz": bomb("{\"id\":\"a\",\"x\":[", "1,", 80) =>
            "items.jsonl.gz:1: is longer than 8 MiB",
        "numbers.jsonl.gz": bomb("{\"id\":\"a\",\"x\":[", "1,", 7) =>
            "items.jsonl.gz:1: is not a JSON object: EOF while parsing a value",
        "deep.jsonl": "{\"id\":[".repeat(3000) =>
            "items.jsonl:1: is not a JSON object: recursion limit exceeded",
        "not-utf-8.jsonl": b"{\"id\":\"i0\",\"title\":\"\xff\xfe\"}\n" =>
            "items.jsonl:1: is not UTF-8 text",
        "id-null.jsonl": "{\"id\":null,\"title\":\"t\"}\n" =>
            "items.jsonl:1: no \"id\" that is a string or a number; \
             name the id column with --id-column",
        "id-twice.jsonl": good.repeat(2) =>
            "items.jsonl:13: id \"i0\" stands already on line 1",
        "half-a-surrogate.jsonl": "{\"id\":\"i0\",\"title\":\"\\ud800\"}\n" =>
            "items.jsonl:1: is not a JSON object: unexpected end of hex escape",
    }
}

pub(crate) fn amazon_reviews(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "asin-null.json": "{\"reviewerID\":\"u\",\"asin\":null,\"unixReviewTime\":1}\n" =>
            "reviews.json:1: has neither \"asin\" nor \"parent_asin\"",
        "time-text.json": "{\"reviewerID\":\"u\",\"asin\":\"lamp\",\"unixReviewTime\":\"x\"}\n" =>
            "reviews.json:1: is no review of Amazon's releases of 2014, 2018 or 2023: \
             invalid type: string \"x\", expected i64",
        "not-utf-8.json": b"{\"reviewerID\":\"\xff\"}\n" =>
            "reviews.json:1: is not UTF-8 text",
    }
}

pub(crate) fn amazon_items(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "deep.json": format!("{{'asin': {}", "[".repeat(5000)) =>
            "is nested deeper than 64",
        "escape-cut-off.json": "{'asin': 'lamp\\x4'}\n" =>
            "is no Python literal: wrong escape in the string at byte 9",
        "string-open.json": "{'asin': 'lamp\n" =>
            "is no Python literal: the string at byte 9 has no end",
        "a-call.json": "{'asin': __import__('os')}\n" =>
            "is no Python literal: expected a value at byte 9",
        "a-review.json": "{\"user_id\":\"u\",\"parent_asin\":\"lamp\",\"timestamp\":1}\n" =>
            "meta.json:1: is a review; --items takes the metadata of the products",
        "of-other-items.json": "{'asin': 'elsewhere', 'title': 'Lamp'}\n" =>
            "meta.json: describes none of the 4 items of the interactions; take both of one release",
    }
}

pub(crate) fn ratings(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "cells-missing.dat": [good, b"1::2\n"].concat() =>
            "ratings.dat:13: does not have four columns: user, movie, rating, time",
        "rating-nan.dat": [good, b"1::2::NaN::3\n"].concat() =>
            "ratings.dat:13: has a rating that is no number",
        "time-text.dat": [good, b"1::2::3::noon\n"].concat() =>
            "ratings.dat:13: has a time that is no whole number",
    }
}

pub(crate) fn new_items(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "embedding-short.jsonl": "{\"id\":\"a\",\"embedding\":[1.0]}\n" =>
            "new.jsonl: item \"a\": its embedding has 1 numbers, the tokenizer was trained on 6",
        "embedding-of-text.jsonl": "{\"id\":\"a\",\"embedding\":\"NaN\"}\n" =>
            "new.jsonl:1: invalid type: string \"NaN\", expected a sequence",
        "value-1e999.jsonl": replaced(good, "[0.0", "[1e999") =>
            "new.jsonl:1: is not a JSON object: number out of range",
        "value-1e39.jsonl": replaced(good, "[0.0", "[1e39") =>
            "new.jsonl:1: is not a JSON object: number out of range",
        "id-known.jsonl": replaced(good, "new-0", "item-1") =>
            "new.jsonl: item \"item-1\" is already in the catalogue; \
             its semantic ID does not change",
        "id-twice.jsonl": good.repeat(2) =>
            "new.jsonl: item \"new-0\" is given twice",
        "deep.jsonl": "[".repeat(5000) =>
            "new.jsonl:1: is not a JSON object; the file must be JSONL",
    }
}

pub(crate) fn npy(good: &[u8]) -> Vec<Attack> {
    let but_the_last = &good[..good.len() - 4];
    attacks! {
        "empty.npy": "" =>
            "v.npy: is not an .npy file (wrong first bytes)",
        "truncated.npy": &good[..good.len() - 5] =>
            "v.npy: has 235 bytes of data; its shape (12, 5) does not fit",
        "header-of-4-gigabytes.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{" =>
            "v.npy: says that its header has 4294967295 bytes, which no array needs",
        "rows-2-to-the-64.npy":
            replaced(good, "(12, 5), }        ", "(18446744073709551615, 5), }") =>
            "v.npy: has 250 bytes of data; its shape (18446744073709551615, 5) does not fit",
        "width-none.npy": replaced(good, "(12, 5)", "(12, 0)") =>
            "v.npy: has shape (12, 0); it must have two axes, items and dimensions",
        "fortran-order.npy": replaced(good, "False", "True ") =>
            "v.npy: is in Fortran order; save it with numpy.ascontiguousarray",
        "pickled-objects.npy": replaced(good, "'<f4'", "'|O' ") =>
            "v.npy: holds \"|O\"; save it as float32, float64 or float16",
        "value-nan.npy": [but_the_last, &f32::NAN.to_le_bytes()].concat() =>
            "v.npy: row 11 (item \"i11\") has NaN at dimension 4; all must be finite",
        "value-infinite.npy": [but_the_last, &f32::NEG_INFINITY.to_le_bytes()].concat() =>
            "v.npy: row 11 (item \"i11\") has -inf at dimension 4; all must be finite",
    }
}

pub(crate) fn vectors(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "truncated.safetensors": &good[..good.len() - 5] =>
            "v.safetensors: ends before its tensors do; was it cut short?",
        "value-nan.safetensors": with_data(good, "vectors", &f32::NAN.to_le_bytes()) =>
            "v.safetensors: row 0 (item \"i0\") has NaN at dimension 0; all must be finite",
        "rows-2-to-the-64.safetensors":
            with_field(good, "vectors", "shape", json!([u64::MAX, 5])) =>
            "v.safetensors: is not a safetensors file: \
             overflow computing buffer size from shape and/or element type",
        "ids-not-a-list.safetensors": with_field(good, "__metadata__", "ids", json!("[[[")) =>
            "v.safetensors: its metadata \"ids\" is not a JSON list of strings: \
             invalid type: sequence, expected a string",
        "rows-too-few.safetensors": with_field(good, "vectors", "shape", json!([6, 10])) =>
            "v.safetensors: has 6 rows for 12 items; give the ids of its rows with --ids",
    }
}

pub(crate) fn pipelines(_: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-toml.toml": "{\"run\": \"r\"}" =>
            "shop.toml:1: invalid key-value pair, expected key",
        "deep.toml": format!("run = {}", "[".repeat(5000)) =>
            "shop.toml:1: cannot recurse further; max recursion depth met",
        "not-utf-8.toml": b"run = \"\xff\"\n" =>
            "shop.toml: is not UTF-8 text; save the file as UTF-8",
        "epochs-2-to-the-64.toml": "run = \"r\"\n[train]\nepochs = 18446744073709551616\n" =>
            "shop.toml:3: invalid type: integer `18446744073709551616` as i128, \
             expected any valid TOML value",
        "setting-unknown.toml": "run = \"r\"\n[train]\nepoch = 3\n" =>
            "shop.toml: [train] unexpected argument '--epoch' found; \
             tip: a similar argument exists: '--epochs'",
        "run-a-table.toml": "[run]\nname = \"r\"\n" =>
            "shop.toml: `run` is not the name of a folder",
    }
}

pub(crate) fn studies(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-toml.toml": "{\"seeds\": [0]}" =>
            "shop.toml:1: invalid key-value pair, expected key",
        "deep.toml": format!("seeds = {}", "[".repeat(5000)) =>
            "shop.toml:1: cannot recurse further; max recursion depth met",
        "seed-2-to-the-64.toml": replaced(good, "[0, 1]", "[18446744073709551616]") =>
            "shop.toml:1: invalid type: integer `18446744073709551616` as i128",
        "seed-negative.toml": replaced(good, "[0, 1]", "[-1]") =>
            "shop.toml: `seeds` holds something else than whole numbers",
        "users-none.toml": replaced(good, "500", "0") =>
            "shop.toml: `users` is not a number of users",
        "data-set-above-its-folder.toml": replaced(good, "data.shop", "data.\"..\"") =>
            "shop.toml: data set \"..\": its name is no name of a folder",
        "step-a-number.toml": replaced(good, "users = 500", "evaluate = 3") =>
            "shop.toml: `evaluate` is not a table of options",
        "setting-unknown.toml": replaced(good, "preset", "present") =>
            "unexpected argument '--present' found",
    }
}

pub(crate) fn ids(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "empty.txt": "" =>
            "ids.txt: has 0 ids for 12 rows of vectors",
        "not-utf-8.txt": [good, b"\xff"].concat() =>
            "ids.txt: is not UTF-8 text; save the file as UTF-8",
        "id-twice.txt": replaced(good, "i2\n", "i1\n") =>
            "ids.txt: id \"i1\" stands at rows 1 and 2",
        "id-unknown.txt": replaced(good, "i2\n", "x2\n") =>
            "ids.txt: has no vector for 1 of 12 items, the first \"i2\"",
        "line-ends-alone.txt": "\n".repeat(12) =>
            "ids.txt: id \"\" stands at rows 0 and 1",
    }
}

pub(crate) fn research(good: &[u8]) -> Vec<Attack> {
    attacks! {
        "not-utf-8.txt": [good, b"u \xff\n"].concat() =>
            "sequences.txt:10: is not UTF-8 text",
        "item-unknown.txt": [good, b"u i99\n"].concat() =>
            "sequences.txt:10: item \"i99\" is not in",
        "user-twice.txt": good.repeat(2) =>
            "sequences.txt:10: user \"u0\" stands already on line 1",
        "user-alone.txt": [good, b"u\n"].concat() =>
            "sequences.txt:10: user \"u\" has no items",
    }
}
