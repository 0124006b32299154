//! A quantiser in a safetensors file: the tokenizer's own artefact, or a part of a bundle.

use safetensors::tensor::Dtype;

use super::{Quantizer, QuantizerConfig, QuantizerTensors, Structure};
use crate::error::BundleError;
use crate::tensor_file::{File, FileTensor, Notes, numbers, serialize};

/// The metadata field with the [`QuantizerConfig`] as JSON.
pub(crate) const FIELD: &str = "quantizer";

fn layer(index: usize, part: &str) -> String {
    format!("quantizer.layer.{index}.{part}")
}

fn codebook(level: usize) -> String {
    format!("quantizer.codebook.{level}")
}

fn first_child(level: usize) -> String {
    format!("quantizer.first_child.{level}")
}

/// Rows of a codebook; a tree's has as many as the file.
fn codebook_rows(config: &QuantizerConfig, level: usize) -> Option<usize> {
    match config.structure {
        Structure::Residual | Structure::Product => Some(config.sizes[level] as usize),
        Structure::Hyperplanes => Some(config.sizes[level].trailing_zeros() as usize),
        Structure::Tree => None,
        Structure::Hash => Some(0),
    }
}

/// Checks numbers against sizes.
pub(super) fn check(
    config: &QuantizerConfig,
    tensors: &QuantizerTensors,
) -> Result<(), BundleError> {
    let hash = config.structure == Structure::Hash;
    let length = |name: String, values: &[f32], expected: usize| {
        if values.len() != expected {
            let found = values.len();
            return Err(BundleError::tensor(name, format!("has {found} values, not {expected}")));
        }
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(BundleError::tensor(name, format!("value {at} is not finite"))),
            None => Ok(()),
        }
    };
    let count = |name: &str, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(BundleError::tensor(name, format!("{found} of them, not {expected}"))),
    };
    length("quantizer.mean".into(), &tensors.mean, config.input)?;
    length("quantizer.scale".into(), &tensors.scale, config.input)?;
    count("quantizer.layer", tensors.layers.len(), config.widths.len())?;
    let mut before = config.input;
    for (index, (&width, (weight, bias))) in config.widths.iter().zip(&tensors.layers).enumerate() {
        length(layer(index, "weight"), weight, width * before)?;
        length(layer(index, "bias"), bias, width)?;
        before = width;
    }
    let levels = if hash { 0 } else { config.sizes.len() };
    count("quantizer.codebook", tensors.codebooks.len(), levels)?;
    let width = config.codeword_width();
    for (level, values) in tensors.codebooks.iter().enumerate() {
        let rows = codebook_rows(config, level).unwrap_or(values.len() / width);
        length(codebook(level), values, rows * width)?;
    }
    let tree = config.structure == Structure::Tree;
    count("quantizer.first_child", tensors.first_child.len(), if tree { levels } else { 0 })?;
    let mut parents = 1;
    for (level, starts) in tensors.first_child.iter().enumerate() {
        let bad = |reason: String| Err(BundleError::tensor(first_child(level), reason));
        let rows = tensors.codebooks[level].len() / width;
        if starts.len() != parents + 1 {
            return bad(format!("has {} values, not {}", starts.len(), parents + 1));
        }
        if starts[0] != 0 || starts[parents] as usize != rows {
            return bad(format!("does not run from 0 to the level's {rows} nodes"));
        }
        for (node, pair) in starts.windows(2).enumerate() {
            if pair[1] <= pair[0] || pair[1] - pair[0] > config.sizes[level] {
                return bad(format!(
                    "node {node} does not have 1 to {} children",
                    config.sizes[level]
                ));
            }
        }
        parents = rows;
    }
    Ok(())
}

