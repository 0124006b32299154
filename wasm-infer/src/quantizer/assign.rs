//! New items under a frozen quantiser: what has an ID keeps it, a collision takes the next free
//! code of the last level.

use std::collections::{HashMap, HashSet};

use super::{LARGEST, Quantizer, Structure};
use crate::catalog::Catalog;
use crate::error::InferError;
use crate::tokens::TokenLayout;

/// An item that is to get a semantic ID.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// The shop's own id.
    pub id: String,
    /// Its content vector, by the encoder that made those of the catalogue; empty for codes that
    /// are drawn from ids.
    pub embedding: Vec<f32>,
}

/// The codes of the collision level that are taken, by the codes before it.
#[derive(Debug)]
pub struct TakenCodes {
    size: u32,
    /// Ascending.
    taken: HashMap<Box<[u16]>, Vec<u16>>,
}

impl TakenCodes {
    /// None yet, of a collision level of `size` codes.
    pub fn new(size: u32) -> Self {
        Self { size, taken: HashMap::new() }
    }

    /// Notes a semantic ID that is taken.
    pub fn insert(&mut self, codes: &[u16]) {
        if let Some((last, prefix)) = codes.split_last() {
            let taken = self.taken.entry(prefix.into()).or_default();
            if let Err(place) = taken.binary_search(last) {
                taken.insert(place, *last);
            }
        }
    }

    /// Notes the semantic IDs of a catalogue under a prefix, unless some are noted already.
    fn insert_from(&mut self, catalog: &Catalog, prefix: &[u16]) {
        self.taken.entry(prefix.into()).or_insert_with(|| {
            catalog.children(prefix.len(), catalog.node(prefix)).map(|(code, _)| code).collect()
        });
    }

    /// Takes the smallest free code under a prefix, or nothing if there is none.
    pub fn take(&mut self, prefix: &[u16]) -> Option<u16> {
        let taken = self.taken.entry(prefix.into()).or_default();
        // Ascending, so the first code that is not its own place is behind a gap.
        let gap = taken.iter().zip(0u32..).take_while(|(code, at)| u32::from(**code) == *at);
        let free = gap.count() as u32;
        (free < self.size).then(|| {
            taken.insert(free as usize, free as u16);
            free as u16
        })
    }

    /// What to say where [`TakenCodes::take`] has nothing.
    pub fn full(&self, prefix: &[u16]) -> String {
        format!(
            "all {} semantic IDs under the codes {prefix:?} are taken; tokenize the whole catalogue \
             again with a larger --collision-size",
            self.size
        )
    }
}

/// The semantic IDs of new items, in order: the codes of each, and the next free code of the
/// collision level.
///
/// # Errors
/// [`InferError::Request`] for an id that is empty, in the catalogue or given twice, a vector of
/// another length or with a number that is not one from -1e15 to 1e15, or a group with no free code,
/// naming the item.
pub fn assign(
    quantizer: &Quantizer,
    layout: &TokenLayout,
    catalog: &Catalog,
    items: &[NewItem],
) -> Result<Vec<Vec<u16>>, InferError> {
    let config = quantizer.config();
    let reads_vectors = config.structure != Structure::Hash;
    let mut seen = HashSet::with_capacity(items.len());
    // Their lengths are not known to be right yet.
    let mut vectors = Vec::new();
    for NewItem { id, embedding } in items {
        let bad = |what: String| Err(InferError::Request(format!("item \"{id}\"{what}")));
        if id.is_empty() {
            return bad(" has an empty id".into());
        }
        if catalog.rank_of(id).is_some() {
            return bad(" is already in the catalogue; its semantic ID does not change".into());
        }
        if !seen.insert(id) {
            return bad(" is given twice".into());
        }
        if !reads_vectors {
            continue;
        }
        if embedding.len() != config.embedding() {
            return bad(format!(
                ": its embedding has {} numbers, the tokenizer was trained on {}",
                embedding.len(),
                config.embedding()
            ));
        }
        // One that is no number is not below anything.
        let within = |x: &f32| x.abs() <= LARGEST;
        if let Some(at) = embedding.iter().position(|x| !within(x)) {
            return bad(format!(
                ": number {at} of its embedding is {}, not one from -1e15 to 1e15",
                embedding[at]
            ));
        }
        vectors.extend_from_slice(embedding);
        // It has no interactions yet: zeros, as items without any had in the tokenizer's training.
        vectors.resize(vectors.len() + config.learned, 0.0);
    }
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    let codes = quantizer.encode(&ids, &vectors);
    let mut taken = TakenCodes::new(layout.levels.last().map_or(0, |level| level.size));
    codes
        .chunks_exact(quantizer.levels())
        .zip(&ids)
        .map(|(prefix, id)| {
            taken.insert_from(catalog, prefix);
            match taken.take(prefix) {
                Some(code) => Ok([prefix, &[code]].concat()),
                None => Err(InferError::Request(format!("item \"{id}\": {}", taken.full(prefix)))),
            }
        })
        .collect()
}
