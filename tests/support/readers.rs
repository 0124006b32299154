//! Every reader of files: good files to begin from, the call that a user would make, and what one
//! call may cost. The tests of hostile files and the fuzz target share them.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

mod run;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use flate2::Compression;
use flate2::write::GzEncoder;
use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};
use tigret_infer::testing::{Shape, random_bundle, random_bundle_with_quantizer};
use tigret_infer::{Bundle, WeightFormat};
use tigret_train::cli::Cli;
use tigret_train::pipeline::Config;

use crate::attacks::{self, Attack};
use crate::repository;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory and time are counted for the whole program: what measures them does so alone.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Most processor time that a reader may take for each megabyte of a file that it begins: in a build
/// with optimisations, as fuzzed, and in one of the tests, which has none.
const PATIENCE: Duration =
    Duration::from_secs(if cfg!(any(fuzzing, not(debug_assertions))) { 1 } else { 20 });

/// What the products of matrices take beside that: `gemm` has a slab of the size of the cache of the
/// second level on each thread, and on recent servers that is 2 MB.
const SLABS: usize = 16 << 20;

/// Memory that a command takes whatever it reads: buffers, a model of some kilobytes, threads.
const BASE: usize = 4 << 20;

/// Memory that a packed file may take whatever its size: a line of at most 8 MiB, while it grows
/// and as text.
const UNPACKED: usize = 256 << 20;

/// What reading a file comes to: the sentence that refuses it.
type Outcome = Result<(), String>;

/// Reads the bytes of a file of that name.
type Call = dyn Fn(&str, &[u8]) -> Outcome;

/// Every reader: its name, what makes it, and bad files made of a good one.
const READERS: [(&str, Open, Attacks); 51] = [
    ("bundle", bundle, attacks::bundles),
    ("config", |name| checkpoint(name, "config.json"), attacks::configs),
    ("tokens", |name| checkpoint(name, "tokens.json"), attacks::layouts),
    ("catalog", |name| checkpoint(name, "catalog.json"), attacks::catalogues),
    ("checkpoint", |name| checkpoint(name, "model.safetensors"), attacks::checkpoints),
    ("histories", histories, attacks::histories),
    (
        "interactions-csv",
        |name| interactions(name, "csv", vec![("log", log().into())]),
        attacks::logs,
    ),
    (
        "interactions-jsonl",
        |name| interactions(name, "jsonl", vec![("log", log_of_objects().into())]),
        attacks::logs_of_objects,
    ),
    (
        "interactions-gzip",
        |name| interactions(name, "csv.gz", vec![("log", zipped(log().as_bytes()))]),
        attacks::packed_logs,
    ),
    ("interactions-parquet", parquet, attacks::parquet),
    ("items", items_file, attacks::items),
    (
        "amazon-reviews",
        |name| amazon(name, "reviews.json", amazon_reviews()),
        attacks::amazon_reviews,
    ),
    ("amazon-items", |name| amazon(name, "meta.json", AMAZON_ITEMS.into()), attacks::amazon_items),
    ("movielens", movielens, attacks::ratings),
    ("research", run::research, attacks::research),
    ("new-items", new_items, attacks::new_items),
    ("npy", |name| vectors(name, npy()), attacks::npy),
    ("safetensors", |name| vectors(name, safetensors()), attacks::vectors),
    ("ids", run::ids, attacks::ids),
    ("pipeline", pipeline, attacks::pipelines),
    ("study", study, attacks::studies),
    ("run-items", run::items, attacks::run_items),
    ("run-sequences", run::sequences, attacks::run_sequences),
    ("run-summary", run::summary, attacks::run_summaries),
    ("run-vectors", run::vectors, attacks::run_vectors),
    ("run-encoder", run::encoder, attacks::run_encoders),
    ("run-tokenizer", run::tokenizer, attacks::run_tokenizers),
    ("run-tokenizer-report", run::tokenizer_report, attacks::run_tokenizer_reports),
    ("run-tokenizer-log", run::tokenizer_log, attacks::run_tokenizer_logs),
    ("run-model-config", run::model_config, attacks::run_model_configs),
    ("run-model", run::model, attacks::run_models),
    ("run-model-index", run::model_index, attacks::run_model_indices),
    ("run-training", run::training, attacks::run_trainings),
    ("run-training-log", run::training_log, attacks::run_training_logs),
    ("run-baseline", run::baseline, attacks::run_baselines),
    ("run-oracle", run::oracle, attacks::run_oracles),
    ("run-evaluation", run::evaluation, attacks::run_evaluations),
    ("texts", run::texts, attacks::texts),
    ("assigned-items", run::assigned_items, attacks::assigned_items),
    ("encoder-bert", |name| encoder(name, "bert", "config.json"), attacks::encoder_bert),
    ("encoder-mpnet", |name| encoder(name, "mpnet", "config.json"), attacks::encoder_mpnet),
    ("encoder-t5", |name| encoder(name, "t5", "config.json"), attacks::encoder_t5),
    (
        "encoder-weights",
        |name| encoder(name, "bert", "model.safetensors"),
        attacks::encoder_weights,
    ),
    ("encoder-modules", |name| encoder(name, "t5", "modules.json"), attacks::encoder_modules),
    (
        "encoder-pooling",
        |name| encoder(name, "bert", "1_Pooling/config.json"),
        attacks::encoder_poolings,
    ),
    ("encoder-dense", |name| encoder(name, "t5", "2_Dense/config.json"), attacks::encoder_dense),
    (
        "encoder-wordpiece",
        |name| encoder(name, "bert", "tokenizer.json"),
        attacks::encoder_wordpieces,
    ),
    ("encoder-unigram", |name| encoder(name, "t5", "tokenizer.json"), attacks::encoder_unigrams),
    (
        "encoder-tokenizer",
        |name| encoder(name, "bert", "tokenizer_config.json"),
        attacks::encoder_tokenizers,
    ),
    (
        "encoder-limit",
        |name| encoder(name, "bert", "sentence_bert_config.json"),
        attacks::encoder_limits,
    ),
    (
        "encoder-prompts",
        |name| encoder(name, "bert", "config_sentence_transformers.json"),
        attacks::encoder_prompts,
    ),
];

