//! Products with weight matrices that are stored in panels of output columns.

use crate::lanes::{Floats, Lanes, PANEL, ROWS, Work, run, wide};

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It replaces the output.
    Store,
    /// What is negative in it becomes zero, then it replaces the output.
    Relu,
    /// It is added to the output.
    Add,
}

impl Write {
    /// Writes a part of some rows, `width` numbers of each, times the row's scale; `out` begins with
    /// the first of them, and holds rows of `stride`.
    // In wasm the function exists once: copies of it in every product would be bytes to download.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub(crate) fn write(
        self,
        out: &mut [f32],
        stride: usize,
        width: usize,
        rows: &[[f32; PANEL]],
        scales: &[f32],
    ) {
        debug_assert!(rows.is_empty() || out.len() >= (rows.len() - 1) * stride + width);
        for ((out, values), &scale) in out.chunks_mut(stride).zip(rows).zip(scales) {
            self.write_row(&mut out[..width], values, scale);
        }
    }

    #[inline(always)]
    fn write_row(self, out: &mut [f32], values: &[f32; PANEL], scale: f32) {
        // All panels but the last are whole, and a length that is known is a few instructions.
        match out.first_chunk_mut::<PANEL>() {
            Some(whole) => self.each(whole, values, scale),
            None => self.each(out, values, scale),
        }
    }

    #[inline(always)]
    fn each(self, out: &mut [f32], values: &[f32], scale: f32) {
        let pairs = out.iter_mut().zip(values);
        match self {
            Self::Store => pairs.for_each(|(out, v)| *out = v * scale),
            Self::Relu => pairs.for_each(|(out, v)| *out = relu(v * scale)),
            Self::Add => pairs.for_each(|(out, v)| *out += v * scale),
        }
    }
}

/// The scales of rows that have none.
pub(crate) const UNSCALED: &[f32] = &[1.0; ROWS];

/// `max(v, 0)`, and NaN of NaN. As unsigned integers, numbers with a sign are a stretch from its bit
/// to infinity's; a comparison of floats would be branches in wasm.
#[inline(always)]
fn relu(v: f32) -> f32 {
    let bits = v.to_bits();
    f32::from_bits(if bits.wrapping_sub(1 << 31) > f32::INFINITY.to_bits() { bits } else { 0 })
}

/// Evaluates an expression for all tiles, with their rows as a constant for the compiler.
///
/// The more rows a tile has, the more products there are for a load. After a tile of four, six would
/// leave two and nine five, and so tiles of one: both are threes. A tile of one is left to one, two
/// and five rows.
macro_rules! for_each_tile {
    ($rows:expr, |$first:ident, $r:ident| $tile:expr) => {
        let rows = $rows;
        let mut $first = 0;
        while $first + ROWS <= rows && !matches!(rows - $first, 6 | 9) {
            const $r: usize = ROWS;
            $tile;
            $first += ROWS;
        }
        while $first + 3 <= rows {
            const $r: usize = 3;
            $tile;
            $first += 3;
        }
        while $first < rows {
            const $r: usize = 1;
            $tile;
            $first += 1;
        }
    };
}
pub(crate) use for_each_tile;

/// A weight matrix `[outputs, inputs]` of floats.
#[derive(Debug, Clone)]
pub struct Linear {
    outputs: usize,
    inputs: usize,
    /// `[outputs / PANEL, inputs]`, the last panel padded with zeros.
    panels: Vec<Floats>,
}

impl Linear {
    /// Packs a matrix `[outputs, inputs]`.
    pub fn from_rows(outputs: usize, inputs: usize, rows: &[f32]) -> Self {
        let mut panels = vec![Floats([0.0; PANEL]); outputs.div_ceil(PANEL) * inputs];
        for (row, values) in rows.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[row / PANEL * inputs..][..inputs];
            for (column, &value) in panel.iter_mut().zip(values) {
                column.0[row % PANEL] = value;
            }
        }
        Self { outputs, inputs, panels }
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `x[rows, inputs] * weight^T` to `out[rows, outputs]`, each column summed in ascending order
    /// of `inputs`, whatever the instruction set: the result is the same on every machine.
    pub fn apply(&self, x: &[f32], out: &mut [f32], write: Write) {
        let row = |row: usize| &x[row * self.inputs..][..self.inputs];
        let rows = x.len() / self.inputs;
        product(&self.panels, self.inputs, rows, row, |first, column, rows| {
            let width = PANEL.min(self.outputs - column);
            let out = &mut out[first * self.outputs + column..];
            write.write(out, self.outputs, width, rows, UNSCALED);
        });
    }
}

/// Multiplies rows, `x(row)` of `inputs` numbers each, with `panels` (`[outputs / PANEL, inputs]`);
/// `store(first row, first column, rows)` takes the result.
pub(crate) fn product<'x>(
    panels: &[Floats],
    inputs: usize,
    rows: usize,
    x: impl Fn(usize) -> &'x [f32],
    store: impl FnMut(usize, usize, &[[f32; PANEL]]),
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
    S: FnMut(usize, usize, &[[f32; PANEL]]),
{
    #[inline(always)]
    fn with(mut self, lanes: impl Lanes) {
        for (index, panel) in self.panels.chunks_exact(self.inputs).enumerate() {
            for_each_tile!(self.rows, |first, R| {
                let rows: [&[f32]; R] = std::array::from_fn(|r| (self.x)(first + r));
                (self.store)(first, index * PANEL, &lanes.floats::<R>(panel, rows));
            });
        }
    }
}

