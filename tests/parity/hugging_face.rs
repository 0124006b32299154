//! tch and the CPU engine against Hugging Face `transformers`, whose weights, logits, loss and
//! beam search `golden/make_golden.py` wrote.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

use std::fs;
use std::sync::Arc;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{Hit, ItemFilter};
use tigret_infer::testing::same_answer;
use tigret_infer::{Bundle, Recommender, Request, WeightFormat};
use tigret_tests::repository;
use tigret_train::export::bundle_from_files;
use tigret_train::model::dropout::Dropout;
use tigret_train::model::optimizer::AdamW;
use tigret_train::model::padding::pad_left;
use tigret_train::model::params::to_vec;
use tigret_train::model::{Params, T5, checkpoint};
use tigret_train::train::batch::Batch;
use tigret_train::train::loss::loss;

const VERSION: u32 = 1;
/// Logits of random weights are of the order of ten.
const LOGITS: f32 = 1e-4;
const SCORES: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    version: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    history: Vec<String>,
    user_token: Option<u32>,
    input: Vec<u32>,
    labels: Vec<u32>,
    loss: f32,
    logits: Vec<Vec<f32>>,
    beams: usize,
    hits: Vec<GoldenHit>,
}

#[derive(Deserialize)]
struct GoldenHit {
    id: String,
    score: f32,
}

struct Fixture {
    name: &'static str,
    bundle: Arc<Bundle>,
    model: T5,
    params: Params,
    cases: Vec<Case>,
}

fn fixtures() -> Vec<Fixture> {
    ["tied", "odd", "deep"]
        .into_iter()
        .map(|name| {
            let folder = repository().join("tests/golden").join(name);
            let golden: Golden =
                serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap())
                    .unwrap();
            assert_eq!(
                golden.version, VERSION,
                "the golden files are of another version: run tests/golden/make_golden.py"
            );
            let bundle = bundle_from_files(
                &folder,
                &folder.join("tokens.json"),
                &folder.join("catalog.json"),
                WeightFormat::F32,
                |note| panic!("{note}"),
            )
            .unwrap();
            let (config, weights, _) = checkpoint::load(&folder, "").unwrap();
            // Or a fixture would be saved as another model than it is there for.
            let of_its_own = weights.get("lm_head.weight");
            assert_eq!(of_its_own.is_some(), name == "odd", "{name}: the output head");
            assert_ne!(of_its_own, weights.get("shared.weight"), "{name}: the output head");
            for config in [&config, &bundle.config] {
                assert_eq!(config.tie_word_embeddings, of_its_own.is_none(), "{name}");
            }
            let model = T5::new(config);
            let mut params = Params::new(model.specs(), 0, Device::Cpu);
            params.load(&weights).unwrap();
            Fixture { name, bundle: Arc::new(bundle), model, params, cases: golden.cases }
        })
        .collect()
}

fn decoder_inputs(case: &Case) -> Vec<u32> {
    let mut tokens = vec![0];
    tokens.extend(&case.labels[..case.labels.len() - 1]);
    tokens
}

fn close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "{what}: value {at} is {f} instead of {e}");
    }
}

#[test]
fn histories_become_the_same_encoder_input() {
    for fixture in fixtures() {
        for case in &fixture.cases {
            let request = Request {
                history: case.history.clone(),
                user_token: case.user_token,
                ..Request::default()
            };
            let (query, unknown) =
                Recommender::prepare(&fixture.bundle.tokens, &fixture.bundle.catalog, &request)
                    .unwrap();
            assert_eq!(query.input, case.input, "{}", fixture.name);
            assert!(unknown.is_empty());
        }
    }
}

#[test]
fn the_cpu_engine_computes_the_same_logits() {
    for fixture in fixtures() {
        let engine = CpuEngine::new(Arc::clone(&fixture.bundle));
        for case in &fixture.cases {
            let found = engine.model().forced_logits(&case.input, &decoder_inputs(case));
            close(&found, &case.logits.concat(), LOGITS, fixture.name);
        }
    }
}

#[test]
fn tch_computes_the_same_logits_and_loss() {
    for fixture in fixtures() {
        let _guard = tch::no_grad_guard();
        let views = fixture.params.views();
        // All cases in one batch: padding must not change anything.
        let inputs: Vec<_> = fixture.cases.iter().map(|case| case.input.clone()).collect();
        let (tokens, keep) = pad_left(&inputs, 0, Device::Cpu);
        let encoded = fixture.model.encode(&views, &tokens, &keep, None);
        let cross = fixture.model.cross_state(&views, &encoded, &keep);
        let steps: Vec<i64> =
            fixture.cases.iter().flat_map(decoder_inputs).map(i64::from).collect();
        let steps = Tensor::from_slice(&steps).view([inputs.len() as i64, -1]);
        let logits = fixture.model.decode(&views, &steps, &cross, None);
        for (index, case) in fixture.cases.iter().enumerate() {
            let found = to_vec(&logits.get(index as i64));
            close(&found, &case.logits.concat(), LOGITS, fixture.name);

            let labels: Vec<i64> = case.labels.iter().map(|&t| i64::from(t)).collect();
            let (tokens, keep) = pad_left(std::slice::from_ref(&case.input), 0, Device::Cpu);
            let labels = Tensor::from_slice(&labels).unsqueeze(0);
            let batch = Batch { tokens, keep, labels, past: None };
            let found = loss(&fixture.model, &views, &batch, None);
            let found = found.to_kind(Kind::Double).double_value(&[]) as f32;
            close(&[found], &[case.loss], LOGITS, fixture.name);
        }
    }
}

