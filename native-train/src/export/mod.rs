//! From a trained model, or a checkpoint of someone else's, to a bundle.

mod calibration;
mod fit;

use std::path::Path;

use tch::Device;
use tigret_infer::bundle::FORMAT;
use tigret_infer::{Bundle, Catalog, T5Config, TokenLayout, WeightData, WeightFormat};

use crate::data::Dataset;
use crate::destination;
use crate::error::{Result, TrainError};
use crate::files::{make_parent, read_bytes};
use crate::model::checkpoint::{self, HostWeights};
use crate::model::t5::stack_of;
use crate::model::{Provenance, TrainedModel, check_ids};
use crate::run_dir::RunDir;
use crate::tensors::{self, Header};
use crate::tokenizer::quantizer_file::load_quantizer;
use crate::tokenizer::{SemanticIds, TOKENIZE, ids_of, lacks, read_ids};

use calibration::input_grams;
use fit::fit;

/// How files that are missing are made.
struct Hints {
    checkpoint: &'static str,
    /// Of the token layout and of the catalogue.
    ids: [&'static str; 2],
}

const OF_RUN: Hints = Hints { checkpoint: checkpoint::TRAIN, ids: [TOKENIZE; 2] };

const OF_FILES: Hints = Hints {
    checkpoint: "a checkpoint folder has config.json and model.safetensors",
    ids: [
        "the token layout is described in docs/bundle.md",
        "the catalogue is described in docs/bundle.md",
    ],
};

/// The model of a run, its token layout and its catalogue as one bundle.
///
/// # Errors
/// [`TrainError::File`] naming the file and field that is wrong, also for a model that was trained
/// on other semantic IDs.
pub fn bundle_of_run(run: &RunDir, format: WeightFormat) -> Result<Bundle> {
    let (checkpoint, tokens, path) = (run.model(), run.tokens(), run.catalog());
    if checkpoint::files(&checkpoint, checkpoint::MODEL)?.is_empty() {
        return Err(TrainError::file(&checkpoint, "has no model; make one with `tigret train`"));
    }
    let parts = Parts::read(&checkpoint, &tokens, &path, &OF_RUN)?;
    let is_of_run = parts.trained_on.is_some() || has_data_of(run, &parts.catalog);
    if parts.trained_on.is_some() {
        let items: Vec<String> =
            Dataset::load_items(run)?.into_iter().map(|item| item.id).collect();
        if let Some(id) = items.iter().find(|id| parts.catalog.rank_of(id).is_none()) {
            return Err(lacks(run, id));
        }
        // Either may have been brought into another order since.
        check_ids(&checkpoint, parts.trained_on.as_ref(), |then| {
            [&parts.order, &items].iter().any(|order| then.has_ids(&parts.layout, parts.of(order)))
        })?;
    }
    match format {
        WeightFormat::Q4 if is_of_run => parts.calibrated(run),
        _ => parts.bundle(format),
    }
}

/// The same bundle with the tokenizer of its run, so that a page gives new items their IDs.
///
/// # Errors
/// [`TrainError::File`] where the run has none, or one of other vectors, IDs or levels.
pub fn with_tokenizer_of_run(bundle: Bundle, run: &RunDir) -> Result<Bundle> {
    let quantizer = load_quantizer(run)?;
    bundle.with_quantizer(quantizer).map_err(|e| TrainError::file(run.tokenizer(), e))
}

/// Whether a run's data set is of the catalogue's items: a model from elsewhere may lie beside none, or
/// beside another.
fn has_data_of(run: &RunDir, catalog: &Catalog) -> bool {
    let items = Dataset::load_items(run).unwrap_or_default();
    run.sequences().exists()
        && items.len() == catalog.len()
        && items.iter().all(|item| catalog.rank_of(&item.id).is_some())
}

/// A checkpoint folder, a token layout and a catalogue as one bundle.
///
/// # Errors
/// [`TrainError::File`] naming the file and field that is wrong, also for a model that says that it
/// was trained on other semantic IDs; items count in the order of the catalogue's file.
///
/// `note` is told where the configuration and the token layout start the decoder differently.
pub fn bundle_from_files(
    checkpoint: &Path,
    tokens: &Path,
    catalog: &Path,
    format: WeightFormat,
    note: impl FnOnce(String),
) -> Result<Bundle> {
    let parts = Parts::read(checkpoint, tokens, catalog, &OF_FILES)?;
    if let Some(trained_on) = &parts.trained_on
        && !trained_on.has_ids(&parts.layout, parts.of(&parts.order))
    {
        return Err(TrainError::file(
            checkpoint,
            format!(
                "was trained on other semantic IDs than those of {}, or in another order; give \
                 the tokens.json and catalog.json of the run that it was trained in",
                catalog.display()
            ),
        ));
    }
    let (in_config, start) = (parts.config.decoder_start_token_id, parts.layout.decoder_start);
    if in_config != start {
        note(format!(
            "the decoder starts with token {start}, as {} says, and not with {in_config}, the \
             decoder_start_token_id of {}",
            tokens.display(),
            checkpoint.join("config.json").display()
        ));
    }
    parts.bundle(format)
}

/// What a bundle is made of, and where it was read.
struct Parts<'a> {
    checkpoint: &'a Path,
    tokens: &'a Path,
    config: T5Config,
    weights: HostWeights,
    trained_on: Option<Provenance>,
    layout: TokenLayout,
    catalog: Catalog,
    /// The items in the order of the catalogue's file.
    order: Vec<String>,
}