/// Dot product in eight lanes, so that it vectorises; the same result on every machine.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    wide(
        #[inline(always)]
        || dot_here(a, b),
    )
}

/// Squared distance of two points; as in [`dot`], the same result on every machine.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    sum_of(
        a,
        b,
        #[inline(always)]
        |x, y| (x - y) * (x - y),
    )
}

/// [`dot`] inside of a vectorised loop.
#[inline(always)]
pub(crate) fn dot_here(a: &[f32], b: &[f32]) -> f32 {
    sum_of(
        a,
        b,
        #[inline(always)]
        |x, y| x * y,
    )
}

/// The sum of what each pair gives, in eight lanes.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_whole, b_whole) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_whole.remainder().iter().zip(b_whole.remainder());
    let rest: f32 = rest.map(|(&x, &y)| of(x, y)).sum();
    for (a, b) in a_whole.zip(b_whole) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += of(x, y);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::{FixedLinear, FixedPoint};
    use crate::lanes::run_with_each;
    use proptest::prelude::*;
    use std::cell::RefCell;

    /// Small integers, of which all sums are exact.
    fn integer(i: usize) -> f32 {
        (i * 7 % 11) as f32 - 5.0
    }

    #[test]
    fn what_is_negative_becomes_zero_and_what_is_no_number_stays_none() {
        for v in [-0.0, -1e-40, -1.0, f32::NEG_INFINITY, 0.0] {
            assert_eq!(relu(v).to_bits(), 0, "{v}");
        }
        assert!([f32::NAN, -f32::NAN].map(relu).iter().all(|v| v.is_nan()));
        for v in [1e-40, 1.0, f32::INFINITY] {
            assert_eq!(relu(v), v);
        }
    }

    #[test]
    fn tiles_of_all_sizes_store_rectify_and_add_what_plain_loops_do() {
        const INPUTS: usize = 9;
        for (rows, outputs) in (1..=13).flat_map(|rows| [1, 16, 23].map(|outputs| (rows, outputs)))
        {
            let x: Vec<f32> = (0..rows * INPUTS).map(integer).collect();
            let weight: Vec<f32> = (0..outputs * INPUTS).map(|i| integer(i + 3)).collect();
            let before: Vec<f32> = (0..rows * outputs).map(|i| integer(i + 5)).collect();
            let linear = Linear::from_rows(outputs, INPUTS, &weight);
            for write in [Write::Store, Write::Relu, Write::Add] {
                let mut out = before.clone();
                linear.apply(&x, &mut out, write);
                for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
                    let (x, weight) =
                        (&x[at / outputs * INPUTS..], &weight[at % outputs * INPUTS..]);
                    let product: f32 = x.iter().zip(weight).take(INPUTS).map(|(x, w)| x * w).sum();
                    let expected = match write {
                        Write::Store => product,
                        Write::Relu => product.max(0.0),
                        Write::Add => before + product,
                    };
                    assert_eq!(
                        found, expected,
                        "{write:?}, {rows} rows, {outputs} outputs, at {at}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn all_instructions_give_the_same_bits(
            rows in 1usize..15,
            outputs in 1usize..40,
            k in 1usize..70,
            seed in 0u32..1000,
        ) {
            struct Both<'a>(&'a Linear, &'a FixedLinear, &'a [f32], &'a RefCell<Vec<Vec<u32>>>);
            impl Work for Both<'_> {
                fn with(self, lanes: impl Lanes) {
                    let Self(linear, fixed, x, all) = self;
                    let mut results = Vec::new();
                    let Linear { panels, inputs, .. } = linear;
                    let rows = x.len() / inputs;
                    let row = |row: usize| &x[row * inputs..][..*inputs];
                    let store = |_: usize, _: usize, rows: &[[f32; PANEL]]| {
                        results.extend(rows.as_flattened());
                    };
                    Product { panels, inputs: *inputs, rows, x: row, store }.with(lanes);
                    let mut point = FixedPoint::default();
                    point.set(x, *inputs);
                    let mut out = vec![0.0; rows * fixed.outputs()];
                    fixed.fill(lanes, &point, &mut out, Write::Store);
                    results.extend(out);
                    all.borrow_mut().push(results.iter().map(|v| v.to_bits()).collect());
                }
            }
            let integer = |i: usize| (i as u32 + seed).wrapping_mul(2_654_435_761);
            let value = |i: usize| (integer(i) % 1009) as f32 / 504.5 - 1.0;
            let values: Vec<f32> = (0..outputs * k).map(value).collect();
            let x: Vec<f32> = (0..rows * k).map(|i| value(i + 77)).collect();
            let linear = Linear::from_rows(outputs, k, &values);
            let integers = |row: usize, out: &mut [i8]| {
                let all = (row * k..).map(|i| (integer(i) >> 24) as i8);
                out.iter_mut().zip(all).for_each(|(out, i)| *out = i);
            };
            let scale = |row: usize, column: usize| value(row * k + column);
            let fixed = FixedLinear::new(outputs, k, Some(32), integers, scale);
            let all = RefCell::new(Vec::new());
            run_with_each(|| Both(&linear, &fixed, &x, &all));
            let all = all.into_inner();
            for one in &all[1..] {
                prop_assert_eq!(one, &all[0]);
            }
        }
    }
}
