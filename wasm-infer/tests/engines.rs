//! The GPU engine against the CPU engine, and both against an exhaustive scorer, on models of many
//! shapes.

use std::sync::Arc;

use pollster::block_on;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::gpu::{Counts, GpuEngine, GpuOptions};
use tigret_infer::search::{EngineQuery, Hit, ItemFilter};
use tigret_infer::testing::{
    Random, Shape, exhaustive, leave_out, on_gpu, random_bundle, same_answer, widened,
};
use tigret_infer::{Bundle, InferError, Sampling, WeightFormat};

const TOLERANCE: f32 = 1e-3;
/// The tolerance after products in halves.
const HALVES: f32 = 2e-2;
/// Everything that not all devices have, switched off.
const NOTHING_BEYOND_WGSL: GpuOptions =
    GpuOptions { halves: Some(false), packed_products: Some(false), subgroups: Some(false) };

fn shapes() -> Vec<(&'static str, Shape)> {
    let base = Shape::default();
    vec![
        ("default", base.clone()),
        ("one item", Shape { items: 1, ..base.clone() }),
        ("one layer", Shape { layers: (1, 1), ..base.clone() }),
        ("three levels", Shape { levels: vec![9, 30, 11], tied: false, ..base.clone() }),
        (
            "five levels, nothing where it mostly is",
            Shape {
                levels: vec![5, 6, 7, 8, 3],
                layers: (1, 3),
                epsilon: 1e-2,
                decoder_start: 1,
                unused: 5,
                ..base.clone()
            },
        ),
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
        (
            "whole groups and a half",
            Shape { d_model: 48, heads: (2, 36), d_ff: 100, ..base.clone() },
        ),
        ("wide heads", Shape { heads: (2, 136), layers: (1, 1), ..base.clone() }),
    ]
}

/// Gives a GPU wide tiles, as software adapters have them by default, or what runs on every device.
/// Without subgroups there are no wide tiles, and the narrow ones stay.
fn use_tiles(gpu: &mut GpuEngine, wide: bool) {
    let options = GpuOptions { subgroups: Some(wide), ..NOTHING_BEYOND_WGSL };
    if !gpu.use_kernels(options, wide) {
        leave_out("wide tiles", gpu.adapter_name());
    }
}

fn queries(bundle: &Bundle, seed: u64) -> Vec<EngineQuery> {
    let mut random = Random::new(seed);
    let items = bundle.catalog.len();
    let tokens = &bundle.tokens;
    let mut some =
        |count: usize| -> Vec<u32> { (0..count).map(|_| random.below(items) as u32).collect() };
    let everything = ItemFilter::everything;
    let excluded = |ranks: Vec<u32>| ItemFilter::new(&ranks, None, items);
    let allowed =
        |exclude: Vec<u32>, allow: Vec<u32>| ItemFilter::new(&exclude, Some(&allow), items);
    let most: Vec<u32> = (0..items as u32).filter(|rank| rank % 7 != 3).collect();
    let levels = tokens.levels.len();
    let sampled = |temperatures: &[f32], seed| Sampling::new(temperatures, levels, seed).ok();
    let mixed: Vec<f32> = (0..levels).map(|level| 0.6 + 0.5 * level as f32).collect();
    let mut cases = vec![
        (0, 10, everything()),
        (1, 1, everything()),
        (tokens.max_items, 50, everything()),
        (tokens.max_items + 5, 13, everything()),
        (3, 512, everything()),
        (3, 20, excluded(some(items / 3))),
        (3, 20, excluded(most.clone())),
        (3, 20, allowed(some(3), some(items.min(9)))),
        (2, 5, allowed(Vec::new(), Vec::new())),
        (2, 5, excluded((0..items as u32).collect())),
        (3, 20, allowed(some(3), most)),
    ]
    .into_iter()
    .map(|(length, beams, filter)| (length, beams, filter, None))
    .collect::<Vec<_>>();
    cases.extend([
        (4, 20, everything(), sampled(&[1.0], seed)),
        (4, 20, everything(), sampled(&[2.5], (1 << 53) - 1)),
        (0, 200, everything(), sampled(&mixed, 3)),
        (4, 1, everything(), sampled(&[0.1], 4)),
        (4, 20, excluded(some(items / 3)), sampled(&[1.5], 5)),
        (3, 20, allowed(some(3), some(items.min(9))), sampled(&[1.0], 6)),
        (2, 5, allowed(Vec::new(), Vec::new()), sampled(&[1.0], 7)),
        (4, 1, everything(), sampled(&[1e-38], 8)),
        (4, 20, everything(), sampled(&[1e38], 9)),
    ]);
    cases
        .into_iter()
        .enumerate()
        .map(|(index, (length, beams, filter, sampling))| {
            let history = some(length);
            let user = tokens.users.filter(|_| index % 2 == 1).map(|users| users.offset + 3);
            let codes = history.iter().map(|&rank| bundle.catalog.codes_of(rank));
            EngineQuery { input: tokens.encoder_input(user, codes), beams, filter, sampling }
        })
        .collect()
}

