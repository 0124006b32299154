//! Asks an engine the same varied questions over and over: every answer must be the one that was
//! given the first time, and memory must not grow. Ten of twelve calls recommend, one recommends to
//! several users at once, one explains or traces.
//!
//! `cargo run --release -p tigret-infer --example soak -- --help`
//!
//! Prints JSON; exit status 1 where an answer changed or memory grew by more than 5 % after the
//! first tenth. Memory is what Linux says is resident; elsewhere it is not looked at. Times are
//! those of the calls that recommend to one.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use pollster::block_on;
use tigret_infer::explain::{Explanation, Prefix};
use tigret_infer::testing::{Random, Shape, random_bundle};
use tigret_infer::{
    Backend, Bundle, GpuOptions, InferError, Recommendation, Recommender, Request, WeightFormat,
};

/// Growth of memory that is not yet a leak.
const GROWTH: f64 = 1.05;

/// Asks an engine the same questions over and over and prints JSON.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "cpu")]
    backend: Engine,
    #[arg(long, default_value = "paper")]
    size: Size,
    /// f32, f16, q8 or q4.
    #[arg(long, default_value = "q8")]
    format: WeightFormat,
    #[arg(long, default_value_t = 100_000)]
    calls: usize,
    /// For how long to ask, instead of a number of calls.
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Cpu,
    Gpu,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Paper,
    Small,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, InferError> {
    let backend = match options.backend {
        Engine::Cpu => Backend::Cpu,
        Engine::Gpu => Backend::Gpu(GpuOptions::default()),
    };
    let shape = match options.size {
        Size::Paper => Shape::paper(),
        Size::Small => Shape::default(),
    };
    let calls = options.calls.max(10);
    let minutes = options.minutes;
    let time = (minutes > 0.0).then(|| Duration::from_secs_f64(60.0 * minutes));
    let bundle = Arc::new(random_bundle(&shape, options.format, 0));
    let mut recommender = block_on(Recommender::new(Arc::clone(&bundle), backend))?;
    let requests = requests(&bundle);
    let questions = questions(&requests);
    let mut first = Vec::new();
    for question in &questions {
        first.push(question.ask(&mut recommender)?);
    }
    let (mut asked, mut changed, mut warm) = (0usize, 0usize, None);
    let mut latencies = Latencies::default();
    let begin = Instant::now();
    loop {
        let done = match time {
            Some(time) => begin.elapsed().div_duration_f64(time),
            None => asked as f64 / calls as f64,
        };
        if done >= 0.1 && warm.is_none() {
            warm = resident();
        }
        if done >= 1.0 {
            break;
        }
        let which = asked % questions.len();
        let start = Instant::now();
        let answer = questions[which].ask(&mut recommender)?;
        if matches!(answer, Answer::One(_)) {
            latencies.add(start.elapsed());
        }
        changed += usize::from(answer != first[which]);
        asked += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let end = resident();
    let flat = warm.zip(end).is_none_or(|(warm, end)| end as f64 <= warm as f64 * GROWTH);
    let result = serde_json::json!({
        "engine": recommender.engine_name(),
        "calls": asked,
        "changed_answers": changed,
        "resident_bytes_after_a_tenth": warm,
        "resident_bytes_at_the_end": end,
        "median_ms": latencies.quantile(0.5),
        "p99_ms": latencies.quantile(0.99),
        "seconds": seconds,
    });
    println!("{result}");
    Ok(changed == 0 && flat)
}

/// A call of one kind.
enum Question<'a> {
    Recommend(&'a Request),
    RecommendAll(&'a [Request]),
    Explain(&'a Request),
    Trace(&'a Request),
}

#[derive(PartialEq)]
enum Answer {
    One(Recommendation),
    All(Vec<Recommendation>),
    Why(Option<Explanation>),
    Path(Vec<Vec<Prefix>>),
}

impl Question<'_> {
    fn ask(&self, recommender: &mut Recommender) -> Result<Answer, InferError> {
        Ok(match self {
            Self::Recommend(request) => Answer::One(block_on(recommender.recommend(request))?),
            Self::RecommendAll(requests) => {
                Answer::All(block_on(recommender.recommend_all(requests))?)
            }
            Self::Explain(request) => {
                let picks = block_on(recommender.recommend(request))?.items;
                let pick = picks.first();
                Answer::Why(pick.map(|pick| recommender.explain(request, &pick.id)).transpose()?)
            }
            Self::Trace(request) => Answer::Path(recommender.trace(request)?),
        })
    }
}

fn questions(requests: &[Request]) -> Vec<Question<'_>> {
    let mut questions: Vec<Question<'_>> = requests.iter().map(Question::Recommend).collect();
    for (turn, at) in [(0, 8), (1, 9), (2, 18), (3, 19)] {
        questions.insert(
            at,
            match turn {
                0 => Question::RecommendAll(&requests[..5]),
                1 => Question::Explain(&requests[5]),
                2 => Question::RecommendAll(&requests[9..14]),
                _ => Question::Trace(&requests[7]),
            },
        );
    }
    questions
}

/// Counts of times by size, so that a call of an hour takes no more memory than one of a minute.
struct Latencies(Vec<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(vec![0; 1200])
    }
}

impl Latencies {
    /// Ratio of neighbouring sizes; the smallest is a microsecond.
    const STEP: f64 = 1.02;

    fn add(&mut self, time: Duration) {
        let at = (time.as_secs_f64() * 1e6).max(1.0).log(Self::STEP) as usize;
        let last = self.0.len() - 1;
        self.0[at.min(last)] += 1;
    }

    /// The time in milliseconds below which this share of all lies, to 2 %.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.0.iter().sum::<u64>() as f64) as u64;
        let mut below = 0;
        let at = self.0.iter().position(|count| {
            below += count;
            below > wanted
        });
        Self::STEP.powi(at.unwrap_or(self.0.len()) as i32) / 1e3
    }
}

/// Histories of every length, beams of every width, filters and samples.
fn requests(bundle: &Bundle) -> Vec<Request> {
    let mut random = Random::new(9);
    let catalog = &bundle.catalog;
    let mut ids = |count: usize| -> Vec<String> {
        let id = |_| catalog.id_of(random.below(catalog.len()) as u32).to_owned();
        (0..count).map(id).collect()
    };
    (0..20)
        .map(|index| {
            let beams = [1, 3, 10, 20][index % 4];
            Request {
                history: ids(index % (bundle.tokens.max_items + 2)),
                beams,
                top: beams,
                exclude_history: index % 2 == 0,
                exclude: ids(index),
                allow: (index % 5 == 4).then(|| ids(catalog.len() / (index + 1))),
                temperature: (index % 3 == 2).then(|| vec![1.0 + index as f32 / 10.0]),
                seed: index as u64,
                ..Request::default()
            }
        })
        .collect()
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
