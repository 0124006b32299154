//! Baselines under the model's own protocol: every item of the catalogue gets a score, and the
//! held-out item is ranked among all of them, or among all that the user has not had.
//!
//! Each baseline is a [`Baseline`]; ranks, metrics and lists of the best items come from one code
//! path here. All of them learn from [`Sequence::train`] alone; SASRec ends, and chooses its weights, by
//! the validation items, as the model does.

pub mod item_knn;
pub mod popularity;
pub mod sasrec;
pub mod semantic_knn;

use std::cmp::Ordering;
use std::collections::HashSet;

use clap::ValueEnum;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Sequence};
use crate::evaluate::Protocol;
use crate::metrics::Metrics;

pub use item_knn::ItemKnn;
pub use popularity::Popularity;
pub use sasrec::SasRec;
pub use semantic_knn::SemanticKnn;

/// The baselines by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The same items for everybody: those that occur most often.
    Popularity,
    /// Items that occur in the same sequences as those of the history.
    ItemKnn,
    /// Items whose content vectors are similar to those of the history.
    SemanticKnn,
    /// Self-attentive sequential recommendation (Kang and McAuley 2018).
    #[value(name = "sasrec")]
    #[serde(rename = "sasrec")]
    SasRec,
}

impl Method {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Popularity => "popularity",
            Self::ItemKnn => "item-knn",
            Self::SemanticKnn => "semantic-knn",
            Self::SasRec => "sasrec",
        }
    }

    /// The name as the literature writes it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Popularity => "popularity",
            Self::ItemKnn => "item-KNN",
            Self::SemanticKnn => "Semantic_KNN",
            Self::SasRec => "SASRec",
        }
    }
}

/// A recommender that scores the whole catalogue.
pub trait Baseline {
    /// Number of items, those that nobody interacted with included.
    fn items(&self) -> usize;

    /// A score for every item after each history (oldest first), row-major `[histories, items]`;
    /// higher is better, never NaN. Items with the same score are ranked by their index. An empty
    /// history is legal.
    fn scores(&self, histories: &[&[u32]]) -> Vec<f32>;

    /// After each history the 0-based rank of its target by these scores, among all items but those
    /// excluded there, which may be named twice; `None` where the target is one of them.
    fn ranks(
        &self,
        histories: &[&[u32]],
        targets: &[u32],
        excluded: &[&[u32]],
    ) -> Vec<Option<usize>> {
        ranks_by(&self.scores(histories), self.items(), targets, excluded)
    }
}

/// [`Baseline::ranks`] of scores `[histories, items]`.
fn ranks_by(
    scores: &[f32],
    items: usize,
    targets: &[u32],
    excluded: &[&[u32]],
) -> Vec<Option<usize>> {
    let rows = scores.par_chunks(items.max(1)).enumerate();
    rows.map(|(row, scores)| rank_among_others(scores, targets[row], excluded[row])).collect()
}

/// An item and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Index into [`Dataset::items`].
    pub item: u32,
    /// Its score; comparable within one history only.
    pub score: f32,
}

impl Scored {
    /// Best first; ties to the smaller index.
    fn order(&self, other: &Self) -> Ordering {
        // Adding zero makes -0 and 0 the same to `total_cmp`.
        (other.score + 0.0).total_cmp(&(self.score + 0.0)).then(self.item.cmp(&other.item))
    }
}

/// The 0-based rank of `target` among all items.
fn rank_of(scores: &[f32], target: u32) -> usize {
    let target = Scored { item: target, score: scores[target as usize] };
    scored(scores).filter(|other| other.order(&target).is_lt()).count()
}

/// The 0-based rank of `target` among all items but those of `excluded`, which may name one twice;
/// `None` if it is one of them.
fn rank_among_others(scores: &[f32], target: u32, excluded: &[u32]) -> Option<usize> {
    let excluded: HashSet<u32> = excluded.iter().copied().collect();
    let is_ahead = |&item: &u32| {
        let scored = |item: u32| Scored { item, score: scores[item as usize] };
        scored(item).order(&scored(target)).is_lt()
    };
    (!excluded.contains(&target))
        .then(|| rank_of(scores, target) - excluded.iter().copied().filter(is_ahead).count())
}

