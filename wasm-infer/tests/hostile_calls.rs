//! Requests of any kind: each ends in the answer that scoring all items one by one gives, or in an
//! error that names the option.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use pollster::block_on;
use proptest::prelude::*;
use proptest::sample::select;
use tigret_infer::testing::{Shape, exhaustive, on_gpu, random_bundle, reweighted};
use tigret_infer::{
    Backend, Bundle, GpuOptions, InferError, Recommendation, Recommender, Request, WeightFormat,
};

const ITEMS: usize = 70;
const LEVELS: usize = 3;
/// Scores of engines and of the plain sum differ by rounding only.
const TOLERANCE: f32 = 1e-3;

fn bundle() -> Arc<Bundle> {
    let levels = vec![5, 6, 7];
    let shape = Shape { levels, items: ITEMS, layers: (1, 1), tied: false, ..Shape::default() };
    Arc::new(random_bundle(&shape, WeightFormat::F32, 8))
}

/// The model with other values in one weight.
fn changed(name: &str, format: WeightFormat, change: impl Fn(&mut [f32])) -> Arc<Bundle> {
    let bundle = bundle();
    assert!(bundle.weights().contains_key(name), "{name}");
    let changed = reweighted(&bundle, format, |own, _, values| {
        if own == name {
            change(values);
        }
    });
    Arc::new(changed.unwrap())
}

const OVERFLOW: &str = "a score is not a finite number";

/// As large as `q8` can hold.
const LARGE: f32 = 1e38;

/// Makes numbers large and leaves their signs.
fn enlarge(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = LARGE.copysign(*v));
}

/// Holds models whose weights overflow somewhere to an error.
fn overflows(backend: Backend, said: &str) {
    let narrow = [WeightFormat::F16, WeightFormat::Q4];
    let bundle = bundle();
    let (start, d) = (bundle.tokens.levels[0].offset as usize, bundle.config.d_model);
    // Whatever sign the sum has, it is too large in one of the two.
    let two_codes = |values: &mut [f32]| {
        values[start * d..][..d].fill(LARGE);
        values[(start + 1) * d..][..d].fill(-LARGE);
    };
    let plain = Request { history: vec!["item-1".into()], ..Request::default() };
    let sampled = Request { temperature: Some(vec![1.0]), ..plain.clone() };
    for (name, change) in [
        ("encoder.final_layer_norm.weight", &enlarge as &dyn Fn(&mut [f32])),
        ("decoder.final_layer_norm.weight", &enlarge),
        ("shared.weight", &enlarge),
        ("encoder.block.0.layer.0.SelfAttention.k.weight", &enlarge),
        ("encoder.block.0.layer.1.DenseReluDense.wi.weight", &enlarge),
        ("decoder.block.0.layer.2.DenseReluDense.wi.weight", &enlarge),
        ("lm_head.weight", &two_codes),
    ] {
        let is_matrix = bundle.weights()[name].shape.len() == 2;
        for format in WeightFormat::ALL {
            // These cannot hold such numbers.
            if is_matrix && narrow.contains(&format) {
                continue;
            }
            let made = block_on(Recommender::new(changed(name, format, change), backend));
            let Some(mut recommender) = on_gpu(made) else { return };
            let what = format!("{}, {name}", format.name());
            for request in [&plain, &sampled] {
                let one = block_on(recommender.recommend(request)).expect_err(&what).to_string();
                assert!(one.contains(said), "{what}: {one}");
                let all = block_on(recommender.recommend_all(std::slice::from_ref(request)));
                assert_eq!(all.unwrap_err().to_string(), one);
            }
            // These two compute on the CPU, which tells the weights' fault from a device's.
            let explained = recommender.explain(&plain, "item-2").expect_err(&what).to_string();
            assert!(explained.contains(OVERFLOW), "{explained}");
            assert_eq!(recommender.trace(&plain).expect_err(&what).to_string(), explained);
        }
    }
}

#[test]
fn weights_that_overflow_are_an_error_and_no_answer() {
    overflows(Backend::Cpu, OVERFLOW);
}