fn assert_same(expected: &[Hit], found: &[Hit], what: &str) {
    assert_close(expected, found, TOLERANCE, what);
}

fn assert_close(expected: &[Hit], found: &[Hit], tolerance: f32, what: &str) {
    same_answer(expected, found, tolerance).unwrap_or_else(|e| panic!("{what}: {e}"));
}

fn gpu(bundle: &Arc<Bundle>) -> Option<GpuEngine> {
    gpu_with(bundle, GpuOptions::default())
}

fn gpu_with(bundle: &Arc<Bundle>, options: GpuOptions) -> Option<GpuEngine> {
    on_gpu(block_on(GpuEngine::new(Arc::clone(bundle), options)))
}

/// Every model in every format, with what every device has, in wide tiles too, and on each path that
/// this one has: what is beyond plain WGSL changes nothing in an answer but the rounding of sums, of
/// inputs to 16 bits before packed products, and to 11 before products of halves.
#[test]
fn gpu_and_cpu_return_the_same_items_on_every_path() {
    use WeightFormat::{F16, F32, Q4, Q8};
    let plain = NOTHING_BEYOND_WGSL;
    // With the formats whose products it changes.
    let paths = [
        ("subgroups", GpuOptions { subgroups: Some(true), ..plain }, &WeightFormat::ALL[..]),
        ("packed products", GpuOptions { packed_products: Some(true), ..plain }, &[Q8, Q4]),
        ("halves", GpuOptions { halves: Some(true), ..plain }, &[F16]),
    ];
    // The largest difference of a score; `None` where the path was not taken.
    let mut furthest = [None::<f32>; 3];
    for (index, (name, shape)) in shapes().into_iter().enumerate() {
        for (which, format) in WeightFormat::ALL.into_iter().enumerate() {
            let bundle = Arc::new(random_bundle(&shape, format, index as u64));
            // In floats: integers have a tolerance of their own.
            let cpu = CpuEngine::new(Arc::new(widened(&bundle)));
            // An engine for all paths: each has a device, whose compiler takes most of this time.
            let Some(mut gpu) = gpu(&bundle) else { return };
            let name = format!("{name}, {}", format.name());
            let queries = queries(&bundle, 7);
            for (case, query) in queries.iter().enumerate() {
                // Formats differ in the matrices only: each narrow one gets a share of the cases.
                if format != F32 && case % 4 != (index + which) % 4 {
                    continue;
                }
                use_tiles(&mut gpu, case / 4 % 2 == 0);
                let found = block_on(gpu.search(query)).unwrap();
                assert_same(&cpu.search(query), &found, &format!("{name}, case {case}"));
            }
            for ((path, options, formats), furthest) in paths.into_iter().zip(&mut furthest) {
                if !formats.contains(&format) {
                    continue;
                }
                if !gpu.use_kernels(options, false) {
                    leave_out(path, gpu.adapter_name());
                    continue;
                }
                // A share of the cases each: emulated, these take long.
                let first = (index + 2 * which) % 8;
                for (case, query) in queries.iter().enumerate().skip(first).step_by(8) {
                    let (expected, found) = (cpu.search(query), block_on(gpu.search(query)));
                    let found = found.unwrap();
                    let tolerance = match (path, query.sampling.is_some()) {
                        ("halves", _) => HALVES,
                        ("packed products", true) => 1e-2,
                        _ => TOLERANCE,
                    };
                    let what = format!("{path}, {name}, case {case}");
                    assert_close(&expected, &found, tolerance, &what);
                    for (e, f) in expected.iter().zip(&found).filter(|(e, f)| e.rank == f.rank) {
                        let off = (e.score - f.score).abs();
                        *furthest = Some(furthest.unwrap_or(0.0).max(off));
                    }
                }
            }
        }
    }
    for ((path, ..), furthest) in paths.into_iter().zip(furthest) {
        if let Some(furthest) = furthest {
            println!("largest difference of a score with {path}: {furthest}");
        }
    }
}

