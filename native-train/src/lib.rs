//! Trains a generative recommender (TIGER) and exports it to a bundle.
//!
//! Each step reads and writes plain artefacts in a [`run_dir::RunDir`]. Of their modules each uses
//! only those before it: [`data`], [`embed`], [`model`], [`tokenizer`], [`evaluate`], [`train`],
//! [`export`]. The model's parts come before the tokenizer, whose autoencoder is made of them, and
//! evaluation before training, which validates.

// Such a macro panics where standard error cannot be written: use `stderr::say`.
#![deny(clippy::print_stderr)]

#[cfg(not(unix))]
compile_error!("`tigret` trains on Linux and macOS; on Windows, build it in WSL 2");

pub mod baselines;
pub mod cli;
pub mod data;
mod destination;
pub mod device;
pub mod embed;
pub mod error;
pub mod evaluate;
pub mod export;
mod files;
mod hash;
pub mod interrupt;
mod memory;
pub mod metrics;
pub mod model;
mod panics;
pub mod pipeline;
mod random;
mod report;
pub mod run_dir;
mod site;
pub mod stderr;
mod study;
mod tensors;
pub mod tokenizer;
pub mod train;
pub mod usage;
mod workers;

pub use error::{Result, TrainError};