/// Makes a reader, which gets this name.
type Open = fn(&'static str) -> Reader;

/// Makes bad files of a good one.
type Attacks = fn(&[u8]) -> Vec<Attack>;

/// A good file with a name.
type Good = (&'static str, Vec<u8>);

/// A reader of one kind of file.
pub struct Reader {
    /// Its name in the list of all.
    pub name: &'static str,
    /// Good files with a name each.
    pub good: Vec<Good>,
    /// Changed files that a short test gives it: what it does with one takes its time.
    pub rounds: usize,
    memory: Memory,
    read: Box<Call>,
}

/// Memory that a file may take: so many times its size, and so many bytes more.
struct Memory(usize, usize);

/// What reading a file came to and cost.
#[derive(Debug)]
pub struct Reading {
    /// The sentence that refused the file, if it was refused.
    pub outcome: Outcome,
    /// Memory at the peak, beyond what was in use before, in bytes.
    pub memory: usize,
    /// Processor time, of all threads.
    pub time: Duration,
}

impl Reader {
    /// All of them, each opened when its turn comes.
    pub fn all() -> impl Iterator<Item = Self> {
        READERS.iter().map(|(name, open, _)| open(name))
    }

    /// The reader of that name, with the files that its call needs beside the one it reads.
    ///
    /// # Errors
    /// A sentence that names the readers there are, when this is none of them.
    ///
    /// # Panics
    /// When the fixture cannot be made.
    pub fn open(name: &str) -> Result<Self, String> {
        match READERS.iter().find(|(known, ..)| *known == name) {
            Some((name, open, _)) => Ok(open(name)),
            None => {
                let known = READERS.map(|(known, ..)| known).join(", ");
                Err(format!("no reader is called \"{name}\"; there are {known}"))
            }
        }
    }

    /// Bad files, and what must be said of each.
    ///
    /// # Panics
    /// When one cannot be made.
    pub fn attacks(&self) -> Vec<Attack> {
        let (_, _, attacks) = READERS.iter().find(|(name, ..)| *name == self.name).unwrap();
        attacks(&self.good.last().unwrap().1)
    }

    /// Reads a file, which may have any name that begins with the reader's.
    ///
    /// # Panics
    /// When the reader panics, takes more memory or time than a file of this size may, or refuses
    /// it without a sentence. That is what a test or a fuzzer is to find.
    pub fn read(&self, name: &str, bytes: &[u8]) -> Reading {
        let (before, start) = (MEMORY.current_usage(), processor_time());
        MEMORY.reset_peak_usage();
        let outcome = (self.read)(name, bytes);
        let memory = MEMORY.peak_usage().saturating_sub(before);
        let time = processor_time().saturating_sub(start);
        let Memory(times, more) = self.memory;
        let unpacked = if name.ends_with(".gz") { UNPACKED } else { 0 };
        let most = times * bytes.len() + more + unpacked;
        assert!(memory <= most, "{name} of {} bytes took {memory} of memory", bytes.len());
        let patience = PATIENCE * u32::try_from(1 + bytes.len() / 1_000_000).unwrap();
        assert!(time <= patience, "{name} of {} bytes took {time:?}", bytes.len());
        if let Err(sentence) = &outcome {
            let fits = !sentence.trim().is_empty() && sentence.len() < 4000;
            assert!(fits, "{name} is refused with: {sentence}");
        }
        Reading { outcome, memory, time }
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// A folder of files for a command; gone when the reader is.
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

/// Runs `tigret`, in this process; results are for nobody.
fn tigret(arguments: &[&dyn AsRef<OsStr>]) -> Outcome {
    let line = std::iter::once("tigret".into())
        .chain(arguments.iter().map(|argument| argument.as_ref().to_owned()));
    Cli::try_parse_from(line).unwrap().run(io::sink()).map_err(|error| {
        let sentence = error.to_string();
        assert!(!sentence.chars().any(char::is_control), "no line: {sentence:?}");
        sentence
    })
}

fn bundle(name: &'static str) -> Reader {
    let shape =
        Shape { items: 12, layers: (1, 1), d_model: 8, heads: (2, 4), d_ff: 8, ..Shape::default() };
    let bytes = |bundle: Bundle| bundle.to_bytes().unwrap();
    Reader {
        name,
        good: vec![
            ("f32", bytes(random_bundle(&shape, WeightFormat::F32, 1))),
            ("f16", bytes(random_bundle(&shape, WeightFormat::F16, 1))),
            ("q4", bytes(random_bundle(&shape, WeightFormat::Q4, 1))),
            ("q8-with-tokenizer", bytes(random_bundle_with_quantizer(&shape, WeightFormat::Q8, 1))),
        ],
        rounds: 3000,
        memory: Memory(8, 1 << 20),
        read: Box::new(|_, bytes| {
            Bundle::from_bytes(bytes).map(|_| ()).map_err(|error| error.to_string())
        }),
    }
}

/// `tigret import` of a folder in which one file is another.
fn checkpoint(name: &'static str, file: &'static str) -> Reader {
    let golden = repository().join("tests/golden/tied");
    let folder = Folder::new();
    for each in ["config.json", "model.safetensors", "tokens.json", "catalog.json"] {
        folder.write(each, fs::read(golden.join(each)).unwrap());
    }
    Reader {
        name,
        good: vec![("tied", fs::read(golden.join(file)).unwrap())],
        rounds: 150,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            folder.write(file, bytes);
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
        }),
    }
}

fn histories(name: &'static str) -> Reader {
    let folder = Folder::new();
    let bundle = random_bundle(&Shape::default(), WeightFormat::Q8, 2);
    let model = folder.write("model.safetensors", bundle.to_bytes().unwrap());
    let lines = "{\"history\":[\"item-1\",\"item-2\"],\"user\":\"u\"}\n\
                 {\"history\":[],\"exclude\":[\"item-3\"]}\n\
                 {\"history\":[\"item-9\"],\"allow\":[\"item-4\",\"item-5\"],\"user_token\":3}\n";
    Reader {
        name,
        good: vec![("three", lines.into())],
        rounds: 200,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            let histories = folder.write("h.jsonl", bytes);
            recommend(&model, &histories, &[])
        }),
    }
}

