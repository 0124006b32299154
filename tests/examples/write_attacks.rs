//! Writes the named bad files of `tests/attacks`: each is a good file with one thing wrong, or
//! something that is no such file. What must be said of each stands in `expected.toml`. Files
//! that a fuzzer found are beside them and are not written here.
//!
//! `cargo run -p tigret-tests --example write_attacks`

#![expect(clippy::unwrap_used, reason = "a file that cannot be written ends the program")]

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tigret_tests::readers::Reader;
use tigret_tests::repository;

fn main() {
    for (reader, files) in [
        ("bundle", bundles()),
        ("tokens", layouts()),
        ("catalog", catalogues()),
        ("config", configs()),
        ("checkpoint", checkpoints()),
        ("histories", histories()),
        ("interactions-csv", logs()),
        ("interactions-jsonl", logs_of_objects()),
        ("interactions-gzip", packed()),
        ("interactions-parquet", parquet()),
        ("items", items()),
        ("amazon-reviews", amazon_reviews()),
        ("amazon-items", amazon_items()),
        ("movielens", movielens()),
        ("new-items", new_items()),
        ("npy", npy()),
        ("safetensors", vectors()),
        ("pipeline", pipelines()),
    ] {
        let folder = repository().join("tests/attacks").join(reader);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// A good file of a reader.
fn good(reader: &str) -> Vec<u8> {
    Reader::open(reader).unwrap().good.pop().unwrap().1
}

fn good_json(reader: &str) -> Value {
    serde_json::from_slice(&good(reader)).unwrap()
}

/// A good JSON file with one value changed.
fn with(reader: &str, pointer: &str, value: Value) -> Vec<u8> {
    let mut json = good_json(reader);
    *json.pointer_mut(pointer).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

fn deep(open: &str, times: usize) -> Vec<u8> {
    open.repeat(times).into()
}

fn header(bytes: &[u8]) -> (usize, Value) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (8 + length, serde_json::from_slice(&bytes[8..8 + length]).unwrap())
}

/// A safetensors file with another header.
fn with_header(bytes: &[u8], change: impl Fn(&mut Value)) -> Vec<u8> {
    let (start, mut json) = header(bytes);
    change(&mut json);
    let mut text = serde_json::to_vec(&json).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), &text[..], &bytes[start..]].concat()
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
fn with_metadata(bytes: &[u8], field: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    with_header(bytes, |header| {
        let text = &mut header["__metadata__"][field];
        let mut inner = serde_json::from_str(text.as_str().unwrap()).unwrap();
        change(&mut inner);
        *text = inner.to_string().into();
    })
}

fn bundles() -> Files {
    let good = good("bundle");
    let bytes = &good[..];
    let codes = {
        let (start, json) = header(bytes);
        let at = start + json["catalog.codes"]["data_offsets"][0].as_u64().unwrap() as usize;
        let levels = json["catalog.codes"]["shape"][1].as_u64().unwrap() as usize;
        bytes[at + 2 * levels..at + 4 * levels].to_vec()
    };
    let huge_header = [&u64::MAX.to_le_bytes(), &bytes[8..]].concat();
    let offsets = |tensor: &'static str, from: u64, to: u64| {
        with_header(bytes, move |json| json[tensor]["data_offsets"] = json!([from, to]))
    };
    vec![
        ("empty", Vec::new()),
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("header-alone", bytes[..header(bytes).0].to_vec()),
        ("header-of-2-to-the-64", huge_header),
        ("header-deep", {
            let text = "[".repeat(5000);
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
        }),
        ("overlapping-tensors", offsets("catalog.id_bytes", 0, 64)),
        ("offsets-beyond-the-file", offsets("shared.weight", 0, u64::MAX / 2)),
        ("offsets-backwards", offsets("shared.weight", 64, 0)),
        (
            "shape-of-2-to-the-64",
            with_header(bytes, |json| {
                json["shared.weight"]["shape"] = json!([4_294_967_296u64, 4_294_967_296u64]);
            }),
        ),
        (
            "items-2-to-the-32",
            with_header(bytes, |json| {
                json["catalog.codes"]["shape"] = json!([4_294_967_296u64, 4]);
            }),
        ),
        ("duplicate-codes", with_data(bytes, "catalog.codes", &codes)),
        ("scale-nan", with_data(bytes, "shared.weight.scale", &f32::NAN.to_le_bytes())),
        ("scale-overflows", with_data(bytes, "shared.weight.scale", &3e38f32.to_le_bytes())),
        ("scale-infinite", with_data(bytes, "shared.weight.scale", &f32::INFINITY.to_le_bytes())),
        ("id-not-utf-8", with_data(bytes, "catalog.id_bytes", &[0xc0, 0x80])),
        ("id-offsets-descend", with_data(bytes, "catalog.id_offsets", &[9, 0, 0, 0, 1, 0, 0, 0])),
        (
            "level-of-no-width",
            with_metadata(bytes, "tokens", |tokens| tokens["levels"][0]["size"] = json!(0)),
        ),
        (
            "level-beyond-the-vocabulary",
            with_metadata(bytes, "tokens", |tokens| {
                tokens["levels"][0]["size"] = json!(u32::MAX);
            }),
        ),
        (
            "layers-2-to-the-32",
            with_metadata(bytes, "config", |config| config["num_layers"] = json!(4_294_967_296u64)),
        ),
        ("heads-none", with_metadata(bytes, "config", |config| config["num_heads"] = json!(0))),
        (
            "metadata-deep",
            with_header(bytes, |json| {
                json["__metadata__"]["config"] = "{\"a\":".repeat(5000).into();
            }),
        ),
        (
            "metadata-missing",
            with_header(bytes, |json| {
                json["__metadata__"].as_object_mut().unwrap().remove("tokens");
            }),
        ),
        (
            "name-as-long-as-the-file",
            with_header(bytes, |json| {
                let header = json.as_object_mut().unwrap();
                let weight = header.remove("shared.weight").unwrap();
                header.insert("w".repeat(20_000), weight);
            }),
        ),
    ]
}

