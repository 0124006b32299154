//! The CPU engine: for machines without a GPU, and the oracle for every kernel.

mod decoder;
mod encoder;
mod first_layer;
mod matrix;
mod model;
mod threads;

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::search::{Beam, Candidates, EngineQuery, Hit};
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

    /// The model, for looking at logits.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs a query: hits in the contract's order, at most `query.beams`.
    ///
    /// # Panics
    /// For an input that is empty or has a token beyond the vocabulary, which
    /// [`crate::Recommender`] never makes.
    pub fn search(&self, query: &EngineQuery) -> Vec<Hit> {
        self.search_seen(query, |_, _| {})
    }

    /// As [`CpuEngine::search`]; `see` is shown each level and the beams that survive it.
    pub(crate) fn search_seen(
        &self,
        query: &EngineQuery,
        see: impl FnMut(usize, &[Beam]) + Send,
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
        mut see: impl FnMut(usize, &[Beam]),
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
