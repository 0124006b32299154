//! Truncated singular value decomposition of a sparse matrix, by random projection.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

pub use super::sparse::SparseMatrix;
use crate::error::Result;
use crate::workers::on_one_torch_thread;

/// Extra columns of the projection (Halko et al. recommend 5 to 10).
const OVERSAMPLING: usize = 10;

/// Rounds of subspace iteration; text spectra decay slowly, and each round sharpens them.
const ROUNDS: usize = 4;

/// Singular values below this share of the largest are rounding, not rank.
const RANK_TOLERANCE: f64 = 1e-5;

/// A linear map from rows of a matrix to vectors: the first right singular vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Length of the vectors.
    pub dimensions: usize,
    /// Row-major `[columns, dimensions]`.
    pub data: Vec<f32>,
}

impl Projection {
    /// The vectors of a matrix's rows, row-major `[rows, dimensions]`; each depends on its own row
    /// alone.
    pub fn apply(&self, matrix: &SparseMatrix) -> Vec<f32> {
        matrix.times(&self.data, self.dimensions)
    }
}

/// The projection of the rows of `matrix` to at most `dimensions` dimensions that loses least: its
/// first right singular vectors, so that the projected rows are the first left ones, each scaled
/// by its singular value.
///
/// Fewer dimensions come back where the matrix has a smaller rank; `after_round` is called after
/// each of [`rounds`] steps. Randomised subspace iteration with an orthogonal basis after every
/// product (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). The same seed gives the
/// same result with any number of threads.
///
/// # Errors
/// [`TrainError::Torch`](crate::TrainError::Torch) from the dense factorisations.
pub fn truncated(
    matrix: &SparseMatrix,
    dimensions: usize,
    seed: u64,
    after_round: impl Fn(),
) -> Result<Projection> {
    on_one_torch_thread(|| subspace_iteration(matrix, dimensions, seed, after_round))
}

fn subspace_iteration(
    matrix: &SparseMatrix,
    dimensions: usize,
    seed: u64,
    after_round: impl Fn(),
) -> Result<Projection> {
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
    let (across, small) = Tensor::f_linalg_qr(&dense(&across, columns, width)?, "reduced")?;
    let (_, values, right) = small.f_tr()?.f_svd(true, true)?;
    let values_host = Vec::<f64>::try_from(values.f_to_kind(Kind::Double)?)?;
    let largest = values_host.first().copied().unwrap_or_default();
    let rank = values_host.iter().filter(|&&value| value > RANK_TOLERANCE * largest).count();
    let kept = rank.min(dimensions).max(1);
    let projection = across.f_matmul(&right)?.f_narrow(1, 0, kept as i64)?;
    after_round();
    Ok(Projection { dimensions: kept, data: entries(&projection)? })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::testing::with_threads;

    /// A sparse matrix of pseudo-random entries, and the same dense, `[rows, columns]`.
    fn matrix(rows: usize, columns: usize, rank: usize) -> (SparseMatrix, Tensor) {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut factor = |m: usize, n: usize| -> Vec<f32> {
            (0..m * n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
        };
        let left = dense(&factor(rows, rank), rows, rank).unwrap();
        let right = dense(&factor(rank, columns), rank, columns).unwrap();
        // Falling weights give the singular values a spread, as text has.
        let weights: Vec<f32> = (0..rank).map(|at| 0.9f32.powi(at as i32)).collect();
        let product = (left * Tensor::from_slice(&weights)).matmul(&right);
        let values = entries(&product).unwrap();
        let row = |at: usize| {
            let of_row = values[at * columns..(at + 1) * columns].iter();
            of_row.enumerate().map(|(column, &value)| (column as u32, value)).collect()
        };
        (SparseMatrix::from_rows(columns, (0..rows).map(row)), product)
    }

    /// Inner products of all pairs of rows: what a rotation of the result leaves as it is.
    fn gram(projection: &Projection, matrix: &SparseMatrix) -> Tensor {
        let rows = projected(projection, matrix);
        rows.matmul(&rows.tr())
    }

    fn projected(projection: &Projection, matrix: &SparseMatrix) -> Tensor {
        dense(&projection.apply(matrix), matrix.rows(), projection.dimensions).unwrap()
    }

    #[test]
    fn the_approximation_is_as_good_as_the_exact_one() {
        let (sparse, exact) = matrix(60, 45, 45);
        let found = truncated(&sparse, 8, 0, || ()).unwrap();
        assert_eq!((found.dimensions, found.data.len()), (8, 45 * 8));
        let (u, s, _) = exact.svd(true, true);
        let best = u.narrow(1, 0, 8) * s.narrow(0, 0, 8);
        let expected = best.matmul(&best.tr());
        let error = (gram(&found, &sparse) - &expected).norm().double_value(&[]);
        assert!(error < 1e-3 * expected.norm().double_value(&[]), "off by {error}");
        // Columns come with falling length, the singular values.
        let lengths = projected(&found, &sparse).norm_scalaropt_dim(2.0, [0], false);
        let off = (lengths - s.narrow(0, 0, 8)).abs().max().double_value(&[]);
        assert!(off < 1e-3, "singular values are off by {off}");
    }

    #[test]
    fn a_smaller_rank_gives_fewer_dimensions() {
        let (sparse, exact) = matrix(40, 30, 5);
        let found = truncated(&sparse, 20, 0, || ()).unwrap();
        assert_eq!(found.dimensions, 5);
        let error =
            (gram(&found, &sparse) - exact.matmul(&exact.tr())).abs().max().double_value(&[]);
        assert!(error < 1e-3, "off by {error}");
    }

    #[test]
    fn odd_shapes_work() {
        for (rows, columns) in [(1, 1), (1, 7), (7, 1), (3, 50), (50, 3)] {
            let (sparse, exact) = matrix(rows, columns, rows.min(columns));
            let found = truncated(&sparse, 256, 0, || ()).unwrap();
            assert!(found.dimensions <= rows.min(columns), "{rows} x {columns}");
            let error =
                (gram(&found, &sparse) - exact.matmul(&exact.tr())).abs().max().double_value(&[]);
            assert!(error < 1e-3, "{rows} x {columns} is off by {error}");
        }
    }

    #[test]
    fn a_seed_fixes_the_result() {
        let (sparse, _) = matrix(30, 20, 20);
        let once = truncated(&sparse, 4, 1, || ()).unwrap();
        assert_eq!(once, truncated(&sparse, 4, 1, || ()).unwrap());
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (sparse, _) = matrix(700, 500, 300);
        let [one, two, three] =
            with_threads([1, 2, 3], || truncated(&sparse, 64, 1, || ()).unwrap());
        assert!(one == two && one == three);
    }

    #[test]
    fn progress_reports_every_round() {
        let (sparse, _) = matrix(30, 20, 20);
        let count = std::cell::Cell::new(0);
        truncated(&sparse, 4, 1, || count.set(count.get() + 1)).unwrap();
        assert_eq!(count.get(), rounds());
    }
}
