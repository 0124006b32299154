//! Files that somebody has changed: whatever is in them, a reader takes them or says in one line
//! what is wrong. It never panics, never hangs, and never takes memory that the file does not.
//!
//! The changes are drawn from a seed. `TIGRET_FUZZ_ROUNDS` sets how many each reader gets; the
//! default is for every test run, `TIGRET_FUZZ_ROUNDS=100000` for a night.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use peak_alloc::PeakAlloc;
use tigret_infer::testing::{
    Random, Shape, bad_bundles, random_bundle, random_bundle_with_quantizer,
};
use tigret_infer::{Bundle, TokenLayout, WeightFormat};
use tigret_tests::repository;
use tigret_train::cli::Cli;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One reader at a time, so that memory is that of one file.
static TURN: Mutex<()> = Mutex::new(());

/// Longer than any file of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn rounds(default: usize) -> usize {
    let own = std::env::var("TIGRET_FUZZ_ROUNDS").ok();
    own.map_or(default, |text| text.parse().expect("TIGRET_FUZZ_ROUNDS is a number"))
}

/// Bytes of memory that `work` took at its peak, beyond what was in use.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    work();
    MEMORY.peak_usage().saturating_sub(before)
}

/// Values that lie at the edge of what a format can say.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fc0_0000, // NaN in f32
    0x7f80_0000, // infinity in f32
    0xffff_ffff_ffff_ffff,
];

const WORDS: [&str; 14] = [
    "-1",
    "99999999999999999999",
    "1e999",
    "NaN",
    "null",
    "[",
    "{\"a\":",
    "\"",
    "\\u0000",
    "\u{feff}",
    "\r\n",
    ",,,,",
    "4294967296",
    "🐯",
];

/// A file with a few changes of the kinds that happen, and of those that somebody makes.
fn changed(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..1 + random.below(3) {
        let length = bytes.len().max(1);
        let at = random.below(length);
        let piece = at..(at + 1 + random.below(64)).min(bytes.len()).max(at);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                let width = [1, 2, 4, 8][random.below(4)];
                let value = EDGES[random.below(EDGES.len())].to_le_bytes();
                for (byte, new) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                    *byte = *new;
                }
            }
            3 => {
                bytes.drain(piece);
            }
            4 => {
                let copy = bytes[piece.clone()].to_vec();
                bytes.splice(piece.start..piece.start, copy);
            }
            5 => {
                let noise: Vec<u8> =
                    (0..1 + random.below(16)).map(|_| random.below(256) as u8).collect();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), noise);
            }
            // A number, or a piece of text, becomes something else.
            6 => {
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let start = bytes.iter().skip(at).position(is_digit).map(|skip| at + skip);
                if let Some(start) = start {
                    let digits = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                    let word = WORDS[random.below(WORDS.len())];
                    bytes.splice(start..start + digits, word.bytes());
                }
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), word.bytes());
            }
        }
    }
    bytes
}

/// Reads changed files; `most` says how much memory one of so many bytes may take.
fn hold(
    name: &str,
    original: &[u8],
    default_rounds: usize,
    most: impl Fn(usize) -> usize,
    read: impl Fn(&[u8]) -> bool,
) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(read(original), "{name}: the file is good before it is changed");
    let mut random = Random::new(original.len() as u64);
    let (mut taken, mut highest) = (0, 0);
    let rounds = rounds(default_rounds);
    for round in 0..rounds {
        let bytes = changed(original, &mut random);
        let start = Instant::now();
        let peak = peak_of(|| taken += usize::from(read(&bytes)));
        assert!(start.elapsed() < PATIENCE, "{name}, round {round}: {:?}", start.elapsed());
        assert!(peak <= most(bytes.len()), "{name}, round {round}: {peak} bytes of memory");
        highest = highest.max(peak);
    }
    println!(
        "{name}: {rounds} files of some {} KB, {taken} taken, at most {} KB of memory",
        original.len().div_ceil(1000),
        highest.div_ceil(1000)
    );
}

#[test]
fn bundles() {
    for (name, bytes) in [
        ("f32", random_bundle(&Shape::default(), WeightFormat::F32, 1)),
        (
            "q8 with a tokenizer",
            random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1),
        ),
        ("q4", random_bundle(&Shape::default(), WeightFormat::Q4, 1)),
    ]
    .map(|(name, bundle)| (name, bundle.to_bytes().unwrap()))
    {
        // The header is a tenth of the file: half of the changes fall into it.
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let most = |bytes: usize| 8 * bytes + (1 << 20);
        let read = |bytes: &[u8]| Bundle::from_bytes(bytes).is_ok();
        hold(&format!("bundle in {name}"), &bytes, 1500, most, read);
        hold(&format!("header of a bundle in {name}"), &bytes[..header], 1500, most, |start| {
            let whole = [start, &bytes[header..]].concat();
            Bundle::from_bytes(&whole).is_ok()
        });
    }
}

