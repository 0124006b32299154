//! Weight tensors in the formats that a bundle can hold.

use half::f16;

use crate::error::BundleError;

/// Columns that share a scale in [`WeightFormat::Q4`].
pub const Q4_GROUP: usize = 32;

/// How the weight matrices of a bundle are stored. Vectors and bias tables are always `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers, symmetric, a scale per output row.
    Q8,
    /// 4-bit integers, symmetric, a scale per group of [`Q4_GROUP`] columns of a row. In a bundle
    /// the token embedding and the output head are [`WeightFormat::Q8`] beside it.
    Q4,
}

impl WeightFormat {
    /// All of them, from the widest to the narrowest.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8, Self::Q4];

    /// The name in metadata and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The largest magnitude that can be stored.
    pub fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            // 127 times the rounded scale stays finite.
            Self::Q8 => 1e38,
            Self::F16 => f16::MAX.to_f32(),
            Self::Q4 => 7.0 * f16::MAX.to_f32(),
        }
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = BundleError;

    fn from_str(name: &str) -> Result<Self, BundleError> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            BundleError::metadata(
                "quantization",
                format!("\"{name}\" is not one of {}", Self::ALL.map(Self::name).join(", ")),
            )
        })
    }
}

/// One weight, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// `[rows, columns]` or `[length]`.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: WeightData,
}

/// The numbers of a weight.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum WeightData {
    /// As they are.
    F32(Vec<f32>),
    /// As they are.
    F16(Vec<f16>),
    /// Row `r` is `values[r] * scales[r]`.
    Q8 {
        /// `[rows, columns]`; Tigret writes none below -127.
        values: Vec<i8>,
        /// `[rows]`.
        scales: Vec<f32>,
    },
    /// Value `(r, c)` is `nibble(r, c) * scales[r, c / Q4_GROUP]`.
    Q4 {
        /// `[rows, columns / 2 rounded up]`: two's complement in `-8..=7`, even columns in the low
        /// halves of the bytes.
        nibbles: Vec<u8>,
        /// `[rows, columns / Q4_GROUP rounded up]`, of either sign.
        scales: Vec<f16>,
    },
}

impl Weight {
    /// Rows: 1 for a vector.
    pub fn rows(&self) -> usize {
        if self.shape.len() == 2 { self.shape[0] } else { 1 }
    }

    /// How the numbers are stored.
    pub(crate) fn format(&self) -> WeightFormat {
        match &self.data {
            WeightData::F32(_) => WeightFormat::F32,
            WeightData::F16(_) => WeightFormat::F16,
            WeightData::Q8 { .. } => WeightFormat::Q8,
            WeightData::Q4 { .. } => WeightFormat::Q4,
        }
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Bytes in a bundle, scales included.
    pub fn bytes(&self) -> usize {
        match &self.data {
            WeightData::F32(values) => 4 * values.len(),
            WeightData::F16(values) => 2 * values.len(),
            WeightData::Q8 { values, scales } => values.len() + 4 * scales.len(),
            WeightData::Q4 { nibbles, scales } => nibbles.len() + 2 * scales.len(),
        }
    }

    /// All numbers as `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.rows() * self.columns()];
        for (row, out) in all.chunks_exact_mut(self.columns().max(1)).enumerate() {
            self.row_to_f32(row, out);
        }
        all
    }

    /// One row of a matrix as `f32`, `[columns]`.
    pub(crate) fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        let columns = self.columns();
        let at = row * columns;
        match &self.data {
            WeightData::F32(values) => out.copy_from_slice(&values[at..at + columns]),
            WeightData::F16(values) => {
                out.iter_mut().zip(&values[at..]).for_each(|(out, v)| *out = v.to_f32());
            }
            WeightData::Q8 { .. } | WeightData::Q4 { .. } => {
                let mut integers = [0; Q4_GROUP];
                for (group, out) in out.chunks_mut(Q4_GROUP).enumerate() {
                    let column = group * Q4_GROUP;
                    self.integers(row, column, &mut integers[..out.len()]);
                    let scale = self.scale(row, column);
                    out.iter_mut().zip(integers).for_each(|(out, v)| *out = f32::from(v) * scale);
                }
            }
        }
    }

    /// Neighbouring integers of a row of a quantised matrix, from a column on.
    pub(crate) fn integers(&self, row: usize, column: usize, out: &mut [i8]) {
        match &self.data {
            WeightData::Q8 { values, .. } => {
                out.copy_from_slice(&values[row * self.columns() + column..][..out.len()]);
            }
            WeightData::Q4 { nibbles, .. } => {
                let nibbles = &nibbles[row * self.columns().div_ceil(2)..];
                out.iter_mut().zip(column..).for_each(|(out, at)| *out = nibble(nibbles, at));
            }
            WeightData::F32(_) | WeightData::F16(_) => debug_assert!(false, "these are floats"),
        }
    }

    /// What an integer of a quantised matrix is multiplied by; 1 for floats.
    pub(crate) fn scale(&self, row: usize, column: usize) -> f32 {
        match &self.data {
            WeightData::Q8 { scales, .. } => scales[row],
            WeightData::Q4 { scales, .. } => {
                scales[row * self.columns().div_ceil(Q4_GROUP) + column / Q4_GROUP].to_f32()
            }
            WeightData::F32(_) | WeightData::F16(_) => 1.0,
        }
    }

    /// Stores a matrix in a format; magnitudes are at most [`WeightFormat::largest`].
    pub fn quantize(format: WeightFormat, shape: [usize; 2], values: Vec<f32>) -> Self {
        let columns = shape[1].max(1);
        let data = match format {
            WeightFormat::F32 => WeightData::F32(values),
            WeightFormat::F16 => {
                WeightData::F16(values.iter().map(|&value| f16::from_f32(value)).collect())
            }
            WeightFormat::Q8 => quantize_q8(columns, &values),
            WeightFormat::Q4 => return Q4::nearest(columns, &values).pack(),
        };
        Self { shape: shape.to_vec(), data }
    }
}