impl Quantizer {
    /// Reads a quantiser out of the bytes of a safetensors file, `tokenizer.safetensors` of a run.
    ///
    /// # Errors
    /// [`BundleError`] naming the field or tensor that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let file = File::parse(bytes).map_err(|e| BundleError::NotSafetensors(e.to_string()))?;
        let json = file.note(FIELD).ok_or_else(|| {
            BundleError::metadata(FIELD, "is missing: the file holds no quantiser")
        })?;
        Self::read(json, &file)
    }

    /// Reads a quantiser from the metadata field `quantizer` and the tensors of a file.
    ///
    /// # Errors
    /// [`BundleError`] naming the field or tensor that is wrong.
    pub(crate) fn read(json: &str, file: &File<'_>) -> Result<Self, BundleError> {
        let config: QuantizerConfig =
            serde_json::from_str(json).map_err(|e| BundleError::metadata(FIELD, e))?;
        config.validate()?;
        // Shapes first: a view's length is that of the file, so nothing beyond it is allocated.
        let floats = |name: &str, shape: &[Option<usize>]| {
            let view = file.tensor(name)?;
            let fits = view.shape().len() == shape.len()
                && view
                    .shape()
                    .iter()
                    .zip(shape)
                    .all(|(found, wanted)| wanted.is_none_or(|wanted| wanted == *found));
            if view.dtype() != Dtype::F32 || !fits {
                let (dtype, found) = (view.dtype(), view.shape());
                let reason = format!("is {dtype:?} {found:?}, which is not what `quantizer` says");
                return Err(BundleError::tensor(name, reason));
            }
            Ok(numbers::<f32>(&view))
        };
        let mut tensors = QuantizerTensors::default();
        if config.structure != Structure::Hash {
            tensors.mean = floats("quantizer.mean", &[Some(config.input)])?;
            tensors.scale = floats("quantizer.scale", &[Some(config.input)])?;
            let mut before = config.input;
            for (index, &width) in config.widths.iter().enumerate() {
                let weight = floats(&layer(index, "weight"), &[Some(width), Some(before)])?;
                let bias = floats(&layer(index, "bias"), &[Some(width)])?;
                tensors.layers.push((weight, bias));
                before = width;
            }
            for level in 0..config.sizes.len() {
                let shape = [codebook_rows(&config, level), Some(config.codeword_width())];
                tensors.codebooks.push(floats(&codebook(level), &shape)?);
                if config.structure == Structure::Tree {
                    let name = first_child(level);
                    let view = file.tensor(&name)?;
                    if view.dtype() != Dtype::U32 || view.shape().len() != 1 {
                        let (dtype, found) = (view.dtype(), view.shape());
                        let reason = format!("is {dtype:?} {found:?}, not a list of U32");
                        return Err(BundleError::tensor(name, reason));
                    }
                    tensors.first_child.push(numbers(&view));
                }
            }
        }
        Self::new(config, tensors)
    }

    /// The quantiser as tensors of a file, and the metadata field that belongs to them.
    pub(crate) fn file_parts(&self) -> Result<(String, Vec<FileTensor>), BundleError> {
        let json =
            serde_json::to_string(&self.config).map_err(|e| BundleError::metadata(FIELD, e))?;
        let floats = |name: String, shape: Vec<usize>, values: &[f32]| {
            (name, Dtype::F32, shape, bytemuck::cast_slice(values).to_vec())
        };
        let mut parts = Vec::new();
        if self.config.structure == Structure::Hash {
            return Ok((json, parts));
        }
        let QuantizerTensors { mean, scale, layers, codebooks, first_child: starts } =
            &self.tensors;
        parts.push(floats("quantizer.mean".into(), vec![mean.len()], mean));
        parts.push(floats("quantizer.scale".into(), vec![scale.len()], scale));
        for (index, (weight, bias)) in layers.iter().enumerate() {
            let shape = vec![bias.len(), weight.len() / bias.len()];
            parts.push(floats(layer(index, "weight"), shape, weight));
            parts.push(floats(layer(index, "bias"), vec![bias.len()], bias));
        }
        let width = self.config.codeword_width();
        for (level, values) in codebooks.iter().enumerate() {
            parts.push(floats(codebook(level), vec![values.len() / width, width], values));
        }
        for (level, starts) in starts.iter().enumerate() {
            let bytes = bytemuck::cast_slice(starts).to_vec();
            parts.push((first_child(level), Dtype::U32, vec![starts.len()], bytes));
        }
        Ok((json, parts))
    }

    /// The bytes of a safetensors file with the quantiser alone, and `extra` metadata beside it.
    ///
    /// # Errors
    /// [`BundleError`] when it does not fit into the format.
    pub fn to_bytes(&self, mut extra: Notes) -> Result<Vec<u8>, BundleError> {
        let (json, parts) = self.file_parts()?;
        extra.insert(FIELD.to_owned(), json);
        serialize(parts, &extra)
    }
}
