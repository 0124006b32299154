//! Optimised product quantisation (Ge, He, Ke and Sun 2013): a rotation under which cutting the
//! vectors into parts loses least.

use rand::Rng;
use tch::{Kind, Tensor};

use super::kmeans::{kmeans, nearest, sample, sums_by};
use crate::model::params::to_vec;
use crate::workers::on_one_torch_thread;

/// Rounds of fitting rotation and codebooks in turn.
const ROUNDS: usize = 10;

/// A rotation and a codebook a part.
#[derive(Debug)]
pub(super) struct ProductCodes {
    /// `[levels * width, input]`, orthonormal rows: what is cut into parts is `rotation x`.
    pub(super) rotation: Tensor,
    /// `[size, width]` a level.
    pub(super) codebooks: Vec<Tensor>,
}

/// Fits to centred vectors `[items, input]`, `input >= sizes.len()`.
///
/// Starts from the parametric solution (principal components shared out so that the parts have
/// variances of about the same product), then fits codebooks and rotation in turn (Ge et al.,
/// section 3). Where the levels do not divide the input, the rotation leaves some dimensions
/// out: at the start the components of least variance.
pub(super) fn fit(data: &Tensor, sizes: &[i64], rng: &mut impl Rng) -> ProductCodes {
    let levels = sizes.len();
    let width = data.size()[1] / levels as i64;
    let points = sample(data, sizes.iter().copied().max().unwrap_or(1), rng);
    let mut rotation = on_one_torch_thread(|| share_out(&points, levels, width));
    let mut codebooks: Vec<Tensor> = Vec::new();
    for _ in 0..ROUNDS {
        let rotated = points.matmul(&rotation.transpose(0, 1));
        let mut quantised = Vec::new();
        codebooks = sizes
            .iter()
            .enumerate()
            .map(|(level, &size)| {
                let part = rotated.narrow(1, level as i64 * width, width);
                let clusters = kmeans(&part, size, rng);
                quantised.push(clusters.centres.index_select(0, &clusters.nearest));
                clusters.centres
            })
            .collect();
        // Orthogonal Procrustes: the rotation that brings the points nearest to their codewords.
        let quantised = Tensor::cat(&quantised, 1);
        rotation = on_one_torch_thread(|| {
            let (u, _, v) = quantised.transpose(0, 1).matmul(&points).svd(true, true);
            u.matmul(&v.transpose(0, 1))
        });
    }
    // The codebooks belong to the rotation before the last one: fit them once more to it.
    let rotated = points.matmul(&rotation.transpose(0, 1));
    for (level, codebook) in codebooks.iter_mut().enumerate() {
        let part = rotated.narrow(1, level as i64 * width, width);
        *codebook = refine(&part, codebook);
    }
    ProductCodes { rotation, codebooks }
}

/// One round of Lloyd's algorithm from given centres.
fn refine(points: &Tensor, centres: &Tensor) -> Tensor {
    let (_, nearest) = nearest(points, centres);
    let sums = sums_by(&nearest, points, centres.size()[0]);
    let counts = nearest.bincount(None::<Tensor>, centres.size()[0]).to_kind(Kind::Float);
    let means = sums / counts.clamp_min(1.0).unsqueeze(1);
    means.where_self(&counts.gt(0.0).unsqueeze(1), centres)
}

/// Principal components, each given in order of variance to the part with the smallest product of
/// variances that still has room (Ge et al., section 3.2).
fn share_out(points: &Tensor, levels: usize, width: i64) -> Tensor {
    let covariance = points.transpose(0, 1).matmul(points) / points.size()[0] as f64;
    let (variances, components) = covariance.linalg_eigh("L");
    let variances = to_vec(&variances);
    let mut parts: Vec<(f64, Vec<i64>)> = vec![(0.0, Vec::new()); levels];
    // Ascending as libtorch gives them.
    for (at, variance) in variances.iter().enumerate().rev() {
        let room = parts.iter_mut().filter(|(_, chosen)| (chosen.len() as i64) < width);
        if let Some((product, chosen)) = room.min_by(|a, b| a.0.total_cmp(&b.0)) {
            // Logarithms; a variance of zero must not make a part the smallest for ever.
            *product += f64::from(variance.max(1e-12)).ln() - (1e-12f64).ln();
            chosen.push(at as i64);
        }
    }
    let order: Vec<i64> = parts.into_iter().flat_map(|(_, chosen)| chosen).collect();
    let order = Tensor::from_slice(&order).to_device(points.device());
    components.index_select(1, &order).transpose(0, 1).contiguous()
}