/// Rounding a row to 16 bits moves scores by less than the documented tolerance; sampling stretches
/// that where a prefix comes close to the largest among its siblings.
#[test]
fn integers_on_the_cpu_score_as_floats_do() {
    let mut furthest = 0.0f32;
    for (index, (name, shape)) in shapes().into_iter().enumerate() {
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            let bundle = Arc::new(random_bundle(&shape, format, index as u64));
            let floats = CpuEngine::new(Arc::new(widened(&bundle)));
            let integers = CpuEngine::new(Arc::clone(&bundle));
            for (case, query) in queries(&bundle, 7).into_iter().enumerate() {
                let (expected, found) = (floats.search(&query), integers.search(&query));
                let what = format!("{name}, {}, case {case}", format.name());
                let tolerance = if query.sampling.is_some() { 1e-2 } else { TOLERANCE };
                assert_close(&expected, &found, tolerance, &what);
                for (e, f) in expected.iter().zip(&found).filter(|(e, f)| e.rank == f.rank) {
                    furthest = furthest.max((e.score - f.score).abs());
                }
            }
        }
    }
    println!("largest difference of a score: {furthest}");
}

/// Inputs of different lengths, filters of both forms, samples with seeds and temperatures of
/// their own, and different numbers of beams in one call: what a user is told does not depend on
/// who else is asked about.
#[test]
fn queries_of_many_users_at_once_are_answered_as_one_by_one() {
    for (index, (name, shape)) in shapes().into_iter().enumerate() {
        let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, index as u64));
        let cpu = CpuEngine::new(Arc::clone(&bundle));
        let mut all = queries(&bundle, 13);
        // Keys at the two extreme temperatures are too large for an absolute tolerance.
        all.truncate(all.len() - 2);
        for (place, query) in all.iter_mut().enumerate() {
            // Runs of queries that can share a submit, more than one of them.
            query.beams = if place < 12 { 20 } else { 7 };
        }
        let expected: Vec<_> = all.iter().map(|query| cpu.search(query)).collect();
        assert_eq!(cpu.search_all(&all), expected, "{name}");
        assert!(cpu.search_all(&[]).is_empty());
        let Some(mut gpu) = gpu(&bundle) else { return };
        use_tiles(&mut gpu, index % 2 == 0);
        let found = block_on(gpu.search_all(&all)).unwrap();
        assert_eq!(found.len(), expected.len());
        for (case, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_same(expected, found, &format!("{name}, case {case}"));
        }
        // More users than one submit takes, then one again.
        let many: Vec<_> = std::iter::repeat_n(&all[2], 70).cloned().collect();
        let found = block_on(gpu.search_all(&many)).unwrap();
        assert_eq!(found, vec![found[0].clone(); 70], "{name}");
        assert_same(&expected[2], &block_on(gpu.search(&all[2])).unwrap(), name);
        assert!(block_on(gpu.search_all(&[])).unwrap().is_empty());
    }
}

