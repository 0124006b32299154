//! Writes what the browser is held against: bundles, requests with the native CPU engine's
//! answers, and damaged bundles. `tests/browser/README.md` describes the files.
//!
//! `write_parity FOLDER`

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tigret_infer::sampling::MAX_SEED;
use tigret_infer::search::Hit;
use tigret_infer::testing::{Random, Shape, random_bundle, random_bundle_with_quantizer, widened};
use tigret_infer::{Added, Backend, Bundle, NewItem, Recommender, Request, WeightFormat};
use tigret_tests::attacks::Attack;
use tigret_tests::readers::Reader;

/// Attacks with a number beyond 32 bits. The page's module counts in 32: there such a number is no
/// number of bytes or layers at all, which is another sentence.
const BEYOND_32_BITS: [&str; 4] =
    ["offsets-beyond-the-file", "shape-of-2-to-the-64", "items-2-to-the-32", "layers-2-to-the-32"];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("usage: write_parity FOLDER")?.into();
    fs::create_dir_all(&folder)?;
    let base = Shape::default();
    let odd = Shape {
        levels: vec![7, 7, 7],
        items: 90,
        users: 0,
        append_eos: false,
        layers: (1, 1),
        d_model: 15,
        heads: (3, 5),
        d_ff: 21,
        tied: false,
        ..base.clone()
    };
    let deep = Shape { levels: vec![5, 6, 7, 8, 3], layers: (1, 3), items: 400, ..base.clone() };
    let cases = [
        ("four-levels-f32", base.clone(), WeightFormat::F32),
        ("four-levels-f16", base.clone(), WeightFormat::F16),
        ("four-levels-q8", base.clone(), WeightFormat::Q8),
        ("four-levels-q4", Shape { d_model: 48, ..base.clone() }, WeightFormat::Q4),
        ("three-levels-of-seven", odd.clone(), WeightFormat::F32),
        ("three-levels-of-seven-q4", odd, WeightFormat::Q4),
        ("five-levels", deep, WeightFormat::Q8),
        ("one-item", Shape { items: 1, ..base.clone() }, WeightFormat::Q8),
    ];
    for (index, (name, shape, format)) in cases.into_iter().enumerate() {
        let bundle = random_bundle(&shape, format, 40 + index as u64);
        write_case(&folder, name, Arc::new(bundle), &[])?;
    }
    let bundle = random_bundle_with_quantizer(&base, WeightFormat::Q8, 1);
    write_case(&folder, "new-items", Arc::new(bundle), &new_items())?;
    // 512 beams over its last level are more candidates than Mesa's software can walk.
    let (layers, heads, levels) = ((1, 1), (1, 8), vec![512, 3000]);
    let many = Shape { levels, items: 600, layers, heads, d_model: 8, d_ff: 8, ..base };
    let bundle = random_bundle(&many, WeightFormat::Q8, 50);
    fs::write(folder.join("many-candidates.safetensors"), bundle.to_bytes()?)?;
    let mut bad = Vec::new();
    for Attack { name, bytes, sentence } in Reader::open("bundle")?.attacks() {
        if !BEYOND_32_BITS.contains(&name) {
            let file = format!("bad-{name}.safetensors");
            fs::write(folder.join(&file), bytes)?;
            bad.push(json!({"file": file, "expect": sentence}));
        }
    }
    fs::write(folder.join("bad.json"), serde_json::to_vec(&bad)?)?;
    Ok(())
}

/// Items to add, some of them alike, so that they share codes.
fn new_items() -> Vec<NewItem> {
    let mut random = Random::new(3);
    let mut embedding = || (0..6).map(|_| 2.0 * random.signed()).collect::<Vec<f32>>();
    let items = (0..60).map(|i| NewItem { id: format!("new-{i}"), embedding: embedding() });
    let mut items: Vec<NewItem> = items.collect();
    for i in 1..4 {
        items[i * 10].embedding = items[0].embedding.clone();
    }
    items
}

