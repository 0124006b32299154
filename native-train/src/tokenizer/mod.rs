//! From content vectors to semantic IDs (paper, section 3.1).
//!
//! Every method ([`settings::Method`]) is [fitted](mod@fit) to a `tigret_infer::Quantizer`, so that
//! codes are computed by one function for a whole catalogue, for a [new item](mod@assign), and in the
//! browser.

pub mod assign;
pub mod autoencoder;
mod balance;
pub mod check;
mod codes;
pub mod collaborative;
pub mod collisions;
pub mod fit;
pub mod hierarchical_kmeans;
mod ids;
mod kmeans;
mod opq;
pub mod quantizer_file;
pub mod residual_kmeans;
pub mod settings;
pub mod state;
pub mod stats;
pub mod train;

pub use fit::{Fitted, fit};
pub use ids::SemanticIds;
pub(crate) use ids::{TOKENIZE, ids_of, lacks, read_ids};
pub use settings::{Method, Settings};
