//! What tests ask of the engine.

use super::plan::Kernels;
use super::{GpuEngine, GpuOptions};

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
}
