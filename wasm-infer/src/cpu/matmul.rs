//! Matrix product with a weight matrix, in panels that the compiler turns into SIMD.

use crate::weights::Weight;

/// Output columns of one panel.
const PANEL: usize = 8;
/// Input rows that share one pass over a panel. Three by eight is the largest tile that LLVM turns
/// into vectors whole: of four rows, or of 16 columns, it leaves most scalar, on AVX2 and on wasm's
/// SIMD128 alike, and takes 3.5 times as long.
const ROWS: usize = 3;

/// A weight matrix `[n, k]`, stored in panels of [`PANEL`] output columns: `[n / PANEL, k, PANEL]`,
/// the last one padded with zeros.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    outputs: usize,
    inputs: usize,
    panels: Vec<f32>,
}

impl Linear {
    /// Packs matrices of equal width one above the other.
    pub(super) fn stack(weights: &[&Weight]) -> Self {
        let inputs = weights.first().map_or(0, |w| w.columns());
        let rows: Vec<f32> = weights.iter().flat_map(|weight| weight.to_f32()).collect();
        Self::from_rows(rows.len() / inputs.max(1), inputs, &rows)
    }

    /// Packs a matrix `[outputs, inputs]`.
    pub(crate) fn from_rows(outputs: usize, inputs: usize, rows: &[f32]) -> Self {
        let mut panels = vec![0.0; outputs.div_ceil(PANEL) * inputs * PANEL];
        for (row, values) in rows.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[row / PANEL * inputs * PANEL..];
            for (k, &value) in values.iter().enumerate() {
                panel[k * PANEL + row % PANEL] = value;
            }
        }
        Self { outputs, inputs, panels }
    }

    /// `out[rows, outputs] = x[rows, inputs] * weight^T`, each column summed in ascending order
    /// of `inputs`, whatever the instruction set: the result is the same on every machine.
    pub(crate) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        let rows = x.len() / self.inputs;
        out.clear();
        out.resize(rows * self.outputs, 0.0);
        #[cfg(not(target_arch = "wasm32"))]
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.fill(x, out),
        );
        #[cfg(target_arch = "wasm32")]
        self.fill(x, out);
    }

    #[inline(always)]
    fn fill(&self, x: &[f32], out: &mut [f32]) {
        for (index, panel) in self.panels.chunks_exact(self.inputs * PANEL).enumerate() {
            let column = index * PANEL;
            let width = PANEL.min(self.outputs - column);
            let blocks = x.chunks(ROWS * self.inputs).zip(out.chunks_mut(ROWS * self.outputs));
            for (x, out) in blocks {
                match x.len() / self.inputs {
                    ROWS => self.tile::<ROWS>(panel, x, out, column, width),
                    2 => self.tile::<2>(panel, x, out, column, width),
                    _ => self.tile::<1>(panel, x, out, column, width),
                }
            }
        }
    }

    #[inline(always)]
    fn tile<const R: usize>(
        &self,
        panel: &[f32],
        x: &[f32],
        out: &mut [f32],
        column: usize,
        width: usize,
    ) {
        let mut sums = [[0.0f32; PANEL]; R];
        // Lengths that the compiler can see to be equal, so that no bound is checked in the loop.
        let (panel, _) = panel.as_chunks::<PANEL>();
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * self.inputs..][..panel.len()]);
        for (k, weights) in panel.iter().enumerate() {
            for (sum, row) in sums.iter_mut().zip(rows) {
                let value = row[k];
                for (s, w) in sum.iter_mut().zip(weights) {
                    *s += value * w;
                }
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            out[r * self.outputs + column..][..width].copy_from_slice(&sum[..width]);
        }
    }
}

/// Dot product in eight lanes, so that it vectorises; the same result on every machine.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_whole, b_whole) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_whole.remainder().iter().zip(b_whole.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a_whole.zip(b_whole) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::WeightData;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn linear_equals_the_plain_loop(rows in 1usize..9, n in 1usize..40, k in 1usize..20, split in 0usize..40) {
            let value = |i: usize| ((i * 37 + 11) % 23) as f32 / 7.0 - 1.5;
            let weight: Vec<f32> = (0..n * k).map(value).collect();
            let x: Vec<f32> = (0..rows * k).map(|i| value(i + 5)).collect();
            let split = split.min(n);
            let part = |from: usize, to: usize| Weight {
                shape: vec![to - from, k],
                data: WeightData::F32(weight[from * k..to * k].to_vec()),
            };
            let linear = Linear::stack(&[&part(0, split), &part(split, n)]);
            let mut out = Vec::new();
            linear.apply(&x, &mut out);
            prop_assert_eq!(out.len(), rows * n);
            for r in 0..rows {
                for c in 0..n {
                    let expected: f32 = (0..k).map(|i| x[r * k + i] * weight[c * k + i]).sum();
                    prop_assert!((out[r * n + c] - expected).abs() < 1e-4);
                }
            }
            let expected: f32 = weight.iter().map(|w| w * w).sum();
            prop_assert!((dot(&weight, &weight) - expected).abs() <= 1e-4 * expected.max(1.0));
        }
    }
}
