//! The CPU engine: the fallback where there is no GPU, and the oracle for every kernel.

pub(crate) mod matmul;
mod model;

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::search::{Beam, EngineQuery, Hit, extend, level_log_probs, sort_hits};

pub use model::{Decoder, Model};

/// Runs queries in plain Rust on one thread.
///
/// Quantised matrices are widened to `f32` once, at load.
pub struct CpuEngine {
    bundle: Arc<Bundle>,
    catalog: Arc<Catalog>,
    model: Model,
}

impl CpuEngine {
    /// Unpacks a bundle's weights.
    pub fn new(bundle: Arc<Bundle>) -> Self {
        let model = Model::new(&bundle);
        let catalog = Arc::clone(&bundle.catalog);
        Self { bundle, catalog, model }
    }

    /// Searches another catalogue from now on: that of the bundle with more items.
    pub fn set_catalog(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
    }

    /// The model, for looking at logits.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs a query: hits in the contract's order, at most `query.beams`.
    pub fn search(&self, query: &EngineQuery) -> Vec<Hit> {
        let (tokens, catalog) = (&self.bundle.tokens, &*self.catalog);
        let mut beams = vec![Beam::root(catalog)];
        if query.filter.allowed_in(beams[0].node.clone()) == 0 {
            return Vec::new();
        }
        let mut decoder = self.model.decoder(&query.input);
        for (level, layout) in tokens.levels.iter().enumerate() {
            let step: Vec<u32> = if level == 0 {
                vec![tokens.decoder_start]
            } else {
                let previous = tokens.levels[level - 1];
                beams.iter().map(|beam| previous.offset + u32::from(beam.code)).collect()
            };
            let parents: Vec<usize> = beams.iter().map(|beam| beam.parent).collect();
            let logits = decoder.step(&step, &parents);
            let log_probs = level_log_probs(logits, self.bundle.config.vocab_size, *layout);
            let sampling = query.sampling.as_ref();
            beams =
                extend(catalog, &query.filter, sampling, level, &beams, &log_probs, query.beams);
        }
        // A whole semantic ID is one item: every surviving range has length one.
        let mut hits: Vec<Hit> = beams.iter().map(Beam::hit).collect();
        sort_hits(&mut hits);
        hits
    }
}