/// `tigret recommend` with few beams.
fn recommend(model: &Path, histories: &Path, more: &[&dyn AsRef<OsStr>]) -> Outcome {
    let small: [&dyn AsRef<OsStr>; 4] = [&"--beams", &"4", &"--top", &"2"];
    let files: [&dyn AsRef<OsStr>; 4] = [&"--model", &model, &"--histories", &histories];
    let verb: [&dyn AsRef<OsStr>; 2] = [&"recommend", &"--json"];
    tigret(&[&verb[..], &files, &small, more].concat())
}

/// A log of twenty users on twelve items.
fn log() -> String {
    let mut log = "user,item,time,rating\n".to_owned();
    for user in 0..20 {
        for step in 0..8 {
            log += &format!("u{user},i{},{},4\n", (user * 3 + step) % 12, 1_600_000_000 + step);
        }
    }
    log
}

fn log_of_objects() -> String {
    let object = |line: &str| {
        let [user, item, time, _] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("a line of the log has four cells")
        };
        format!("{{\"user\":\"{user}\",\"item\":\"{item}\",\"time\":{time}}}\n")
    };
    log().lines().skip(1).map(object).collect()
}

/// The items of [`log`].
fn items() -> String {
    let ids: Vec<String> = (0..12).map(|item| format!("i{item}")).collect();
    items_named(&ids)
}

