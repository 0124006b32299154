//! A sparse matrix, compressed by rows, times a dense one.

use rayon::prelude::*;

/// Row `i` has the entries `starts[i]..starts[i + 1]` of `columns` and `values`.
#[derive(Debug, Clone)]
pub struct SparseMatrix {
    columns_count: usize,
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl SparseMatrix {
    /// A matrix from rows of (column, value), in any order within a row.
    pub fn from_rows(columns_count: usize, rows: impl Iterator<Item = Vec<(u32, f32)>>) -> Self {
        let mut matrix = Self { columns_count, starts: vec![0], columns: vec![], values: vec![] };
        for row in rows {
            for (column, value) in row {
                matrix.columns.push(column);
                matrix.values.push(value);
            }
            matrix.starts.push(matrix.columns.len());
        }
        matrix
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns_count
    }

    fn row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> {
        let entries = self.starts[row]..self.starts[row + 1];
        let columns = self.columns[entries.clone()].iter().map(|&column| column as usize);
        columns.zip(self.values[entries].iter().copied())
    }

    /// The transpose.
    pub fn transpose(&self) -> Self {
        let mut starts = vec![0; self.columns_count + 1];
        for &column in &self.columns {
            starts[column as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let (mut columns, mut values) = (vec![0; self.columns.len()], vec![0.0; self.values.len()]);
        for row in 0..self.rows() {
            for (column, value) in self.row(row) {
                columns[next[column]] = row as u32;
                values[next[column]] = value;
                next[column] += 1;
            }
        }
        Self { columns_count: self.rows(), starts, columns, values }
    }

    /// Times a row-major dense matrix `[columns, width]`; gives `[rows, width]`.
    ///
    /// Rows are shared among threads; the result does not depend on how many there are.
    pub fn times(&self, dense: &[f32], width: usize) -> Vec<f32> {
        assert_eq!(dense.len(), self.columns_count * width, "a dense row for every column");
        let mut product = vec![0.0; self.rows() * width];
        product.par_chunks_exact_mut(width).enumerate().for_each(|(row, out)| {
            for (column, value) in self.row(row) {
                let from = &dense[column * width..(column + 1) * width];
                out.iter_mut().zip(from).for_each(|(o, d)| *o += value * d);
            }
        });
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_plain_loops() {
        // Rows with no entry, one, and several, out of order.
        let rows = [vec![], vec![(2, 1.5)], vec![(3, -1.0), (0, 2.0)], vec![(1, 0.5)], vec![]];
        let matrix = SparseMatrix::from_rows(4, rows.iter().cloned());
        let transposed = matrix.transpose();
        assert_eq!((transposed.rows(), transposed.columns()), (4, 5));
        for width in [1, 3] {
            let dense: Vec<f32> = (0..5 * width).map(|at| at as f32 - 4.0).collect();
            let mut across = vec![0.0; 4 * width];
            let mut down = vec![0.0; 5 * width];
            for (row, entries) in rows.iter().enumerate() {
                for &(column, value) in entries {
                    for at in 0..width {
                        down[row * width + at] += value * dense[column as usize * width + at];
                        across[column as usize * width + at] += value * dense[row * width + at];
                    }
                }
            }
            assert_eq!(matrix.times(&dense[..4 * width], width), down);
            assert_eq!(transposed.times(&dense, width), across);
        }
    }
}
