//! Beam search without the trie, as `transformers` generates: every token of the vocabulary may
//! follow, so what comes out need not name an item.

use tch::{Device, Kind, Tensor};

use crate::model::T5;
use crate::model::padding::pad_left;
use crate::model::params::{Views, to_vec};
use crate::model::t5::Cache;
use crate::tokenizer::SemanticIds;

/// What a beam ends as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generated {
    /// Rank in the catalogue of the item that the tokens name; `None` if they name none.
    pub rank: Option<u32>,
    /// Sum of log-probabilities.
    pub score: f32,
}

/// The best `beams` token sequences of a semantic ID's length for each encoder input, best first;
/// fewer where there are not so many.
pub fn free_beam_search(
    model: &T5,
    weights: &Views,
    ids: &SemanticIds,
    inputs: &[Vec<u32>],
    beams: usize,
) -> Vec<Vec<Generated>> {
    let _guard = tch::no_grad_guard();
    let device = weights.get("shared.weight").device();
    let layout = &ids.layout;
    let users = inputs.len() as i64;
    let (tokens, keep) = pad_left(inputs, layout.pad, device);
    let encoded = model.encode(weights, &tokens, &keep, None);
    let cross = model.cross_state(weights, &encoded, &keep);
    let mut cache = Cache::default();
    let mut step = Tensor::full([users, 1], i64::from(layout.decoder_start), (Kind::Int64, device));
    let mut parents = Tensor::zeros([users, 1], (Kind::Int64, device));
    let mut scores = Tensor::zeros([users, 1], (Kind::Float, device));
    // `[users, rows, levels so far]`.
    let mut generated = Tensor::zeros([users, 1, 0], (Kind::Int64, device));
    for level in 0..layout.levels.len() as i64 {
        let logits = model.step(weights, &step, &parents, &cross, &mut cache);
        let (rows, vocabulary) = (logits.size()[1], logits.size()[2]);
        let total = logits.log_softmax(-1, Kind::Float) + scores.unsqueeze(-1);
        let width = (beams as i64).min(rows * vocabulary);
        let (best, chosen) = total.view([users, rows * vocabulary]).topk(width, -1, true, true);
        parents = chosen.divide_scalar_mode(vocabulary, "floor");
        step = chosen.remainder(vocabulary);
        let so_far = parents.unsqueeze(-1).expand([users, width, level], false);
        generated = Tensor::cat(&[generated.gather(1, &so_far, false), step.unsqueeze(-1)], 2);
        scores = best;
    }
    let levels = layout.levels.len();
    let width = scores.size()[1] as usize;
    let generated = generated.to_device(Device::Cpu).contiguous();
    let mut tokens = vec![0i64; generated.numel()];
    generated.copy_data(&mut tokens, generated.numel());
    let found: Vec<Generated> = tokens
        .chunks_exact(levels)
        .zip(to_vec(&scores))
        .map(|(tokens, score)| Generated { rank: rank_of(ids, tokens), score })
        .collect();
    found.chunks_exact(width.max(1)).map(<[Generated]>::to_vec).collect()
}

/// The rank of the item that tokens name, each of which must be of its own level.
fn rank_of(ids: &SemanticIds, tokens: &[i64]) -> Option<u32> {
    let mut codes = Vec::with_capacity(tokens.len());
    for (&token, level) in tokens.iter().zip(&ids.layout.levels) {
        let code = u32::try_from(token).ok()?.checked_sub(level.offset)?;
        codes.push(u16::try_from(code).ok().filter(|_| code < level.size)?);
    }
    ids.catalog.rank_of_codes(&codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Item;
    use crate::evaluate::search::beam_search;
    use crate::model::Params;
    use crate::model::presets::Preset;
    use tch::Device;
    use tigret_infer::TokenLayout;
    use tigret_infer::search::{EngineQuery, ItemFilter};

    /// Items with all codes of two levels of three, or those of `codes` alone.
    fn ids(codes: &[[u16; 2]]) -> SemanticIds {
        let items: Vec<Item> = (0..codes.len())
            .map(|i| Item { id: i.to_string(), text: String::new(), fields: Default::default() })
            .collect();
        SemanticIds::new(&items, TokenLayout::contiguous(&[3, 3], 0, 4), codes.as_flattened())
            .unwrap()
    }

    fn all() -> Vec<[u16; 2]> {
        (0..9).map(|i| [i / 3, i % 3]).collect()
    }

    /// A model that knows no more than its random start.
    fn model(ids: &SemanticIds) -> (T5, Params) {
        let model = T5::new(Preset::Tiny.config(&ids.layout));
        let params = Params::new(model.specs(), 3, Device::Cpu);
        (model, params)
    }

    #[test]
    fn all_sequences_are_found_in_the_order_of_their_scores() {
        let ids = ids(&all());
        let (model, params) = model(&ids);
        let weights = tch::no_grad(|| params.views());
        let inputs = [vec![2, 5, 1], vec![3, 6, 4, 7, 1]];
        // 8 tokens, two places: 64 sequences, of which 9 name an item.
        let found = free_beam_search(&model, &weights, &ids, &inputs, 64);
        for (user, input) in inputs.iter().enumerate() {
            assert_eq!(found[user].len(), 64);
            assert!(found[user].is_sorted_by(|a, b| a.score >= b.score));
            let sum: f32 = found[user].iter().map(|g| g.score.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-4, "all probabilities: {sum}");
            // What names an item has the score and place that the constrained search gives it.
            let valid: Vec<(u32, f32)> =
                found[user].iter().filter_map(|g| Some((g.rank?, g.score))).collect();
            let (input, filter) = (input.clone(), ItemFilter::everything());
            let query = EngineQuery { input, beams: 9, filter, sampling: None };
            let hits = beam_search(&model, &weights, &ids, &[query]);
            assert_eq!(valid.len(), 9);
            for (hit, (rank, score)) in hits[0].iter().zip(&valid) {
                assert_eq!(hit.rank, *rank);
                assert!((hit.score - score).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn what_names_no_item_is_told() {
        let ids = ids(&[[0, 0], [2, 1]]);
        assert_eq!(rank_of(&ids, &[2, 5]), Some(0));
        assert_eq!(rank_of(&ids, &[4, 6]), Some(1));
        for tokens in [[2, 6], [5, 2], [0, 0], [1, 5], [2, 8], [4, 1]] {
            assert_eq!(rank_of(&ids, &tokens), None, "{tokens:?}");
        }
    }
}
