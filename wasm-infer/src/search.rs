//! Trie-constrained beam search: the contract that every engine keeps, and the CPU's steps of it.
//!
//! - The score of an item is the sum over levels of `log_softmax(logits)[code]`, the softmax over
//!   the whole vocabulary. The constraint masks after the softmax; nothing is renormalised.
//! - At each level the best `beams` of all *live* prefixes survive; a prefix is live if at least
//!   one allowed item lies under it. Ties go to the smaller semantic ID.
//! - With a [`Sampling`], prefixes are chosen by their perturbed log-probability instead.

use std::collections::BinaryHeap;
use std::ops::Range;

use crate::catalog::Catalog;
pub use crate::filter::ItemFilter;
use crate::sampling::Sampling;

/// Most beams of a search.
pub const MAX_BEAMS: usize = 512;

/// What an engine is asked: tokens in, ranks out.
#[derive(Debug, Clone)]
pub struct EngineQuery {
    /// The encoder's input: at least one token, and no more than [`crate::TokenLayout::encoder_input`]
    /// makes.
    pub input: Vec<u32>,
    /// Beams, `1..=MAX_BEAMS`.
    pub beams: usize,
    /// Allowed items.
    pub filter: ItemFilter,
    /// How to sample; `None` for the best.
    pub sampling: Option<Sampling>,
}

/// One result of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Rank of the item in the catalogue.
    pub rank: u32,
    /// Sum of the model's log-probabilities.
    pub score: f32,
    /// What hits are ordered by: the score, or in sampling the perturbed log-probability.
    pub key: f32,
}

impl Hit {
    /// A hit of a search for the best.
    pub fn scored(rank: u32, score: f32) -> Self {
        Self { rank, score, key: score }
    }
}

/// Hits in the contract's order: best key first, ties to the smaller semantic ID. `hit` tells the
/// hit at each of `0..count`, their ranks ascending; `order` is scratch.
pub fn best_first(count: usize, hit: impl Fn(usize) -> Hit, order: &mut Vec<u64>) -> Vec<Hit> {
    debug_assert!((1..count).all(|at| hit(at - 1).rank < hit(at).rank), "ranks ascend");
    order.clear();
    order.extend((0..count).map(|at| place(hit(at).key, at as u32)));
    order.sort_unstable();
    order.iter().map(|&place| hit(place as u32 as usize)).collect()
}

/// Where a key stands among others: the smaller the better, equal keys in the order of `rank`. What is
/// no number comes first, so that it is among the hits and seen there.
fn place(key: f32, rank: u32) -> u64 {
    let bits = if key.is_nan() { u32::MAX >> 1 } else { key.to_bits() };
    // As integers, floats descend when their signs differ or both are negative.
    let descending = if bits >> 31 == 0 { !bits ^ 1 << 31 } else { bits };
    u64::from(descending) << 32 | u64::from(rank)
}

/// A surviving prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Beam {
    /// Sum of the model's log-probabilities so far.
    pub score: f32,
    /// What prefixes are chosen by: the score, or in sampling the perturbed log-probability.
    pub key: f32,
    /// In sampling, the log-probability under the sampled distribution.
    pub sampled: f32,
    /// The items under the prefix.
    pub node: Range<u32>,
    /// Row of the parent in the step before.
    pub parent: usize,
    /// The last code.
    pub code: u16,
}

impl Beam {
    /// The empty prefix: every item.
    pub fn root(catalog: &Catalog) -> Self {
        let node = 0..catalog.len() as u32;
        Self { score: 0.0, key: 0.0, sampled: 0.0, node, parent: 0, code: 0 }
    }

    /// A prefix of a search for the best.
    fn scored(score: f32, node: Range<u32>, parent: usize, code: u16) -> Self {
        Self { score, key: score, sampled: 0.0, node, parent, code }
    }

    /// The item that a whole semantic ID names.
    pub fn hit(&self) -> Hit {
        Hit { rank: self.node.start, score: self.score, key: self.key }
    }
}

/// What may come after the beams of a level; its memory serves the next level, and the next search.
#[derive(Debug, Default)]
pub struct Candidates {
    live: Vec<Beam>,
    /// Numbers to choose and to sort by, a candidate each.
    places: Vec<u64>,
}

