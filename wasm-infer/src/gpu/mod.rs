//! The WebGPU engine: a whole recommendation in one pass, one submit and one read-back.
//!
//! `plan` turns the model into a list of dispatches, `executor` runs it. `docs/engine.md`
//! explains the plan kernel by kernel.

mod executor;
#[cfg(test)]
mod kernel_tests;
mod pack;
mod plan;

use std::sync::Arc;

use executor::Executor;
use plan::{Capacity, Dispatch, PERTURBED, Plan, RECORD, Scratch, Tile};

pub use executor::Counts;

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::error::InferError;
use crate::search::{EngineQuery, Hit, sort_hits};

/// Runs queries with the WGSL kernels.
pub struct GpuEngine {
    bundle: Arc<Bundle>,
    catalog: Arc<Catalog>,
    plan: Plan,
    executor: Executor,
    capacity: Capacity,
}

impl GpuEngine {
    /// Opens the best adapter and uploads a bundle.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where there is none, or none that can hold the model.
    pub async fn new(bundle: Arc<Bundle>) -> Result<Self, InferError> {
        let mut plan = Plan::new(&bundle);
        let mut executor = Executor::new(&plan.constants).await?;
        for constant in &mut plan.constants {
            // On the GPU now: nothing reads the host's copy again.
            constant.words = Vec::new();
        }
        plan.set_tile(if executor.is_software() { Tile::Wide } else { Tile::Narrow });
        let capacity = Capacity { beams: 64, listed: 1024 };
        executor.set_scratch(&plan.scratch(capacity))?;
        let catalog = Arc::clone(&bundle.catalog);
        Ok(Self { bundle, catalog, plan, executor, capacity })
    }

    /// Searches another catalogue from now on: that of the bundle with more items. Weights and
    /// pipelines stay.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where it exceeds the adapter's limits; the old one stays then.
    pub fn set_catalog(&mut self, catalog: Arc<Catalog>) -> Result<(), InferError> {
        self.executor.replace(self.plan.codes(), &plan::pack_codes(&catalog))?;
        self.plan.set_items(catalog.len());
        self.catalog = catalog;
        // With more items, more beams can be alive.
        self.executor.set_scratch(&self.plan.scratch(self.capacity))
    }

    /// Whether invocations of linear layers compute wide tiles: by itself, on software adapters
    /// only. The answer is the same.
    pub fn use_wide_tiles(&mut self, wide: bool) {
        self.plan.set_tile(if wide { Tile::Wide } else { Tile::Narrow });
    }

    /// The adapter's name.
    pub fn adapter_name(&self) -> &str {
        self.executor.adapter()
    }

    /// What the last call launched.
    pub fn counts(&self) -> Counts {
        self.executor.counts()
    }

    /// Runs a query: hits in the contract's order, at most `query.beams`.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] when the device fails, [`InferError::NoGpu`] when so many beams
    /// exceed its limits.
    pub async fn search(&mut self, query: &EngineQuery) -> Result<Vec<Hit>, InferError> {
        let dispatches = self.upload(query)?;
        let (plan, levels) = (&self.plan, self.bundle.tokens.levels.len());
        let rows = plan.rows(query.beams)[levels] as usize;
        let words = (rows + 1) * RECORD;
        let state = self.executor.run(&dispatches, plan.beams_before(levels), words).await?;
        let mut hits: Vec<Hit> = state
            .chunks_exact(RECORD)
            .skip(1)
            .take(state[0] as usize)
            .map(|beam| {
                let key = if query.sampling.is_some() { beam[PERTURBED] } else { beam[0] };
                Hit { rank: beam[1], score: f32::from_bits(beam[0]), key: f32::from_bits(key) }
            })
            .collect();
        sort_hits(&mut hits);
        Ok(hits)
    }

    /// Runs a query with each launch in a pass of its own, and returns the kernels' names with
    /// the nanoseconds of each launch, in order. What lies between launches is not in them.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the adapter has no timestamps; else as [`GpuEngine::search`].
    pub async fn profile(
        &mut self,
        query: &EngineQuery,
    ) -> Result<Vec<(&'static str, f64)>, InferError> {
        let dispatches = self.upload(query)?;
        let times = self.executor.profile(&dispatches).await?;
        Ok(dispatches.iter().map(|dispatch| dispatch.shader).zip(times).collect())
    }

    /// Puts a query on the GPU and returns what is to be launched.
    fn upload(&mut self, query: &EngineQuery) -> Result<Vec<Dispatch>, InferError> {
        let filter = query.filter.words();
        self.reserve(Capacity { beams: query.beams, listed: filter.len() })?;
        let (plan, executor) = (&self.plan, &mut self.executor);
        executor.upload(plan.id(Scratch::Input), &query.input);
        executor.upload(plan.id(Scratch::Tokens), &[self.bundle.tokens.decoder_start]);
        executor.upload(plan.id(Scratch::Listed), &filter);
        executor.upload(plan.beams_before(0), &plan.root());
        Ok(plan.dispatches(query))
    }

    /// Logits of the last step of the last call, for tests: each live beam's decoder input after
    /// the start token (codes of all levels but the last) with its `vocab_size` logits.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub async fn last_logits(
        &mut self,
        beams: usize,
    ) -> Result<Vec<(Vec<u16>, Vec<f32>)>, InferError> {
        let levels = self.bundle.tokens.levels.len();
        let rows = self.plan.rows(beams)[levels - 1] as usize;
        let before = self.plan.beams_before(levels - 1);
        let state = self.executor.read(before, (rows + 1) * RECORD).await?;
        let vocabulary = self.bundle.config.vocab_size;
        let stride = vocabulary.next_multiple_of(4);
        let logits = self.executor.read(self.plan.id(Scratch::Logits), rows * stride).await?;
        let live = state[0] as usize;
        Ok(state
            .chunks_exact(RECORD)
            .skip(1)
            .take(live)
            .zip(logits.chunks_exact(stride))
            .map(|(beam, logits)| {
                let codes = self.catalog.codes_of(beam[1])[..levels - 1].to_vec();
                (codes, logits[..vocabulary].iter().map(|&bits| f32::from_bits(bits)).collect())
            })
            .collect())
    }

    /// Makes room: buffers grow, by doubling, and never shrink.
    fn reserve(&mut self, needed: Capacity) -> Result<(), InferError> {
        let grow =
            |have: usize, need: usize| if need > have { need.next_power_of_two() } else { have };
        let capacity = Capacity {
            beams: grow(self.capacity.beams, needed.beams),
            listed: grow(self.capacity.listed, needed.listed),
        };
        if capacity != self.capacity {
            self.executor.set_scratch(&self.plan.scratch(capacity))?;
            self.capacity = capacity;
        }
        Ok(())
    }
}