fn layouts() -> Files {
    vec![
        ("not-json.json", b"levels = 4".to_vec()),
        ("deep.json", deep("[", 5000)),
        ("not-utf-8.json", b"{\"pad\": \"\xff\"}".to_vec()),
        ("level-of-no-width.json", with("tokens", "/levels/0/size", json!(0))),
        ("level-of-2-to-the-32.json", with("tokens", "/levels/0/size", json!(4_294_967_296u64))),
        ("levels-overlap.json", {
            let first = good_json("tokens")["levels"][0]["offset"].clone();
            with("tokens", "/levels/1/offset", first)
        }),
        ("levels-none.json", with("tokens", "/levels", json!([]))),
        ("history-endless.json", with("tokens", "/max_items", json!(u64::MAX))),
    ]
}

fn catalogues() -> Files {
    let json = good_json("catalog");
    let first = |field: &str| json["items"][0][field].clone();
    vec![
        ("not-json.json", b"id,codes".to_vec()),
        ("deep.json", deep("{\"items\":[", 3000)),
        ("no-items.json", with("catalog", "/items", json!([]))),
        ("duplicate-codes.json", with("catalog", "/items/1/codes", first("codes"))),
        ("duplicate-id.json", with("catalog", "/items/1/id", first("id"))),
        ("code-2-to-the-32.json", with("catalog", "/items/1/codes/0", json!(4_294_967_296u64))),
        ("code-negative.json", with("catalog", "/items/1/codes/0", json!(-1))),
        ("code-beyond-its-level.json", with("catalog", "/items/1/codes/0", json!(65_000))),
        ("codes-short.json", with("catalog", "/items/1/codes", json!([1]))),
        ("id-not-utf-8.json", {
            let text =
                serde_json::to_string(&json).unwrap().replacen("\"id\":\"", "\"id\":\"\x01", 1);
            text.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect()
        }),
    ]
}

fn configs() -> Files {
    vec![
        ("deep.json", deep("{\"a\":", 5000)),
        ("width-none.json", with("config", "/d_model", json!(0))),
        ("width-2-to-the-32.json", with("config", "/d_model", json!(4_294_967_296u64))),
        ("layers-2-to-the-64.json", with("config", "/num_layers", json!(u64::MAX))),
        ("heads-negative.json", with("config", "/num_heads", json!(-6))),
        ("epsilon-text.json", with("config", "/layer_norm_epsilon", json!("NaN"))),
        ("vocabulary-none.json", with("config", "/vocab_size", json!(0))),
    ]
}

fn checkpoints() -> Files {
    let good = good("checkpoint");
    vec![
        ("empty.safetensors", Vec::new()),
        ("truncated.safetensors", good[..good.len() - 1000].to_vec()),
        ("weight-nan.safetensors", with_data(&good, "shared.weight", &f32::NAN.to_le_bytes())),
        (
            "weight-missing.safetensors",
            with_header(&good, |json| {
                let header = json.as_object_mut().unwrap();
                let weight = header.remove("shared.weight").unwrap();
                header.insert("shared.wait".into(), weight);
            }),
        ),
        (
            "weight-of-another-shape.safetensors",
            with_header(&good, |json| {
                let shape = json["shared.weight"]["shape"].as_array_mut().unwrap();
                shape.reverse();
            }),
        ),
    ]
}

