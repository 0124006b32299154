//! From text to vectors: the content embedding that semantic IDs are made of.

mod sparse;
pub mod svd;
pub mod tfidf;

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tigret_infer::tokens::user_hash;

use crate::data::Dataset;
use crate::error::{Result, TrainError};
use crate::run_dir::{RunDir, write_atomically};

/// A vector per item.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Length of a vector.
    pub dimensions: usize,
    /// Row-major `[items, dimensions]`, rows in the order of [`Dataset::items`]; finite.
    pub data: Vec<f32>,
}

/// Name of the tensor in `vectors.safetensors`.
const TENSOR: &str = "vectors";

impl Vectors {
    /// Row of an item.
    pub fn row(&self, item: usize) -> &[f32] {
        &self.data[item * self.dimensions..(item + 1) * self.dimensions]
    }

    /// Scales every row to length 1; returns how many rows are zero and stay so.
    pub fn normalise(&mut self) -> usize {
        let mut zeros = 0;
        for row in self.data.chunks_exact_mut(self.dimensions) {
            let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            } else {
                zeros += 1;
            }
        }
        zeros
    }

    /// Reads the artefact of a run and checks that it belongs to these items.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is missing, not such a file, made for other items, or has
    /// values that are not finite.
    pub fn load(run: &RunDir, dataset: &Dataset) -> Result<Self> {
        let path = run.vectors();
        let wrong = |reason: String| TrainError::file(&path, reason);
        let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                wrong("not found; make it with `tigret embed`".to_owned())
            }
            _ => wrong(e.to_string()),
        })?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get("ids_hash") != Some(&ids_hash(dataset)) {
            return Err(wrong(
                "was made for other items than items.jsonl has; run `tigret embed` again".into(),
            ));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
        let tensor = tensors.tensor(TENSOR).map_err(|e| wrong(e.to_string()))?;
        let &[rows, dimensions] = tensor.shape() else {
            return Err(wrong(format!("\"{TENSOR}\" has {} axes, not 2", tensor.shape().len())));
        };
        if tensor.dtype() != Dtype::F32 || rows != dataset.items.len() || dimensions == 0 {
            return Err(wrong(format!(
                "\"{TENSOR}\" is {:?} [{rows}, {dimensions}], not F32 [{}, ≥ 1]",
                tensor.dtype(),
                dataset.items.len()
            )));
        }
        let data: Vec<f32> = tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            let id = &dataset.items[at / dimensions].id;
            return Err(wrong(format!("the vector of item \"{id}\" is not finite")));
        }
        Ok(Self { dimensions, data })
    }

    /// Writes the artefact; `encoder` says what made the vectors.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir, dataset: &Dataset, encoder: &str) -> Result<()> {
        let path = run.vectors();
        let bytes: Vec<u8> = self.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![dataset.items.len(), self.dimensions];
        let tensor =
            TensorView::new(Dtype::F32, shape, &bytes).map_err(|e| TrainError::file(&path, e))?;
        let metadata = HashMap::from([
            ("encoder".to_owned(), encoder.to_owned()),
            ("ids_hash".to_owned(), ids_hash(dataset)),
        ]);
        let file = safetensors::serialize([(TENSOR, tensor)], Some(metadata))
            .map_err(|e| TrainError::file(&path, e))?;
        write_atomically(&path, |out| out.write_all(&file))
    }
}

/// 64-bit FNV-1a, in hexadecimal, of the items' ids joined by line feeds: tells whether an
/// artefact with a row per item belongs to these items in this order.
pub fn ids_hash(dataset: &Dataset) -> String {
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    format!("{:016x}", user_hash(&ids.join("\n")))
}
