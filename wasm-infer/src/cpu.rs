//! The CPU engine.
use crate::bundle::Bundle;
use crate::search::{EngineQuery, Hit};
use std::sync::Arc;
/// CPU engine.
pub struct CpuEngine {
    bundle: Arc<Bundle>,
}
impl CpuEngine {
    /// New.
    pub fn new(bundle: Arc<Bundle>) -> Self {
        Self { bundle }
    }
    /// Search.
    pub fn search(&self, _q: &EngineQuery) -> Vec<Hit> {
        let _ = &self.bundle;
        Vec::new()
    }
}
