//! Times one recommendation (20 items, beam 50, the paper's sizes), or one of several users that
//! are answered at once, and prints JSON.
//!
//! `cargo run --release -p tigret-infer --example time_one -- --help`
//!
//! Beside the calls it says how long the bundle took to be read and checked (`load_s`), and to be
//! put on the engine (`start_s`). A GPU whose answer is not the CPU engine's ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{ArgAction, Parser, ValueEnum};
use pollster::block_on;
use serde_json::{Value, json};
use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{Backend, Bundle, GpuOptions, Pick, Recommender, Request, WeightFormat};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Times one recommendation and prints JSON.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "cpu")]
    backend: Engine,
    /// f32, f16, q8 or q4.
    #[arg(long, default_value = "q8")]
    format: WeightFormat,
    #[arg(long, default_value_t = 50)]
    beams: usize,
    /// Items of the random model.
    #[arg(long, default_value_t = Shape::paper().items)]
    items: usize,
    /// Users that are answered at once.
    #[arg(long, default_value_t = 1)]
    users: usize,
    #[arg(long, default_value_t = 20)]
    calls: usize,
    /// One of the example `random_model`: its bundle of the format and its first history are taken.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Whether to add the time of each kernel, by timestamps.
    #[arg(long, default_value_t = false, action = ArgAction::Set)]
    profile: bool,
    /// Whether to add what no call can be faster than on this GPU.
    #[arg(long, default_value_t = false, action = ArgAction::Set)]
    floor: bool,
    /// Whether the GPU makes use of it; by default what suits the device.
    #[arg(long)]
    halves: Option<bool>,
    /// As `--halves`.
    #[arg(long)]
    packed_products: Option<bool>,
    /// As `--halves`.
    #[arg(long)]
    subgroups: Option<bool>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Cpu,
    Gpu,
}

/// A request as `random_model` writes it.
#[derive(serde::Deserialize)]
struct Listed {
    history: Vec<String>,
}

fn main() {
    if let Err(error) = run(&Options::parse()) {
        eprintln!("time_one: {error}");
        std::process::exit(2);
    }
}

fn run(options: &Options) -> Outcome<()> {
    let mut ready = prepare(options)?;
    let measured = measure(&mut ready, options)?;
    println!("{}", described(&ready, measured, options));
    Ok(())
}

/// A model on an engine that answers as it should.
struct Ready {
    recommender: Recommender,
    request: Request,
    answer: Vec<Pick>,
    /// Seconds that the bundle took to be read and checked.
    load: f64,
    /// Seconds that it took to be put on the engine.
    start: f64,
}

fn prepare(options: &Options) -> Outcome<Ready> {
    let Options { format, items, beams, halves, packed_products, subgroups, .. } = *options;
    let backend = match options.backend {
        Engine::Cpu => Backend::Cpu,
        Engine::Gpu => Backend::Gpu(GpuOptions { halves, packed_products, subgroups }),
    };
    let (bytes, history) = match &options.folder {
        Some(folder) => {
            let bytes = read(&folder.join(format!("{}.safetensors", format.name())))?;
            let listed: Vec<Listed> =
                serde_json::from_slice(&read(&folder.join("requests.json"))?)?;
            let first = listed.into_iter().next().ok_or("requests.json has no request")?;
            (bytes, first.history)
        }
        None => {
            let history = (0..20).map(|i| format!("item-{}", i * 601 % items)).collect();
            let shape = Shape { items, ..Shape::paper() };
            (random_bundle(&shape, format, 0).to_bytes()?, history)
        }
    };
    let begin = Instant::now();
    let bundle = Arc::new(Bundle::from_bytes(&bytes)?);
    let load = begin.elapsed().as_secs_f64();
    drop(bytes);
    let begin = Instant::now();
    let mut recommender = block_on(Recommender::new(Arc::clone(&bundle), backend))?;
    let start = begin.elapsed().as_secs_f64();
    let request = Request { history, beams, top: beams.min(20), ..Request::default() };
    let answer = block_on(recommender.recommend(&request))?.items;
    if let Backend::Gpu(_) = backend {
        let mut cpu = block_on(Recommender::new(bundle, Backend::Cpu))?;
        let expected = block_on(cpu.recommend(&request))?;
        agree(&expected.items, &answer, tolerance_of(format)).map_err(|e| {
            let adapter = recommender.engine_name();
            format!("{adapter} does not answer as the CPU engine does: {e}")
        })?;
    }
    Ok(Ready { recommender, request, answer, load, start })
}

