//! Runs a Tigret bundle: catalogue, constrained beam search, CPU and WebGPU engines.
//!
//! [`Bundle`] reads and checks the file, [`Recommender`] answers requests on an engine of choice.

pub mod bundle;
pub mod catalog;
pub mod config;
pub mod cpu;
pub mod error;
pub mod explain;
mod filter;
pub mod gpu;
pub mod ids;
pub mod quantizer;
pub mod recommender;
pub mod sampling;
pub mod search;
pub mod tensor_file;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tokens;
#[cfg(target_arch = "wasm32")]
mod wasm;
pub mod weights;

pub use bundle::Bundle;
pub use catalog::{Catalog, CatalogFile, CatalogItem};
pub use config::T5Config;
pub use error::{BundleError, InferError};
pub use gpu::GpuOptions;
pub use quantizer::{NewItem, Quantizer, QuantizerConfig, QuantizerTensors, Structure};
pub use recommender::{Added, Backend, Pick, Recommendation, Recommender, Request};
pub use sampling::Sampling;
pub use tokens::TokenLayout;
pub use weights::{Q4, Q4_GROUP, Weight, WeightData, WeightFormat};