impl<'a> Parts<'a> {
    fn read(checkpoint: &'a Path, tokens: &'a Path, catalog: &Path, hints: &Hints) -> Result<Self> {
        let (config, weights, trained_on) = checkpoint::load(checkpoint, hints.checkpoint)?;
        let (layout, catalog, order) = read_ids(tokens, catalog, hints.ids, ids_of)?;
        Ok(Self { checkpoint, tokens, config, weights, trained_on, layout, catalog, order })
    }

    /// Id and codes of each of these items.
    fn of<'b>(&'b self, order: &'b [String]) -> impl Iterator<Item = (&'b str, &'b [u16])> {
        let ranks = order.iter().filter_map(|id| self.catalog.rank_of(id));
        ranks.map(|rank| (self.catalog.id_of(rank), self.catalog.codes_of(rank)))
    }

    /// In `q4`, with codes that suit what the matrices are multiplied with on the run's training
    /// sequences.
    fn calibrated(self, run: &RunDir) -> Result<Bundle> {
        let (checkpoint, weights) = (self.checkpoint, self.weights.clone());
        // Refuses what does not go together, which a pass of the model would not survive.
        let mut bundle = self.bundle(WeightFormat::Q4)?;
        let dataset = Dataset::load(run)?;
        let ids = SemanticIds::load(run, &dataset.items)?;
        let trained = TrainedModel::new(bundle.config.clone(), &weights, Device::Cpu)
            .map_err(|e| TrainError::file(checkpoint, e))?;
        let grams = input_grams(&trained, &ids, &dataset);
        for (name, (_, values)) in &weights {
            let of_four_bits = bundle
                .weights()
                .get(name)
                .is_some_and(|weight| matches!(weight.data, WeightData::Q4 { .. }));
            let gram = grams.get(stack_of(name).as_ref().unwrap_or(name));
            if let (true, Some(gram)) = (of_four_bits, gram) {
                bundle = bundle.with_codes(name, fit(values, gram))?;
            }
        }
        Ok(bundle)
    }

    fn bundle(self, format: WeightFormat) -> Result<Bundle> {
        let Self { checkpoint, tokens, mut config, weights, layout, catalog, .. } = self;
        layout.validate(config.vocab_size).map_err(|e| TrainError::file(tokens, e))?;
        // A bundle does not say two things.
        config.pad_token_id = layout.pad;
        config.eos_token_id = layout.eos;
        config.decoder_start_token_id = layout.decoder_start;
        // The weights, or the index of their files.
        let files = checkpoint::files(checkpoint, checkpoint::MODEL)?;
        let file = files.first().map_or(checkpoint, |file| file);
        Bundle::new(config, layout, catalog, weights, format).map_err(|e| TrainError::file(file, e))
    }
}

/// Refuses to write a bundle where something else lies, such as the model itself.
///
/// # Errors
/// [`TrainError::File`].
pub fn check_out(path: &Path) -> Result<()> {
    let is_bundle = |header: &Header| header.note("format") == Some(FORMAT);
    tensors::check_replaces(path, is_bundle, "is no bundle")
}

/// Writes a bundle, whole, making the folder if needed. Returns the size in bytes.
///
/// # Errors
/// [`TrainError::File`].
pub fn write_bundle(bundle: &Bundle, path: &Path) -> Result<usize> {
    let bytes = bundle.to_bytes()?;
    make_parent(path)?;
    destination::write(path, |file| file.write_all(&bytes))?;
    Ok(bytes.len())
}

/// Reads a bundle.
///
/// # Errors
/// [`TrainError::File`] naming the field that is wrong.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    let bytes = read_bytes(path, "name a bundle that `tigret export` makes of a run")?;
    Bundle::from_bytes(&bytes).map_err(|e| TrainError::file(path, e))
}
