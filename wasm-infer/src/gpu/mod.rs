//! The WebGPU engine (being built).

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::InferError;
use crate::search::{EngineQuery, Hit};

/// The engine that runs the WGSL kernels.
pub struct GpuEngine {
    adapter: String,
}

impl GpuEngine {
    /// Uploads a bundle.
    ///
    /// # Errors
    /// [`InferError::NoGpu`].
    pub async fn new(_bundle: Arc<Bundle>) -> Result<Self, InferError> {
        Err(InferError::NoGpu("not built yet".into()))
    }

    /// The adapter's name.
    pub fn adapter_name(&self) -> &str {
        &self.adapter
    }

    /// Runs a query.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub async fn search(&mut self, _query: &EngineQuery) -> Result<Vec<Hit>, InferError> {
        Ok(Vec::new())
    }
}
