//! Training the recommender.

pub mod samples;
pub mod schedule;
mod state;
mod tensorboard;
pub mod trainer;

pub use samples::Batching;
pub use trainer::{Outcome, Precision, Settings, Trainer};
