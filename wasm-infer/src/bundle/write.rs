//! Writing a bundle.

use bytemuck::cast_slice;
use half::f16;
use safetensors::tensor::Dtype;

use super::{Bundle, CODES, FORMAT, ID_BYTES, ID_OFFSETS};
use crate::error::BundleError;
use crate::quantizer::file::FIELD;
use crate::tensor_file::{FileTensor, Notes, serialize};
use crate::weights::{Q4_GROUP, WeightData};

impl Bundle {
    /// The bundle as the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`BundleError`] when the parts do not fit into the format (ids of over 4 GiB together).
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let mut tensors: Vec<FileTensor> = Vec::new();
        for (name, weight) in &self.weights {
            let mut tensor = |name: String, dtype: Dtype, shape: &[usize], bytes: &[u8]| {
                tensors.push((name, dtype, shape.to_vec(), bytes.to_vec()));
            };
            let (shape, scale) = (&weight.shape[..], format!("{name}.scale"));
            let name = name.clone();
            match &weight.data {
                WeightData::F32(values) => tensor(name, Dtype::F32, shape, cast_slice(values)),
                WeightData::F16(values) => tensor(name, Dtype::F16, shape, &halves(values)),
                WeightData::Q8 { values, scales } => {
                    tensor(name, Dtype::I8, shape, cast_slice(values));
                    tensor(scale, Dtype::F32, &[scales.len()], cast_slice(scales));
                }
                WeightData::Q4 { nibbles, scales } => {
                    let (rows, columns) = (weight.rows(), weight.columns());
                    tensor(name, Dtype::U8, &[rows, columns.div_ceil(2)], nibbles);
                    let groups = columns.div_ceil(Q4_GROUP);
                    tensor(scale, Dtype::F16, &[rows, groups], &halves(scales));
                }
            }
        }
        let catalog = &self.catalog;
        tensors.push((
            CODES.into(),
            Dtype::U16,
            vec![catalog.len(), catalog.levels()],
            cast_slice(catalog.codes()).to_vec(),
        ));
        let (text, offsets) = catalog.ids().parts();
        tensors.push((ID_BYTES.into(), Dtype::U8, vec![text.len()], text.as_bytes().to_vec()));
        tensors.push((
            ID_OFFSETS.into(),
            Dtype::U32,
            vec![offsets.len()],
            cast_slice(offsets).to_vec(),
        ));
        let json = |field: &str, text: serde_json::Result<String>| {
            text.map_err(|e| BundleError::metadata(field, e))
        };
        let mut metadata = Notes::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("quantization".to_owned(), self.weight_format.name().to_owned()),
            ("config".to_owned(), json("config", serde_json::to_string(&self.config))?),
            ("tokens".to_owned(), json("tokens", serde_json::to_string(&self.tokens))?),
        ]);
        if let Some(quantizer) = &self.quantizer {
            let (field, parts) = quantizer.file_parts()?;
            metadata.insert(FIELD.to_owned(), field);
            tensors.extend(parts);
        }
        serialize(tensors, &metadata)
    }
}

fn halves(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
