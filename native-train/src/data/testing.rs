//! Small data sets for unit tests.

use super::{Dataset, Item, Sequence};

/// Items that are called by their number, and users likewise.
pub(crate) fn dataset(items: usize, sequences: &[&[u32]]) -> Dataset {
    let item = |i| Item { id: format!("{i}"), text: String::new(), fields: Default::default() };
    let sequence = |(i, s): (usize, &&[u32])| Sequence { user: format!("{i}"), items: s.to_vec() };
    Dataset {
        items: (0..items).map(item).collect(),
        sequences: sequences.iter().enumerate().map(sequence).collect(),
    }
}

/// The same sequences with another item to validate and to test on.
pub(crate) fn with_other_targets(dataset: &Dataset, item: u32) -> Dataset {
    let mut other = dataset.clone();
    for sequence in &mut other.sequences {
        let targets = sequence.items.len() - 2;
        sequence.items[targets..].fill(item);
    }
    other
}
