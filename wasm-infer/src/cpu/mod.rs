//! The CPU engine: for machines without a GPU, and the oracle for every kernel.

mod decoder;
mod encoder;
mod first_layer;
mod matrix;
mod model;
#[cfg(feature = "testing")]
mod testing;
mod threads;

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::search::{Beam, Candidates, EngineQuery, Hit};
use crate::tokens::Level;
use decoder::Decoder;
use threads::Idle;

pub use model::Model;

/// Runs queries on the processor: vector instructions, threads natively.
///
/// Matrices in `q8` and `q4` are multiplied in integers and stay 16 bits a weight, others are
/// widened to `f32`. Products and sums depend neither on the instructions nor on the number of
/// threads; logarithms are the platform's.
pub struct CpuEngine {
    catalog: Arc<Catalog>,
    model: Model,
    /// The memory of searches that are over, for those to come.
    idle: Idle<Memory>,
}

/// What a search computes with.
#[derive(Default)]
struct Memory {
    decoder: Decoder,
    log_probs: Vec<f32>,
    tokens: Vec<u32>,
    parents: Vec<usize>,
    beams: Vec<Beam>,
    candidates: Candidates,
}

impl CpuEngine {
    /// Packs a bundle's weights.
    pub fn new(bundle: Arc<Bundle>) -> Self {
        let catalog = Arc::clone(&bundle.catalog);
        Self { catalog, model: Model::new(bundle), idle: Idle::default() }
    }

    /// Searches another catalogue from now on: that of the bundle with more items.
    pub(crate) fn set_catalog(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs a query: hits in the contract's order, at most `query.beams`.
    ///
    /// # Panics
    /// For an input that is empty, longer than the layout's longest, or has a token beyond the
    /// vocabulary, which [`crate::Recommender`] never makes.
    pub fn search(&self, query: &EngineQuery) -> Vec<Hit> {
        self.search_seen(query, &mut |_, _| {})
    }

    /// As [`CpuEngine::search`]; `see` is shown each level and the beams that survive it.
    pub(crate) fn search_seen(
        &self,
        query: &EngineQuery,
        see: &mut (dyn FnMut(usize, &[Beam]) + Send),
    ) -> Vec<Hit> {
        let root = Beam::root(&self.catalog);
        if query.filter.allowed_in(root.node.clone()) == 0 {
            return Vec::new();
        }
        let mut memory = self.idle.take();
        threads::enter(|| self.search_from(root, query, &mut memory, see));
        // A whole semantic ID is one item: every surviving range has length one.
        let hits = memory.candidates.hits(&memory.beams);
        self.idle.give_back(memory);
        hits
    }

    /// The log-probability of each code of a semantic ID after the encoder's input, given the codes
    /// before it.
    pub(crate) fn log_probs_of(&self, input: &[u32], codes: &[u16]) -> Vec<f32> {
        let (model, layout) = (&self.model, self.model.layout());
        let mut memory = self.idle.take();
        let Memory { decoder, log_probs, .. } = &mut memory;
        let found = threads::enter(|| {
            decoder.begin(model, input);
            let mut before = layout.decoder_start;
            let log_prob = |token| {
                decoder.step(model, &[before], &[0], Level { offset: token, size: 1 });
                decoder.log_probs(log_probs);
                before = token;
                log_probs[0]
            };
            layout.tokens_of(codes).map(log_prob).collect()
        });
        self.idle.give_back(memory);
        found
    }

    /// Runs queries, natively a thread each.
    ///
    /// # Panics
    /// As [`CpuEngine::search`].
    pub fn search_all(&self, queries: &[EngineQuery]) -> Vec<Vec<Hit>> {
        threads::map(queries, |query| self.search(query))
    }

    fn search_from(
        &self,
        root: Beam,
        query: &EngineQuery,
        memory: &mut Memory,
        see: &mut dyn FnMut(usize, &[Beam]),
    ) {
        let Memory { decoder, log_probs, tokens, parents, beams, candidates } = memory;
        let (model, layout) = (&self.model, &self.model.bundle().tokens);
        beams.clear();
        beams.push(root);
        decoder.begin(model, &query.input);
        for (level, codes) in layout.levels.iter().enumerate() {
            tokens.clear();
            match level.checked_sub(1).map(|before| layout.levels[before]) {
                None => tokens.push(layout.decoder_start),
                Some(before) => {
                    tokens.extend(beams.iter().map(|beam| before.token(beam.code)));
                }
            }
            parents.clear();
            parents.extend(beams.iter().map(|beam| beam.parent));
            decoder.step(model, tokens, parents, *codes);
            decoder.log_probs(log_probs);
            candidates.extend(&self.catalog, query, level, beams, log_probs);
            see(level, beams);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::ItemFilter;
    use crate::testing::{Shape, random_bundle};
    use crate::weights::WeightFormat;

    #[test]
    fn log_probs_of_a_semantic_id_are_those_of_its_logits() {
        for format in [WeightFormat::F32, WeightFormat::Q8] {
            let shape = Shape { decoder_start: 1, ..Shape::default() };
            let bundle = Arc::new(random_bundle(&shape, format, 1));
            let engine = CpuEngine::new(Arc::clone(&bundle));
            let layout = &bundle.tokens;
            let codes = |rank: u32| bundle.catalog.codes_of(rank);
            let input = layout.encoder_input(None, [3, 1, 4].map(codes).into_iter());
            let filter = ItemFilter::everything();
            let query = EngineQuery { input, beams: 9, filter, sampling: None };
            for hit in engine.search(&query) {
                let path: Vec<u32> = layout.tokens_of(codes(hit.rank)).collect();
                let before = [&[layout.decoder_start], &path[..path.len() - 1]].concat();
                let logits = engine.model().forced_logits(&query.input, &before);
                let rows = logits.chunks_exact(bundle.config.vocab_size).zip(&path);
                let expected: Vec<f32> = rows
                    .map(|(row, &token)| row[token as usize] - tigret_kernels::log_sum_exp(row))
                    .collect();
                assert_eq!(engine.log_probs_of(&query.input, codes(hit.rank)), expected);
            }
        }
    }
}
