//! The model: T5 in tch, its parameters, optimisers and files.

pub(crate) mod average;
pub mod checkpoint;
pub mod dropout;
mod layers;
pub mod optimizer;
pub mod padding;
pub mod params;
pub mod presets;
pub mod provenance;
pub mod t5;
pub mod trained;

pub use params::Params;
pub use provenance::{IdsOf, Provenance};
pub use t5::T5;
pub(crate) use trained::check_ids;
pub use trained::{TrainedModel, check_model};
