//! From a trained model, or a checkpoint of someone else's, to a bundle.

use std::fs;
use std::path::Path;

use tigret_infer::{Bundle, Catalog, CatalogFile, TokenLayout, WeightFormat};

use crate::error::{Result, TrainError};
use crate::model::checkpoint;
use crate::run_dir::{read_json, read_text, write_atomically};

/// A checkpoint folder, a token layout and a catalogue as one bundle.
///
/// # Errors
/// [`TrainError::File`] naming the file and field that is wrong.
pub fn bundle_from_files(
    checkpoint: &Path,
    tokens: &Path,
    catalog: &Path,
    format: WeightFormat,
) -> Result<Bundle> {
    let (config, weights) = checkpoint::load(checkpoint)?;
    let layout =
        TokenLayout::parse(&read_text(tokens, "the token layout is described in docs/bundle.md")?)
            .and_then(|layout| layout.validate(config.vocab_size).map(|()| layout))
            .map_err(|e| TrainError::file(tokens, e))?;
    let file: CatalogFile = read_json(catalog, "the catalogue is described in docs/bundle.md")?;
    let catalog =
        Catalog::from_items(file.items, &layout).map_err(|e| TrainError::file(catalog, e))?;
    Bundle::new(config, layout, catalog, weights, format)
        .map_err(|e| TrainError::file(checkpoint.join("model.safetensors"), e))
}

/// Writes a bundle, whole, making the folder if needed. Returns the size in bytes.
///
/// # Errors
/// [`TrainError::File`].
pub fn write_bundle(bundle: &Bundle, path: &Path) -> Result<usize> {
    let bytes = bundle.to_bytes()?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    }
    write_atomically(path, |file| file.write_all(&bytes))?;
    Ok(bytes.len())
}

/// Reads a bundle.
///
/// # Errors
/// [`TrainError::File`] naming the field that is wrong.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    let bytes = fs::read(path).map_err(|e| TrainError::file(path, e))?;
    Bundle::from_bytes(&bytes).map_err(|e| TrainError::file(path, e))
}
