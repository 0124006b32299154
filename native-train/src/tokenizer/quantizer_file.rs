//! `tokenizer.safetensors` of a run: the quantiser and which semantic IDs it gave.

use std::fmt;

use serde::{Deserialize, Serialize};
use tigret_infer::{Catalog, Quantizer, TokenLayout};

use super::assign::encoder_of_tokenizer;
use super::ids::{SemanticIds, TOKENIZE, ids_of, ids_of_items, lacks, read_ids};
use crate::embed::Vectors;
use crate::embed::encoder::is_precomputed;
use crate::error::{Result, TrainError, shown};
use crate::files::{read_bytes, write_atomically};
use crate::model::IdsOf;
use crate::run_dir::RunDir;
use crate::tensors::{self, Notes};

/// The note with the semantic IDs that the quantiser gave.
const IDS: &str = "semantic_ids";

/// What is said of a quantiser that does not know the vectors of the run's encoder.
pub(super) const OTHER_ENCODER: &str =
    "was trained on vectors of another encoder than the run's; run `tigret tokenize` again";

/// Writes the quantiser of a run, which gave these semantic IDs.
///
/// # Errors
/// [`TrainError::File`].
pub fn save_quantizer(run: &RunDir, quantizer: &Quantizer, ids: &IdsOf) -> Result<()> {
    let path = run.tokenizer();
    let ids = serde_json::to_string(ids).map_err(|e| TrainError::file(&path, e))?;
    let bytes = quantizer.to_bytes(Notes::from([(IDS.to_owned(), ids)]))?;
    write_atomically(&path, |file| file.write_all(&bytes))
}

/// The quantiser of a run, for vectors of the run's encoder; one that says which semantic IDs it
/// gave has given those of the run.
///
/// # Errors
/// [`TrainError::File`] when it is missing, of an older kind, of other semantic IDs, or was fitted to
/// vectors of another encoder, where both are known.
pub fn load_quantizer(run: &RunDir) -> Result<Quantizer> {
    let file = QuantizerFile::read(run)?;
    if file.gave.is_some() {
        let hints = [TOKENIZE; 2];
        let (layout, catalog, in_file) = read_ids(&run.tokens(), &run.catalog(), hints, ids_of)?;
        file.check(run, &layout, &catalog, &in_file, &ids_of_items(run)?)?;
    }
    check_encoder(run)?;
    Ok(file.quantizer)
}

/// Refuses a quantiser that was fitted to vectors of another encoder than the run has now, where both
/// are known.
///
/// # Errors
/// [`TrainError::File`].
pub(super) fn check_encoder(run: &RunDir) -> Result<()> {
    let encoders = [encoder_of_tokenizer(run).unwrap_or_default(), Vectors::encoder(run)];
    if let [Some(then), Some(now)] = &encoders
        && then != now
        && !is_precomputed(then)
        && !is_precomputed(now)
    {
        return Err(TrainError::file(run.tokenizer(), OTHER_ENCODER));
    }
    Ok(())
}

/// What gave a run its semantic IDs, for whoever reads the figures of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The method, as `tigret tokenize --method` names it.
    pub method: String,
    /// Codes of each level, without the collision level.
    pub sizes: Vec<u32>,
    /// Whether vectors learned from the interactions had a part in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub collaborative: bool,
}

impl Origin {
    /// Of the semantic IDs of a run; `None` where its quantiser is missing, or gave others.
    pub fn of(run: &RunDir, ids: &SemanticIds) -> Option<Self> {
        let QuantizerFile { quantizer, gave } = QuantizerFile::read(run).ok()?;
        if gave.is_some_and(|gave| !gave.has(&ids.layout, ids.in_file())) {
            return None;
        }
        let config = quantizer.config();
        Some(Self {
            method: config.method.clone(),
            sizes: config.sizes.clone(),
            collaborative: config.learned > 0,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(u32::to_string).collect();
        let collaborative = if self.collaborative { " (collaborative)" } else { "" };
        write!(f, "semantic IDs of {}{collaborative}, {}", shown(&self.method), sizes.join(" x "))
    }
}

/// What the file holds.
#[derive(Debug)]
pub(super) struct QuantizerFile {
    pub(super) quantizer: Quantizer,
    /// The semantic IDs that it gave, if it says so.
    gave: Option<IdsOf>,
}

impl QuantizerFile {
    /// Reads the file of a run.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is missing or of an older kind.
    pub(super) fn read(run: &RunDir) -> Result<Self> {
        let path = run.tokenizer();
        let bytes = read_bytes(&path, TOKENIZE)?;
        let wrong = |reason: String| {
            TrainError::file(&path, format!("{reason}; run `tigret tokenize` again"))
        };
        let (_, notes) = tensors::parse(&bytes)
            .map_err(|e| wrong(format!("is not a valid safetensors file: {e}")))?;
        let quantizer = Quantizer::from_bytes(&bytes).map_err(|e| wrong(e.to_string()))?;
        let gave = notes.get(IDS).map(|ids| serde_json::from_str(ids)).transpose();
        Ok(Self { quantizer, gave: gave.map_err(|e| wrong(format!("`{IDS}`: {e}")))? })
    }

    /// Refuses a quantiser that says that it gave other semantic IDs than the run has, perhaps with
    /// new items behind them in the catalogue's file or in the data set, which have the items
    /// `in_file` and `items`; and a run whose data set has items without one.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn check(
        &self,
        run: &RunDir,
        layout: &TokenLayout,
        catalog: &Catalog,
        in_file: &[String],
        items: &[String],
    ) -> Result<()> {
        let Some(gave) = &self.gave else { return Ok(()) };
        if let Some(id) = items.iter().find(|id| catalog.rank_of(id).is_none()) {
            return Err(lacks(run, id));
        }
        let has = |order: &[String]| {
            let ranks = order.iter().filter_map(|id| catalog.rank_of(id));
            gave.has(layout, ranks.map(|rank| (catalog.id_of(rank), catalog.codes_of(rank))))
        };
        if has(in_file) || has(items) {
            return Ok(());
        }
        Err(TrainError::file(
            run.tokenizer(),
            "gave other semantic IDs than those of catalog.json, so it cannot give new items \
             theirs; restore the tokenizer.safetensors and tokenizer.json that made catalog.json, \
             or run `tigret tokenize` again",
        ))
    }
}
