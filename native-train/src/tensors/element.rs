//! How floats lie in a file.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    F16Big,
    Bf16,
    F32,
    F32Big,
    F64,
    F64Big,
}

impl Element {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::F16Big | Self::Bf16 => 2,
            Self::F32 | Self::F32Big => 4,
            Self::F64 | Self::F64Big => 8,
        }
    }

    /// Of a safetensors file; `None` for what is no float of these.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// All numbers of some bytes.
    pub(crate) fn floats(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|value| read(*value)).collect()
        }
        match self {
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::F16Big => each(bytes, |b| f16::from_be_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F32Big => each(bytes, f32::from_be_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F64Big => each(bytes, |b| f64::from_be_bytes(b) as f32),
        }
    }
}
