//! `tokenizer.safetensors` of a run: the quantiser and which semantic IDs it gave.

use tigret_infer::{Catalog, Quantizer, TokenLayout};

use super::ids::{TOKENIZE, ids_of_items, read_ids};
use crate::error::{Result, TrainError};
use crate::files::{read_bytes, write_atomically};
use crate::model::IdsOf;
use crate::run_dir::RunDir;
use crate::tensors::{self, Notes};

/// The note with the semantic IDs that the quantiser gave.
const IDS: &str = "semantic_ids";

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

/// The quantiser of a run; one that says which semantic IDs it gave has given those of the run.
///
/// # Errors
/// [`TrainError::File`] when it is missing, of an older kind, or of other semantic IDs.
pub fn load_quantizer(run: &RunDir) -> Result<Quantizer> {
    let file = QuantizerFile::read(run)?;
    if file.gave.is_some() {
        let hints = [TOKENIZE; 2];
        let (layout, catalog, ()) = read_ids(&run.tokens(), &run.catalog(), hints, |_| ())?;
        file.check(run, &layout, &catalog, &ids_of_items(run)?)?;
    }
    Ok(file.quantizer)
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
        let wrong = |reason: String| TrainError::file(&path, reason);
        let quantizer = Quantizer::from_bytes(&bytes)
            .map_err(|e| wrong(format!("{e}; run `tigret tokenize` again")))?;
        let (_, notes) = tensors::parse(&bytes).map_err(|e| wrong(e.to_string()))?;
        let gave = notes.get(IDS).map(|ids| serde_json::from_str(ids)).transpose();
        Ok(Self { quantizer, gave: gave.map_err(|e| wrong(e.to_string()))? })
    }

    /// Refuses a quantiser that says that it gave other semantic IDs than the run has, perhaps with
    /// new items behind them; `order` are the ids of the run's items.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn check(
        &self,
        run: &RunDir,
        layout: &TokenLayout,
        catalog: &Catalog,
        order: &[String],
    ) -> Result<()> {
        let codes_of = |id: &String| catalog.rank_of(id).map(|rank| catalog.codes_of(rank));
        let codes: Option<Vec<&[u16]>> = order.iter().map(codes_of).collect();
        let has = |ids: &IdsOf| {
            let items = order.iter().map(String::as_str);
            codes.is_some_and(|codes| ids.has(layout, items.zip(codes)))
        };
        if self.gave.as_ref().is_none_or(has) {
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