fn items_named(ids: &[impl AsRef<str>]) -> String {
    let line = |(at, id): (usize, &str)| {
        format!("{{\"id\":\"{id}\",\"title\":\"{id}, red\",\"brand\":\"B{}\"}}\n", at % 3)
    };
    ids.iter().map(AsRef::as_ref).enumerate().map(line).collect()
}

/// Bytes as gzip packs them.
fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `tigret prepare` on a log and items, into the folder's run.
fn prepare(folder: &Folder, log: &Path, items: &Path) -> Outcome {
    prepare_by(folder, log, items, "time")
}

fn prepare_by(folder: &Folder, log: &Path, items: &Path, time: &str) -> Outcome {
    let columns =
        ["--text-columns", "title,brand", "--user-column", "user", "--item-column", "item"];
    let mut source: Vec<&dyn AsRef<OsStr>> = vec![&"--interactions", &log, &"--items", &items];
    source.extend(columns.iter().map(|column| column as &dyn AsRef<OsStr>));
    source.extend::<[&dyn AsRef<OsStr>; 2]>([&"--time-column", &time]);
    prepare_from(folder, &source)
}

fn interactions(name: &'static str, extension: &'static str, good: Vec<Good>) -> Reader {
    let folder = Folder::new();
    // The golden file has other names.
    let (time, items) = match extension {
        "parquet" => ("timestamp", items_named(&["kettle", "lamp", "stool", "mug"])),
        _ => ("time", items()),
    };
    let items = folder.write("items.jsonl", items);
    let packed = matches!(extension, "csv.gz" | "parquet");
    Reader {
        name,
        good,
        rounds: 150,
        memory: Memory(64, if packed { UNPACKED } else { BASE }),
        read: Box::new(move |_, bytes| {
            prepare_by(&folder, &folder.write(&format!("log.{extension}"), bytes), &items, time)
        }),
    }
}

fn parquet(name: &'static str) -> Reader {
    let good = ["whole", "millis"].map(|table| {
        let file = format!("tests/golden/parquet/{table}.parquet");
        (table, fs::read(repository().join(file)).unwrap())
    });
    interactions(name, "parquet", good.into())
}

fn items_file(name: &'static str) -> Reader {
    let folder = Folder::new();
    let log = folder.write("log.csv", log());
    Reader {
        name,
        good: vec![("twelve", items().into_bytes())],
        rounds: 150,
        memory: Memory(64, BASE),
        read: Box::new(move |name, bytes| {
            let packed = if name.ends_with(".gz") { ".gz" } else { "" };
            prepare(&folder, &log, &folder.write(&format!("items.jsonl{packed}"), bytes))
        }),
    }
}

