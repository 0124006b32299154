//! Lays weights out as the kernels read them: rows and columns padded with zeros to multiples of
//! four, every attention head on a multiple of four.

use half::f16;

use crate::weights::{Q4_GROUP, Weight, WeightData, WeightFormat};

/// One dimension of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Values one after the other.
    Plain(usize),
    /// Heads of `d_kv` values; each is padded on its own.
    Heads {
        /// Number of heads.
        heads: usize,
        /// Values of a head.
        d_kv: usize,
    },
}

impl Axis {
    /// Length with padding.
    pub(super) fn padded(self) -> usize {
        match self {
            Self::Plain(len) => len.next_multiple_of(4),
            Self::Heads { heads, d_kv } => heads * d_kv.next_multiple_of(4),
        }
    }

    /// Quads of four values, with padding.
    pub(super) fn quads(self) -> u32 {
        (self.padded() / 4) as u32
    }

    /// Whether padding comes at the end only.
    fn keeps_places(self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Heads { d_kv, .. } => d_kv.is_multiple_of(4),
        }
    }

    /// Where value `index` goes.
    fn place(self, index: usize) -> usize {
        match self {
            Self::Plain(_) => index,
            Self::Heads { d_kv, .. } => index / d_kv * d_kv.next_multiple_of(4) + index % d_kv,
        }
    }
}

/// A packed matrix as `shaders/shared/weights_*.wgsl` read it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packed {
    /// How the values are packed.
    pub(super) format: WeightFormat,
    /// The values.
    pub(super) words: Vec<u32>,
    /// `q8`: `f32` bits, one an output. `q4`: halves, two groups a word. Empty otherwise.
    pub(super) scales: Vec<u32>,
}

/// Packs matrices of the same shape and format one above the other.
///
/// A word holds neighbouring inputs of one output, and words of neighbouring outputs lie side by
/// side, since one load takes those of a quad and neighbouring invocations the next ones.
///
/// `q4` whose groups of columns would be torn apart by the padding of `inputs` (heads of a width
/// that is no multiple of four) is widened to `f32`.
pub(super) fn matrix(weights: &[&Weight], outputs: Axis, inputs: Axis) -> Packed {
    let all = weights.len() * outputs.padded();
    let columns = inputs.padded();
    let format = match weights.first().map(|weight| weight.format()) {
        Some(WeightFormat::Q4) if !inputs.keeps_places() => WeightFormat::F32,
        of_all => of_all.unwrap_or(WeightFormat::F32),
    };
    let (word, columns) = match format {
        WeightFormat::F32 => (1, columns),
        WeightFormat::F16 => (2, columns),
        WeightFormat::Q8 => (4, columns),
        WeightFormat::Q4 => (8, columns.next_multiple_of(Q4_GROUP)),
    };
    let bits = 32 / word;
    let mut words = vec![0u32; columns / word * all];
    let mut scales = match format {
        WeightFormat::F32 | WeightFormat::F16 => Vec::new(),
        WeightFormat::Q8 => vec![0u32; all],
        WeightFormat::Q4 => vec![0u32; (columns / Q4_GROUP).div_ceil(2) * all],
    };
    for (index, weight) in weights.iter().enumerate() {
        let width = weight.columns();
        let (mut floats, mut integers) = (vec![0.0; width], vec![0; width]);
        for row in 0..weight.rows() {
            match format {
                WeightFormat::F32 => weight.row_to_f32(row, &mut floats),
                WeightFormat::F16 => {}
                WeightFormat::Q8 | WeightFormat::Q4 => weight.integers(row, 0, &mut integers),
            }
            let output = index * outputs.padded() + outputs.place(row);
            for (column, (float, integer)) in floats.iter().zip(&integers).enumerate() {
                let value = match &weight.data {
                    WeightData::F16(values) => values[row * width + column].to_bits().into(),
                    _ if format == WeightFormat::F32 => float.to_bits(),
                    _ => u32::from(*integer as u8) & (u32::MAX >> (32 - bits)),
                };
                let place = inputs.place(column);
                words[place / word * all + output] |= value << (bits * (place % word));
            }
            match format {
                WeightFormat::F32 | WeightFormat::F16 => {}
                WeightFormat::Q8 => scales[output] = weight.scale(row, 0).to_bits(),
                WeightFormat::Q4 => {
                    for group in 0..width.div_ceil(Q4_GROUP) {
                        let scale = f16::from_f32(weight.scale(row, group * Q4_GROUP)).to_bits();
                        scales[group / 2 * all + output] |= u32::from(scale) << (16 * (group % 2));
                    }
                }
            }
        }
    }
    Packed { format, words, scales }
}

/// Whether four products of these halves, two a word, with inputs of at most 256 in magnitude add up
/// to a half: none of them is above 32.
pub(super) fn fits_halves(words: &[u32]) -> bool {
    let largest = f16::from_f32(32.0).to_bits();
    // Without the sign, halves are in the order of their bits.
    words.iter().all(|word| [*word, word >> 16].iter().all(|h| h & 0x7fff <= u32::from(largest)))
}

/// A vector, padded with zeros.
pub(super) fn vector(values: &[f32]) -> Vec<u32> {
    let mut words: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
    words.resize(values.len().next_multiple_of(4).max(4), 0);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_outputs_lie_side_by_side_and_padding_is_zero() {
        let weight = Weight {
            shape: vec![4, 3],
            data: WeightData::F32((1..=12).map(|v| v as f32).collect()),
        };
        let heads = Axis::Heads { heads: 2, d_kv: 2 };
        let packed = matrix(&[&weight], heads, Axis::Plain(3));
        let values: Vec<f32> = packed.words.iter().map(|&w| f32::from_bits(w)).collect();
        assert_eq!(values.len(), 8 * 4);
        assert_eq!(values[..8], [1.0, 4.0, 0.0, 0.0, 7.0, 10.0, 0.0, 0.0]);
        assert_eq!(values[8..16], [2.0, 5.0, 0.0, 0.0, 8.0, 11.0, 0.0, 0.0]);
        assert_eq!(values[24..], [0.0; 8]);
    }

    #[test]
    fn halves_fit_up_to_32() {
        let words = |values: [f32; 4]| {
            let weight = Weight::quantize(WeightFormat::F16, [1, 4], values.to_vec());
            matrix(&[&weight], Axis::Plain(1), Axis::Plain(4)).words
        };
        assert!(fits_halves(&words([32.0, -32.0, 0.0, -0.0])));
        assert!(!fits_halves(&words([0.0, 32.1, 0.0, 0.0])));
        assert!(!fits_halves(&words([0.0, 0.0, -32.1, 0.0])));
    }

    #[test]
    fn int8_packs_four_inputs_a_word() {
        let weight = Weight::quantize(WeightFormat::Q8, [1, 3], vec![1.0, -1.0, 0.5]);
        let packed = matrix(&[&weight], Axis::Plain(1), Axis::Plain(3));
        assert_eq!(packed.words[0].to_le_bytes().map(|b| b as i8), [127, -127, 64, 0]);
        assert_eq!(packed.words[1..], [0; 3]);
        assert_eq!(packed.scales.len(), 4);
    }
}
