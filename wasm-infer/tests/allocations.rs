//! A search on the CPU takes nothing from the heap but its answer.

use std::sync::Arc;

use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{EngineQuery, ItemFilter};
use tigret_infer::testing::{Shape, random_bundle};
use tigret_infer::{Sampling, WeightFormat};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CALLS: u64 = 200;

#[test]
fn a_search_allocates_its_answer_and_nothing_else() {
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