#[test]
fn a_call_is_one_pass_one_submit_one_read_back() {
    let shape = Shape { layers: (4, 4), ..Shape::default() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::Q8, 1));
    let Some(mut gpu) = gpu(&bundle) else { return };
    let query = queries(&bundle, 1).swap_remove(2);
    // A new engine has asked its device for nothing yet.
    let mut before = Counts::default();
    let mut counts_of = |query: &EngineQuery| {
        block_on(gpu.search(query)).unwrap();
        let after = gpu.counts();
        let counts = Counts {
            dispatches: after.dispatches - before.dispatches,
            passes: after.passes - before.passes,
            submits: after.submits - before.submits,
            read_backs: after.read_backs - before.read_backs,
        };
        before = after;
        counts
    };
    let best = counts_of(&query);
    let Counts { dispatches, passes, submits, read_backs } = best;
    assert_eq!((passes, submits, read_backs), (1, 1, 1));
    assert!(dispatches <= 170, "{dispatches} dispatches");
    let sampling = Sampling::new(&[1.0], 4, 0).ok();
    let sampled = counts_of(&EngineQuery { sampling, ..query });
    assert_eq!(sampled, Counts { dispatches: dispatches + 4, ..best });
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

/// The smallest model over these levels and users, with more items than beams.
fn narrow_bundle(levels: Vec<u32>, users: u32) -> Arc<Bundle> {
    let shape = Shape { levels, users, items: 2000, ..Shape::narrow() };
    Arc::new(random_bundle(&shape, WeightFormat::F32, 3))
}

/// A query of one item.
fn wide_query(bundle: &Bundle, beams: usize) -> EngineQuery {
    let history = std::iter::once(bundle.catalog.codes_of(7));
    let input = bundle.tokens.encoder_input(None, history);
    EngineQuery { input, beams, filter: ItemFilter::everything(), sampling: None }
}

/// Searches with each number of beams in turn, on one engine: each call is answered as on the CPU or,
/// only with `too_many` beams, refused in words.
fn answered_or_refused(
    bundle: &Arc<Bundle>,
    gpu: &mut GpuEngine,
    beams: &[usize],
    too_many: usize,
) {
    let cpu = CpuEngine::new(Arc::clone(bundle));
    for &beams in beams {
        let query = wide_query(bundle, beams);
        match block_on(gpu.search(&query)) {
            Ok(hits) => assert_same(&cpu.search(&query), &hits, &format!("{beams} beams")),
            Err(InferError::NoGpu(why)) => assert_eq!(beams, too_many, "{why}"),
            Err(other) => panic!("{beams} beams: {other}"),
        }
    }
}

#[test]
fn a_call_that_does_not_fit_leaves_the_engine_whole_and_one_that_just_fits_is_answered() {
    // Logits of 512 beams are beyond 128 MiB, which is all that some adapters bind.
    let bundle = narrow_bundle(vec![300, 300], 66_000);
    let Some(mut gpu) = gpu(&bundle) else { return };
    // Rounded up to a power of two, 300 beams would be 512.
    answered_or_refused(&bundle, &mut gpu, &[10, 300, 512, 300, 50], 512);
    // As many users as fit go into one submit; the logits of twelve do not.
    let queries: Vec<EngineQuery> = (0..12).map(|_| wide_query(&bundle, 50)).collect();
    let expected = CpuEngine::new(Arc::clone(&bundle)).search(&queries[0]);
    for hits in block_on(gpu.search_all(&queries)).unwrap() {
        assert_same(&expected, &hits, "twelve users");
    }
}

