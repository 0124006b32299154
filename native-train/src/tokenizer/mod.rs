//! Semantic IDs: from content vectors to codes.

pub mod ids;
pub mod kmeans;
pub mod rqvae;
pub mod stats;
pub mod train;

pub use ids::{SemanticIds, resolve_collisions};