#[test]
fn weights_that_overflow_are_no_answer_of_the_gpu_either() {
    for paths in [None, Some(true)] {
        let options = GpuOptions { packed_products: paths, halves: paths, ..GpuOptions::default() };
        overflows(Backend::Gpu(options), "its answer makes no sense; use the CPU engine");
    }
}

/// Keys that fill the last tile of an attention are told from others by their scores.
#[test]
fn scores_below_those_of_no_key_are_no_wrong_answer_of_the_gpu() {
    let table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    let bundle = changed(table, WeightFormat::F32, |values| values.fill(-1e32));
    let made = block_on(Recommender::new(Arc::clone(&bundle), Backend::Gpu(GpuOptions::default())));
    let Some(mut gpu) = on_gpu(made) else { return };
    let mut cpu = block_on(Recommender::new(bundle, Backend::Cpu)).unwrap();
    let request = Request { history: vec!["item-1".into()], ..Request::default() };
    let expected = block_on(cpu.recommend(&request)).unwrap();
    if let Ok(found) = block_on(gpu.recommend(&request)) {
        assert_eq!(found.items.len(), expected.items.len());
        for (found, expected) in found.items.iter().zip(&expected.items) {
            assert!(
                (found.score - expected.score).abs() <= TOLERANCE,
                "{found:?}, not {expected:?}"
            );
        }
    }
}

/// Ids as they may come: most of the catalogue's, some that nobody has, empty ones, long ones.
fn ids(most: usize) -> impl Strategy<Value = Vec<String>> {
    let id = prop_oneof![
        8 => (0..ITEMS).prop_map(|item| format!("item-{item}")),
        1 => select(vec!["", "item-", "item-70", "ITEM-1", "\u{0}", "🐯", " item-1"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,40}",
    ];
    prop::collection::vec(id, 0..=most)
}

fn temperatures() -> impl Strategy<Value = Option<Vec<f32>>> {
    let value = prop_oneof![
        4 => 0.05f32..4.0,
        1 => select(vec![
            0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE,
            1e-45, 1e-38, f32::MAX,
        ]),
    ];
    prop::option::weighted(0.4, prop::collection::vec(value, 0..=LEVELS + 1))
}

fn requests() -> impl Strategy<Value = Request> {
    let size = || prop_oneof![6 => 1usize..=80, 1 => select(vec![0, 512, 513, usize::MAX])];
    let user = prop::option::weighted(0.2, "\\PC{0,12}");
    let user_token = prop::option::weighted(0.2, prop_oneof![0u32..12, Just(u32::MAX)]);
    let seed = prop_oneof![0u64..100, select(vec![(1 << 53) - 1, 1 << 53, u64::MAX])];
    let allow = prop::option::weighted(0.4, ids(90));
    (
        (ids(25), ids(90), any::<bool>(), allow),
        (size(), prop_oneof![3 => Just(None), 1 => size().prop_map(Some)]),
        (user, user_token, temperatures(), seed),
    )
        .prop_map(|((history, exclude, exclude_history, allow), (beams, top), rest)| {
            let (user, user_token, temperature, seed) = rest;
            let top = top.unwrap_or(beams);
            Request {
                history,
                user,
                user_token,
                top,
                beams,
                exclude,
                exclude_history,
                allow,
                temperature,
                seed,
            }
        })
}

/// The options that break the contract's conditions, which are written down here once more; of two
/// that do not go together both.
fn wrong(request: &Request, users: u32) -> Vec<&'static str> {
    let Request { user, user_token, beams, top, temperature, seed, .. } = request;
    let of_both = user.is_some() && user_token.is_some();
    let temperatures = temperature.as_deref().unwrap_or(&[1.0]);
    let are_temperatures = [1, LEVELS].contains(&temperatures.len())
        && temperatures.iter().all(|t| t.is_finite() && *t > 0.0);
    [
        ("beams", !(1..=512).contains(beams)),
        ("top", !(1..=*beams).contains(top)),
        ("user", of_both || user.as_deref() == Some("")),
        ("user_token", of_both || user_token.is_some_and(|token| token >= users)),
        ("temperature", !are_temperatures),
        ("seed", temperature.is_some() && *seed >= 1 << 53),
    ]
    .into_iter()
    .filter_map(|(name, is_wrong)| is_wrong.then_some(name))
    .collect()
}