/// Four users on four items.
const REVIEWS: [(&str, &str, u32); 12] = [
    ("ann", "kettle", 3),
    ("ann", "lamp", 1),
    ("ann", "mug", 2),
    ("bob", "lamp", 4),
    ("bob", "kettle", 5),
    ("bob", "stool", 6),
    ("cy", "mug", 7),
    ("cy", "stool", 8),
    ("cy", "lamp", 9),
    ("dee", "stool", 1),
    ("dee", "mug", 2),
    ("dee", "kettle", 3),
];

fn amazon_reviews() -> String {
    let line = |(user, item, time): &(&str, &str, u32)| {
        format!(
            "{{\"reviewerID\":\"{user}\",\"asin\":\"{item}\",\"overall\":4.0,\
             \"unixReviewTime\":{time}}}\n"
        )
    };
    REVIEWS.iter().map(line).collect()
}

/// As the metadata of 2014 is printed: dictionaries of Python.
const AMAZON_ITEMS: &str = "\
{'asin': 'kettle', 'title': \"Nan's kettle\", 'price': 12.5, 'brand': u'Caf\\xe9', 'x': None}
{'asin': 'lamp', 'title': 'Lamp \\u2014 red', 'categories': [['Home', 'Light'], []], 'y': (1, -2.5)}
{'asin': 'mug', 'title': 'Mug', 'related': {'also_bought': ['lamp']}, 'sold': True}
{'asin': 'stool', 'title': 'Stool'}
";

/// `tigret prepare --amazon` with one of the two files changed.
fn amazon(name: &'static str, file: &'static str, good: String) -> Reader {
    let folder = Folder::new();
    folder.write("reviews.json", amazon_reviews());
    folder.write("meta.json", AMAZON_ITEMS);
    Reader {
        name,
        good: vec![("four", good.into_bytes())],
        rounds: 150,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            folder.write(file, bytes);
            prepare_from(
                &folder,
                &[&"--amazon", &folder.path("reviews.json"), &"--items", &folder.path("meta.json")],
            )
        }),
    }
}

/// `tigret prepare --movielens` with other ratings.
fn movielens(name: &'static str) -> Reader {
    let folder = Folder::new();
    let films = ["kettle", "lamp", "mug", "stool"];
    let number = |name: &str| 1 + films.iter().position(|film| *film == name).unwrap();
    let line = |(user, item, time): &(&str, &str, u32)| {
        format!("{}::{}::4::{time}\n", user.as_bytes()[0], number(item))
    };
    let ratings: String = REVIEWS.iter().map(line).collect();
    let titles = films.iter().map(|film| format!("{}::{film} (1999)::Drama|War\n", number(film)));
    folder.write("movies.dat", titles.collect::<String>());
    Reader {
        name,
        good: vec![("ratings", ratings.into_bytes())],
        rounds: 150,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            folder.write("ratings.dat", bytes);
            prepare_from(&folder, &[&"--movielens", &folder.0.path()])
        }),
    }
}

/// `tigret prepare` into the folder's run.
fn prepare_from(folder: &Folder, source: &[&dyn AsRef<OsStr>]) -> Outcome {
    let run = folder.path("run");
    let _ = fs::remove_dir_all(&run);
    let arguments: [&dyn AsRef<OsStr>; 6] =
        [&"prepare", &"--json", &"--k-core", &"0", &"--run", &run];
    tigret(&[&arguments[..], source].concat())
}

/// `tigret recommend --add-items` with a bundle that carries its tokenizer.
fn new_items(name: &'static str) -> Reader {
    let folder = Folder::new();
    let bundle = random_bundle_with_quantizer(&Shape::default(), WeightFormat::Q8, 2);
    let width = bundle.quantizer().unwrap().config().input;
    let model = folder.write("model.safetensors", bundle.to_bytes().unwrap());
    let histories = folder.write("h.jsonl", "{\"history\":[\"item-1\"]}\n");
    let line = |item: usize| {
        let vector: Vec<f32> = (0..width).map(|at| ((item + at) % 7) as f32).collect();
        format!("{{\"id\":\"new-{item}\",\"embedding\":{vector:?}}}\n")
    };
    let good: String = (0..3).map(line).collect();
    Reader {
        name,
        good: vec![("three", good.into_bytes())],
        rounds: 200,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            let items = folder.write("new.jsonl", bytes);
            recommend(&model, &histories, &[&"--add-items", &items])
        }),
    }
}

