//! Products with weight matrices that are stored in panels of output columns.

use super::fixed::{FixedLinear, FixedPoint};
use super::lanes::{Floats, Lanes, PANEL, ROWS, Work, run, wide};
use crate::weights::{Weight, WeightData};

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// It replaces the output.
    Store,
    /// What is negative in it becomes zero, then it replaces the output.
    Relu,
    /// It is added to the output.
    Add,
}

impl Write {
    /// Writes a part of a row.
    #[inline(always)]
    pub(super) fn write(self, out: &mut [f32], values: &[f32; PANEL]) {
        // All panels but the last are whole, and a length that is known is a few instructions.
        match out.first_chunk_mut::<PANEL>() {
            Some(whole) => self.each(whole, values),
            None => self.each(out, values),
        }
    }

    #[inline(always)]
    fn each(self, out: &mut [f32], values: &[f32]) {
        match self {
            Self::Store => out.iter_mut().zip(values).for_each(|(out, v)| *out = *v),
            Self::Relu => out.iter_mut().zip(values).for_each(|(out, v)| *out = v.max(0.0)),
            Self::Add => out.iter_mut().zip(values).for_each(|(out, v)| *out += v),
        }
    }
}

/// Evaluates an expression for all tiles, with their rows as a constant for the compiler.
macro_rules! for_each_tile {
    ($rows:expr, |$first:ident, $r:ident| $tile:expr) => {
        let rows = $rows;
        let mut $first = 0;
        // Fewer than a tile's rows are left in the end: three are two and one.
        while $first + ROWS <= rows {
            const $r: usize = ROWS;
            $tile;
            $first += ROWS;
        }
        if $first + 2 <= rows {
            const $r: usize = 2;
            $tile;
            $first += 2;
        }
        if $first < rows {
            const $r: usize = 1;
            $tile;
        }
    };
}
pub(super) use for_each_tile;

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
        let integers =
            weights.iter().all(|w| matches!(w.data, WeightData::Q8 { .. } | WeightData::Q4 { .. }));
        if integers {
            return Self::Fixed(FixedLinear::stack(weights));
        }
        let inputs = weights.first().map_or(0, |w| w.columns());
        let rows: Vec<f32> = weights.iter().flat_map(|weight| weight.to_f32()).collect();
        Self::Float(Linear::from_rows(rows.len() / inputs.max(1), inputs, &rows))
    }

    /// Output columns.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Float(linear) => linear.outputs,
            Self::Fixed(fixed) => fixed.outputs(),
        }
    }

    /// `x[rows, inputs] * weight^T` to `out[rows, outputs]`; `fixed` is scratch.
    pub(super) fn apply(&self, x: &[f32], fixed: &mut FixedPoint, out: &mut [f32], write: Write) {
        match self {
            Self::Float(linear) => {
                let rows = |row: usize| &x[row * linear.inputs..][..linear.inputs];
                let count = x.len() / linear.inputs;
                product(&linear.panels, linear.inputs, count, rows, |row, column, values| {
                    let width = PANEL.min(linear.outputs - column);
                    let at = row * linear.outputs + column;
                    write.write(&mut out[at..at + width], values);
                });
            }
            Self::Fixed(matrix) => matrix.apply(x, fixed, out, write),
        }
    }
}

/// A weight matrix `[outputs, inputs]` of floats.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    outputs: usize,
    inputs: usize,
    /// `[outputs / PANEL, inputs]`, the last panel padded with zeros.
    panels: Vec<Floats>,
}

