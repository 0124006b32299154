//! Trie-constrained beam search for many users at once, in tch: the contract of
//! [`tigret_infer::search`], with the matrix work batched.

use rayon::prelude::*;
use tch::{Kind, Tensor};
use tigret_infer::search::{Beam, Candidates, EngineQuery, Hit, best_first};

use crate::model::T5;
use crate::model::padding::pad_left;
use crate::model::params::{Views, to_vec};
use crate::model::t5::Cache;
use crate::tokenizer::SemanticIds;

/// What each query finds, in the contract's order: its best items, or a sample without replacement in
/// the order in which it would have been drawn ([`tigret_infer::sampling`]).
pub fn beam_search(
    model: &T5,
    weights: &Views,
    ids: &SemanticIds,
    queries: &[EngineQuery],
) -> Vec<Vec<Hit>> {
    // Nobody asks for gradients of an answer, and their graph would be many times its size.
    let _guard = tch::no_grad_guard();
    let device = weights.get("shared.weight").device();
    let layout = &ids.layout;
    let users = queries.len();
    let inputs: Vec<&[u32]> = queries.iter().map(|query| &query.input[..]).collect();
    let (tokens, keep) = pad_left(&inputs, layout.pad, device);
    let encoded = model.encode(weights, &tokens, &keep, None);
    let cross = model.cross_state(weights, &encoded, &keep);
    let mut cache = Cache::default();
    let mut searches: Vec<Vec<Beam>> = queries
        .iter()
        .map(|query| {
            let root = Beam::root(&ids.catalog);
            let live = query.filter.allowed_in(root.node.clone()) > 0;
            live.then_some(root).into_iter().collect()
        })
        .collect();
    for (level, range) in layout.levels.iter().enumerate() {
        // Every user has as many rows as the widest search; surplus rows are computed, not read.
        let rows = searches.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut step = vec![i64::from(layout.decoder_start); users * rows];
        let mut parents = vec![0i64; users * rows];
        for (user, search) in searches.iter().enumerate() {
            for (row, beam) in search.iter().enumerate() {
                if level > 0 {
                    step[user * rows + row] = layout.levels[level - 1].token(beam.code).into();
                    parents[user * rows + row] = beam.parent as i64;
                }
            }
        }
        let shaped = |values: &[i64]| {
            Tensor::from_slice(values).view([users as i64, rows as i64]).to_device(device)
        };
        let logits = model.step(weights, &shaped(&step), &shaped(&parents), &cross, &mut cache);
        let normaliser = logits.logsumexp([-1].as_slice(), true);
        let codes = range.size as usize;
        let log_probs = logits.narrow(-1, i64::from(range.offset), codes as i64) - normaliser;
        let log_probs = to_vec(&log_probs.to_kind(Kind::Float));
        let users = searches.par_iter_mut().enumerate();
        users.for_each_init(Candidates::default, |candidates, (user, search)| {
            let log_probs = &log_probs[user * rows * codes..][..search.len() * codes];
            candidates.extend(&ids.catalog, &queries[user], level, search, log_probs);
        });
    }
    searches
        .into_iter()
        .map(|beams| best_first(beams.len(), |at| beams[at].hit(), &mut Vec::new()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::on_cpu_and_cuda;
    use crate::model::Params;
    use crate::model::presets::Preset;
    use crate::train::trainer::tests::data;
    use tch::Device;
    use tigret_infer::search::ItemFilter;

    #[test]
    fn hits_are_the_same_on_cpu_and_cuda() {
        let (_, ids) = data();
        let model = T5::new(Preset::Tiny.config(&ids.layout));
        let queries: Vec<EngineQuery> = [&[3, 8, 13, 1][..], &[1], &[4, 9, 14, 5, 10, 15, 1]]
            .map(|input| EngineQuery {
                input: input.to_vec(),
                beams: 20,
                filter: ItemFilter::everything(),
                sampling: None,
            })
            .into();
        let found_on = |device| {
            let params = Params::new(model.specs(), 3, device);
            let weights = tch::no_grad(|| params.views());
            beam_search(&model, &weights, &ids, &queries)
        };
        let expected = found_on(Device::Cpu);
        on_cpu_and_cuda(|device| {
            for (found, expected) in found_on(device).iter().zip(&expected) {
                assert_eq!(found.len(), 20);
                for (found, expected) in found.iter().zip(expected) {
                    assert_eq!(found.rank, expected.rank, "{found:?}, not {expected:?}");
                    assert!((found.score - expected.score).abs() < 1e-3);
                }
            }
        });
    }
}
