//! From a trained model, or a checkpoint of someone else's, to a bundle.

use std::fs;
use std::path::Path;

use tigret_infer::{
    Bundle, Catalog, CatalogFile, CatalogItem, T5Config, TokenLayout, WeightFormat,
};

use crate::error::{Result, TrainError};
use crate::model::checkpoint::{self, HostWeights};
use crate::run_dir::{RunDir, read_json, read_text, write_atomically};
use crate::tokenizer::check_model;

/// The model of a run, its token layout and its catalogue as one bundle.
///
/// # Errors
/// [`TrainError::File`] naming the file and field that is wrong, also for a model that was trained
/// on other semantic IDs.
pub fn bundle_of_run(run: &RunDir, format: WeightFormat) -> Result<Bundle> {
    let (checkpoint, catalog) = (run.model(), run.catalog());
    let parts = Parts::read(&checkpoint, &run.tokens(), &catalog)?;
    let items = parts.items.iter().map(|item| (item.id.as_str(), item.codes.iter().copied()));
    check_model(&checkpoint, &parts.layout, items)?;
    parts.bundle(format)
}

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
    Parts::read(checkpoint, tokens, catalog)?.bundle(format)
}

/// What a bundle is made of, and where it was read.
struct Parts<'a> {
    checkpoint: &'a Path,
    catalog: &'a Path,
    config: T5Config,
    weights: HostWeights,
    layout: TokenLayout,
    items: Vec<CatalogItem>,
}

impl<'a> Parts<'a> {
    fn read(checkpoint: &'a Path, tokens: &Path, catalog: &'a Path) -> Result<Self> {
        let (config, weights) = checkpoint::load(checkpoint)?;
        let hint = "the token layout is described in docs/bundle.md";
        let layout = TokenLayout::parse(&read_text(tokens, hint)?)
            .and_then(|layout| layout.validate(config.vocab_size).map(|()| layout))
            .map_err(|e| TrainError::file(tokens, e))?;
        let CatalogFile { items } =
            read_json(catalog, "the catalogue is described in docs/bundle.md")?;
        Ok(Self { checkpoint, catalog, config, weights, layout, items })
    }

    fn bundle(self, format: WeightFormat) -> Result<Bundle> {
        let Self { checkpoint, catalog: path, config, weights, layout, items } = self;
        let catalog = Catalog::from_items(items, &layout).map_err(|e| TrainError::file(path, e))?;
        Bundle::new(config, layout, catalog, weights, format)
            .map_err(|e| TrainError::file(checkpoint.join("model.safetensors"), e))
    }
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