/// A matrix of [`WeightFormat::Q4`] with a byte for each code, for whoever chooses codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Q4 {
    /// Length of a row, at least 1.
    pub columns: usize,
    /// `[rows, columns]`, in `-8..=7`.
    pub codes: Vec<i8>,
    /// `[rows, columns / Q4_GROUP rounded up]`, each from [`Q4::scale`].
    pub scales: Vec<f16>,
}

impl Q4 {
    /// The codes and scales that leave about the least squared error of each group.
    pub fn nearest(columns: usize, values: &[f32]) -> Self {
        let (mut codes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
        for group in values.chunks_exact(columns).flat_map(|row| row.chunks(Q4_GROUP)) {
            let scale = q4_scale(group);
            scales.push(scale);
            codes.extend(group.iter().map(|&value| Self::code(value, scale.to_f32())));
        }
        Self { columns, codes, scales }
    }

    /// The nearest code of a value.
    pub fn code(value: f32, scale: f32) -> i8 {
        // Every code is an i8.
        (value / scale).round().clamp(-8.0, 7.0) as i8
    }

    /// The nearest number that may be a scale: a half that is neither zero, subnormal (a GPU may
    /// take that for zero) nor infinite.
    pub fn scale(value: f32) -> f16 {
        let magnitude = value.abs().clamp(f16::MIN_POSITIVE.to_f32(), f16::MAX.to_f32());
        f16::from_f32(magnitude.copysign(value))
    }

    /// The matrix as a bundle holds it.
    pub fn pack(self) -> Weight {
        let half = |code: i8| code as u8 & 0xf;
        let pair = |pair: &[i8]| half(pair[0]) | half(pair.get(1).copied().unwrap_or(0)) << 4;
        let rows = self.codes.chunks_exact(self.columns);
        let shape = vec![rows.len(), self.columns];
        let nibbles = rows.flat_map(|row| row.chunks(2).map(pair)).collect();
        Weight { shape, data: WeightData::Q4 { nibbles, scales: self.scales } }
    }
}

/// The value of a column in a row of nibbles.
fn nibble(row: &[u8], column: usize) -> i8 {
    // The half byte is moved to the top and back, which extends its sign.
    (row[column / 2] << (4 * (1 - column % 2))) as i8 >> 4
}

/// The largest magnitude of a row maps to 127.
fn quantize_q8(columns: usize, values: &[f32]) -> WeightData {
    let mut quantised = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / columns);
    for row in values.chunks_exact(columns) {
        let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        // A scale is a positive number, and a normal one, which every device computes with.
        let scale = if largest > 0.0 { (largest / 127.0).max(f32::MIN_POSITIVE) } else { 1.0 };
        scales.push(scale);
        quantised.extend(row.iter().map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8));
    }
    WeightData::Q8 { values: quantised, scales }
}