fn histories() -> Files {
    vec![
        ("deep.jsonl", [b"{\"history\":".to_vec(), deep("[", 5000)].concat()),
        ("not-utf-8.jsonl", b"{\"history\":[\"\xff\xfe\"]}\n".to_vec()),
        ("user-token-2-to-the-32.jsonl", b"{\"history\":[],\"user_token\":4294967296}\n".to_vec()),
        ("history-of-numbers.jsonl", b"{\"history\":[1,2,3]}\n".to_vec()),
        ("unknown-field.jsonl", b"{\"history\":[],\"__proto__\":{}}\n".to_vec()),
        ("cut-off.jsonl", b"{\"history\":[\"item-1\"]}\n{\"history\":[\"item-".to_vec()),
    ]
}

fn logs() -> Files {
    let text = String::from_utf8(good("interactions-csv")).unwrap();
    vec![
        ("empty.csv", Vec::new()),
        ("header-alone.csv", b"user,item,time\n".to_vec()),
        ("not-utf-8.csv", [text.as_bytes(), b"u1,\xff\xfe,1,4\n"].concat()),
        ("time-nan.csv", text.replacen("1600000000", "NaN", 1).into()),
        ("time-1e400.csv", text.replacen("1600000000", "1e400", 1).into()),
        ("cells-missing.csv", format!("{text}u1\n").into()),
        ("quote-open.csv", format!("{text}\"u1,i1,1,4\n{}", "x\n".repeat(500)).into()),
        ("item-unknown.csv", format!("{text}u1,i9999,1600000000,4\n").into()),
        (
            "columns-of-the-file.csv",
            (0..70_000).map(|at| format!("{at:x},")).collect::<String>().into(),
        ),
        ("column-as-long-as-the-file.csv", format!("{},item,time\n", "u".repeat(100_000)).into()),
    ]
}

fn logs_of_objects() -> Files {
    let line = |text: &str| format!("{text}\n").into_bytes();
    vec![
        ("deep.jsonl", deep("[", 5000)),
        ("not-utf-8.jsonl", b"{\"user\":\"\xff\",\"item\":\"i1\",\"time\":1}\n".to_vec()),
        ("user-null.jsonl", line("{\"user\":null,\"item\":\"i1\",\"time\":1}")),
        ("time-1e999.jsonl", line("{\"user\":\"u\",\"item\":\"i1\",\"time\":1e999}")),
        ("user-a-list.jsonl", line("{\"user\":[\"u\"],\"item\":\"i1\",\"time\":1}")),
    ]
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

fn packed() -> Files {
    let good = good("interactions-gzip");
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    vec![
        ("zip-bomb.csv.gz", bomb("user,item,time\nu1,", "a", 80)),
        ("zip-bomb-of-lines.csv.gz", bomb("user,item,time\nu1,\"", "\n", 80)),
        ("zip-bomb-of-cells.csv.gz", bomb("user,item,time", ",", 80)),
        ("truncated.csv.gz", good[..good.len() - 9].to_vec()),
        ("damaged.csv.gz", damaged),
        ("not-gzip.csv.gz", b"user,item,time\nu1,i1,1\n".to_vec()),
    ]
}

fn parquet() -> Files {
    let good = good("interactions-parquet");
    let mut footer = good.clone();
    let at = footer.len() - 8;
    footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        ("empty.parquet", Vec::new()),
        ("truncated.parquet", good[..good.len() - 20].to_vec()),
        ("footer-of-4-gigabytes.parquet", footer),
        ("not-parquet.parquet", b"user,item,time\nu1,i1,1\n".to_vec()),
    ]
}

fn items() -> Files {
    let text = String::from_utf8(good("items")).unwrap();
    vec![
        ("zip-bomb.jsonl.gz", bomb("{\"id\":\"", "a", 80)),
        ("zip-bomb-of-numbers.jsonl.gz", bomb("{\"id\":\"a\",\"x\":[", "1,", 80)),
        ("numbers.jsonl.gz", bomb("{\"id\":\"a\",\"x\":[", "1,", 7)),
        ("deep.jsonl", deep("{\"id\":[", 3000)),
        ("not-utf-8.jsonl", b"{\"id\":\"i0\",\"title\":\"\xff\xfe\"}\n".to_vec()),
        ("id-null.jsonl", b"{\"id\":null,\"title\":\"t\"}\n".to_vec()),
        ("id-twice.jsonl", format!("{text}{text}").into()),
        ("half-a-surrogate.jsonl", b"{\"id\":\"i0\",\"title\":\"\\ud800\"}\n".to_vec()),
    ]
}

