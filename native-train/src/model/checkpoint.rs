//! Checkpoints: `model.safetensors` and `config.json` with Hugging Face's names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tigret_infer::T5Config;

use crate::error::{Result, TrainError};
use crate::run_dir::{read_text, write_atomically, write_json};

/// Weights on the host: shape and row-major values by name.
pub type HostWeights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes `f32` tensors and text metadata, whole.
///
/// # Errors
/// [`TrainError::File`].
pub fn write_tensors(
    path: &Path,
    tensors: &HostWeights,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let failed = |e: safetensors::SafeTensorError| TrainError::file(path, e);
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, (*shape).clone(), bytes).map(|view| (name, view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let file = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    write_atomically(path, |out| out.write_all(&file))
}

/// Reads every float tensor of a safetensors file as `f32`, and the metadata.
///
/// # Errors
/// [`TrainError::File`] for a file that is missing, damaged or holds non-finite values.
pub fn read_tensors(path: &Path, hint: &str) -> Result<(HostWeights, HashMap<String, String>)> {
    let bytes = fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        _ => TrainError::file(path, e),
    })?;
    let failed = |e| TrainError::file(path, format!("not a valid safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(failed)?;
    let file = SafeTensors::deserialize(&bytes).map_err(failed)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => data
                .chunks_exact(2)
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::BF16 => data
                .chunks_exact(2)
                .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => {
                return Err(TrainError::file(
                    path,
                    format!("tensor `{name}` has type {other:?}; expected F32, F16 or BF16"),
                ));
            }
        };
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(TrainError::file(
                path,
                format!("tensor `{name}`: value {at} is not finite"),
            ));
        }
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Writes `config.json` and `model.safetensors` into a folder, as `transformers` reads them.
///
/// # Errors
/// [`TrainError::File`].
pub fn save(folder: &Path, config: &T5Config, weights: &HostWeights) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    let mut json = serde_json::to_value(config).map_err(|e| TrainError::file(folder, e))?;
    json["architectures"] = serde_json::json!(["T5ForConditionalGeneration"]);
    json["is_encoder_decoder"] = serde_json::json!(true);
    // `transformers` refuses a safetensors file that does not name its framework.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write_tensors(&folder.join("model.safetensors"), weights, metadata)?;
    write_json(&folder.join("config.json"), &json)
}

/// Reads a folder that [`save`] or `transformers` wrote.
///
/// # Errors
/// [`TrainError::File`] naming the file and what is wrong in it.
pub fn load(folder: &Path) -> Result<(T5Config, HostWeights)> {
    let path = folder.join("config.json");
    let hint = "a checkpoint folder has config.json and model.safetensors";
    let config =
        T5Config::parse(&read_text(&path, hint)?).map_err(|e| TrainError::file(&path, e))?;
    let (mut weights, _) = read_tensors(&folder.join("model.safetensors"), hint)?;
    // A tied embedding may be stored under any of its names.
    for copy in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        if let Some(tensor) = weights.remove(copy) {
            weights.entry("shared.weight".into()).or_insert(tensor);
        }
    }
    Ok((config, weights))
}
