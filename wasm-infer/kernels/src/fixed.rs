//! Products with quantised matrices, in integers.
//!
//! An input row becomes 16-bit integers times a scale; weights are integers already. Sums of their
//! products are exact, so the one error is the rounding of the inputs, 1/65,534 of the largest of
//! a row at most, and the result does not depend on the instruction set. Two products and their
//! sum are one instruction on every target, which halves the work of floats.

use crate::lanes::{Floats, Lanes, PANEL, Pairs, ROWS, Work, run, wide};
use crate::matmul::{Write, for_each_tile};

/// Largest magnitude of an input.
const LARGEST: f32 = 32767.0;
/// Columns whose products with weights of 8 bits fit into 31 bits, whatever they are:
/// 512 * 32767 * 128 < 2^31.
const COLUMNS: usize = 512;

/// Rows of integers, with a scale each.
#[derive(Debug, Default)]
pub struct FixedPoint {
    /// Two neighbouring columns each; by tiles of rows (as `for_each_tile` makes them), and of a
    /// tile `[pairs, rows]`.
    values: Vec<i32>,
    scales: Vec<f32>,
}

impl FixedPoint {
    /// Rounds rows of `inputs` numbers.
    pub(crate) fn set(&mut self, x: &[f32], inputs: usize) {
        let (rows, pairs) = (x.len() / inputs, inputs.div_ceil(2));
        self.values.resize(rows * pairs, 0);
        self.scales.resize(rows, 0.0);
        wide(
            #[inline(always)]
            || {
                for_each_tile!(rows, |first, R| {
                    let x = &x[first * inputs..][..R * inputs];
                    let (values, _) = self.values[first * pairs..][..R * pairs].as_chunks_mut();
                    round::<R>(x, inputs, values, &mut self.scales[first..]);
                });
            },
        );
    }
}

/// Rounds a tile's rows of `inputs` numbers, and notes their scales.
#[inline(always)]
fn round<const R: usize>(x: &[f32], inputs: usize, values: &mut [[i32; R]], scales: &mut [f32]) {
    /// Floats of this size have a step of 1, and their low bits are the integer.
    const STEP_OF_ONE: f32 = 12_582_912.0;
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * inputs..][..inputs]);
    let largest = rows.map(largest);
    // A row that is all but zero has no inverse, and one with NaN none either: its scale is NaN, and
    // thus its products.
    let factors = largest.map(|l| if l > 1e-30 { LARGEST / l } else { 0.0 });
    let integer = |r: usize, k: usize| (rows[r][k] * factors[r] + STEP_OF_ONE).to_bits();
    for (k, values) in values.iter_mut().enumerate() {
        for (r, value) in values.iter_mut().enumerate() {
            let low = integer(r, 2 * k) & 0xffff;
            let high = if 2 * k + 1 < inputs { integer(r, 2 * k + 1) << 16 } else { 0 };
            *value = (low | high).cast_signed();
        }
    }
    for (scale, largest) in scales.iter_mut().zip(largest) {
        *scale = largest / LARGEST;
    }
}

/// The largest magnitude of a row; NaN where the row has one. Magnitudes ascend as their bits do,
/// with NaN above infinity: a comparison of floats would pass it over.
// In wasm the function exists once: copies of it in every tile would be bytes to download.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn largest(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().fold(0, |largest, v| largest.max(v.to_bits() & 0x7fff_ffff)))
}

/// A weight matrix `[outputs, inputs]` of integers, with scales.
#[derive(Debug)]
pub struct FixedLinear {
    outputs: usize,
    inputs: usize,
    /// Pairs of columns that share a scale.
    group: usize,
    /// `[outputs / PANEL, pairs]`, padded with zeros.
    panels: Vec<Pairs>,
    /// `[outputs / PANEL, groups]`.
    scales: Vec<Floats>,
}

