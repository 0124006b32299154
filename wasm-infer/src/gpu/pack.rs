//! Lays weights out as the kernels read them: rows and columns padded with zeros to multiples of
//! four, every attention head on a multiple of four.

use crate::weights::{Q4_GROUP, Weight, WeightData, WeightFormat, nibble};

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
    /// `q8`: `f32` bits, one an output. `q4`: halves, two a word. Empty otherwise.
    pub(super) scales: Vec<u32>,
}

/// Packs matrices of the same shape and format one above the other.
///
/// `q4` whose groups of columns would be torn apart by the padding of `inputs` (heads of a width
/// that is no multiple of four) is widened to `f32`.
pub(super) fn matrix(weights: &[&Weight], outputs: Axis, inputs: Axis) -> Packed {
    let (rows, columns) = (outputs.padded(), inputs.padded());
    let mut packed = Packed { format: WeightFormat::F32, words: Vec::new(), scales: Vec::new() };
    for weight in weights {
        let width = weight.columns();
        // Where value `at` lies among `columns` columns.
        let place = |at: usize, columns: usize| {
            outputs.place(at / width) * columns + inputs.place(at % width)
        };
        match &weight.data {
            WeightData::F16(values) => {
                packed.format = WeightFormat::F16;
                let mut halves = vec![0u16; rows * columns];
                for (at, value) in values.iter().enumerate() {
                    halves[place(at, columns)] = value.to_bits();
                }
                packed.words.extend(pairs(&halves));
            }
            WeightData::Q8 { values, scales } => {
                packed.format = WeightFormat::Q8;
                let mut words = vec![0u32; rows * columns / 4];
                for (at, value) in values.iter().enumerate() {
                    let place = place(at, columns);
                    words[place / 4] |= u32::from(*value as u8) << (8 * (place % 4));
                }
                packed.words.extend(words);
                let mut padded = vec![0u32; rows];
                for (row, scale) in scales.iter().enumerate() {
                    padded[outputs.place(row)] = scale.to_bits();
                }
                packed.scales.extend(padded);
            }
            WeightData::Q4 { nibbles, scales } if inputs.keeps_places() => {
                packed.format = WeightFormat::Q4;
                let groups = columns.div_ceil(Q4_GROUP);
                let columns = groups * Q4_GROUP;
                let mut words = vec![0u32; rows * columns / 8];
                for at in 0..weight.rows() * width {
                    let row = &nibbles[at / width * width.div_ceil(2)..];
                    let value = nibble(row, at % width);
                    let place = place(at, columns);
                    words[place / 8] |= u32::from(value as u8 & 0xf) << (4 * (place % 8));
                }
                packed.words.extend(words);
                let mut padded = vec![0u16; rows * groups];
                for (row, scales) in scales.chunks_exact(groups).enumerate() {
                    let at = outputs.place(row) * groups;
                    for (place, scale) in padded[at..].iter_mut().zip(scales) {
                        *place = scale.to_bits();
                    }
                }
                packed.scales.extend(pairs(&padded));
            }
            WeightData::F32(_) | WeightData::Q4 { .. } => {
                let mut words = vec![0u32; rows * columns];
                for (at, value) in weight.to_f32().iter().enumerate() {
                    words[place(at, columns)] = value.to_bits();
                }
                packed.words.extend(words);
            }
        }
    }
    packed
}

/// Two halves a word, the first one low.
fn pairs(halves: &[u16]) -> impl Iterator<Item = u32> {
    halves
        .chunks(2)
        .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 16)
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
        let weight = Weight::quantize(WeightFormat::Q8, [1, 3], vec![1.0, -1.0, 0.5]);
        let packed = matrix(&[&weight], Axis::Plain(1), Axis::Plain(3));
        assert_eq!(packed.words[0].to_le_bytes().map(|b| b as i8), [127, -127, 64, 0]);
        assert_eq!(packed.scales.len(), 4);
    }
}