impl Candidates {
    /// One level of the search for a query: extends `beams` by the codes of `level` and keeps the best
    /// live prefixes, as many as the query has beams, in their place, in ascending order of semantic ID.
    ///
    /// `log_probs` is row-major `[beams, codes of the level]`, already normalised over the whole
    /// vocabulary. Ascending order makes ties and parent pointers the same on every engine; the
    /// best-first order is made once, at the end.
    pub fn extend(
        &mut self,
        catalog: &Catalog,
        query: &EngineQuery,
        level: usize,
        beams: &mut Vec<Beam>,
        log_probs: &[f32],
    ) {
        let EngineQuery { filter, beams: width, .. } = query;
        let (sampling, width) = (query.sampling.as_ref(), *width);
        let codes = log_probs.len() / beams.len().max(1);
        self.live.clear();
        self.places.clear();
        for (parent, beam) in beams.iter().enumerate() {
            let begin = parent * codes;
            let log_probs = &log_probs[begin..][..codes];
            if sampling.is_none() && beam.node.len() > DENSE * codes {
                // Whether a child is live is asked of the best only; `!`: a heap has the largest on top.
                let open = log_probs.iter().zip(begin as u32..);
                self.places.extend(open.map(|(log_prob, at)| !place(beam.score + log_prob, at)));
                continue;
            }
            let first = self.live.len();
            for (code, node) in catalog.children(level, beam.node.clone()) {
                if filter.allowed_in(node.clone()) > 0 {
                    let score = beam.score + log_probs[usize::from(code)];
                    self.live.push(Beam::scored(score, node, parent, code));
                }
            }
            if let Some(sampling) = sampling {
                let prefix = &catalog.codes_of(beam.node.start)[..level];
                let log_prob = |code: u16| log_probs[usize::from(code)];
                sampling.perturb(beam, prefix, &mut self.live[first..], log_prob);
            }
        }
        self.take_best_open(width, |at| {
            let (parent, code) = (at / codes, (at % codes) as u16);
            let beam = &beams[parent];
            let node = catalog.child(level, beam.node.clone(), code);
            let is_live = filter.allowed_in(node.clone()) > 0;
            is_live.then(|| Beam::scored(beam.score + log_probs[at], node, parent, code))
        });
        self.cut(width);
        self.in_order_of_ids(beams);
    }

    /// Takes the best `width` live children of dense nodes, whose places are given; `child` is the
    /// child at an index of the log-probabilities if it is live. None behind these survives.
    fn take_best_open(&mut self, width: usize, child: impl Fn(usize) -> Option<Beam>) {
        let mut open = BinaryHeap::from(std::mem::take(&mut self.places));
        let mut missing = width;
        while missing > 0
            && let Some(place) = open.pop()
        {
            if let Some(beam) = child(!place as u32 as usize) {
                self.live.push(beam);
                missing -= 1;
            }
        }
        self.places = open.into_vec();
    }

    /// Keeps the best `width`.
    fn cut(&mut self, width: usize) {
        if self.live.len() <= width {
            return;
        }
        let of = |beam: &Beam| place(beam.key, beam.node.start);
        self.places.clear();
        // The best so far, the worst of them on top: few of the others displace it.
        let mut best = BinaryHeap::from(std::mem::take(&mut self.places));
        best.extend(self.live[..width].iter().map(of));
        for place in self.live[width..].iter().map(of) {
            if let Some(mut worst) = best.peek_mut().filter(|worst| place < **worst) {
                *worst = place;
            }
        }
        let last = best.peek().copied().unwrap_or_default();
        self.live.retain(|beam| of(beam) <= last);
        self.places = best.into_vec();
    }

    /// Puts what is left in the place of `beams`, in ascending order of semantic ID: children of
    /// dense nodes came in the order of their scores.
    fn in_order_of_ids(&mut self, beams: &mut Vec<Beam>) {
        let ranks = self.live.iter().map(|beam| u64::from(beam.node.start));
        self.places.clear();
        self.places.extend(ranks.zip(0..).map(|(rank, at)| rank << 32 | at));
        self.places.sort_unstable();
        beams.clear();
        beams.extend(self.places.iter().map(|&place| self.live[place as u32 as usize].clone()));
    }

    /// What the last level's beams have found, in the contract's order.
    pub fn hits(&mut self, beams: &[Beam]) -> Vec<Hit> {
        best_first(beams.len(), |at| beams[at].hit(), &mut self.places)
    }
}

