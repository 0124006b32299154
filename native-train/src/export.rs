//! From a trained model, or a checkpoint of someone else's, to a bundle.

use std::fs;
use std::path::Path;

use tigret_infer::{Bundle, Catalog, CatalogFile, T5Config, TokenLayout, WeightFormat};

use crate::data::Dataset;
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
    let (checkpoint, tokens, path) = (run.model(), run.tokens(), run.catalog());
    let parts = Parts::read(&checkpoint, &tokens, &path)?;
    if checkpoint::trained_on(&checkpoint)?.is_none() {
        return parts.bundle(format);
    }
    // The order of the data set: that of the catalogue's file may be the user's own.
    let items = Dataset::load_items(run)?;
    let ranks = items.iter().map(|item| match parts.catalog.rank_of(&item.id) {
        Some(rank) => Ok((item.id.as_str(), parts.catalog.codes_of(rank))),
        None => Err(TrainError::file(
            &path,
            format!("lacks item \"{}\"; run `tigret tokenize` again", item.id),
        )),
    });
    let items = ranks.collect::<Result<Vec<_>>>()?;
    check_model(&checkpoint, &parts.layout, items.into_iter())?;
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
    tokens: &'a Path,
    config: T5Config,
    weights: HostWeights,
    layout: TokenLayout,
    catalog: Catalog,
}

impl<'a> Parts<'a> {
    fn read(checkpoint: &'a Path, tokens: &'a Path, catalog: &Path) -> Result<Self> {
        let (config, weights) = checkpoint::load(checkpoint)?;
        let hint = "the token layout is described in docs/bundle.md";
        let layout = TokenLayout::parse(&read_text(tokens, hint)?)
            .and_then(|layout| layout.validate(layout.vocab_size()).map(|()| layout))
            .map_err(|e| TrainError::file(tokens, e))?;
        let CatalogFile { items } =
            read_json(catalog, "the catalogue is described in docs/bundle.md")?;
        let catalog =
            Catalog::from_items(items, &layout).map_err(|e| TrainError::file(catalog, e))?;
        Ok(Self { checkpoint, tokens, config, weights, layout, catalog })
    }

    fn bundle(self, format: WeightFormat) -> Result<Bundle> {
        let Self { checkpoint, tokens, config, weights, layout, catalog } = self;
        layout.validate(config.vocab_size).map_err(|e| TrainError::file(tokens, e))?;
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