fn amazon_reviews() -> Files {
    let line = |text: &str| format!("{text}\n").into_bytes();
    vec![
        ("asin-null.json", line("{\"reviewerID\":\"u\",\"asin\":null,\"unixReviewTime\":1}")),
        (
            "time-text.json",
            line("{\"reviewerID\":\"u\",\"asin\":\"lamp\",\"unixReviewTime\":\"x\"}"),
        ),
        ("not-utf-8.json", b"{\"reviewerID\":\"\xff\"}\n".to_vec()),
    ]
}

fn amazon_items() -> Files {
    vec![
        ("deep.json", [b"{'asin': ".to_vec(), deep("[", 5000)].concat()),
        ("escape-cut-off.json", b"{'asin': 'lamp\\x4'}\n".to_vec()),
        ("string-open.json", b"{'asin': 'lamp\n".to_vec()),
        ("a-call.json", b"{'asin': __import__('os')}\n".to_vec()),
    ]
}

fn movielens() -> Files {
    let text = String::from_utf8(good("movielens")).unwrap();
    vec![
        ("cells-missing.dat", format!("{text}1::2\n").into()),
        ("rating-nan.dat", format!("{text}1::2::NaN::3\n").into()),
        ("time-text.dat", format!("{text}1::2::3::noon\n").into()),
    ]
}

fn new_items() -> Files {
    let text = String::from_utf8(good("new-items")).unwrap();
    vec![
        ("embedding-short.jsonl", b"{\"id\":\"a\",\"embedding\":[1.0]}\n".to_vec()),
        ("embedding-of-text.jsonl", b"{\"id\":\"a\",\"embedding\":\"NaN\"}\n".to_vec()),
        ("value-1e999.jsonl", text.replacen("[0.0", "[1e999", 1).into()),
        ("value-1e39.jsonl", text.replacen("[0.0", "[1e39", 1).into()),
        ("id-known.jsonl", text.replacen("new-0", "item-1", 1).into()),
        ("id-twice.jsonl", format!("{text}{text}").into()),
        ("deep.jsonl", deep("[", 5000)),
    ]
}

fn npy() -> Files {
    let good = good("npy");
    let text = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    let at = good.len() - 4;
    vec![
        ("empty.npy", Vec::new()),
        ("truncated.npy", good[..good.len() - 5].to_vec()),
        ("header-of-4-gigabytes.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec()),
        ("rows-2-to-the-64.npy", text("(12, 5), }        ", "(18446744073709551615, 5), }")),
        ("width-none.npy", text("(12, 5)", "(12, 0)")),
        ("fortran-order.npy", text("False", "True ")),
        ("pickled-objects.npy", text("'<f4'", "'|O' ")),
        ("value-nan.npy", [&good[..at], &f32::NAN.to_le_bytes()].concat()),
        ("value-infinite.npy", [&good[..at], &f32::NEG_INFINITY.to_le_bytes()].concat()),
    ]
}

fn vectors() -> Files {
    let good = good("safetensors");
    vec![
        ("truncated.safetensors", good[..good.len() - 5].to_vec()),
        ("value-nan.safetensors", with_data(&good, "vectors", &f32::NAN.to_le_bytes())),
        (
            "rows-2-to-the-64.safetensors",
            with_header(&good, |json| json["vectors"]["shape"] = json!([u64::MAX, 5])),
        ),
        (
            "ids-not-a-list.safetensors",
            with_header(&good, |json| json["__metadata__"] = json!({"ids": "[[["})),
        ),
        (
            "rows-too-few.safetensors",
            with_header(&good, |json| json["vectors"]["shape"] = json!([6, 10])),
        ),
    ]
}

fn pipelines() -> Files {
    vec![
        ("not-toml.toml", b"{\"run\": \"r\"}".to_vec()),
        ("deep.toml", [b"run = ".to_vec(), deep("[", 5000)].concat()),
        ("not-utf-8.toml", b"run = \"\xff\"\n".to_vec()),
        (
            "epochs-2-to-the-64.toml",
            b"run = \"r\"\n[train]\nepochs = 18446744073709551616\n".to_vec(),
        ),
        ("setting-unknown.toml", b"run = \"r\"\n[train]\nepoch = 3\n".to_vec()),
        ("run-a-table.toml", b"[run]\nname = \"r\"\n".to_vec()),
    ]
}