#[test]
fn bad_bundles_have_names() {
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 1);
    for (name, bytes, expected) in bad_bundles(&bundle) {
        let peak = peak_of(|| {
            let message = Bundle::from_bytes(&bytes).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
        });
        assert!(peak <= 8 * bytes.len() + (1 << 20), "{name}: {peak} bytes of memory");
    }
}

/// Runs the command on arguments; whether it succeeded. What it says must be one line.
fn tigret(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> bool {
    let line = std::iter::once("tigret".into())
        .chain(arguments.iter().map(|argument| argument.as_ref().to_owned()));
    match Cli::try_parse_from(line).unwrap().run() {
        Ok(()) => true,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.trim().is_empty() && message.len() < 2000, "{message}");
            false
        }
    }
}

/// Memory that a text may take: parsed, with an index of its items.
fn of_text(bytes: usize) -> usize {
    200 * bytes + (64 << 20)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn log() -> String {
    let mut log = "user,item,time,rating\n".to_owned();
    for user in 0..20 {
        for step in 0..8 {
            log += &format!("u{user},i{},{},4\n", (user * 3 + step) % 12, 1_600_000_000 + step);
        }
    }
    log
}

fn items() -> String {
    let line = |item: usize| {
        format!(
            "{{\"id\":\"i{item}\",\"title\":\"Number {item}, red\",\"brand\":\"B{}\"}}\n",
            item % 3
        )
    };
    (0..12).map(line).collect()
}

/// `tigret prepare` on a log and items.
fn prepare(folder: &Folder, log: &Path, items: &Path) -> bool {
    let run = folder.path("run");
    let _ = fs::remove_dir_all(&run);
    tigret(&[
        &"prepare",
        &"--json",
        &"--run",
        &run,
        &"--interactions",
        &log,
        &"--items",
        &items,
        &"--text-columns",
        &"title,brand",
        &"--user-column",
        &"user",
        &"--item-column",
        &"item",
        &"--time-column",
        &"time",
        &"--k-core",
        &"0",
    ])
}

#[test]
fn interactions_and_items() {
    let folder = Folder::new();
    let (good_log, good_items) =
        (folder.write("good.csv", log()), folder.write("good.jsonl", items()));
    hold("interactions (CSV)", log().as_bytes(), 150, of_text, |bytes| {
        prepare(&folder, &folder.write("log.csv", bytes), &good_items)
    });
    let lines: String = log()
        .lines()
        .skip(1)
        .map(|line| {
            let [user, item, time, _] = line.split(',').collect::<Vec<_>>()[..] else { panic!() };
            format!("{{\"user\":\"{user}\",\"item\":\"{item}\",\"time\":{time}}}\n")
        })
        .collect();
    hold("interactions (JSONL)", lines.as_bytes(), 150, of_text, |bytes| {
        prepare(&folder, &folder.write("log.jsonl", bytes), &good_items)
    });
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(log().as_bytes()).unwrap();
    hold("interactions (gzip)", &zipped.finish().unwrap(), 150, of_text, |bytes| {
        prepare(&folder, &folder.write("log.csv.gz", bytes), &good_items)
    });
    hold("items (JSONL)", items().as_bytes(), 150, of_text, |bytes| {
        prepare(&folder, &good_log, &folder.write("items.jsonl", bytes))
    });
    let parquet = fs::read(repository().join("tests/golden/parquet/millis.parquet"));
    if let Ok(parquet) = parquet {
        let of_parquet = |bytes: usize| of_text(bytes) + (256 << 20);
        let read = |bytes: &[u8]| {
            prepare(&folder, &folder.write("log.parquet", bytes), &good_items);
            true
        };
        hold("interactions (Parquet)", &parquet, 150, of_parquet, read);
    }
}

#[test]
fn vectors() {
    let folder = Folder::new();
    let (log, items) = (folder.write("log.csv", log()), folder.write("items.jsonl", items()));
    assert!(prepare(&folder, &log, &items));
    let embed = |name: &str, bytes: &[u8]| {
        let vectors = folder.write(name, bytes);
        tigret(&[&"embed", &"--json", &"--run", &folder.path("run"), &"--vectors", &vectors])
    };
    let (rows, width) = (12, 5);
    let values: Vec<u8> =
        (0..rows * width).flat_map(|i| ((i * 7 % 11) as f32).to_le_bytes()).collect();
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let header = format!("{header:<117}\n");
    let npy = [
        b"\x93NUMPY\x01\x00",
        &(header.len() as u16).to_le_bytes()[..],
        header.as_bytes(),
        &values,
    ]
    .concat();
    hold("vectors (.npy)", &npy, 300, of_text, |bytes| embed("v.npy", bytes));
    let json = format!(
        "{{\"vectors\":{{\"dtype\":\"F32\",\"shape\":[{rows},{width}],\"data_offsets\":[0,{}]}}}}",
        values.len()
    );
    let json = format!("{json:width$}", width = json.len().next_multiple_of(8));
    let safetensors = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &values].concat();
    hold("vectors (.safetensors)", &safetensors, 300, of_text, |bytes| {
        embed("v.safetensors", bytes)
    });
}

