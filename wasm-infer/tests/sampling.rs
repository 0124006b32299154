//! Sampling against the exact distribution, computed by enumeration.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use pollster::block_on;
use tigret_infer::search::{Beam, Candidates, EngineQuery, Hit, ItemFilter};
use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{
    Backend, Catalog, CatalogItem, Recommender, Request, Sampling, TokenLayout, WeightFormat,
};

const SIZES: [u32; 3] = [3, 2, 4];
const ITEMS: usize = 8;

/// An uneven tree of eight items.
fn catalog() -> Catalog {
    let codes =
        [[0, 0, 0], [0, 0, 3], [0, 1, 2], [1, 0, 0], [1, 0, 1], [1, 0, 2], [2, 0, 1], [2, 1, 1]];
    let items = codes
        .iter()
        .enumerate()
        .map(|(index, codes)| CatalogItem { id: index.to_string(), codes: codes.to_vec() });
    Catalog::from_items(items.collect(), &TokenLayout::contiguous(&SIZES, 0, 1)).unwrap()
}

/// A model: log-probabilities of the codes after a prefix. They do not sum to one, since the
/// vocabulary has other tokens too.
fn log_probs(prefix: &[u16]) -> Vec<f32> {
    let seed = prefix.iter().fold(17u32, |seed, &code| seed * 31 + u32::from(code));
    let value = |code: u32| ((seed * 13 + code * 7919) % 29) as f32 / 10.0;
    (0..SIZES[prefix.len()]).map(|code| -0.3 - value(code)).collect()
}

fn sample(filter: &ItemFilter, temperatures: &[f32], seed: u64, width: usize) -> Vec<Hit> {
    let catalog = catalog();
    let sampling = Some(Sampling::new(temperatures, SIZES.len(), seed).unwrap());
    let query = EngineQuery { input: vec![], beams: width, filter: filter.clone(), sampling };
    let mut beams = vec![Beam::root(&catalog)];
    let mut candidates = Candidates::default();
    for level in 0..SIZES.len() {
        let rows = beams.iter().map(|b| log_probs(&catalog.codes_of(b.node.start)[..level]));
        let rows = rows.collect::<Vec<_>>().concat();
        candidates.extend(&catalog, &query, level, &mut beams, &rows);
    }
    candidates.hits(&beams)
}

/// Probability of each item under the sampled distribution.
fn exact(filter: &ItemFilter, temperatures: &[f32]) -> Vec<f64> {
    fn descend(
        catalog: &Catalog,
        filter: &ItemFilter,
        temperatures: &[f32],
        node: Range<u32>,
        level: usize,
        probability: f64,
        out: &mut [f64],
    ) {
        if level == SIZES.len() {
            out[node.start as usize] = probability;
            return;
        }
        let log_probs = log_probs(&catalog.codes_of(node.start)[..level]);
        let temperature = f64::from(temperatures[level % temperatures.len()]);
        let live: Vec<_> = catalog
            .children(level, node)
            .filter(|(_, child)| filter.allowed_in(child.clone()) > 0)
            .map(|(code, child)| {
                ((f64::from(log_probs[usize::from(code)]) / temperature).exp(), child)
            })
            .collect();
        let total: f64 = live.iter().map(|(weight, _)| weight).sum();
        for (weight, child) in live {
            let probability = probability * weight / total;
            descend(catalog, filter, temperatures, child, level + 1, probability, out);
        }
    }
    let catalog = catalog();
    let mut out = vec![0.0; catalog.len()];
    descend(&catalog, filter, temperatures, 0..catalog.len() as u32, 0, 1.0, &mut out);
    out
}

/// Pearson's statistic of counts against probabilities; what is impossible must not occur. Also
/// the number of degrees of freedom.
fn chi_square(counts: &HashMap<Vec<u32>, u32>, expected: &HashMap<Vec<u32>, f64>) -> (f64, usize) {
    let draws: u32 = counts.values().sum();
    for drawn in counts.keys() {
        assert!(expected.get(drawn).is_some_and(|p| *p > 0.0), "{drawn:?} cannot occur");
    }
    let possible: Vec<_> = expected.iter().filter(|(_, p)| **p > 0.0).collect();
    let statistic = possible.iter().map(|(what, p)| {
        let expected = **p * f64::from(draws);
        let found = f64::from(counts.get(*what).copied().unwrap_or(0));
        (found - expected).powi(2) / expected
    });
    (statistic.sum(), possible.len() - 1)
}

/// Holds samples of `width` items, in order, against the probability of each such order: that of
/// drawing one item after the other and never the same twice.
fn assert_distributed(filter: &ItemFilter, temperatures: &[f32], width: usize, draws: u64) {
    let mut counts: HashMap<Vec<u32>, u32> = HashMap::new();
    for seed in 0..draws {
        let hits = sample(filter, temperatures, seed, width);
        *counts.entry(hits.iter().map(|hit| hit.rank).collect()).or_default() += 1;
    }
    let single = exact(filter, temperatures);
    let mut expected = HashMap::from([(Vec::new(), 1.0)]);
    for _ in 0..width {
        let mut longer = HashMap::new();
        for (drawn, probability) in expected {
            let left: f64 =
                1.0 - drawn.iter().map(|&rank: &u32| single[rank as usize]).sum::<f64>();
            for (rank, p) in single.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                if !drawn.contains(&(rank as u32)) {
                    let all = [&drawn[..], &[rank as u32]].concat();
                    longer.insert(all, probability * p / left);
                }
            }
        }
        expected = longer;
    }
    let (statistic, freedom) = chi_square(&counts, &expected);
    // The 99.9th percentile, after Wilson and Hilferty.
    let freedom = freedom as f64;
    let limit =
        freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    assert!(statistic < limit, "{width} of {temperatures:?}: {statistic} of at most {limit}");

    // How often each item is in a sample at all.
    for rank in 0..single.len() as u32 {
        let with = |drawn: &&Vec<u32>| drawn.contains(&rank);
        let found: u32 = counts.iter().filter(|(drawn, _)| with(drawn)).map(|(_, n)| n).sum();
        let expected: f64 = expected.iter().filter(|(drawn, _)| with(drawn)).map(|(_, p)| p).sum();
        let found = f64::from(found) / draws as f64;
        let deviation = (expected * (1.0 - expected) / draws as f64).sqrt();
        assert!((found - expected).abs() <= 4.0 * deviation + 1e-9, "{rank}: {found} {expected}");
    }
}

