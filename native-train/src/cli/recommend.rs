//! `tigret recommend`: native inference on a bundle.

use std::fmt;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::RangedU64ValueParser;
use indicatif::ProgressBar;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tigret_infer::sampling::MAX_SEED;
use tigret_infer::{
    Backend, GpuOptions, InferError, NewItem, Recommendation, Recommender, Request,
};

use super::Output;
use super::output::reaches_a_reader;
use crate::data::lines::{for_each_line, for_each_line_with, object};
use crate::error::{Result, TrainError};
use crate::export::read_bundle;
use crate::stderr::say;

/// Recommend items for each line of a file of histories.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tigret recommend --model m.safetensors --histories h.jsonl --beams 50 --top 20 --json
  tigret recommend --model m.safetensors --histories h.jsonl --temperature 1.5 --seed 7

Each line of h.jsonl is {\"history\": [\"id\", ...]}, optionally with \"user\": \"...\" or
\"user_token\": n, and with \"exclude\": [\"id\", ...] or \"allow\": [\"id\", ...].")]
pub(super) struct Args {
    /// The bundle.
    #[arg(long)]
    model: PathBuf,
    /// The histories, JSONL, plain or `.gz`.
    #[arg(long)]
    histories: PathBuf,
    /// New items to add to the catalogue first, JSONL with `id` and `embedding`; the bundle must
    /// carry its tokenizer (`tigret export --with-tokenizer`).
    #[arg(long, value_name = "FILE")]
    add_items: Option<PathBuf>,
    /// Beams of the search.
    #[arg(long, default_value_t = 50)]
    beams: usize,
    /// Results a history, at most the number of beams; 20, or the number of beams where that is
    /// less.
    #[arg(long)]
    top: Option<usize>,
    /// Never return an item of the history.
    #[arg(long)]
    exclude_history: bool,
    /// Sample without replacement, as many items as there are beams, instead of searching for the
    /// best: a temperature for all levels, or one a level. 1 follows the model; above 1 is more
    /// diverse. Items come in the order in which they were drawn.
    #[arg(long, value_delimiter = ',', value_name = "T[,T..]", allow_negative_numbers = true)]
    temperature: Option<Vec<f32>>,
    /// Seed of the sample. Line n of the histories has the seed N + n - 1, so that the draws of
    /// different lines do not depend on each other.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "temperature",
          value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: u64,
    /// Histories that are answered at once; with 1 each answer is written before the next line is
    /// read.
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    batch: usize,
    /// Engine: cpu or gpu.
    #[arg(long, value_enum, default_value_t = Engine::Cpu)]
    backend: Engine,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Engine {
    Cpu,
    Gpu,
}

/// An id of a line: a text, as everywhere in bundles and pages.
#[derive(Debug)]
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
        Ok(Id(id.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Id, E> {
        Err(E::custom(format!("an id is a text: write \"{number}\" in place of {number}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Id, E> {
        Err(E::custom(format!("an id is a text: write \"{number}\" in place of {number}")))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    history: Vec<Id>,
    #[serde(default)]
    user: Option<Id>,
    #[serde(default)]
    user_token: Option<u32>,
    #[serde(default)]
    exclude: Option<Vec<Id>>,
    #[serde(default)]
    allow: Option<Vec<Id>>,
}

pub(super) fn run(args: Args, output: &Output) -> Result<()> {
    let bundle = Arc::new(read_bundle(&args.model)?);
    let backend = match args.backend {
        Engine::Cpu => Backend::Cpu,
        Engine::Gpu => Backend::Gpu(GpuOptions::default()),
    };
    let mut recommender = pollster::block_on(Recommender::new(bundle, backend))?;
    // A driver that computes on the CPU is a Vulkan adapter too.
    if let Engine::Gpu = args.backend {
        say(format_args!("computing on {}", recommender.engine_name()));
    }
    // What is wrong with the options is said once, and not as a fault of the first line.
    check(&recommender, &args.request(0, Line::default()))?;
    if let Some(path) = &args.add_items {
        recommender.add_items(&new_items(path)?).map_err(|e| TrainError::file(path, e))?;
    }
    let mut results = output.results();
    let mut answers = Answers {
        recommender,
        output,
        out: BufWriter::new(&mut *results),
        histories: 0,
        skipped: 0,
        closed: false,
    };
    let mut batch = Vec::new();
    // Between the answers on a terminal a bar would be in the way.
    let progress = match std::io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => output.progress_bytes(),
    };
    progress.set_message("answering");
    let hint = "name the file of histories";
    let read = for_each_line_with(&args.histories, hint, &progress, |number, text| {
        let at = |e: &dyn std::fmt::Display| TrainError::line(&args.histories, number, e);
        let line = parse(text).map_err(|e| at(&e))?;
        let request = args.request(number - 1, line);
        check(&answers.recommender, &request).map_err(|e| at(&e))?;
        batch.push((number, request));
        if batch.len() == args.batch { answers.give(&mut batch) } else { Ok(()) }
    });
    // A line at fault ends the run, after the lines before it have been answered.
    let last = if answers.closed { Ok(()) } else { answers.give(&mut batch) };
    if answers.closed {
        return Ok(());
    }
    progress.finish_and_clear();
    if answers.skipped > 0 {
        say(format_args!(
            "tigret: skipped {} history items that the catalogue does not have, in {} histories",
            answers.skipped, answers.histories
        ));
    }
    last.and(read)
}

/// A line of the histories; what is wrong with a field is said with its name.
fn parse(text: &str) -> Result<Line, String> {
    object(text).map_err(|reason| {
        let fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let is_wrong = |(name, value): &(&String, &Value)| {
            // A later `history` takes the place of the empty one.
            let alone = json!({"history": [], name.as_str(): value});
            serde_json::from_value::<Line>(alone).is_err()
        };
        match fields.iter().find(is_wrong) {
            Some((name, _)) if !reason.contains(&format!("`{name}`")) => {
                format!("`{name}`: {reason}")
            }
            _ => reason,
        }
    })
}

impl Args {
    /// The request of a line, `index` lines after the first.
    fn request(&self, index: usize, line: Line) -> Request {
        let ids = |ids: Vec<Id>| ids.into_iter().map(|Id(id)| id).collect();
        Request {
            history: ids(line.history),
            user: line.user.map(|Id(id)| id),
            user_token: line.user_token,
            top: self.top.unwrap_or(Request::default().top.min(self.beams)),
            beams: self.beams,
            exclude: ids(line.exclude.unwrap_or_default()),
            exclude_history: self.exclude_history,
            allow: line.allow.map(ids),
            temperature: self.temperature.clone(),
            seed: (self.seed + index as u64) & MAX_SEED,
        }
    }
}

/// Refuses a request that the contract does not allow.
fn check(recommender: &Recommender, request: &Request) -> Result<()> {
    match Recommender::prepare(&recommender.bundle().tokens, recommender.catalog(), request) {
        Ok(_) => Ok(()),
        Err(InferError::Request(reason)) => Err(TrainError::usage(reason)),
        Err(other) => Err(other.into()),
    }
}

/// Answers, batch by batch.
struct Answers<'a> {
    recommender: Recommender,
    output: &'a Output,
    out: BufWriter<&'a mut dyn Write>,
    histories: usize,
    /// Items of histories that the catalogue does not have.
    skipped: usize,
    /// Whether the reader has closed the pipe: nobody is left to answer.
    closed: bool,
}

impl Answers<'_> {
    /// Answers the requests, each with the number of its line.
    fn give(&mut self, batch: &mut Vec<(usize, Request)>) -> Result<()> {
        let (numbers, requests): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let answers = pollster::block_on(self.recommender.recommend_all(&requests))?;
        self.histories += answers.len();
        self.skipped += answers.iter().map(|answer| answer.unknown.len()).sum::<usize>();
        let mut numbered = answers.iter().zip(numbers);
        let printed = numbered
            .try_for_each(|(answer, number)| print(&mut self.out, answer, number, self.output))
            .and_then(|()| self.out.flush());
        self.closed = !reaches_a_reader(printed)?;
        if self.closed { Err(TrainError::Interrupted) } else { Ok(()) }
    }
}

/// A line of a file of new items.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLine {
    id: Id,
    #[serde(default)]
    embedding: Vec<f32>,
}

fn new_items(path: &Path) -> Result<Vec<NewItem>> {
    let mut items = Vec::new();
    for_each_line(path, "name the new items' file", |line, text| {
        let NewLine { id: Id(id), embedding } =
            object(text).map_err(|e| TrainError::line(path, line, e))?;
        items.push(NewItem { id, embedding });
        Ok(())
    })?;
    Ok(items)
}

fn print(
    out: &mut impl Write,
    answer: &Recommendation,
    line: usize,
    output: &Output,
) -> std::io::Result<()> {
    if output.is_json() {
        let items = serde_json::to_string(&answer.items)?;
        return writeln!(out, "{{\"items\":{items}}}");
    }
    writeln!(out, "history {line}")?;
    for (rank, pick) in answer.items.iter().enumerate() {
        writeln!(out, "{:>4}  {:>9.4}  {}  {:?}", rank + 1, pick.score, pick.id, pick.codes)?;
    }
    Ok(())
}