/// `tigret embed --vectors` in a run of twelve items.
fn vectors(name: &'static str, good: Vec<u8>) -> Reader {
    let folder = Folder::new();
    let (log, items) = (folder.write("log.csv", log()), folder.write("items.jsonl", items()));
    prepare(&folder, &log, &items).unwrap();
    Reader {
        name,
        good: vec![("twelve", good)],
        rounds: 300,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            let vectors = folder.write(&format!("v.{name}"), bytes);
            tigret(&[&"embed", &"--json", &"--run", &folder.path("run"), &"--vectors", &vectors])
        }),
    }
}

const ROWS: usize = 12;
const WIDTH: usize = 5;

fn values() -> Vec<u8> {
    (0..ROWS * WIDTH).flat_map(|i| ((i * 7 % 11) as f32).to_le_bytes()).collect()
}

fn npy() -> Vec<u8> {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {WIDTH}), }}");
    let header = format!("{header:<117}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &values()].concat()
}

fn safetensors() -> Vec<u8> {
    let values = values();
    let header = format!(
        "{{\"vectors\":{{\"dtype\":\"F32\",\"shape\":[{ROWS},{WIDTH}],\"data_offsets\":[0,{}]}}}}",
        values.len()
    );
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

/// The settings of `tigret run`; only read, so that what a changed file names is not touched.
fn pipeline(name: &'static str) -> Reader {
    let folder = Folder::new();
    let text = "run = \"runs/shop\"\nprepare = { interactions = \"log.csv\", items = \"items.csv\", \
                text-columns = [\"title\"] }\n[train]\npreset = \"small\"\nmax-minutes = 60\n\
                [export]\nquantize = \"q8\"\n";
    Reader {
        name,
        good: vec![("shop", text.into())],
        rounds: 1500,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            let path = folder.write("shop.toml", bytes);
            let config = Config::load(&path, &[]);
            let calls = config.and_then(|config| config.pipeline(&Cli::command()));
            calls.map(|_| ()).map_err(|error| error.to_string())
        }),
    }
}

/// The settings of `tigret study`. Its folder is a file, so that a study whose settings are accepted
/// ends before its first step, whatever a changed file asks for.
fn study(name: &'static str) -> Reader {
    let folder = Folder::new();
    let out = folder.write("out", "");
    folder.write("log.csv", log());
    folder.write("items.csv", "id,title\n");
    let text = "seeds = [0, 1]\nusers = 500\n[data.shop]\ninteractions = \"log.csv\"\n\
                items = \"items.csv\"\ntext-columns = [\"title\"]\n[tokenize]\nepochs = 500\n\
                [train]\npreset = \"small\"\nmax-minutes = 60\n[study.layers]\n\
                train = { batch = 128 }\n";
    Reader {
        name,
        good: vec![("shop", text.into())],
        rounds: 100,
        memory: Memory(64, BASE),
        read: Box::new(move |_, bytes| {
            let config = folder.write("shop.toml", bytes);
            match tigret(&[&"study", &"layers", &"--config", &config, &"--out", &out]) {
                Err(said) if said == format!("{}: {IS_A_FILE}", out.display()) => Ok(()),
                other => other,
            }
        }),
    }
}

/// What is said of a run's folder that is a file.
const IS_A_FILE: &str = "is a file; name a folder for the run";

/// `tigret embed --encoder` with a folder of sentence-transformers in which one file is another.
fn encoder(name: &'static str, architecture: &str, file: &str) -> Reader {
    let folder = run::run_after(&[]);
    let golden = repository().join("tests/golden/encoders").join(architecture);
    copy(&golden, &folder.path("encoder"));
    let file = format!("encoder/{file}");
    let command = "embed --run ./run --device cpu --encoder ./encoder";
    let mut reader = run::in_folder(name, folder, file, command);
    reader.memory.1 += SLABS;
    reader
}

/// Copies a folder with those in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}
