//! From raw files to a data set: items with text, and users' sequences of items in time order.
//!
//! Sources: a generic log, the [research format](research), and the embedded
//! [classics](classics) with [simulated readers](readers). All end in a [`Dataset`], which every
//! later step loads from the run directory.

pub mod classics;
pub mod filter;
pub mod items;
mod lines;
pub mod oracle;
pub mod readers;
mod records;
pub mod research;
pub mod summary;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use summary::Summary;

use crate::error::{Result, TrainError};
use crate::run_dir::{RunDir, write_atomically, write_json};

/// Fewest items of a sequence: leave-one-out takes two, and one must remain to train on.
pub const MIN_SEQUENCE: usize = 3;

/// Most items of a data set: sequences index them with `u32`.
pub const MAX_ITEMS: usize = u32::MAX as usize;

/// One thing that can be recommended.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The id of the source, a string whatever the source had.
    pub id: String,
    /// What the encoder reads; empty where the source has no text.
    pub text: String,
    /// The fields of the source, for display.
    pub fields: Map<String, Value>,
}

/// One user's items, oldest first; at least [`MIN_SEQUENCE`].
///
/// Leave-one-out (Kang and McAuley 2018; the protocol of the TIGER paper) is by position: the
/// last item is the test target, the one before it the validation target, the rest is for
/// training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The user's id.
    pub user: String,
    /// Indices into [`Dataset::items`].
    pub items: Vec<u32>,
}

impl Sequence {
    /// The items to train on.
    pub fn train(&self) -> &[u32] {
        &self.items[..self.items.len() - 2]
    }

    /// History and target of validation.
    pub fn validation(&self) -> (&[u32], u32) {
        let target = self.items.len() - 2;
        (&self.items[..target], self.items[target])
    }

    /// History and target of the test; the history includes the validation target.
    pub fn test(&self) -> (&[u32], u32) {
        let target = self.items.len() - 1;
        (&self.items[..target], self.items[target])
    }
}

/// Items and sequences, as the artefacts `items.jsonl` and `sequences.jsonl` hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Items; their order is the row order of every later artefact.
    pub items: Vec<Item>,
    /// Sequences, a user each.
    pub sequences: Vec<Sequence>,
}

/// A line of `items.jsonl`.
#[derive(Serialize)]
struct ItemLine<'a> {
    id: &'a str,
    text: &'a str,
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
}

/// A line of `sequences.jsonl`.
#[derive(Serialize, Deserialize)]
struct SequenceLine<I> {
    user: String,
    items: Vec<I>,
}

impl Dataset {
    /// Reads the artefacts of a run.
    ///
    /// # Errors
    /// [`TrainError::File`] when one is missing, [`TrainError::Line`] when a line is wrong: not
    /// JSON, an id twice, an unknown item, fewer than [`MIN_SEQUENCE`] items.
    pub fn load(run: &RunDir) -> Result<Self> {
        let items = Self::load_items(run)?;
        let index: HashMap<&str, u32> =
            items.iter().zip(0..).map(|(item, at)| (item.id.as_str(), at)).collect();
        let mut sequences = Vec::new();
        let path = run.sequences();
        lines::for_each_line(&path, PREPARE_HINT, |number, line| {
            let wrong = |reason: String| TrainError::line(&path, number, reason);
            let line: SequenceLine<String> =
                serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            if line.items.len() < MIN_SEQUENCE {
                let count = line.items.len();
                return Err(wrong(format!(
                    "has {count} items, at least {MIN_SEQUENCE} are needed"
                )));
            }
            let items = line
                .items
                .iter()
                .map(|id| {
                    index
                        .get(id.as_str())
                        .copied()
                        .ok_or_else(|| wrong(format!("item \"{id}\" is not in items.jsonl")))
                })
                .collect::<Result<_>>()?;
            sequences.push(Sequence { user: line.user, items });
            Ok(())
        })?;
        Ok(Self { items, sequences })
    }

    fn load_items(run: &RunDir) -> Result<Vec<Item>> {
        let path = run.items();
        let mut items = Vec::new();
        let mut seen = HashMap::new();
        lines::for_each_line(&path, PREPARE_HINT, |number, line| {
            let wrong = |reason: String| TrainError::line(&path, number, reason);
            let mut fields: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            let mut take = |name: &str| match fields.remove(name) {
                Some(Value::String(value)) => Ok(value),
                _ => Err(wrong(format!("has no string \"{name}\""))),
            };
            let (id, text) = (take("id")?, take("text")?);
            if let Some(first) = seen.insert(id.clone(), number) {
                return Err(wrong(format!("item \"{id}\" stands already on line {first}")));
            }
            items.push(Item { id, text, fields });
            Ok(())
        })?;
        Ok(items)
    }

    /// Writes the artefacts into a run, each whole; `dataset.json` last, so that its presence
    /// says that the rest is there.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir, summary: &Summary) -> Result<()> {
        write_atomically(&run.items(), |file| {
            for item in &self.items {
                let Item { id, text, fields } = item;
                serde_json::to_writer(&mut *file, &ItemLine { id, text, fields })?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })?;
        write_atomically(&run.sequences(), |file| {
            for sequence in &self.sequences {
                let items =
                    sequence.items.iter().map(|&at| self.items[at as usize].id.as_str()).collect();
                let line: SequenceLine<&str> = SequenceLine { user: sequence.user.clone(), items };
                serde_json::to_writer(&mut *file, &line)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })?;
        write_json(&run.dataset(), summary)
    }

    /// Interactions of all sequences.
    pub fn interactions(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.items.len()).sum()
    }
}

const PREPARE_HINT: &str = "make it with `tigret prepare`";
