//! Truncated singular value decomposition of a sparse matrix, by random projection.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::Vectors;
pub use super::sparse::SparseMatrix;
use crate::error::Result;

/// Extra columns of the projection (Halko et al. recommend 5 to 10).
const OVERSAMPLING: usize = 10;

/// Rounds of subspace iteration; text spectra decay slowly, and each round sharpens them.
const ROUNDS: usize = 4;

/// Singular values below this share of the largest are rounding, not rank.
const RANK_TOLERANCE: f64 = 1e-5;

/// The best approximation of the rows of `matrix` in at most `dimensions` dimensions: the first
/// left singular vectors, each scaled by its singular value.
///
/// Fewer dimensions come back where the matrix has a smaller rank; `after_round` is called after
/// each of [`rounds`] steps. Randomised subspace iteration with an orthogonal basis after every
/// product (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). The same seed gives the
/// same result.
///
/// # Errors
/// [`TrainError::Torch`](crate::TrainError::Torch) from the dense factorisations.
pub fn truncated(
    matrix: &SparseMatrix,
    dimensions: usize,
    seed: u64,
    after_round: impl Fn(),
) -> Result<Vectors> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let width = (dimensions + OVERSAMPLING).min(rows).min(columns);
    let transposed = matrix.transpose();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Uniform entries project as well as Gaussian ones: only the subspace matters.
    let projection: Vec<f32> =
        (0..columns * width).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    let mut basis = orthogonal(&matrix.times(&projection, width), rows, width)?;
    after_round();
    for _ in 0..ROUNDS {
        let across = orthogonal(&transposed.times(&entries(&basis)?, width), columns, width)?;
        basis = orthogonal(&matrix.times(&entries(&across)?, width), rows, width)?;
        after_round();
    }
    // With A ~ Q Q^T A and A^T Q = P R: A ~ Q R^T P^T, so the small R^T holds the singular values.
    let across = transposed.times(&entries(&basis)?, width);
    let (_, small) = Tensor::f_linalg_qr(&dense(&across, columns, width)?, "reduced")?;
    let (left, values, _) = small.f_tr()?.f_svd(true, true)?;
    let values_host = Vec::<f64>::try_from(values.f_to_kind(Kind::Double)?)?;
    let largest = values_host.first().copied().unwrap_or_default();
    let rank = values_host.iter().filter(|&&value| value > RANK_TOLERANCE * largest).count();
    let kept = rank.min(dimensions).max(1);
    let scaled = basis.f_matmul(&left.f_mul(&values)?)?.f_narrow(1, 0, kept as i64)?;
    after_round();
    Ok(Vectors { dimensions: kept, data: entries(&scaled)? })
}

/// Steps that [`truncated`] reports.
pub fn rounds() -> u64 {
    ROUNDS as u64 + 2
}

fn dense(data: &[f32], rows: usize, columns: usize) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(data)?.f_view([rows as i64, columns as i64])?)
}

/// An orthonormal basis of the columns.
fn orthogonal(data: &[f32], rows: usize, columns: usize) -> Result<Tensor> {
    Ok(Tensor::f_linalg_qr(&dense(data, rows, columns)?, "reduced")?.0)
}

/// Row-major entries.
fn entries(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(tensor.f_contiguous()?.f_view([-1])?)?)
}
