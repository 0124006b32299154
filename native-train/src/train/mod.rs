//! Training the recommender.

pub mod batch;
pub(crate) mod driver;
mod log;
pub mod loss;
pub mod record;
pub mod samples;
pub mod schedule;
pub mod settings;
pub(crate) mod state;
mod tensorboard;
pub mod trainer;

pub use driver::{Limits, Outcome, Stopped};
pub use samples::Batching;
pub use schedule::{Schedule, shorter_warmup};
pub use settings::{OptimizerKind, Options, Precision, Settings};
pub use state::{Begun, begun, forget};
pub use trainer::Trainer;
