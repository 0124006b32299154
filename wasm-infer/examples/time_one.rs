//! Times one recommendation (20 items, beam 50, the paper's sizes), or one of several users that
//! are answered at once, and prints JSON.
//!
//! `cargo run --release -p tigret-infer --example time_one -- --backend cpu|gpu
//! [--format f32|f16|q8|q4] [--beams 50] [--items 12101] [--users 1] [--calls 20] [--profile true]
//! [--folder FOLDER] [--halves|--packed-products|--subgroups true|false] [--floor true]`; a profile
//! is the time of each kernel, by timestamps. A folder is one of the example `random_model`: its
//! bundle of that format and its first history are taken. Beside the calls it says how long the
//! bundle took to be read and checked (`load_s`), and to be put on the engine (`start_s`), and with
//! `--floor true` what no call can be faster than on this GPU. A GPU whose answer is not the CPU
//! engine's ends it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{Backend, Bundle, GpuOptions, Pick, Recommender, Request, WeightFormat};

/// A request as `random_model` writes it.
#[derive(serde::Deserialize)]
struct Listed {
    history: Vec<String>,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("time_one: {error}");
        std::process::exit(2);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: &str| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1).cloned()).unwrap_or(default.to_owned())
    };
    // Whether the GPU makes use of it; by default what suits the device.
    let extra = |name: &str| match option(name, "").as_str() {
        "" => Ok(None),
        value => value
            .parse::<bool>()
            .map(Some)
            .map_err(|_| format!("{name} {value}: use true or false")),
    };
    let (halves, subgroups) = (extra("--halves")?, extra("--subgroups")?);
    let packed_products = extra("--packed-products")?;
    let backend = match option("--backend", "cpu").as_str() {
        "cpu" => Backend::Cpu,
        "gpu" => Backend::Gpu(GpuOptions { halves, packed_products, subgroups }),
        other => return Err(format!("--backend {other}: use cpu or gpu").into()),
    };
    let format: WeightFormat = option("--format", "q8").parse()?;
    let calls: usize = option("--calls", "20").parse()?;
    let paper = Shape::paper();
    let items: usize = option("--items", &paper.items.to_string()).parse()?;
    let folder = option("--folder", "");
    let (bytes, history) = if folder.is_empty() {
        let history = (0..20).map(|i| format!("item-{}", i * 601 % items)).collect();
        (random_bundle(&Shape { items, ..paper }, format, 0).to_bytes()?, history)
    } else {
        let path = Path::new(&folder);
        let bytes = read(&path.join(format!("{}.safetensors", format.name())))?;
        let requests: Vec<Listed> = serde_json::from_slice(&read(&path.join("requests.json"))?)?;
        let first = requests.into_iter().next().ok_or("requests.json has no request")?;
        (bytes, first.history)
    };
    let begin = Instant::now();
    let bundle = Arc::new(Bundle::from_bytes(&bytes)?);
    let load = begin.elapsed().as_secs_f64();
    drop(bytes);
    let begin = Instant::now();
    let mut recommender = pollster::block_on(Recommender::new(Arc::clone(&bundle), backend))?;
    let start = begin.elapsed().as_secs_f64();
    let beams: usize = option("--beams", "50").parse()?;
    let users = option("--users", "1").parse::<usize>()?.max(1);
    let request = Request { history, beams, top: beams.min(20), ..Request::default() };
    let answer = pollster::block_on(recommender.recommend(&request))?;
    if let Backend::Gpu(_) = backend {
        let mut cpu = pollster::block_on(Recommender::new(Arc::clone(&bundle), Backend::Cpu))?;
        let expected = pollster::block_on(cpu.recommend(&request))?;
        agree(&expected.items, &answer.items, tolerance_of(format)).map_err(|e| {
            let adapter = recommender.engine_name();
            format!("{adapter} does not answer as the CPU engine does: {e}")
        })?;
    }
    let mut kernels = Vec::new();
    if option("--profile", "false") == "true" {
        // The second: pipelines are warm then.
        pollster::block_on(recommender.profile(&request))?;
        kernels = by_kernel(&pollster::block_on(recommender.profile(&request))?);
        for Kernel { name, launches, milliseconds } in &kernels {
            eprintln!("{name:<24} {launches:>4} launches {milliseconds:>9.3} ms");
        }
    }
    let floor = if option("--floor", "false") == "true" {
        let floor = pollster::block_on(recommender.floor(&request))?;
        serde_json::json!({
            "ms": 1e3 * floor.seconds(),
            "launches_ms": 1e3 * floor.launches,
            "weight_bytes": floor.weight_bytes,
            "gigabytes_per_s": floor.bytes_per_second / 1e9,
        })
    } else {
        serde_json::Value::Null
    };
    let requests = vec![request; users];
    let mut times = Vec::with_capacity(calls.max(1));
    for _ in 0..calls.max(1) {
        let begin = Instant::now();
        pollster::block_on(recommender.recommend_all(&requests))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3 / users as f64);
    }
    times.sort_by(f64::total_cmp);
    let result = serde_json::json!({
        "adapter": recommender.engine_name(),
        "format": format.name(),
        "calls": times.len(),
        "users": users,
        "median_ms": times[times.len() / 2],
        "least_ms": times[0],
        "p95_ms": times[(times.len() * 95).div_ceil(100) - 1],
        "floor": floor,
        "kernels": kernels,
        "items": recommender.catalog().len(),
        "load_s": load,
        "start_s": start,
        "answer": answer.items,
    });
    println!("{result}");
    Ok(())
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