impl Linear {
    /// Packs a matrix `[outputs, inputs]`.
    pub(crate) fn from_rows(outputs: usize, inputs: usize, rows: &[f32]) -> Self {
        let mut panels = vec![Floats([0.0; PANEL]); outputs.div_ceil(PANEL) * inputs];
        for (row, values) in rows.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[row / PANEL * inputs..][..inputs];
            for (column, &value) in panel.iter_mut().zip(values) {
                column.0[row % PANEL] = value;
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
        let row = |row: usize| &x[row * self.inputs..][..self.inputs];
        product(&self.panels, self.inputs, rows, row, |row, column, values| {
            let width = PANEL.min(self.outputs - column);
            Write::Store.write(&mut out[row * self.outputs + column..][..width], values);
        });
    }
}

/// Multiplies rows, `x(row)` of `inputs` numbers each, with `panels` (`[outputs / PANEL, inputs]`);
/// `store(row, first column, values)` takes the result.
pub(super) fn product<'x>(
    panels: &[Floats],
    inputs: usize,
    rows: usize,
    x: impl Fn(usize) -> &'x [f32],
    store: impl FnMut(usize, usize, &[f32; PANEL]),
) {
    run(Product { panels, inputs, rows, x, store });
}

struct Product<'p, X, S> {
    panels: &'p [Floats],
    inputs: usize,
    rows: usize,
    x: X,
    store: S,
}

impl<'x, X, S> Work for Product<'_, X, S>
where
    X: Fn(usize) -> &'x [f32],
    S: FnMut(usize, usize, &[f32; PANEL]),
{
    #[inline(always)]
    fn with(mut self, lanes: impl Lanes) {
        for (index, panel) in self.panels.chunks_exact(self.inputs).enumerate() {
            for_each_tile!(self.rows, |first, R| {
                let rows: [&[f32]; R] = std::array::from_fn(|r| (self.x)(first + r));
                for (r, values) in lanes.floats::<R>(panel, rows).iter().enumerate() {
                    (self.store)(first + r, index * PANEL, values);
                }
            });
        }
    }
}

/// Dot product in eight lanes, so that it vectorises; the same result on every machine.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    wide(
        #[inline(always)]
        || dot_here(a, b),
    )
}

/// [`dot`] inside of a vectorised loop.
#[inline(always)]
pub(super) fn dot_here(a: &[f32], b: &[f32]) -> f32 {
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
    use crate::weights::WeightFormat;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_equal_the_plain_loop(
            rows in 1usize..10,
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
            prop_assert!((dot(&weight, &weight) - expected).abs() <= 1e-4 * expected.max(1.0));
        }

        #[test]
        fn all_instructions_give_the_same_bits(k in 1usize..70, seed in 0u32..1000) {
            struct Both<'a>(&'a Linear, &'a FixedLinear, &'a [f32], &'a mut Vec<u32>);
            impl Work for Both<'_> {
                fn with(self, lanes: impl Lanes) {
                    let Self(linear, fixed, x, bits) = self;
                    let sums = lanes.floats::<1>(&linear.panels[..linear.inputs], [x]);
                    bits.extend(sums[0].iter().map(|v| v.to_bits()));
                    let mut point = FixedPoint::default();
                    let mut out = vec![0.0; fixed.outputs()];
                    point.set(x, x.len());
                    fixed.fill(lanes, &point, &mut out, Write::Store);
                    bits.extend(out.iter().map(|v| v.to_bits()));
                }
            }
            let value = |i: u32| ((i + seed).wrapping_mul(2_654_435_761) % 1009) as f32 / 504.5 - 1.0;
            let values: Vec<f32> = (0..16 * k as u32).map(value).collect();
            let x: Vec<f32> = (0..k as u32).map(|i| value(i + 77)).collect();
            let linear = Linear::from_rows(16, k, &values);
            let fixed = Weight::quantize(WeightFormat::Q8, [16, k], values);
            let fixed = FixedLinear::stack(&[&fixed]);
            let (mut best, mut plain) = (Vec::new(), Vec::new());
            run(Both(&linear, &fixed, &x, &mut best));
            Both(&linear, &fixed, &x, &mut plain).with(super::super::lanes::Portable);
            prop_assert_eq!(best, plain);
        }
    }
}
