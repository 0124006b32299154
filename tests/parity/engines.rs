//! The batched search of the evaluation, in tch, against the CPU engine of the bundle.

use std::sync::Arc;

use tch::Device;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{EngineQuery, ItemFilter};
use tigret_infer::testing::{Random, Shape, random_bundle, same_answer};
use tigret_infer::{TokenLayout, WeightFormat};
use tigret_train::data::Item;
use tigret_train::evaluate::search::beam_search;
use tigret_train::model::{Params, T5};
use tigret_train::tokenizer::SemanticIds;

#[test]
fn tch_and_the_cpu_engine_find_the_same_items() {
    let base = Shape::default();
    let shapes = [
        base.clone(),
        Shape { items: 1, ..base.clone() },
        Shape { levels: vec![7, 7, 7], items: 100, users: 0, tied: false, ..base.clone() },
        Shape {
            levels: vec![5, 6, 7, 8, 3],
            layers: (1, 3),
            epsilon: 1e-2,
            decoder_start: 1,
            unused: 5,
            ..base
        },
    ];
    for (index, shape) in shapes.iter().enumerate() {
        let bundle = Arc::new(random_bundle(shape, WeightFormat::F32, index as u64));
        let catalog = &bundle.catalog;
        let model = T5::new(bundle.config.clone());
        let mut params = Params::new(model.specs(), 0, Device::Cpu);
        let weights = bundle
            .weights()
            .iter()
            .map(|(name, weight)| (name.clone(), (weight.shape.clone(), weight.to_f32())))
            .collect();
        params.load(&weights).unwrap();
        let items: Vec<Item> = catalog
            .ids()
            .iter()
            .map(|id| Item { id: id.to_owned(), text: String::new(), fields: Default::default() })
            .collect();
        let layout: TokenLayout = bundle.tokens.clone();
        let ids = SemanticIds::new(&items, layout, catalog.codes()).unwrap();

        // Histories of different lengths in one batch, the empty one among them.
        let mut random = Random::new(4);
        let mut some = |count: usize| -> Vec<u32> {
            (0..count).map(|_| random.below(catalog.len()) as u32).collect()
        };
        let queries: Vec<EngineQuery> = [0, 1, 3, 8, 12]
            .into_iter()
            .map(|length| {
                let history = some(length);
                let codes = history.iter().map(|&rank| catalog.codes_of(rank));
                let input = bundle.tokens.encoder_input(None, codes);
                let filter = match length {
                    8 => ItemFilter::new(&some(catalog.len() / 2), None, catalog.len()),
                    12 => ItemFilter::new(&[], Some(&[]), catalog.len()),
                    _ => ItemFilter::everything(),
                };
                EngineQuery { input, beams: 20, filter, sampling: None }
            })
            .collect();
        let _guard = tch::no_grad_guard();
        let found = beam_search(&model, &params.views(), &ids, &queries);
        let cpu = CpuEngine::new(Arc::clone(&bundle));
        for (query, found) in queries.iter().zip(found) {
            same_answer(&cpu.search(query), &found, 1e-3).unwrap();
        }
    }
}
