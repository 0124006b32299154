//! Trains a generative recommender (TIGER) and exports it to a bundle.
//!
//! Data flows one way: [`data`] -> [`embed`] -> `tokenizer` -> `model` -> `train` -> `evaluate`
//! -> `export`; each step reads and writes plain artefacts in a [`run_dir::RunDir`].

// Such a macro panics where standard error cannot be written: use `stderr::say`.
#![deny(clippy::print_stderr)]

pub mod baselines;
pub mod cli;
pub mod data;
pub mod device;
pub mod embed;
pub mod error;
pub mod evaluate;
pub mod export;
mod hash;
pub mod interrupt;
mod memory;
pub mod model;
mod output;
mod panics;
pub mod pipeline;
mod random;
pub mod report;
pub mod run_dir;
pub mod site;
pub mod stderr;
pub mod study;
mod tensors;
pub mod tokenizer;
pub mod train;
mod workers;

pub use error::{Result, TrainError};