/// The items of an answer, in no order.
fn found(hits: &[Hit]) -> BTreeSet<u32> {
    hits.iter().map(|hit| hit.rank).collect()
}

/// One bundle with requests and the answers of the CPU engine, after `add` was added to it.
fn write_case(
    folder: &Path,
    name: &str,
    bundle: Arc<Bundle>,
    add: &[NewItem],
) -> Result<(), Failure> {
    let file = format!("{name}.safetensors");
    fs::write(folder.join(&file), bundle.to_bytes()?)?;
    let mut random = Random::new(9);
    let longest = bundle.tokens.max_items + 3;
    let mut recommender = pollster::block_on(Recommender::new(Arc::clone(&bundle), Backend::Cpu))?;
    let mut floats =
        pollster::block_on(Recommender::new(Arc::new(widened(&bundle)), Backend::Cpu))?;
    let added: Vec<Added> = if add.is_empty() { Vec::new() } else { recommender.add_items(add)? };
    if !add.is_empty() {
        floats.add_items(add)?;
    }
    let catalog = recommender.catalog().clone();
    let items = catalog.len();
    let mut some = |count: usize| -> Vec<String> {
        (0..count).map(|_| catalog.id_of(random.below(items) as u32).to_owned()).collect()
    };
    let mut requests = vec![
        Request { beams: 10, top: 10, ..Request::default() },
        Request { history: some(1), beams: 50, top: 20, ..Request::default() },
        Request { history: some(longest), beams: 20, top: 20, ..Request::default() },
        Request { history: some(3), beams: 512, top: 40, ..Request::default() },
        Request { history: some(4), exclude_history: true, ..Request::default() },
        Request { history: some(2), exclude: some(items / 2), ..Request::default() },
        Request { history: some(2), allow: Some(some(12)), ..Request::default() },
        Request { history: some(2), allow: Some(Vec::new()), ..Request::default() },
        Request { history: some(2), temperature: Some(vec![1.5]), seed: 7, ..Request::default() },
        Request {
            history: some(2),
            exclude: some(items / 2),
            temperature: Some((1..=catalog.levels()).map(|level| level as f32 / 2.0).collect()),
            seed: MAX_SEED,
            ..Request::default()
        },
    ];
    if bundle.tokens.users.is_some() {
        let user = Some("a reader".to_owned());
        requests.push(Request { history: some(5), user, ..Request::default() });
    }
    let mut cases = Vec::new();
    for mut request in requests {
        // Where a level is cut between prefixes that differ by less than engines round, what is
        // found behind them is anyone's: one beam more, until integers and floats agree.
        let hits = loop {
            let (query, _) = Recommender::prepare(&bundle.tokens, &catalog, &request)?;
            let hits = pollster::block_on(recommender.search(&query))?;
            if found(&hits) == found(&pollster::block_on(floats.search(&query))?) {
                break hits;
            }
            request.beams += 1;
        };
        let answer = pollster::block_on(recommender.recommend(&request))?;
        let keys: Vec<f32> = hits.iter().take(request.top).map(|hit| hit.key).collect();
        cases.push(json!({"request": request, "expected": answer.items, "keys": keys}));
    }
    let mut parity = json!({"bundle": file, "tolerance": 1e-3, "cases": cases});
    if !add.is_empty() {
        let inputs = add.iter().map(|item| json!({"id": item.id, "embedding": item.embedding}));
        parity["add"] = inputs.collect();
        parity["added"] = serde_json::to_value(added)?;
        let only = json!({"allow": add.iter().map(|item| &item.id).collect::<Vec<_>>()});
        let request: Request = serde_json::from_value(only)?;
        let answer = pollster::block_on(recommender.recommend(&request))?;
        let keys: Vec<f32> = answer.items.iter().map(|pick| pick.score).collect();
        let cases = parity["cases"].as_array_mut().ok_or("cases are an array")?;
        cases.push(json!({"request": request, "expected": answer.items, "keys": keys}));
    }
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec(&parity)?)?;
    Ok(())
}