fn is_valid(request: &Request, users: u32) -> bool {
    wrong(request, users).is_empty()
}

fn check(bundle: &Bundle, request: &Request, found: Result<Recommendation, InferError>) {
    let users = bundle.tokens.users.map_or(0, |users| users.count);
    if !is_valid(request, users) {
        let error = found.expect_err("a request out of range is answered");
        assert!(matches!(error, InferError::Request(_)), "{error}");
        let said = error.to_string();
        let names = |option: &str| said.split([' ', ',']).any(|word| word == option);
        assert!(wrong(request, users).into_iter().any(names), "{said}");
        return;
    }
    let answer = found.unwrap();
    let known: HashSet<String> = bundle.catalog.ids().iter().map(str::to_owned).collect();
    let unknown: Vec<&String> = request.history.iter().filter(|id| !known.contains(*id)).collect();
    assert_eq!(answer.unknown.iter().collect::<Vec<_>>(), unknown);

    let (query, _) = Recommender::prepare(&bundle.tokens, &bundle.catalog, request).unwrap();
    let allowed = |id: &str| {
        request.allow.as_ref().is_none_or(|allow| allow.iter().any(|other| other == id))
            && !request.exclude.iter().any(|other| other == id)
            && !(request.exclude_history && request.history.iter().any(|other| other == id))
    };
    let expected = exhaustive(bundle, &bundle.catalog, &query);
    let scores: HashMap<&str, f32> =
        expected.iter().map(|hit| (bundle.catalog.id_of(hit.rank), hit.score)).collect();
    let all = known.iter().filter(|id| allowed(id)).count();
    assert_eq!(scores.len(), all, "the filter allows what the request allows");
    assert_eq!(answer.items.len(), request.top.min(all));
    for pick in &answer.items {
        let own = scores.get(&pick.id[..]).expect("an item that is not allowed is returned");
        assert!((pick.score - own).abs() <= TOLERANCE, "{pick:?}, not {own}");
    }
    let distinct: HashSet<&String> = answer.items.iter().map(|pick| &pick.id).collect();
    assert_eq!(distinct.len(), answer.items.len(), "an item is returned once");
    if request.temperature.is_none() {
        assert!(answer.items.is_sorted_by(|a, b| a.score >= b.score));
        // As wide as the catalogue, the search misses nothing.
        if request.beams >= ITEMS {
            for (pick, best) in answer.items.iter().zip(&expected) {
                assert!((pick.score - best.score).abs() <= TOLERANCE, "{pick:?}, not {best:?}");
            }
        }
    }
}

/// `TIGRET_FUZZ_ROUNDS` sets how many requests are drawn; the default suits every test run.
fn hold(backend: Backend, default_cases: u32) {
    let own = std::env::var("TIGRET_FUZZ_ROUNDS").ok();
    let cases = own.map_or(default_cases, |text| text.parse().expect("a number"));
    let bundle = bundle();
    let made = block_on(Recommender::new(Arc::clone(&bundle), backend));
    let Some(recommender) = on_gpu(made).map(Mutex::new) else { return };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(request in requests(), others in prop::collection::vec(requests(), 0..4))| {
        let mut recommender = recommender.lock().unwrap();
        let alone = block_on(recommender.recommend(&request));
        let users = bundle.tokens.users.map_or(0, |users| users.count);
        // Beside others the answer is the same; a wrong request among them is an error.
        let all = [&[request.clone()][..], &others].concat();
        let together = block_on(recommender.recommend_all(&all));
        if all.iter().all(|request| is_valid(request, users)) {
            let first = together.unwrap().swap_remove(0);
            prop_assert_eq!(Some(&first), alone.as_ref().ok());
        } else {
            prop_assert!(matches!(together, Err(InferError::Request(_))));
        }
        check(&bundle, &request, alone);
    });
}

#[test]
fn requests_of_any_kind_on_the_cpu() {
    hold(Backend::Cpu, 2000);
}

#[test]
fn requests_of_any_kind_on_the_gpu() {
    hold(Backend::Gpu(GpuOptions::default()), 300);
}
