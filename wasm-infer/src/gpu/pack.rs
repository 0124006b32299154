//! Lays weights out as the kernels read them: rows and columns padded with zeros to multiples of
//! four, every attention head on a multiple of four.

use crate::weights::{Weight, WeightData};

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

    /// Where value `index` goes.
    fn place(self, index: usize) -> usize {
        match self {
            Self::Plain(_) => index,
            Self::Heads { d_kv, .. } => index / d_kv * d_kv.next_multiple_of(4) + index % d_kv,
        }
    }
}

/// A packed matrix: `[outputs, inputs4]` and, for int8, a scale per output.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packed {
    /// `f32` bits, or four `i8` a word.
    pub(super) words: Vec<u32>,
    /// Empty for `f32`.
    pub(super) scales: Vec<u32>,
}

/// Packs matrices of the same shape one above the other.
pub(super) fn matrix(weights: &[&Weight], outputs: Axis, inputs: Axis) -> Packed {
    let (rows, columns) = (outputs.padded(), inputs.padded());
    let mut packed = Packed { words: Vec::new(), scales: Vec::new() };
    for weight in weights {
        let width = weight.columns();
        match &weight.data {
            WeightData::F32(values) => {
                let mut words = vec![0u32; rows * columns];
                for (at, value) in values.iter().enumerate() {
                    let row = outputs.place(at / width);
                    words[row * columns + inputs.place(at % width)] = value.to_bits();
                }
                packed.words.extend(words);
            }
            WeightData::Q8 { values, scales } => {
                let mut words = vec![0u32; rows * columns / 4];
                for (at, value) in values.iter().enumerate() {
                    let place = outputs.place(at / width) * columns + inputs.place(at % width);
                    words[place / 4] |= u32::from(*value as u8) << (8 * (place % 4));
                }
                packed.words.extend(words);
                let mut padded = vec![0u32; rows];
                for (row, scale) in scales.iter().enumerate() {
                    padded[outputs.place(row)] = scale.to_bits();
                }
                packed.scales.extend(padded);
            }
        }
    }
    packed
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
    fn heads_start_on_quads_and_padding_is_zero() {
        let weight = Weight {
            shape: vec![4, 3],
            data: WeightData::F32((1..=12).map(|v| v as f32).collect()),
        };
        let heads = Axis::Heads { heads: 2, d_kv: 2 };
        let packed = matrix(&[&weight], heads, Axis::Plain(3));
        let values: Vec<f32> = packed.words.iter().map(|&w| f32::from_bits(w)).collect();
        assert_eq!(values.len(), 8 * 4);
        assert_eq!(values[..8], [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
        assert_eq!(values[8..16], [0.0; 8]);
        assert_eq!(values[16..20], [7.0, 8.0, 9.0, 0.0]);
    }

    #[test]
    fn int8_packs_four_a_word() {
        let weight = Weight::quantize_q8([1, 3], &[1.0, -1.0, 0.5]);
        let packed = matrix(&[&weight], Axis::Plain(1), Axis::Plain(3));
        assert_eq!(packed.words[0].to_le_bytes().map(|b| b as i8), [127, -127, 64, 0]);
        assert_eq!(packed.scales.len(), 4);
    }
}
