//! How a model was trained: kept in its `config.json`, so that it stays with the weights wherever they
//! are linked or copied.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::{Options, Precision};
use crate::error::Result;
use crate::model::checkpoint;
use crate::tokenizer::quantizer_file::Origin;

/// The key of `config.json`; `transformers` keeps it as it is.
const KEY: &str = "tigret_training";

/// How a model was trained: figures mean little without it, least of all beside others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// What gave the semantic IDs, if the run said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic_ids: Option<Origin>,
    /// Steps after which it was the best by validation.
    pub steps: u64,
    /// What matrix products computed in.
    pub precision: Precision,
    /// Steps between validations.
    pub validate_every: u64,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
}

impl Training {
    /// Of the model in a folder; `None` where its `config.json` does not say, as that of a checkpoint
    /// from elsewhere.
    ///
    /// # Errors
    /// [`TrainError::File`](crate::TrainError::File) where the file is missing or damaged.
    pub fn of(folder: &Path) -> Result<Option<Self>> {
        let mend = "so it is not told how the model was trained";
        checkpoint::note(folder, KEY, checkpoint::TRAIN, mend)
    }

    /// As a note of `config.json`: its key and what stands there.
    pub(super) fn note(&self) -> (&'static str, Value) {
        (KEY, serde_json::json!(self))
    }
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps", self.steps)?;
        match &self.semantic_ids {
            Some(origin) => write!(f, " on {origin}"),
            None => Ok(()),
        }
    }
}