/// What was measured of the calls.
struct Measured {
    kernels: Vec<Kernel>,
    /// `null` where nobody asked.
    floor: Value,
    /// Milliseconds of a user, in ascending order.
    times: Vec<f64>,
}

fn measure(ready: &mut Ready, options: &Options) -> Outcome<Measured> {
    let Ready { recommender, request, .. } = ready;
    let mut kernels = Vec::new();
    if options.profile {
        // The second: pipelines are warm then.
        block_on(recommender.profile(request))?;
        kernels = by_kernel(&block_on(recommender.profile(request))?);
        for Kernel { name, launches, milliseconds } in &kernels {
            eprintln!("{name:<24} {launches:>4} launches {milliseconds:>9.3} ms");
        }
    }
    let mut floor = Value::Null;
    if options.floor {
        let least = block_on(recommender.floor(request))?;
        floor = json!({
            "ms": 1e3 * least.seconds(),
            "launches_ms": 1e3 * least.launches,
            "weight_bytes": least.weight_bytes,
            "gigabytes_per_s": least.bytes_per_second / 1e9,
        });
    }
    let requests = vec![request.clone(); options.users.max(1)];
    let mut times = Vec::with_capacity(options.calls.max(1));
    for _ in 0..options.calls.max(1) {
        let begin = Instant::now();
        block_on(recommender.recommend_all(&requests))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3 / requests.len() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(Measured { kernels, floor, times })
}

fn described(ready: &Ready, measured: Measured, options: &Options) -> Value {
    let Measured { kernels, floor, times } = measured;
    json!({
        "adapter": ready.recommender.engine_name(),
        "format": options.format.name(),
        "calls": times.len(),
        "users": options.users.max(1),
        "median_ms": f64::midpoint(times[(times.len() - 1) / 2], times[times.len() / 2]),
        "least_ms": times[0],
        "p95_ms": times[(times.len() * 95).div_ceil(100) - 1],
        "floor": floor,
        "kernels": kernels,
        "items": ready.recommender.catalog().len(),
        "load_s": ready.load,
        "start_s": ready.start,
        "answer": ready.answer,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}; `random_model` writes it", path.display()))
}

/// How far scores of the two engines may differ by rounding, which weights drawn at random magnify: on
/// llvmpipe they differed by .002, .12 and, in halves, .53.
fn tolerance_of(format: WeightFormat) -> f32 {
    match format {
        WeightFormat::F32 => 0.01,
        WeightFormat::Q8 | WeightFormat::Q4 => 0.3,
        _ => 1.0,
    }
}

/// Whether an answer has the scores of another, and most of its items: a prefix that rounding moves out
/// of the beams, or into them, takes all of its items along.
fn agree(expected: &[Pick], found: &[Pick], tolerance: f32) -> Result<(), String> {
    let mut shared = 0;
    for pick in found {
        let Some(own) = expected.iter().find(|own| own.id == pick.id) else { continue };
        shared += 1;
        if (pick.score - own.score).abs() > tolerance {
            return Err(format!("{} scores {}, not {}", pick.id, pick.score, own.score));
        }
    }
    if 2 * shared < expected.len() || found.len() != expected.len() {
        let (all, of) = (found.len(), expected.len());
        return Err(format!("of {all} items {shared} are among its {of}"));
    }
    Ok(())
}

/// All launches of a kernel in one call.
#[derive(serde::Serialize)]
struct Kernel {
    name: &'static str,
    launches: usize,
    milliseconds: f64,
}

/// Kernels by the time that they took, the longest first.
fn by_kernel(launches: &[(&'static str, f64)]) -> Vec<Kernel> {
    let mut kernels = std::collections::BTreeMap::new();
    for &(name, nanoseconds) in launches {
        let kernel = kernels.entry(name).or_insert(Kernel { name, launches: 0, milliseconds: 0.0 });
        kernel.launches += 1;
        kernel.milliseconds += nanoseconds / 1e6;
    }
    let mut kernels: Vec<Kernel> = kernels.into_values().collect();
    kernels.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    kernels
}