#[test]
fn checkpoints_layouts_and_catalogues() {
    let golden = repository().join("tests/golden/tied");
    let folder = Folder::new();
    let names = ["config.json", "model.safetensors", "tokens.json", "catalog.json"];
    for name in names {
        folder.write(name, fs::read(golden.join(name)).unwrap());
    }
    for name in names {
        let original = fs::read(golden.join(name)).unwrap();
        hold(&format!("import: {name}"), &original, 150, of_text, |bytes| {
            folder.write(name, bytes);
            tigret(&[
                &"import",
                &"--json",
                &"--checkpoint",
                &folder.0.path(),
                &"--tokens",
                &folder.path("tokens.json"),
                &"--catalog",
                &folder.path("catalog.json"),
                &"--quantize",
                &"q8",
                &"--out",
                &folder.path("out.safetensors"),
            ])
        });
        folder.write(name, original);
    }
    let tokens = fs::read_to_string(golden.join("tokens.json")).unwrap();
    hold("tokens.json", tokens.as_bytes(), 2000, of_text, |bytes| {
        std::str::from_utf8(bytes).is_ok_and(|text| {
            TokenLayout::parse(text).is_ok_and(|layout| layout.validate(100).is_ok())
        })
    });
}

#[test]
fn histories() {
    let folder = Folder::new();
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q8, 2);
    let model = folder.write("model.safetensors", bundle.to_bytes().unwrap());
    let lines = "{\"history\":[\"item-1\",\"item-2\"],\"user\":\"u\"}\n{\"history\":[],\"exclude\":[\"item-3\"]}\n\
                 {\"history\":[\"item-9\"],\"allow\":[\"item-4\",\"item-5\"],\"user_token\":3}\n";
    hold("histories", lines.as_bytes(), 200, of_text, |bytes| {
        let histories = folder.write("h.jsonl", bytes);
        tigret(&[
            &"recommend",
            &"--json",
            &"--model",
            &model,
            &"--histories",
            &histories,
            &"--beams",
            &"4",
            &"--top",
            &"2",
        ])
    });
}

#[test]
fn settings_of_a_pipeline() {
    use clap::CommandFactory;
    use tigret_train::pipeline::Config;

    let folder = Folder::new();
    let text = "run = \"runs/shop\"\nprepare = { interactions = \"log.csv\", items = \"items.csv\", \
                text-columns = [\"title\"] }\n[train]\npreset = \"small\"\nmax-minutes = 60\n\
                [export]\nquantize = \"q8\"\n";
    hold("shop.toml", text.as_bytes(), 1500, of_text, |bytes| {
        let path = folder.write("shop.toml", bytes);
        // Only read: what a changed file names is not touched.
        Config::load(&path, &[]).and_then(|config| config.pipeline(&Cli::command())).is_ok()
    });
}

/// A few hundred kilobytes that become much more.
#[test]
fn compressed_files_that_swell() {
    let folder = Folder::new();
    let (good_log, good_items) =
        (folder.write("good.csv", log()), folder.write("good.jsonl", items()));
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let swelling = |start: &str, byte: u8| {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(start.as_bytes()).unwrap();
        let piece = vec![byte; 1 << 20];
        for _ in 0..400 {
            zipped.write_all(&piece).unwrap();
        }
        zipped.finish().unwrap()
    };
    for (name, byte) in [("one endless line", b'a'), ("zeros", 0), ("quotes", b'"')] {
        let bytes = swelling("user,item,time\nu1,", byte);
        let log = folder.write("log.csv.gz", &bytes);
        let peak = peak_of(|| assert!(!prepare(&folder, &log, &good_items), "{name}"));
        assert!(peak < 256 << 20, "log, {name}: {bytes} became {peak} bytes", bytes = bytes.len());
        let items = folder.write("items.jsonl.gz", swelling("{\"id\":\"", byte));
        let peak = peak_of(|| assert!(!prepare(&folder, &good_log, &items), "{name}"));
        assert!(peak < 256 << 20, "items, {name}: {peak} bytes of memory");
    }
    // Nesting without end.
    let deep = folder.write("deep.jsonl", "[".repeat(1 << 20));
    assert!(!prepare(&folder, &good_log, &deep));
}
