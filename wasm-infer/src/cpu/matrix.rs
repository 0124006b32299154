//! Weights of a bundle in the form in which the kernels compute with them.

use tigret_kernels::{FixedLinear, FixedPoint, Linear, Write};

use crate::weights::{Q4_GROUP, Weight, WeightFormat};

/// A matrix in the form in which its format computes fastest.
#[derive(Debug)]
pub(super) enum Matrix {
    /// From floats.
    Float(Linear),
    /// From integers with scales.
    Fixed(FixedLinear),
}

impl Matrix {
    /// Packs matrices of equal width and format one above the other.
    pub(super) fn stack(weights: &[&Weight]) -> Self {
        let inputs = weights.first().map_or(0, |w| w.columns());
        let group = match weights.first().map(|weight| weight.format()) {
            Some(WeightFormat::Q8) => None,
            Some(WeightFormat::Q4) => Some(Q4_GROUP),
            Some(WeightFormat::F32 | WeightFormat::F16) | None => {
                let rows: Vec<f32> = weights.iter().flat_map(|weight| weight.to_f32()).collect();
                return Self::Float(Linear::from_rows(rows.len() / inputs.max(1), inputs, &rows));
            }
        };
        let rows: Vec<(&Weight, usize)> = weights
            .iter()
            .flat_map(|&weight| (0..weight.rows()).map(move |r| (weight, r)))
            .collect();
        Self::Fixed(FixedLinear::new(
            rows.len(),
            inputs,
            group,
            |row, out| rows[row].0.integers(rows[row].1, 0, out),
            |row, column| rows[row].0.scale(rows[row].1, column),
        ))
    }

    /// Output columns.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Float(linear) => linear.outputs(),
            Self::Fixed(fixed) => fixed.outputs(),
        }
    }

    /// `x[rows, inputs] * weight^T` to `out[rows, outputs]`; `fixed` is scratch.
    pub(super) fn apply(&self, x: &[f32], fixed: &mut FixedPoint, out: &mut [f32], write: Write) {
        match self {
            Self::Float(linear) => linear.apply(x, out, write),
            Self::Fixed(matrix) => matrix.apply(x, fixed, out, write),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_equal_the_plain_loop(
            rows in 1usize..15,
            n in 1usize..40,
            k in 1usize..80,
            split in 0usize..40,
            format in 0usize..4,
        ) {
            let value = |i: usize| ((i * 37 + 11) % 23) as f32 / 7.0 - 1.5;
            let values: Vec<f32> = (0..n * k).map(value).collect();
            let x: Vec<f32> = (0..rows * k).map(|i| value(i + 5)).collect();
            let split = split.min(n);
            let part = |from: usize, to: usize| {
                let rows = values[from * k..to * k].to_vec();
                Weight::quantize(WeightFormat::ALL[format], [to - from, k], rows)
            };
            let (top, bottom) = (part(0, split), part(split, n));
            let weight = [top.to_f32(), bottom.to_f32()].concat();
            let matrix = Matrix::stack(&[&top, &bottom]);
            prop_assert_eq!(matrix.outputs(), n);
            for write in [Write::Store, Write::Relu, Write::Add] {
                let mut out = vec![0.25; rows * n];
                matrix.apply(&x, &mut FixedPoint::default(), &mut out, write);
                for r in 0..rows {
                    for c in 0..n {
                        let sum: f32 = (0..k).map(|i| x[r * k + i] * weight[c * k + i]).sum();
                        let expected = match write {
                            Write::Store => sum,
                            Write::Relu => sum.max(0.0),
                            Write::Add => sum + 0.25,
                        };
                        let found = out[r * n + c];
                        prop_assert!((found - expected).abs() < 2e-3, "{found}, not {expected}");
                    }
                }
            }
            let expected: f32 = weight.iter().map(|w| w * w).sum();
            let dot = tigret_kernels::dot(&weight, &weight);
            prop_assert!((dot - expected).abs() <= 1e-4 * expected.max(1.0));
        }
    }
}