/// One batch of all cases of a fixture, padded.
fn batch_of(cases: &[Case]) -> Batch {
    let inputs: Vec<_> = cases.iter().map(|case| case.input.clone()).collect();
    let (tokens, keep) = pad_left(&inputs, 0, Device::Cpu);
    let labels: Vec<i64> = cases.iter().flat_map(|c| &c.labels).map(|&t| i64::from(t)).collect();
    let labels = Tensor::from_slice(&labels).view([cases.len() as i64, -1]);
    Batch { tokens, keep, labels, past: None }
}

#[test]
fn a_training_step_has_the_same_loss_gradients_and_weights() {
    for fixture in fixtures() {
        let folder = repository().join("tests/golden").join(fixture.name);
        let (tensors, metadata) = checkpoint::read_tensors(&folder, "trained", "").unwrap();
        let expected = |kind: &str, name: &str| &tensors[&format!("{kind}/{name}")].1;
        let batch = batch_of(&fixture.cases);
        // With dropout 0, training is the same function; this goes through its code.
        let dropout = Dropout::new(0.0, 0);
        let loss = loss(&fixture.model, &fixture.params.views(), &batch, Some(&dropout));
        let gradient = fixture.params.backward(&loss);
        close(&to_vec(&loss), &[metadata["loss"].parse().unwrap()], LOGITS, fixture.name);
        let gradients = fixture.params.by_name(&gradient);
        for (name, (_, found)) in &gradients {
            let what = format!("{}: gradient of {name}", fixture.name);
            close(found, expected("gradient", name), LOGITS, &what);
        }
        let before = fixture.params.to_host();
        let mut optimizer = AdamW::new(&fixture.params, 0.05);
        optimizer.step(&fixture.params, gradient, 0.01, 0.5);
        for (name, (_, found)) in &fixture.params.to_host() {
            let what = format!("{}: weight {name}", fixture.name);
            // Adam's first step is the sign of the gradient; where that is as good as zero, its
            // sign is not defined to rounding.
            let defined: Vec<bool> =
                expected("gradient", name).iter().map(|g| g.abs() > 1e-5 || *g == 0.0).collect();
            let only = |values: &[f32]| -> Vec<f32> {
                values.iter().zip(&defined).filter(|(_, d)| **d).map(|(v, _)| *v).collect()
            };
            assert_ne!(only(found), only(&before[name].1), "{what} has not moved");
            close(&only(found), &only(expected("weight", name)), 1e-5, &what);
        }
    }
}

#[test]
fn sixteen_bit_products_change_the_loss_a_little_and_the_gradients_stay_f32() {
    for fixture in fixtures() {
        let batch = batch_of(&fixture.cases);
        let full = to_vec(&loss(&fixture.model, &fixture.params.views(), &batch, None))[0];
        let views = fixture.params.views_in(Kind::BFloat16);
        let reduced = loss(&fixture.model, &views, &batch, None);
        let gradient = fixture.params.backward(&reduced);
        let found = to_vec(&reduced)[0];
        assert!((found - full).abs() < 0.05 * full, "{}: {found} and {full}", fixture.name);
        assert_ne!(found, full);
        assert_eq!(gradient.kind(), Kind::Float);
    }
}

#[test]
fn beam_search_finds_what_transformers_finds() {
    for fixture in fixtures() {
        let catalog = &fixture.bundle.catalog;
        let engine = CpuEngine::new(Arc::clone(&fixture.bundle));
        for case in &fixture.cases {
            let expected: Vec<Hit> = case
                .hits
                .iter()
                .map(|hit| Hit::scored(catalog.rank_of(&hit.id).unwrap(), hit.score))
                .collect();
            let request = Request {
                history: case.history.clone(),
                user_token: case.user_token,
                beams: case.beams,
                top: case.beams,
                ..Request::default()
            };
            let (query, _) =
                Recommender::prepare(&fixture.bundle.tokens, &fixture.bundle.catalog, &request)
                    .unwrap();
            same_answer(&expected, &engine.search(&query), SCORES).unwrap();
            assert_eq!(query.filter, ItemFilter::everything());
        }
    }
}