/// The scale of a group that leaves the least squared error.
///
/// The codes reach one step further down than up, so the scale's sign matters. Of 34 scales around
/// the one that just reaches the largest magnitude, each is replaced by the best one for the codes
/// that it gives; clipping the outermost values often pays.
fn q4_scale(group: &[f32]) -> f16 {
    let largest = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return f16::ONE;
    }
    let mut best = (f32::INFINITY, f16::ONE);
    for reach in (20..=36).map(|quarters| quarters as f32 / 4.0) {
        for first in [largest / reach, -largest / reach] {
            let (mut products, mut squares) = (0.0, 0.0);
            for &value in group {
                let code = f32::from(Q4::code(value, first));
                products += value * code;
                squares += code * code;
            }
            let scale = Q4::scale(if squares > 0.0 { products / squares } else { first });
            let error = group.iter().map(|&value| {
                let stored = scale.to_f32() * f32::from(Q4::code(value, scale.to_f32()));
                (value - stored) * (value - stored)
            });
            let error: f32 = error.sum();
            if error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantised_values_stay_close(
            rows in 1usize..5,
            columns in 1usize..100,
            exponent in -6i32..5,
            seed in 0u32..1000,
        ) {
            let value = |i: u32| {
                let x = ((i + seed).wrapping_mul(2_654_435_761) % 1009) as f32 / 504.5 - 1.0;
                // Steep, as weights are: many small values, few large ones.
                x * x * x * 10f32.powi(exponent)
            };
            let values: Vec<f32> = (0..(rows * columns) as u32).map(value).collect();
            for format in WeightFormat::ALL {
                let weight = Weight::quantize(format, [rows, columns], values.clone());
                let read = weight.to_f32();
                prop_assert_eq!(read.len(), values.len());
                for (row, read) in values.chunks(columns).zip(read.chunks(columns)) {
                    for (group, read) in row.chunks(Q4_GROUP).zip(read.chunks(Q4_GROUP)) {
                        let span = |part: &[f32]| part.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                        let error: f32 =
                            group.iter().zip(read).map(|(v, r)| (v - r) * (v - r)).sum();
                        let error = (error / group.len() as f32).sqrt();
                        // Half a step in the worst case of each format; q4 has no smaller step
                        // than the smallest normal half.
                        let limit = match format {
                            WeightFormat::F32 => 0.0,
                            WeightFormat::F16 => span(group) / 2048.0 + 6e-8,
                            WeightFormat::Q8 => span(row) / 253.0,
                            WeightFormat::Q4 => span(group) / 14.0 + 4e-5,
                        };
                        prop_assert!(error <= limit, "{}: {} of {:?}", format.name(), error, group);
                    }
                }
            }
        }
    }

    #[test]
    fn the_search_for_scales_beats_the_largest_magnitude() {
        let values: Vec<f32> = (0..3200u32)
            .map(|i| {
                (0..4).map(move |k| {
                    ((i * 4 + k).wrapping_mul(2_654_435_761) % 2003) as f32 / 1001.5 - 1.0
                })
            })
            .map(Iterator::sum)
            .collect();
        let error =
            |read: &[f32]| -> f32 { values.iter().zip(read).map(|(v, r)| (v - r) * (v - r)).sum() };
        let searched = Weight::quantize(WeightFormat::Q4, [100, 32], values.clone()).to_f32();
        let plain: Vec<f32> = values
            .chunks(Q4_GROUP)
            .flat_map(|group| {
                let scale = group.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 7.0;
                group.iter().map(move |&value| f32::from(Q4::code(value, scale)) * scale)
            })
            .collect();
        assert!(error(&searched) < 0.8 * error(&plain), "{} {}", error(&searched), error(&plain));
    }

    #[test]
    fn zeros_stay_zero_and_extremes_stay_finite() {
        for format in WeightFormat::ALL {
            let zeros = Weight::quantize(format, [2, 33], vec![0.0; 66]);
            assert_eq!(zeros.to_f32(), [0.0; 66], "{}", format.name());
            let most = format.largest();
            let values = vec![most, -most, 0.0, f32::MIN_POSITIVE];
            let read = Weight::quantize(format, [1, 4], values).to_f32();
            assert!(read.iter().all(|v| v.is_finite()), "{}: {read:?}", format.name());
            assert!((read[0] / most - 1.0).abs() < 0.15, "{}: {read:?}", format.name());
        }
    }

    #[test]
    fn a_scale_is_a_positive_normal_number() {
        let row = vec![1e-44, -1e-45, 0.0, 0.0];
        let weight = Weight::quantize(WeightFormat::Q8, [1, 4], row);
        let WeightData::Q8 { scales, .. } = &weight.data else { panic!("not q8") };
        assert!(scales[0].is_normal(), "{}", scales[0]);
        assert_eq!(weight.to_f32(), [0.0; 4]);
    }

    #[test]
    fn a_scale_of_four_bits_is_a_normal_number_of_either_sign() {
        for value in [1e-9f32, -1e-9, 0.5, -0.5, 1e9, -1e9] {
            let scale = Q4::scale(value);
            assert!(scale.is_normal(), "{scale} for {value}");
            assert_eq!(scale.is_sign_negative(), value < 0.0, "{scale} for {value}");
        }
        // One step further down than up: only a negative scale reaches 8.
        let whole: Vec<f32> = (-7..=8).map(|v| v as f32).collect();
        for sign in [1.0, -1.0] {
            let values: Vec<f32> = whole.iter().map(|v| v * sign).collect();
            let weight = Weight::quantize(WeightFormat::Q4, [1, values.len()], values.clone());
            assert_eq!(weight.to_f32(), values);
        }
    }

    #[test]
    fn nibbles_are_signed_and_even_columns_low() {
        let row = [0x8f, 0x07];
        assert_eq!([0, 1, 2, 3].map(|column| nibble(&row, column)), [-1, -8, 7, 0]);
    }
}
