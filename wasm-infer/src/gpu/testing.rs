//! What tests ask of the engine.

use super::plan::{Kernels, RECORD, Scratch};
use super::{GpuEngine, GpuOptions};
use crate::error::InferError;

impl GpuEngine {
    /// Takes up other kernels and says whether the device has all that is asked for. `wide` forces
    /// the wide tiles that only software adapters choose by default; they take subgroups, and without
    /// these the narrow ones stay. Without `wide`, linear layers and attentions compute as on GPUs.
    pub fn use_kernels(&mut self, options: GpuOptions, wide: bool) -> bool {
        let extras = self.executor.info().extras;
        let kernels = options.kernels(self.executor.info());
        let wide_granted = !wide || kernels.subgroups;
        self.plan.set_kernels(Kernels { wide: wide && kernels.subgroups, split: !wide, ..kernels });
        let granted = |wish: Option<bool>, has: bool| has || wish != Some(true);
        granted(options.halves, extras.halves)
            && granted(options.packed_products, extras.packed_products)
            && granted(options.subgroups, extras.subgroups)
            && wide_granted
    }

    /// Logits of the last step of the last [`GpuEngine::search`]: each live beam's decoder input after the
    /// start token (codes of all levels but the last) with its `vocab_size` logits.
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
}
