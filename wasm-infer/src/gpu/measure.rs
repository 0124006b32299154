//! What benchmarks ask of the engine.

use std::time::Instant;

use super::plan::{BufferId, Dispatch, Plan, Scratch};
use super::{GpuEngine, batch_of};
use crate::error::InferError;
use crate::search::EngineQuery;

/// What no call can be faster than on a device: as many launches that do nothing, and the weights
/// that the launches read, each once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Floor {
    /// Median seconds of as many launches of nothing, in one pass, with submit and read-back.
    pub launches: f64,
    /// Bytes of weights that the linear layers of a call read.
    pub weight_bytes: u64,
    /// What the device reads and writes a second in copying.
    pub bytes_per_second: f64,
}

impl Floor {
    /// Seconds of a call.
    pub fn seconds(&self) -> f64 {
        self.launches + self.weight_bytes as f64 / self.bytes_per_second
    }
}

impl GpuEngine {
    /// Runs a query with each launch in a pass of its own, and returns the kernels' names with
    /// the nanoseconds of each launch, in order. What lies between launches is not in them.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the adapter has no timestamps; else as [`GpuEngine::search`].
    pub async fn profile(
        &mut self,
        query: &EngineQuery,
    ) -> Result<Vec<(&'static str, f64)>, InferError> {
        let Some(batch) = batch_of(&[query]) else { return Ok(Vec::new()) };
        let dispatches = self.upload(&[query], batch)?;
        let times = self.executor.profile(&dispatches).await?;
        Ok(dispatches.iter().map(|dispatch| dispatch.shader.name).zip(times).collect())
    }

    /// What no call can be faster than, [`Floor`].
    ///
    /// # Errors
    /// As [`GpuEngine::search`].
    pub async fn floor(&mut self, query: &EngineQuery) -> Result<Floor, InferError> {
        let Some(batch) = batch_of(&[query]) else { return Ok(Floor::default()) };
        let dispatches = self.upload(&[query], batch)?;
        let of_one = |dispatch| -> u64 {
            self.plan.weights_of(dispatch).into_iter().map(|id| self.executor.bytes(id)).sum()
        };
        let weight_bytes = dispatches.iter().map(of_one).sum();
        let nothing = vec![self.plan.nothing(); dispatches.len()];
        let result = self.plan.beams_before(0);
        let mut launches = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            self.executor.run(&nothing, result, 1).await?;
            launches.push(begin.elapsed().as_secs_f64());
        }
        // Far more than a cache holds. The first clears the buffers.
        let bytes = self.executor.limit().min(128 << 20);
        let seconds = self.executor.time_copies(bytes, &[1, 8, 16, 8, 16, 8, 16]).await?;
        let least = |which| seconds.iter().skip(which).step_by(2).copied().fold(f64::MAX, f64::min);
        // Submit and wait are in both.
        let of_eight = (least(2) - least(1)).max(f64::EPSILON);
        // Read and written.
        let bytes_per_second = 2.0 * (8 * bytes) as f64 / of_eight;
        launches.sort_by(f64::total_cmp);
        Ok(Floor { launches: launches[launches.len() / 2], weight_bytes, bytes_per_second })
    }
}

impl Plan {
    /// A launch of one workgroup that does nothing.
    fn nothing(&self) -> Dispatch {
        let embed = self.embed(self.id(Scratch::Tokens), self.id(Scratch::DecoderStream), 0);
        Dispatch { groups: [1, 1], ..embed }
    }

    /// The constants that a launch reads whole: the weights of a linear layer.
    fn weights_of(&self, dispatch: &Dispatch) -> Vec<BufferId> {
        let linear = dispatch.shader.name.starts_with("linear");
        let constant = |id: &BufferId| id.0 < self.constants.len();
        dispatch.buffers.iter().copied().filter(|id| linear && constant(id)).collect()
    }
}
