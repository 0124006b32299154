//! The GPU engine against the CPU engine, and both against an exhaustive scorer, on models of many
//! shapes.

use std::sync::Arc;

use pollster::block_on;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::gpu::{Counts, GpuEngine};
use tigret_infer::search::{EngineQuery, Hit, ItemFilter};
use tigret_infer::testing::{Random, Shape, exhaustive, random_bundle};
use tigret_infer::{Bundle, InferError, WeightFormat};

const TOLERANCE: f32 = 1e-3;

fn shapes() -> Vec<(&'static str, Shape)> {
    let base = Shape::default();
    vec![
        ("default", base.clone()),
        ("one item", Shape { items: 1, ..base.clone() }),
        ("one layer", Shape { layers: (1, 1), ..base.clone() }),
        ("three levels", Shape { levels: vec![9, 30, 11], tied: false, ..base.clone() }),
        ("five levels", Shape { levels: vec![5, 6, 7, 8, 3], layers: (1, 3), ..base.clone() }),
        ("two levels", Shape { levels: vec![300, 700], items: 2000, ..base.clone() }),
        ("eight levels", Shape { levels: vec![3; 8], items: 500, ..base.clone() }),
        (
            "codebooks of 7, odd widths",
            Shape {
                levels: vec![7, 7, 7],
                items: 100,
                users: 0,
                append_eos: false,
                d_model: 15,
                heads: (3, 5),
                d_ff: 21,
                ..base.clone()
            },
        ),
        ("wide heads", Shape { heads: (2, 136), layers: (1, 1), ..base.clone() }),
    ]
}

fn queries(bundle: &Bundle, seed: u64) -> Vec<EngineQuery> {
    let mut random = Random::new(seed);
    let items = bundle.catalog.len();
    let tokens = &bundle.tokens;
    let mut some =
        |count: usize| -> Vec<u32> { (0..count).map(|_| random.below(items) as u32).collect() };
    let everything = || ItemFilter::Exclude(Vec::new());
    let most: Vec<u32> = (0..items as u32).filter(|rank| rank % 7 != 3).collect();
    let cases = vec![
        (0, 10, everything()),
        (1, 1, everything()),
        (tokens.max_items, 50, everything()),
        (tokens.max_items + 5, 13, everything()),
        (3, 512, everything()),
        (3, 20, ItemFilter::new(some(items / 3), None)),
        (3, 20, ItemFilter::new(most, None)),
        (3, 20, ItemFilter::new(some(3), Some(some(items.min(9))))),
        (2, 5, ItemFilter::new(Vec::new(), Some(Vec::new()))),
        (2, 5, ItemFilter::new((0..items as u32).collect(), None)),
    ];
    cases
        .into_iter()
        .enumerate()
        .map(|(index, (length, beams, filter))| {
            let history = some(length);
            let user = tokens.users.filter(|_| index % 2 == 1).map(|users| users.offset + 3);
            let codes = history.iter().map(|&rank| bundle.catalog.codes_of(rank));
            EngineQuery { input: tokens.encoder_input(user, codes), beams, filter }
        })
        .collect()
}

/// The contract's rule: scores agree within the tolerance, and so does the order wherever
/// neighbouring scores differ by more.
fn assert_same(expected: &[Hit], found: &[Hit], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (e, f)) in expected.iter().zip(found).enumerate() {
        assert!((e.score - f.score).abs() <= TOLERANCE, "{what}, place {place}: {f:?}, not {e:?}");
        let own = expected
            .iter()
            .find(|hit| hit.rank == f.rank)
            .map_or(expected.last().map_or(0.0, |hit| hit.score), |hit| hit.score);
        assert!(
            (own - e.score).abs() <= 2.0 * TOLERANCE,
            "{what}, place {place}: {f:?}, not {e:?}"
        );
    }
}

/// The GPU engine, or `None` after saying why there is none.
fn gpu(bundle: &Arc<Bundle>) -> Option<GpuEngine> {
    match block_on(GpuEngine::new(Arc::clone(bundle))) {
        Ok(engine) => Some(engine),
        Err(InferError::NoGpu(reason)) if std::env::var_os("TIGRET_REQUIRE_GPU").is_none() => {
            println!("skipped: {reason}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn gpu_and_cpu_return_the_same_items() {
    for (index, (name, shape)) in shapes().into_iter().enumerate() {
        for format in [WeightFormat::F32, WeightFormat::Q8] {
            let bundle = Arc::new(random_bundle(&shape, format, index as u64));
            let cpu = CpuEngine::new(Arc::clone(&bundle));
            let Some(mut gpu) = gpu(&bundle) else { return };
            for (case, query) in queries(&bundle, 7).into_iter().enumerate() {
                let found = block_on(gpu.search(&query)).unwrap();
                let what = format!("{name}, {}, case {case}", format.name());
                assert_same(&cpu.search(&query), &found, &what);
            }
        }
    }
}

#[test]
fn gpu_and_cpu_compute_the_same_logits() {
    for (name, shape) in shapes() {
        let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, 3));
        let cpu = CpuEngine::new(Arc::clone(&bundle));
        let Some(mut gpu) = gpu(&bundle) else { return };
        let query = queries(&bundle, 11).swap_remove(2);
        block_on(gpu.search(&query)).unwrap();
        let rows = block_on(gpu.last_logits(query.beams)).unwrap();
        assert!(!rows.is_empty());
        for (codes, logits) in rows {
            let mut decoder = vec![bundle.tokens.decoder_start];
            let levels = &bundle.tokens.levels;
            decoder.extend(levels.iter().zip(&codes).map(|(l, &c)| l.offset + u32::from(c)));
            let all = cpu.model().forced_logits(&query.input, &decoder);
            let expected = &all[all.len() - logits.len()..];
            for (found, expected) in logits.iter().zip(expected) {
                assert!((found - expected).abs() < TOLERANCE, "{name}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn a_call_is_one_pass_one_submit_one_read_back() {
    let shape = Shape { layers: (4, 4), ..Shape::default() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::Q8, 1));
    let Some(mut gpu) = gpu(&bundle) else { return };
    let query = queries(&bundle, 1).swap_remove(2);
    block_on(gpu.search(&query)).unwrap();
    let Counts { dispatches, passes, submits, read_backs } = gpu.counts();
    assert_eq!((passes, submits, read_backs), (1, 1, 1));
    assert!(dispatches <= 170, "{dispatches} dispatches");
}

#[test]
fn a_beam_as_wide_as_the_catalogue_scores_every_item() {
    for (name, shape) in shapes() {
        let shape = Shape { items: shape.items.min(120), ..shape };
        let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, 5));
        let cpu = CpuEngine::new(Arc::clone(&bundle));
        let query = EngineQuery { beams: 512, ..queries(&bundle, 5).swap_remove(5) };
        let expected = exhaustive(&bundle, &bundle.catalog, &query);
        assert_same(&expected, &cpu.search(&query), name);
    }
}
