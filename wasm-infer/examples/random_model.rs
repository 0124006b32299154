//! Writes one random model of the paper's sizes in every form that `cargo xtask bench infer` times,
//! with the answers that each has to give.
//!
//! `cargo run --release -p tigret-infer --example random_model -- FOLDER`
//!
//! - `checkpoint/`, `tokens.json`, `catalog.json`: the model as Hugging Face's `transformers` and
//!   `tigret import` read it.
//! - `q8.safetensors`, `f32.safetensors`: the same function as bundles. `q4.safetensors`: the same
//!   weights in 4 bits, which is another function.
//! - `requests.json`: `[{"history": ["id", …], "tokens": [n, …]}]`, full histories and what the
//!   encoder reads of them.
//! - `answers.json`: a list of `{"id", "score", "codes"}` for each request, under the number of
//!   beams, by the CPU engine in `f32`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, json};
use tigret_infer::testing::{Random, Shape, random_bundle, reweighted, widened};
use tigret_infer::{
    Backend, Bundle, CatalogFile, CatalogItem, Recommender, Request, WeightData, WeightFormat,
};

const BEAMS: [usize; 3] = [10, 20, 50];
const REQUESTS: usize = 8;
const SEED: u64 = 0;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Writes a random model of the paper's sizes in every form that is timed.
#[derive(Parser)]
struct Options {
    /// Where the files go; made where there is none.
    folder: PathBuf,
}

fn main() {
    if let Err(error) = write(&Options::parse().folder) {
        eprintln!("random_model: {error}");
        std::process::exit(2);
    }
}

fn write(folder: &Path) -> Outcome<()> {
    let shape = Shape::paper();
    let q8 = calm(&shape, WeightFormat::Q8)?;
    let wide = widened(&q8);
    fs::create_dir_all(folder.join("checkpoint"))?;
    fs::write(folder.join("q8.safetensors"), q8.to_bytes()?)?;
    fs::write(folder.join("f32.safetensors"), wide.to_bytes()?)?;
    let q4 = calm(&shape, WeightFormat::Q4)?;
    fs::write(folder.join("q4.safetensors"), q4.to_bytes()?)?;
    fs::write(folder.join("checkpoint/model.safetensors"), checkpoint(&wide)?)?;
    fs::write(folder.join("checkpoint/config.json"), serde_json::to_string(&wide.config)?)?;
    fs::write(folder.join("tokens.json"), serde_json::to_string(&wide.tokens)?)?;
    fs::write(folder.join("catalog.json"), serde_json::to_string(&catalog(&wide))?)?;

    let requests = requests(&wide);
    let mut listed = Vec::new();
    for request in &requests {
        let (query, _) = Recommender::prepare(&wide.tokens, &wide.catalog, request)?;
        listed.push(json!({ "history": request.history, "tokens": query.input }));
    }
    fs::write(folder.join("requests.json"), serde_json::to_string(&listed)?)?;

    let mut recommender = pollster::block_on(Recommender::new(Arc::new(wide), Backend::Cpu))?;
    let mut answers = Map::new();
    for beams in BEAMS {
        let mut found = Vec::new();
        for request in &requests {
            let request = Request { beams, top: beams, ..request.clone() };
            found.push(pollster::block_on(recommender.recommend(&request))?.items);
        }
        answers.insert(beams.to_string(), json!(found));
    }
    fs::write(folder.join("answers.json"), serde_json::to_string(&answers)?)?;
    Ok(())
}

/// A random model whose attention is as soft as a trained one's: with random queries as large as
/// keys it picks single tokens, and every rounding grows from layer to layer.
fn calm(shape: &Shape, format: WeightFormat) -> Outcome<Bundle> {
    let bundle = random_bundle(shape, WeightFormat::F32, SEED);
    Ok(reweighted(&bundle, format, |name, _, values| {
        if name.ends_with(".q.weight") {
            values.iter_mut().for_each(|v| *v *= 0.1);
        }
    })?)
}

/// Different items, as many as the layout keeps.
fn requests(bundle: &Bundle) -> Vec<Request> {
    let mut random = Random::new(SEED + 1);
    let mut item = || {
        let rank = random.below(bundle.catalog.len());
        bundle.catalog.id_of(rank as u32).to_owned()
    };
    std::iter::repeat_with(|| Request {
        history: std::iter::repeat_with(&mut item).take(bundle.tokens.max_items).collect(),
        ..Request::default()
    })
    .take(REQUESTS)
    .collect()
}

fn catalog(bundle: &Bundle) -> CatalogFile {
    let catalog = &bundle.catalog;
    let items = (0..catalog.len() as u32).map(|rank| CatalogItem {
        id: catalog.id_of(rank).to_owned(),
        codes: catalog.codes_of(rank).iter().map(|&code| code.into()).collect(),
    });
    CatalogFile { items: items.collect() }
}

/// The weights of an `f32` bundle as `model.safetensors` of Hugging Face.
fn checkpoint(bundle: &Bundle) -> Outcome<Vec<u8>> {
    let mut tensors = Vec::new();
    for (name, weight) in bundle.weights() {
        let WeightData::F32(values) = &weight.data else {
            return Err(format!("{name} is not f32").into());
        };
        let bytes = bytemuck::cast_slice(values);
        tensors.push((name, TensorView::new(Dtype::F32, weight.shape.clone(), bytes)?));
    }
    // `transformers` refuses a file that does not say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(tensors, Some(metadata))?)
}
