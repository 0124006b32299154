//! Times one recommendation (20 items, beam 50, the paper's sizes), or one of several users that
//! are answered at once, and prints JSON.
//!
//! `cargo run --release -p tigret-infer --features testing --example time_one -- --backend cpu|gpu
//! [--format f32|f16|q8|q4] [--beams 50] [--items 12101] [--users 1] [--calls 20] [--profile true]
//! [--folder FOLDER] [--halves|--packed-products|--subgroups true|false]`; a profile is the time of each kernel, by timestamps. A folder is one of the
//! example `random_model`: its bundle of that format and its first history are taken. Beside the
//! calls it says how long the bundle took to be read and checked (`load_s`), and to be put on the
//! engine (`start_s`).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{Backend, Bundle, GpuOptions, Recommender, Request, WeightFormat};

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
        value => value.parse::<bool>().map(Some),
    };
    let (halves, subgroups) = (extra("--halves")?, extra("--subgroups")?);
    let packed_products = extra("--packed-products")?;
    let backend = match option("--backend", "cpu").as_str() {
        "cpu" => Backend::Cpu,
        "gpu" => {
            Backend::Gpu(GpuOptions { halves, packed_products, subgroups, ..Default::default() })
        }
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
    let mut recommender = pollster::block_on(Recommender::new(bundle, backend))?;
    let start = begin.elapsed().as_secs_f64();
    let beams: usize = option("--beams", "50").parse()?;
    let users = option("--users", "1").parse::<usize>()?.max(1);
    let request = Request { history, beams, top: beams.min(20), ..Request::default() };
    let answer = pollster::block_on(recommender.recommend(&request))?;
    if option("--profile", "false") == "true" {
        // The second: pipelines are warm then.
        pollster::block_on(recommender.profile(&request))?;
        print_profile(&pollster::block_on(recommender.profile(&request))?);
    }
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

/// Kernels by the time that they took, the longest first.
fn print_profile(launches: &[(&str, f64)]) {
    let mut kernels = std::collections::BTreeMap::new();
    for (name, nanoseconds) in launches {
        let (count, sum) = kernels.entry(*name).or_insert((0, 0.0));
        *count += 1;
        *sum += nanoseconds / 1e6;
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    for (name, (count, milliseconds)) in kernels {
        eprintln!("{name:<20} {count:>4} launches {milliseconds:>9.3} ms");
    }
}
