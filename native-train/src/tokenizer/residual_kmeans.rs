//! Residual k-means: residual quantisation of the content vectors themselves.

use rand::Rng;
use tch::Tensor;

use super::kmeans::{kmeans, sample};

/// A codebook `[size, input]` a level for vectors `[items, input]`: each clusters what the levels
/// before left.
pub fn codebooks(data: &Tensor, sizes: &[i64], rng: &mut impl Rng) -> Vec<Tensor> {
    let largest = sizes.iter().copied().max().unwrap_or(1);
    let mut residual = sample(data, largest, rng);
    sizes
        .iter()
        .map(|&size| {
            let clusters = kmeans(&residual, size, rng);
            residual = &residual - clusters.centres.index_select(0, &clusters.nearest);
            clusters.centres
        })
        .collect()
}
