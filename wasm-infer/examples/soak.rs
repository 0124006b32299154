//! Asks an engine the same varied questions over and over: every answer must be the one that was
//! given the first time, and memory must not grow.
//!
//! `cargo run --release -p tigret-infer --features testing --example soak -- --backend cpu|gpu
//! [--calls 100000] [--size paper|small] [--format q8]`
//!
//! Prints JSON; exit status 1 where an answer changed or memory grew by more than 5 % after the
//! first tenth of the calls. Memory is what Linux says is resident; elsewhere it is not looked at.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use pollster::block_on;
use tigret_infer::testing::{Random, Shape, random_bundle};
use tigret_infer::{Backend, Bundle, Recommender, Request, WeightFormat};

/// Growth of memory that is not yet a leak.
const GROWTH: f64 = 1.05;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: &str| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1).cloned()).unwrap_or(default.to_owned())
    };
    let backend = match option("--backend", "cpu").as_str() {
        "cpu" => Backend::Cpu,
        "gpu" => Backend::Gpu,
        other => return Err(format!("--backend {other}: use cpu or gpu").into()),
    };
    let shape = match option("--size", "paper").as_str() {
        "paper" => Shape::paper(),
        "small" => Shape::default(),
        other => return Err(format!("--size {other}: use paper or small").into()),
    };
    let format: WeightFormat = option("--format", "q8").parse()?;
    let calls = option("--calls", "100000").parse::<usize>()?.max(10);
    let bundle = Arc::new(random_bundle(&shape, format, 0));
    let mut recommender = block_on(Recommender::new(Arc::clone(&bundle), backend))?;
    let requests = requests(&bundle);
    let mut first = Vec::new();
    for request in &requests {
        first.push(block_on(recommender.recommend(request))?);
    }
    let (mut changed, mut warm) = (0usize, None);
    let mut times = Vec::with_capacity(calls);
    let begin = Instant::now();
    for call in 0..calls {
        if call == calls / 10 {
            warm = resident();
        }
        let which = call % requests.len();
        let start = Instant::now();
        let answer = block_on(recommender.recommend(&requests[which]))?;
        times.push(start.elapsed().as_secs_f32() * 1e3);
        changed += usize::from(answer != first[which]);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let end = resident();
    let flat = warm.zip(end).is_none_or(|(warm, end)| end as f64 <= warm as f64 * GROWTH);
    times.sort_by(f32::total_cmp);
    let result = serde_json::json!({
        "engine": recommender.engine_name(),
        "calls": calls,
        "changed_answers": changed,
        "resident_bytes_after_a_tenth": warm,
        "resident_bytes_at_the_end": end,
        "median_ms": times[calls / 2],
        "p99_ms": times[calls - 1 - calls / 100],
        "seconds": seconds,
    });
    println!("{result}");
    Ok(changed == 0 && flat)
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