/// Items a code of a level from which on a node is dense: most of its children are live then, so
/// it is cheaper to look for the best ones than to list them all.
const DENSE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogItem;
    use crate::testing::{Random, Shape, random_bundle};
    use crate::tokens::TokenLayout;
    use crate::weights::WeightFormat;

    /// The definition, by all children of all beams.
    fn plainly(
        catalog: &Catalog,
        filter: &ItemFilter,
        level: usize,
        beams: &[Beam],
        log_probs: &[f32],
        width: usize,
    ) -> Vec<Beam> {
        let codes = log_probs.len() / beams.len();
        let mut all = Vec::new();
        for (parent, beam) in beams.iter().enumerate() {
            for (code, log_prob) in log_probs[parent * codes..][..codes].iter().enumerate() {
                let code = code as u16;
                let node = catalog.child(level, beam.node.clone(), code);
                if filter.allowed_in(node.clone()) > 0 {
                    all.push(Beam::scored(beam.score + log_prob, node, parent, code));
                }
            }
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.node.start.cmp(&b.node.start)));
        all.truncate(width);
        all.sort_by_key(|beam| beam.node.start);
        all
    }

    /// For the best items that a filter allows.
    fn best_of(filter: &ItemFilter, beams: usize) -> EngineQuery {
        EngineQuery { input: vec![], beams, filter: filter.clone(), sampling: None }
    }

    #[test]
    fn the_best_come_first_and_ties_in_the_order_of_their_ids() {
        let keys = [-3.0, 0.0, -1e-40, 2.5, -3.0, f32::MIN, 1e-40, -0.0, 2.5, f32::MAX, -2.5];
        let hit = |at: usize| Hit { rank: at as u32, score: 0.0, key: keys[at] };
        let found = best_first(keys.len(), hit, &mut vec![7; 3]);
        let mut expected: Vec<Hit> = (0..keys.len()).map(hit).collect();
        expected.sort_by(|a, b| b.key.total_cmp(&a.key));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_number_is_not_lost_among_better_scores() {
        for nan in [f32::NAN, -f32::NAN] {
            let hit = |at: usize| Hit::scored(at as u32, [f32::INFINITY, 3.0, nan, f32::MAX][at]);
            assert_eq!(best_first(4, hit, &mut Vec::new())[0].rank, 2, "{nan}");
        }
    }

    #[test]
    fn dense_and_sparse_nodes_follow_the_definition() {
        let mut random = Random::new(3);
        let every = |step: usize| -> Vec<u32> { (0..20_000).step_by(step).collect() };
        let third = ItemFilter::new(&every(3), None, 20_000);
        let few = ItemFilter::new(&[], Some(&every(997)), 20_000);
        for (sizes, items) in [(vec![4, 5, 3000], 20_000), (vec![9, 40, 60], 20_000)] {
            let shape = Shape { levels: sizes.clone(), items, ..Shape::default() };
            let bundle = random_bundle(&shape, WeightFormat::F32, 0);
            let everything = ItemFilter::everything();
            let mut candidates = Candidates::default();
            for filter in [&everything, &third, &few] {
                for width in [1, 7, 64, 512] {
                    let mut beams = vec![Beam::root(&bundle.catalog)];
                    for (level, &codes) in sizes.iter().enumerate() {
                        // Few values, so that many are the same.
                        let count = beams.len() * codes as usize;
                        let log_probs: Vec<f32> =
                            (0..count).map(|_| -(random.below(9) as f32)).collect();
                        let catalog = &bundle.catalog;
                        let expected = plainly(catalog, filter, level, &beams, &log_probs, width);
                        let query = best_of(filter, width);
                        candidates.extend(catalog, &query, level, &mut beams, &log_probs);
                        assert_eq!(beams, expected, "{sizes:?}, level {level}, width {width}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_level_has_as_many_codes_as_there_are() {
        const CODES: u32 = 1 << 16;
        let tokens = TokenLayout::contiguous(&[CODES, DENSE as u32 + 1], 0, 1);
        let item = |n: u32| CatalogItem { id: n.to_string(), codes: vec![n % CODES, n / CODES] };
        let catalog = Catalog::from_items((0..=DENSE as u32 * CODES).map(item).collect(), &tokens);
        let catalog = catalog.unwrap_or_else(|e| panic!("{e}"));
        let log_probs: Vec<f32> = (0..CODES).map(|code| code as f32).collect();
        let mut beams = vec![Beam::root(&catalog)];
        let everything = ItemFilter::everything();
        let expected = plainly(&catalog, &everything, 0, &beams, &log_probs, 5);
        let query = best_of(&everything, 5);
        Candidates::default().extend(&catalog, &query, 0, &mut beams, &log_probs);
        assert_eq!(beams, expected);
        assert_eq!(beams.last().map(|beam| beam.code), Some(u16::MAX));
    }
}
