//! The popularity baseline: every user gets the items that occur most often in training.

use super::{Metrics, Split};
use crate::data::Dataset;

/// Metrics of ranking all items by their number of occurrences in the training part, ties to the
/// smaller index. The same protocol as the model: nothing is excluded.
pub fn popularity(dataset: &Dataset, split: Split) -> Metrics {
    let mut counts = vec![0u32; dataset.items.len()];
    for sequence in &dataset.sequences {
        for &item in sequence.train() {
            counts[item as usize] += 1;
        }
    }
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&item| (std::cmp::Reverse(counts[item]), item));
    let mut rank = vec![0; counts.len()];
    for (position, &item) in order.iter().enumerate() {
        rank[item] = position;
    }
    let ranks: Vec<Option<usize>> = dataset
        .sequences
        .iter()
        .map(|sequence| Some(rank[split.of(sequence).1 as usize]))
        .collect();
    Metrics::from_ranks(&ranks)
}