/// The best `k` items, or all where there are fewer.
fn top_k(scores: &[f32], k: usize) -> Vec<Scored> {
    let mut all: Vec<Scored> = scored(scores).collect();
    let k = k.min(all.len());
    if k > 0 && k < all.len() {
        all.select_nth_unstable_by(k - 1, Scored::order);
    }
    all.truncate(k);
    all.sort_unstable_by(Scored::order);
    all
}

fn scored(scores: &[f32]) -> impl Iterator<Item = Scored> {
    scores.iter().zip(0..).map(|(&score, item)| Scored { item, score })
}

/// The rank of each sequence's held-out item: `None` only where the protocol excludes it.
pub fn rank_targets(
    baseline: &dyn Baseline,
    sequences: &[&Sequence],
    protocol: Protocol,
    progress: &ProgressBar,
) -> Vec<Option<usize>> {
    let (histories, targets): (Vec<&[u32]>, Vec<u32>) =
        sequences.iter().map(|sequence| protocol.split.of(sequence)).unzip();
    for_each_history(baseline, &histories, progress, |chunk, histories| {
        let targets: Vec<u32> = chunk.iter().map(|&index| targets[index]).collect();
        let excluded =
            if protocol.exclude_history { histories } else { &vec![&[][..]; chunk.len()] };
        baseline.ranks(histories, &targets, excluded)
    })
}

/// The metrics of [`rank_targets`] over all sequences of a data set.
pub fn evaluate(
    baseline: &dyn Baseline,
    dataset: &Dataset,
    protocol: Protocol,
    progress: &ProgressBar,
) -> Metrics {
    let sequences: Vec<&Sequence> = dataset.sequences.iter().collect();
    Metrics::from_ranks(&rank_targets(baseline, &sequences, protocol, progress))
}

/// The best `k` items after each history, best first; all items where there are fewer than `k`.
pub fn recommend(
    baseline: &dyn Baseline,
    histories: &[&[u32]],
    k: usize,
    progress: &ProgressBar,
) -> Vec<Vec<Scored>> {
    let items = baseline.items().max(1);
    for_each_history(baseline, histories, progress, |_, histories| {
        baseline.scores(histories).par_chunks(items).map(|scores| top_k(scores, k)).collect()
    })
}

/// Collects what `of_chunk` makes of the histories, given with their indices in batches whose scores
/// keep memory bounded.
fn for_each_history<T: Default + Clone>(
    baseline: &dyn Baseline,
    histories: &[&[u32]],
    progress: &ProgressBar,
    of_chunk: impl Fn(&[usize], &[&[u32]]) -> Vec<T>,
) -> Vec<T> {
    /// Scores held at once.
    const SCORES: usize = 1 << 22;
    let items = baseline.items();
    let batch = (SCORES / items.max(1)).clamp(1, 256);
    let mut order: Vec<usize> = (0..histories.len()).collect();
    // Histories of equal length together, for baselines that would have to pad.
    order.sort_by_key(|&index| histories[index].len());
    let mut results = vec![T::default(); histories.len()];
    for chunk in order.chunks(batch) {
        let histories: Vec<&[u32]> = chunk.iter().map(|&index| histories[index]).collect();
        for (&index, result) in chunk.iter().zip(of_chunk(chunk, &histories)) {
            results[index] = result;
        }
        progress.inc(chunk.len() as u64);
    }
    results
}

/// The weight of each item of a history: 1 for the latest, `decay` times as much for each step
/// back. Items whose weight no longer counts in `f32` are left out.
fn recency_weights(history: &[u32], decay: f64) -> impl Iterator<Item = (u32, f32)> + '_ {
    let weights = std::iter::successors(Some(1.0), move |weight| Some(weight * decay));
    history
        .iter()
        .rev()
        .zip(weights)
        .map(|(&item, weight): (_, f64)| (item, weight as f32))
        .take_while(|&(_, weight)| weight > 1e-12)
}

/// What the neighbourhood methods do with items of the history itself, which are always similar
/// to it: where the training sequences hardly ever return to an item, they are ranked last. A
/// trained model learns the same from the same data; nothing is taken out of the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repeats {
    happen: bool,
}

impl Repeats {
    fn of(dataset: &Dataset) -> Self {
        Self { happen: dataset.has_repeats() }
    }

