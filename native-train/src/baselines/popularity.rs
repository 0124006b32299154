//! Popularity: every user gets the items that occur most often in training.

use super::Baseline;
use crate::data::Dataset;

/// Occurrences of each item in the training part.
#[derive(Debug, Clone, PartialEq)]
pub struct Popularity {
    counts: Vec<f32>,
}

impl Popularity {
    /// Counts the training part of every sequence.
    pub fn fit(dataset: &Dataset) -> Self {
        let mut counts = vec![0u32; dataset.items.len()];
        for &item in dataset.sequences.iter().flat_map(|sequence| sequence.train()) {
            counts[item as usize] += 1;
        }
        Self { counts: counts.into_iter().map(|count| count as f32).collect() }
    }
}

impl Baseline for Popularity {
    fn items(&self) -> usize {
        self.counts.len()
    }

    /// The counts, whatever the history.
    fn scores(&self, histories: &[&[u32]]) -> Vec<f32> {
        self.counts.repeat(histories.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::{evaluate, recommend};
    use crate::data::testing::{dataset, with_other_targets};
    use crate::evaluate::{Protocol, Split};
    use indicatif::ProgressBar;

    #[test]
    fn counts_training_interactions_and_nothing_else() {
        let data = dataset(5, &[&[2, 3, 2, 0, 0], &[3, 2, 4, 1], &[1, 0, 4]]);
        let popularity = Popularity::fit(&data);
        // In training: 2 3 2 | 3 2 | 1.
        assert_eq!(popularity.counts, [0.0, 1.0, 3.0, 2.0, 0.0]);
        assert_eq!(popularity, Popularity::fit(&with_other_targets(&data, 4)));
        let progress = ProgressBar::hidden();
        let best = recommend(&popularity, &[&[2], &[]], 4, &progress);
        assert_eq!(best[0], best[1]);
        assert_eq!(best[0].iter().map(|hit| hit.item).collect::<Vec<_>>(), [2, 3, 1, 0]);
        // Test targets 0, 1, 4 have the ranks 3, 2, 4.
        let metrics = evaluate(&popularity, &data, Protocol::of(Split::Test), &progress);
        assert_eq!(metrics.recall_5, 1.0);
        let gain = |rank: f64| 1.0 / (rank + 2.0).log2();
        assert!((metrics.ndcg_5 - (gain(3.0) + gain(2.0) + gain(4.0)) / 3.0).abs() < 1e-12);
    }
}
