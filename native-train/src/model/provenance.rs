//! What a model was trained on. Its tokens mean something only under the semantic IDs that it was
//! trained with, so a checkpoint carries their fingerprint.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tigret_infer::TokenLayout;

use crate::data::Dataset;
use crate::hash::short_hex;

/// Fingerprints of the data of a training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    #[serde(flatten)]
    ids: IdsOf,
    /// Of the sequences without their test items, on which no training may depend.
    sequences: String,
}

impl Provenance {
    /// Of a training on a data set with these semantic IDs: id and codes of each item, in the order
    /// of the catalogue, where each item of the data set has its place of `places`.
    pub fn new<'a>(
        dataset: &Dataset,
        layout: &TokenLayout,
        items: impl ExactSizeIterator<Item = (&'a str, &'a [u16])>,
        places: &[u32],
    ) -> Self {
        Self { ids: IdsOf::new(layout, items), sequences: sequences_hash(dataset, places) }
    }

    /// Items of the training.
    pub fn items(&self) -> usize {
        self.ids.items
    }

    /// Whether these are the same semantic IDs, perhaps with new items behind them: id and codes of
    /// each item, in the order of the catalogue.
    pub fn has_ids<'a>(
        &self,
        layout: &TokenLayout,
        items: impl Iterator<Item = (&'a str, &'a [u16])>,
    ) -> bool {
        self.ids.has(layout, items)
    }

    /// Whether these are the same sequences; `places` as in [`Provenance::new`].
    pub fn has_sequences(&self, dataset: &Dataset, places: &[u32]) -> bool {
        sequences_hash(dataset, places) == self.sequences
    }
}

/// Fingerprint of what tokens mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsOf {
    /// Items at that time; items that are assigned later follow them.
    items: usize,
    /// Of the ranges of the layout, and each item's id and codes.
    semantic_ids: String,
}

impl IdsOf {
    /// Of semantic IDs: id and codes of each item, in the order of the catalogue.
    pub fn new<'a>(
        layout: &TokenLayout,
        items: impl ExactSizeIterator<Item = (&'a str, &'a [u16])>,
    ) -> Self {
        Self { items: items.len(), semantic_ids: ids_hash(layout, items) }
    }

    /// Whether these are the same semantic IDs, perhaps with new items behind them: id and codes of
    /// each item, in the order of the catalogue.
    pub fn has<'a>(
        &self,
        layout: &TokenLayout,
        items: impl Iterator<Item = (&'a str, &'a [u16])>,
    ) -> bool {
        ids_hash(layout, items.take(self.items)) == self.semantic_ids
    }
}

fn ids_hash<'a>(layout: &TokenLayout, items: impl Iterator<Item = (&'a str, &'a [u16])>) -> String {
    let mut hash = Sha256::new();
    for level in &layout.levels {
        hash.update([level.offset, level.size].map(u32::to_le_bytes).concat());
    }
    // Tells levels and users apart, as no level is empty.
    let [offset, count] = layout.users.map_or([0, 0], |users| [users.offset, users.count]);
    let others = [0, 0, offset, count, layout.pad, layout.eos, layout.decoder_start];
    hash.update(others.map(u32::to_le_bytes).concat());
    hash.update([u8::from(layout.append_eos)]);
    for (id, codes) in items {
        hash.update((id.len() as u64).to_le_bytes());
        hash.update(id);
        codes.iter().for_each(|code| hash.update(code.to_le_bytes()));
    }
    short_hex(hash)
}

/// Items count by their places in the catalogue, since a later `tigret prepare` may number them
/// otherwise.
fn sequences_hash(dataset: &Dataset, places: &[u32]) -> String {
    let mut hash = Sha256::new();
    for sequence in &dataset.sequences {
        let (seen, _) = sequence.test();
        // Users count, since they have tokens.
        hash.update((sequence.user.len() as u64).to_le_bytes());
        hash.update(&sequence.user);
        hash.update((seen.len() as u64).to_le_bytes());
        seen.iter().for_each(|&item| hash.update(places[item as usize].to_le_bytes()));
    }
    short_hex(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing;

    const LAYOUT: [u32; 2] = [5, 4];

    fn provenance(sequences: &[&[u32]], codes: &[u16]) -> Provenance {
        let dataset = testing::dataset(codes.len() / 2, sequences);
        let layout = TokenLayout::contiguous(&LAYOUT, 6, 4);
        let ids = dataset.items.iter().map(|item| item.id.as_str());
        let places: Vec<u32> = (0..dataset.items.len() as u32).collect();
        Provenance::new(&dataset, &layout, ids.zip(codes.chunks(2)), &places)
    }

    /// Whether a model trained on these codes goes with those.
    fn goes(trained: &[u16], now: &[u16], users: u32) -> bool {
        let dataset = testing::dataset(now.len() / 2, &[]);
        let ids = dataset.items.iter().map(|item| item.id.as_str());
        let layout = TokenLayout { max_items: 9, ..TokenLayout::contiguous(&LAYOUT, users, 4) };
        provenance(&[&[0, 1, 2]], trained).has_ids(&layout, ids.zip(now.chunks(2)))
    }

    #[test]
    fn a_model_goes_with_its_ids_and_with_new_items_behind_them() {
        let codes = [0, 1, 3, 2, 4, 0];
        assert!(goes(&codes, &codes, 6));
        assert!(goes(&codes, &[&codes[..], &[4, 1]].concat(), 6));
        assert!(!goes(&codes, &codes[..4], 6), "an item less");
        assert!(!goes(&codes, &[0, 1, 3, 3, 4, 0], 6), "another code");
        assert!(!goes(&codes, &codes, 7), "another layout");
    }

    #[test]
    fn test_items_and_new_items_are_no_part_of_the_sequences() {
        let codes = [0, 1, 3, 2, 4, 0, 2, 2];
        let then = provenance(&[&[0, 1, 2]], &codes);
        let has = |items: usize, sequence: &[u32]| {
            let places: Vec<u32> = (0..items as u32).collect();
            then.has_sequences(&testing::dataset(items, &[sequence]), &places)
        };
        assert!(has(4, &[0, 1, 3]) && has(5, &[0, 1, 2]));
        assert!(!has(4, &[0, 2, 2]));
        // The same items under other numbers, and other items under the same numbers.
        let places = [3, 2, 1, 0];
        assert!(then.has_sequences(&testing::dataset(4, &[&[3, 2, 1]]), &places));
        assert!(!then.has_sequences(&testing::dataset(4, &[&[0, 1, 2]]), &places));
    }
}