    fn apply(self, history: &[u32], scores: &mut [f32]) {
        if !self.happen {
            for &item in history {
                scores[item as usize] = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::dataset;
    use crate::evaluate::Split;

    /// Scores that are written down.
    struct Fixed(Vec<f32>);

    impl Baseline for Fixed {
        fn items(&self) -> usize {
            self.0.len()
        }

        fn scores(&self, histories: &[&[u32]]) -> Vec<f32> {
            self.0.repeat(histories.len())
        }
    }

    #[test]
    fn ties_go_to_the_smaller_index_in_ranks_and_in_lists() {
        let scores = [0.0, 2.0, -0.0, f32::NEG_INFINITY, 2.0, -1.0];
        let order: Vec<u32> = top_k(&scores, 6).iter().map(|hit| hit.item).collect();
        assert_eq!(order, [1, 4, 0, 2, 5, 3]);
        for (rank, &item) in order.iter().enumerate() {
            assert_eq!(rank_of(&scores, item), rank, "item {item}");
            assert_eq!(top_k(&scores, rank + 1)[rank].item, item);
        }
        assert_eq!(top_k(&scores, 99).len(), 6);
        assert!(top_k(&scores, 0).is_empty() && top_k(&[], 3).is_empty());
    }

    #[test]
    fn results_stand_in_the_order_of_the_histories_whatever_their_length() {
        // More histories than a batch, lengths mixed: rank 0 for item 1, rank 1 for item 0.
        let long = [0u32; 9];
        let sequences: Vec<Sequence> = (0..600)
            .map(|i| Sequence {
                user: format!("{i}"),
                items: [&long[..i % 7 + 2], &[(i % 2) as u32]].concat(),
            })
            .collect();
        let sequences: Vec<&Sequence> = sequences.iter().collect();
        let progress = ProgressBar::hidden();
        let protocol = Protocol::of(Split::Test);
        let ranks = rank_targets(&Fixed(vec![0.5, 0.7]), &sequences, protocol, &progress);
        for (index, rank) in ranks.iter().enumerate() {
            assert_eq!(*rank, Some(1 - index % 2), "sequence {index}");
        }
        assert_eq!(progress.position(), 600);
    }

    #[test]
    fn excluded_items_take_no_place_and_have_none() {
        // Best first: 1, 4, 0, 2, 5, 3.
        let scores = [0.0, 2.0, -0.0, f32::NEG_INFINITY, 2.0, -1.0];
        assert_eq!(rank_among_others(&scores, 2, &[]), Some(3));
        assert_eq!(rank_among_others(&scores, 2, &[1, 5, 1, 3]), Some(2), "one of them is ahead");
        assert_eq!(rank_among_others(&scores, 2, &[1, 4, 0]), Some(0));
        assert_eq!(rank_among_others(&scores, 2, &[0, 2]), None);
        let sequence = Sequence { user: "u".into(), items: vec![1, 4, 0] };
        let ranks = |exclude_history| {
            let protocol = Protocol { split: Split::Test, exclude_history };
            rank_targets(&Fixed(scores.into()), &[&sequence], protocol, &ProgressBar::hidden())
        };
        assert_eq!(ranks(false), [Some(2)]);
        assert_eq!(ranks(true), [Some(0)]);
    }

    #[test]
    fn weights_fall_with_the_distance_from_the_end() {
        let weights = |decay| recency_weights(&[7, 8, 9], decay).collect::<Vec<_>>();
        assert_eq!(weights(0.5), [(9, 1.0), (8, 0.5), (7, 0.25)]);
        assert_eq!(weights(1.0), [(9, 1.0), (8, 1.0), (7, 1.0)]);
        assert_eq!(weights(0.0), [(9, 1.0)], "only the latest");
    }

    #[test]
    fn repeats_are_looked_for_in_training_only() {
        let never = dataset(4, &[&[0, 1, 2, 0, 1], &[3, 2, 3, 3]]);
        assert!(!Repeats::of(&never).happen);
        let mut scores = [5.0, 4.0, 3.0, 2.0];
        Repeats::of(&never).apply(&[1, 0], &mut scores);
        assert_eq!(top_k(&scores, 4).iter().map(|s| s.item).collect::<Vec<_>>(), [2, 3, 0, 1]);
        let returning = dataset(4, &[&[0, 1, 0, 0, 1]]);
        assert!(Repeats::of(&returning).happen);
        let mut scores = [5.0, 4.0];
        Repeats::of(&returning).apply(&[0], &mut scores);
        assert_eq!(scores, [5.0, 4.0]);
    }
}