#[test]
fn a_filter_with_more_words_than_there_is_room_for_is_obeyed_and_then_forgotten() {
    let shape = Shape { levels: vec![300, 300], items: 20_000, ..Shape::narrow() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, 3));
    let Some(mut gpu) = gpu(&bundle) else { return };
    let cpu = CpuEngine::new(Arc::clone(&bundle));
    let every_other: Vec<u32> = (0..20_000).step_by(2).collect();
    let all = wide_query(&bundle, 50);
    let half = EngineQuery { filter: ItemFilter::new(&every_other, None, 20_000), ..all.clone() };
    for query in [half, all] {
        assert_same(&cpu.search(&query), &block_on(gpu.search(&query)).unwrap(), "20,000 items");
    }
}

/// A driver resets a GPU that is busy for seconds, so what is asked at once is shared out.
#[test]
fn a_submit_has_a_bounded_number_of_users_of_beams_and_of_input_rows() {
    // Inputs on 284 rows, of which 28 users have fewer than 8,192 and 29 have more.
    for (max_items, users, beams, submits) in [(8, 70, 1, 3), (8, 5, 512, 2), (70, 29, 1, 2)] {
        let bundle = random_bundle(&Shape { max_items, ..Shape::narrow() }, WeightFormat::F32, 3);
        let bundle = Arc::new(bundle);
        let Some(mut gpu) = gpu(&bundle) else { return };
        let queries = vec![wide_query(&bundle, beams); users];
        assert_eq!(block_on(gpu.search_all(&queries)).unwrap().len(), users);
        assert_eq!(gpu.counts().submits, submits, "{users} users, {beams} beams");
    }
}

/// Mesa's software adapter ends every loop after 65,535 iterations.
#[test]
fn software_that_cannot_walk_all_candidates_is_refused_and_never_answers_wrongly() {
    let bundle = narrow_bundle(vec![300, 20_000], 0);
    let Some(mut gpu) = gpu(&bundle) else { return };
    answered_or_refused(&bundle, &mut gpu, &[67, 300], 300);
}

/// The same limit, met by an attention with one wide head over a long history.
#[test]
fn software_that_cannot_attend_to_all_tokens_is_refused_and_never_answers_wrongly() {
    let wide = Shape { heads: (1, 512), max_items: 270, ..Shape::narrow() };
    let bundle = Arc::new(random_bundle(&wide, WeightFormat::F32, 3));
    let Some(mut gpu) = gpu(&bundle) else { return };
    let cpu = CpuEngine::new(Arc::clone(&bundle));
    for items in [200, 270] {
        let history = (0..items).map(|rank| bundle.catalog.codes_of(rank));
        let input = bundle.tokens.encoder_input(None, history);
        let query =
            EngineQuery { input, beams: 10, filter: ItemFilter::everything(), sampling: None };
        match block_on(gpu.search(&query)) {
            Ok(hits) => assert_same(&cpu.search(&query), &hits, &format!("{items} items")),
            Err(InferError::NoGpu(why)) => {
                assert!(items == 270 && why.contains("1081 tokens"), "{why}");
            }
            Err(other) => panic!("{items} items: {other}"),
        }
    }
}

/// Logits of all beams at once would be more than a page has memory.
#[test]
fn a_large_vocabulary_is_scored_a_few_beams_at_a_time() {
    let shape = Shape { users: 140_000, items: 90, ..Shape::narrow() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::Q8, 5));
    let query = wide_query(&bundle, 90);
    let found = CpuEngine::new(Arc::clone(&bundle)).search(&query);
    assert_close(&exhaustive(&bundle, &bundle.catalog, &query), &found, 1e-2, "90 beams");
}

/// It may be the very thing that the device fails with.
#[test]
fn a_device_is_not_asked_for_what_is_switched_off() {
    let bundle = narrow_bundle(vec![9, 300], 0);
    let Some(mut gpu) = gpu_with(&bundle, NOTHING_BEYOND_WGSL) else { return };
    for wish in [
        GpuOptions { halves: Some(true), ..NOTHING_BEYOND_WGSL },
        GpuOptions { subgroups: Some(true), ..NOTHING_BEYOND_WGSL },
    ] {
        assert!(!gpu.use_kernels(wish, false), "{wish:?}");
    }
    answered_or_refused(&bundle, &mut gpu, &[20], 0);
}
