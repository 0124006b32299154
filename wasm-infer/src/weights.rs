//! Weight tensors in the formats that a bundle can hold.

use crate::error::BundleError;

/// How the weight matrices of a bundle are stored. Vectors and bias tables are always `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 8-bit integers, symmetric, a scale per output row.
    Q8,
}

impl WeightFormat {
    /// The name in metadata and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Q8 => "q8",
        }
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = BundleError;

    fn from_str(name: &str) -> Result<Self, BundleError> {
        match name {
            "f32" => Ok(Self::F32),
            "q8" => Ok(Self::Q8),
            _ => Err(BundleError::metadata(
                "quantization",
                format!("\"{name}\" is not one of f32, q8"),
            )),
        }
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
    /// Row `r` is `values[r] * scales[r]`.
    Q8 {
        /// `[rows, columns]`, in `-127..=127`.
        values: Vec<i8>,
        /// `[rows]`.
        scales: Vec<f32>,
    },
}

impl Weight {
    /// Rows: 1 for a vector.
    pub fn rows(&self) -> usize {
        if self.shape.len() == 2 { self.shape[0] } else { 1 }
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// All numbers as `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            WeightData::F32(values) => values.clone(),
            WeightData::Q8 { values, scales } => values
                .chunks_exact(self.columns().max(1))
                .zip(scales)
                .flat_map(|(row, scale)| row.iter().map(move |&v| f32::from(v) * scale))
                .collect(),
        }
    }

    /// Quantises a matrix to int8, symmetric, a scale per row (the largest magnitude maps to 127).
    pub fn quantize_q8(shape: [usize; 2], values: &[f32]) -> Self {
        let mut quantised = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(shape[0]);
        for row in values.chunks_exact(shape[1].max(1)) {
            let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            scales.push(scale);
            quantised.extend(row.iter().map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8));
        }
        Self { shape: shape.to_vec(), data: WeightData::Q8 { values: quantised, scales } }
    }
}
