//! Training the recommender.

pub mod samples;
pub mod schedule;
mod state;
pub mod trainer;

pub use trainer::{Outcome, Settings, Trainer};