impl FixedLinear {
    /// Packs a matrix `[outputs, inputs]`: `integers` writes a row of it, and `scale` tells what a row
    /// is multiplied by from a column on. A row has one scale, or one for each `group` columns.
    ///
    /// # Panics
    /// When `group` is odd or no divisor of 512.
    pub fn new(
        outputs: usize,
        inputs: usize,
        group: Option<usize>,
        integers: impl Fn(usize, &mut [i8]),
        scale: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let columns = group.unwrap_or(COLUMNS);
        assert!(columns.is_multiple_of(2) && COLUMNS.is_multiple_of(columns), "group of {columns}");
        let group = columns / 2;
        let pairs = inputs.div_ceil(2);
        let groups = pairs.div_ceil(group);
        let panels = outputs.div_ceil(PANEL);
        let mut packed = Self {
            outputs,
            inputs,
            group,
            panels: vec![Pairs([0; 2 * PANEL]); panels * pairs],
            scales: vec![Floats([0.0; PANEL]); panels * groups],
        };
        // The last half pair of a row stays zero where there is none.
        let mut row = vec![0i8; 2 * pairs];
        for output in 0..outputs {
            let (panel, lane) = (output / PANEL, output % PANEL);
            integers(output, &mut row[..inputs]);
            let panels = &mut packed.panels[panel * pairs..][..pairs];
            for (weights, pair) in panels.iter_mut().zip(row.chunks_exact(2)) {
                weights.0[2 * lane] = pair[0].into();
                weights.0[2 * lane + 1] = pair[1].into();
            }
            for index in 0..groups {
                packed.scales[panel * groups + index].0[lane] = scale(output, index * 2 * group);
            }
        }
        packed
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x[rows, inputs] * weight^T` to `out[rows, outputs]`; `fixed` is scratch.
    pub fn apply(&self, x: &[f32], fixed: &mut FixedPoint, out: &mut [f32], write: Write) {
        struct Fill<'a>(&'a FixedLinear, &'a FixedPoint, &'a mut [f32], Write);
        impl Work for Fill<'_> {
            #[inline(always)]
            fn with(self, lanes: impl Lanes) {
                self.0.fill(lanes, self.1, self.2, self.3);
            }
        }
        fixed.set(x, self.inputs);
        run(Fill(self, fixed, out, write));
    }

    /// Multiplies rounded rows.
    #[inline(always)]
    pub(crate) fn fill(&self, lanes: impl Lanes, x: &FixedPoint, out: &mut [f32], write: Write) {
        let pairs = self.inputs.div_ceil(2);
        let groups = pairs.div_ceil(self.group);
        let panels = self.panels.chunks_exact(pairs).zip(self.scales.chunks_exact(groups));
        for (index, (panel, scales)) in panels.enumerate() {
            let column = index * PANEL;
            let width = PANEL.min(self.outputs - column);
            for_each_tile!(x.scales.len(), |first, R| {
                let (tile, _) = x.values[first * pairs..][..R * pairs].as_chunks::<R>();
                let mut sums = [[0.0f32; PANEL]; R];
                for (group, (panel, scales)) in panel.chunks(self.group).zip(scales).enumerate() {
                    let tile = &tile[group * self.group..][..panel.len()];
                    lanes.add_pairs::<R>(panel, tile, scales, &mut sums);
                }
                let out = &mut out[first * self.outputs + column..];
                write.write(out, self.outputs, width, &sums, &x.scales[first..]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_integers_do_not_overflow() {
        let columns = 3 * COLUMNS - 1;
        let weight = FixedLinear::new(1, columns, None, |_, row| row.fill(-128), |_, _| 1.0);
        let mut out = [0.0];
        let x = vec![1.0; columns];
        weight.apply(&x, &mut FixedPoint::default(), &mut out, Write::Store);
        let expected = -128.0 * columns as f32;
        assert!((out[0] / expected - 1.0).abs() < 1e-6, "{}, not {expected}", out[0]);
    }

    #[test]
    fn a_row_that_is_not_finite_has_no_finite_product() {
        const COLUMNS: usize = 19;
        let weight = FixedLinear::new(2, COLUMNS, None, |row, out| out.fill(row as i8), |_, _| 1.0);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for places in [0..COLUMNS, 0..1, 9..10, COLUMNS - 1..COLUMNS] {
                let mut x = vec![1.0; 3 * COLUMNS];
                x[COLUMNS..2 * COLUMNS][places.clone()].fill(bad);
                let mut out = [0.0; 6];
                weight.apply(&x, &mut FixedPoint::default(), &mut out, Write::Store);
                assert!(out[2..4].iter().all(|v| v.is_nan()), "{bad} at {places:?}: {out:?}");
                let others = [&out[..2], &out[4..]].concat();
                assert!(others.iter().all(|v| v.is_finite()), "{bad} at {places:?}: {out:?}");
            }
        }
    }

    #[test]
    fn small_rows_are_as_precise_as_large_ones() {
        let weight =
            FixedLinear::new(1, 3, None, |_, row| row.copy_from_slice(&[3, -1, 2]), |_, _| 0.5);
        for size in [1e-20f32, 1e-4, 1.0, 1e4] {
            let mut out = [0.0];
            let x = [1.0, 0.25, -0.5].map(|v| v * size);
            weight.apply(&x, &mut FixedPoint::default(), &mut out, Write::Store);
            assert!((out[0] / (0.875 * size) - 1.0).abs() < 1e-4, "{} of {size}", out[0]);
        }
    }

    #[test]
    fn rows_of_zeros_and_of_the_smallest_floats_are_zero() {
        let mut fixed = FixedPoint::default();
        fixed.set(&[0.0, 0.0, 0.0, f32::MIN_POSITIVE, -1e-40, 0.0, 1.0, -1.0, 0.5], 3);
        let values: &[[i16; 2]] = bytemuck::must_cast_slice(&fixed.values);
        let pairs = [[[0, 0], [0, 0], [32767, -32767]], [[0, 0], [0, 0], [16384, 0]]];
        assert_eq!(values, pairs.as_flattened());
    }
}
