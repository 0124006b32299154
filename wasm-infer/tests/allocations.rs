//! What searches on the CPU take from the heap: their answers, and memory that does not grow with
//! the square of the threads.

use std::sync::{Arc, Mutex, PoisonError};

use pollster::block_on;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{EngineQuery, ItemFilter};
use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{Backend, Recommender, Request, Sampling, WeightFormat};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CALLS: u64 = 200;

/// There is one heap: held by whoever measures it.
static HEAP: Mutex<()> = Mutex::new(());

#[test]
fn a_search_allocates_its_answer_and_nothing_else() {
    let _own = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let _profiler = dhat::Profiler::builder().testing().build();
    for format in [WeightFormat::F32, WeightFormat::Q8] {
        let bundle = Arc::new(random_bundle(&Shape::default(), format, 1));
        let engine = CpuEngine::new(Arc::clone(&bundle));
        let codes = |rank: u32| bundle.catalog.codes_of(rank);
        let input = bundle.tokens.encoder_input(None, [3, 1, 4].map(codes).into_iter());
        let levels = bundle.tokens.levels.len();
        for sampling in [None, Some(Sampling::new(&[1.5], levels, 7).unwrap())] {
            let filter = ItemFilter::new(&[5, 6], None, bundle.catalog.len());
            let query = EngineQuery { input: input.clone(), beams: 50, filter, sampling };
            // The first call makes room.
            let expected = engine.search(&query);
            let before = dhat::HeapStats::get().total_blocks;
            for _ in 0..CALLS {
                assert_eq!(engine.search(&query), expected);
            }
            let blocks = dhat::HeapStats::get().total_blocks - before;
            println!("{} blocks in {CALLS} calls, {}", blocks, format.name());
            // Threads take a block for their queue now and then.
            assert!(blocks <= CALLS + CALLS / 10, "{blocks} blocks in {CALLS} calls");
        }
    }
}

#[test]
fn searches_at_once_hold_the_logits_of_a_thread_once() {
    const THREADS: usize = 8;
    const USERS: u32 = 50_000;
    let _own = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = Shape { users: USERS, d_model: 8, layers: (1, 1), ..Shape::default() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::Q8, 1));
    let filter = ItemFilter::everything();
    let input = bundle.tokens.encoder_input(None, [bundle.catalog.codes_of(3)].into_iter());
    let query = EngineQuery { input, beams: 128, filter, sampling: None };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    let engine = CpuEngine::new(bundle);
    let _profiler = dhat::Profiler::builder().testing().build();
    pool.install(|| engine.search_all(&vec![query; 2 * THREADS]));
    // 16 of the 128 rows a thread, and as much again for all else.
    let most = 2 * THREADS * 16 * USERS as usize * size_of::<f32>();
    let held = dhat::HeapStats::get().max_bytes;
    assert!(held < most, "{held} bytes");
}

#[test]
fn an_explanation_does_not_look_at_filters() {
    const ITEMS: usize = 2000;
    let _own = HEAP.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = Shape { items: ITEMS, ..Shape::default() };
    let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, 1));
    let ids: Vec<String> = bundle.catalog.ids().iter().map(str::to_owned).collect();
    let plain = Request { history: ids[..5].to_vec(), ..Request::default() };
    let filtered = Request { allow: Some(ids.clone()), exclude: ids.clone(), ..plain.clone() };
    let mut recommender = block_on(Recommender::new(bundle, Backend::Cpu)).unwrap();
    // The first call makes room.
    let expected = recommender.explain(&plain, &ids[7]).unwrap();
    let _profiler = dhat::Profiler::builder().testing().build();
    assert_eq!(recommender.explain(&filtered, &ids[7]).unwrap(), expected);
    let blocks = dhat::HeapStats::get().total_blocks;
    assert!(blocks < ITEMS as u64, "{blocks} blocks");
}
