//! What a model was trained on. Its tokens mean something only under the semantic IDs of then, so
//! a checkpoint carries their fingerprint.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tigret_infer::TokenLayout;

use crate::data::Dataset;
use crate::tokenizer::SemanticIds;

/// Fingerprints of the data of a training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Items at that time; items that are assigned later follow them.
    items: usize,
    /// Of the token layout and of each item's id and codes.
    semantic_ids: String,
    /// Of the sequences without their test items.
    sequences: String,
}

impl Provenance {
    /// Of a training on a data set with these semantic IDs.
    pub fn new(dataset: &Dataset, ids: &SemanticIds) -> Self {
        let mut semantic_ids = IdsHash::new(&ids.layout);
        for (index, item) in dataset.items.iter().enumerate() {
            let codes = ids.codes(index as u32).iter();
            semantic_ids.item(&item.id, codes.map(|&code| code.into()));
        }
        Self {
            items: dataset.items.len(),
            semantic_ids: semantic_ids.finish(),
            sequences: sequences_hash(dataset),
        }
    }

    /// Whether these are the semantic IDs of then, perhaps with new items behind them: id and codes
    /// of each item, in the order of the catalogue's file.
    pub fn has_ids<'a, C: IntoIterator<Item = u32>>(
        &self,
        layout: &TokenLayout,
        items: impl IntoIterator<Item = (&'a str, C)>,
    ) -> bool {
        let mut hash = IdsHash::new(layout);
        for (id, codes) in items.into_iter().take(self.items) {
            hash.item(id, codes);
        }
        hash.finish() == self.semantic_ids
    }
}

/// A fingerprint of the sequences without their test items, on which no training may depend.
pub(crate) fn sequences_hash(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    hash.update((dataset.items.len() as u64).to_le_bytes());
    for sequence in &dataset.sequences {
        hash.update((sequence.user.len() as u64).to_le_bytes());
        hash.update(&sequence.user);
        let (seen, _) = sequence.test();
        hash.update((seen.len() as u64).to_le_bytes());
        for item in seen {
            hash.update(item.to_le_bytes());
        }
    }
    short_hex(hash)
}

/// A hash in the making of a token layout and items.
struct IdsHash(Sha256);

impl IdsHash {
    fn new(layout: &TokenLayout) -> Self {
        // A layout has string keys and no failing serialiser.
        Self(Sha256::new_with_prefix(serde_json::to_vec(layout).unwrap_or_default()))
    }

    fn item(&mut self, id: &str, codes: impl IntoIterator<Item = u32>) {
        self.0.update((id.len() as u64).to_le_bytes());
        self.0.update(id);
        for code in codes {
            self.0.update(code.to_le_bytes());
        }
    }

    fn finish(self) -> String {
        short_hex(self.0)
    }
}

/// 128 bits are enough against accidents.
fn short_hex(hash: Sha256) -> String {
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing;

    const LAYOUT: [u32; 2] = [5, 4];

    fn provenance(sequences: &[&[u32]], codes: &[u16]) -> Provenance {
        let dataset = testing::dataset(codes.len() / 2, sequences);
        let layout = TokenLayout::contiguous(&LAYOUT, 6, 4);
        let ids = SemanticIds::new(&dataset, layout, codes).unwrap();
        Provenance::new(&dataset, &ids)
    }

    /// Whether a model trained on these codes goes with those.
    fn goes(trained: &[u16], now: &[u16], users: u32) -> bool {
        let dataset = testing::dataset(now.len() / 2, &[]);
        let items = dataset.items.iter().zip(now.chunks(2));
        provenance(&[&[0, 1, 2]], trained).has_ids(
            &TokenLayout::contiguous(&LAYOUT, users, 4),
            items.map(|(item, codes)| (item.id.as_str(), codes.iter().map(|&c| c.into()))),
        )
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
    fn the_test_item_is_not_part_of_it() {
        let codes = [0, 1, 3, 2, 4, 0, 2, 2];
        let of = |items: &[u32]| provenance(&[items], &codes);
        assert_eq!(of(&[0, 1, 2]), of(&[0, 1, 3]));
        assert_ne!(of(&[0, 1, 2]), of(&[0, 2, 2]));
    }
}