fn everything() -> ItemFilter {
    ItemFilter::everything()
}

#[test]
fn a_single_beam_draws_items_by_their_probability() {
    assert_distributed(&everything(), &[1.0], 1, 20_000);
    assert_distributed(&everything(), &[3.0], 1, 20_000);
    assert_distributed(&everything(), &[0.6, 2.0, 1.3], 1, 20_000);
}

#[test]
fn several_beams_draw_without_replacement() {
    assert_distributed(&everything(), &[1.0], 2, 40_000);
    assert_distributed(&everything(), &[1.0, 0.7, 2.5], 2, 40_000);
    assert_distributed(&everything(), &[1.5], 3, 40_000);
}

#[test]
fn what_is_not_allowed_is_not_drawn_and_the_rest_renormalised() {
    let excluded = ItemFilter::new(&[0, 3, 6], None, ITEMS);
    assert_distributed(&excluded, &[1.0], 2, 20_000);
    let allowed = ItemFilter::new(&[5], Some(&[1, 4, 5, 6, 7]), ITEMS);
    assert_distributed(&allowed, &[2.0, 1.0, 0.5], 2, 20_000);
    let nothing = ItemFilter::new(&[], Some(&[]), ITEMS);
    assert!(sample(&nothing, &[1.0], 1, 4).is_empty());
}

#[test]
fn wider_samples_begin_with_the_narrower_ones() {
    let probabilities = exact(&everything(), &[1.0]);
    for seed in 0..500 {
        let all = sample(&everything(), &[1.0], seed, 8);
        let mut ranks: Vec<u32> = all.iter().map(|hit| hit.rank).collect();
        for width in 1..8 {
            // Noise is a function of seed and semantic ID: a beam never loses a better item.
            assert_eq!(sample(&everything(), &[1.0], seed, width), all[..width]);
        }
        ranks.sort_unstable();
        assert_eq!(ranks, (0..8).collect::<Vec<_>>());
        assert!(all.windows(2).all(|pair| pair[0].key >= pair[1].key));
        for hit in all {
            let codes = catalog().codes_of(hit.rank).to_vec();
            let score: f32 =
                (0..3).map(|level| log_probs(&codes[..level])[usize::from(codes[level])]).sum();
            assert!((hit.score - score).abs() < 1e-5, "the score is the model's");
            assert!(probabilities[hit.rank as usize] > 0.0);
        }
    }
}

#[test]
fn extreme_temperatures_are_the_greedy_path_and_the_uniform_draw() {
    let best = exact(&everything(), &[0.05])
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(rank, _)| rank as u32)
        .unwrap();
    for temperature in [1e-3, 1e-30, f32::MIN_POSITIVE / 8.0] {
        for seed in 0..20 {
            let hits = sample(&everything(), &[temperature], seed, 5);
            assert_eq!(hits[0].rank, best);
            assert!(hits.iter().all(|hit| hit.key.is_finite()), "{hits:?}");
        }
    }
    assert_distributed(&everything(), &[f32::MAX], 1, 10_000);
}

#[test]
fn a_level_without_chance_leaves_it_to_those_behind() {
    // The items behind the best first code, of which there are two or three, follow by chance still.
    let drawn = |seed| -> Vec<u32> {
        let levels = [f32::MIN_POSITIVE, 1.0, 1.0];
        sample(&everything(), &levels, seed, ITEMS).iter().map(|hit| hit.rank).collect()
    };
    let orders: HashSet<Vec<u32>> = (0..40).map(|seed| drawn(seed)[3..].to_vec()).collect();
    assert!(orders.len() > 3, "{orders:?}");
}

#[test]
fn a_request_samples_and_a_seed_repeats_it() {
    let bundle = std::sync::Arc::new(random_bundle(&Shape::default(), WeightFormat::Q4, 5));
    let history = vec![bundle.catalog.id_of(3).to_owned(), bundle.catalog.id_of(200).to_owned()];
    let mut recommender = block_on(Recommender::new(bundle, Backend::Cpu)).unwrap();
    let mut draw = |temperature: &[f32], seed: u64| {
        let request = Request {
            history: history.clone(),
            exclude_history: true,
            temperature: (!temperature.is_empty()).then(|| temperature.to_vec()),
            seed,
            ..Request::default()
        };
        block_on(recommender.recommend(&request)).unwrap().items
    };
    let first = draw(&[1.5], 1);
    assert_eq!(first.len(), 20);
    assert!(first.iter().all(|pick| !history.contains(&pick.id)));
    assert_eq!(draw(&[1.5], 1), first);
    assert_eq!(draw(&[1.5; 4], 1), first);
    assert_ne!(draw(&[1.5], 2), first);
    // Seeds that differ in the high word only, where the level is kept, too.
    assert_ne!(draw(&[1.5], 1 + (1 << 52)), first);
    let best = draw(&[], 0);
    assert_eq!(draw(&[], 9), best);
}
