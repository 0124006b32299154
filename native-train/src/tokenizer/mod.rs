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

use rand::Rng;
use tch::Tensor;

pub use fit::{Fitted, fit};
pub use ids::SemanticIds;
pub(crate) use ids::{TOKENIZE, ids_of, lacks, read_ids};
pub use settings::{Method, Settings};

/// Points a codeword that k-means is fitted to; more change the codebook by less than another
/// seed does.
const MOST_POINTS_PER_CODEWORD: i64 = 256;

/// The rows that k-means is fitted to: all, or a random part of a large data set.
fn sample(data: &Tensor, largest_codebook: i64, rng: &mut impl Rng) -> Tensor {
    let (items, wanted) = (data.size()[0], largest_codebook * MOST_POINTS_PER_CODEWORD);
    if items <= wanted {
        return data.shallow_clone();
    }
    let rows = rand::seq::index::sample(rng, items as usize, wanted as usize);
    let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
    data.index_select(0, &Tensor::from_slice(&rows).to_device(data.device()))
}
