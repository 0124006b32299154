//! Semantic_KNN: the items whose content vectors are most similar to those of the history. It is
//! what the paper compares cold-start retrieval with (section 4.3), since a vector needs no
//! interaction.

use rayon::prelude::*;
use serde::Serialize;
use tch::Tensor;

use super::{Baseline, Repeats, recency_weights};
use crate::data::Dataset;
use crate::embed::Vectors;
use crate::error::{Result, TrainError, check_range};
use crate::model::params::to_vec;

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Semantic_KNN")]
pub struct Settings {
    /// Weight of an item of the history against that of the one after it; 0: the latest alone.
    #[arg(id = "semantic-knn-decay", long, allow_negative_numbers = true, value_name = "W",
          default_value_t = Settings::DEFAULT.decay)]
    pub decay: f64,
}

impl Settings {
    /// The defaults.
    pub const DEFAULT: Self = Self { decay: 0.7 };

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`crate::TrainError::Usage`] naming the option.
    pub fn validate(&self) -> Result<()> {
        check_range("--semantic-knn-decay", self.decay, 0.0..=1.0)
    }
}

/// The items' directions.
#[derive(Debug)]
pub struct SemanticKnn {
    /// Rows of length 1; an item without content has zeros.
    vectors: Vectors,
    /// The same, `[items, dimensions]`.
    matrix: Tensor,
    decay: f64,
    repeats: Repeats,
}

impl SemanticKnn {
    /// Takes content vectors, a row an item of the data set; of the sequences it reads only, from
    /// their training part, whether users return to items.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for vectors of another number of items, or a setting out of range.
    pub fn new(dataset: &Dataset, mut vectors: Vectors, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let (items, dimensions) = (dataset.items.len(), vectors.dimensions);
        if items * dimensions != vectors.data.len() {
            return Err(TrainError::usage("there must be a content vector for each item"));
        }
        vectors.normalise();
        let matrix = Tensor::from_slice(&vectors.data).view([items as i64, dimensions as i64]);
        Ok(Self { vectors, matrix, decay: settings.decay, repeats: Repeats::of(dataset) })
    }
}

/// Items of a history with their weights, which sum to 1.
fn weights(history: &[u32], decay: f64) -> Vec<(u32, f32)> {
    let mut weights: Vec<_> = recency_weights(history, decay).collect();
    let sum: f32 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
    weights
}

impl Baseline for SemanticKnn {
    fn items(&self) -> usize {
        self.matrix.size()[0] as usize
    }

    /// Of each item the recency-weighted mean of its cosines with the items of the history; an
    /// item's cosine with itself does not count.
    fn scores(&self, histories: &[&[u32]]) -> Vec<f32> {
        let Self { vectors, decay, repeats, .. } = self;
        let (items, dimensions) = (self.items(), vectors.dimensions);
        let mut queries = vec![0.0; histories.len() * dimensions];
        queries.par_chunks_mut(dimensions.max(1)).zip(histories).for_each(|(query, history)| {
            for (item, weight) in weights(history, *decay) {
                let row = vectors.row(item as usize);
                query.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
            }
        });
        let queries =
            Tensor::from_slice(&queries).view([histories.len() as i64, dimensions as i64]);
        let mut scores = to_vec(&queries.matmul(&self.matrix.tr()));
        scores.par_chunks_mut(items.max(1)).zip(histories).for_each(|(scores, history)| {
            for (item, weight) in weights(history, *decay) {
                let row = vectors.row(item as usize);
                scores[item as usize] -= weight * row.iter().map(|x| x * x).sum::<f32>();
            }
            repeats.apply(history, scores);
        });
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::{recommend, top_k};
    use crate::data::testing::{dataset, with_other_targets};
    use indicatif::ProgressBar;

    /// Angles of 0, 30, 90 and 180 degrees, lengths that must not matter, and no content.
    fn vectors() -> Vectors {
        let (sin, cos) = (0.5, 3f32.sqrt() / 2.0);
        let data = vec![2.0, 0.0, cos, sin, 0.0, 0.1, -1.0, 0.0, 0.0, 0.0];
        Vectors { dimensions: 2, data }
    }

    fn knn(sequence: &[u32], decay: f64) -> SemanticKnn {
        SemanticKnn::new(&dataset(5, &[sequence]), vectors(), Settings { decay }).unwrap()
    }

    #[test]
    fn the_nearest_by_angle_come_first() {
        let knn = knn(&[0, 1, 2, 3], 0.0);
        let best = recommend(&knn, &[&[2, 0], &[3, 1], &[]], 5, &ProgressBar::hidden());
        let order = |at: usize| best[at].iter().map(|hit| hit.item).collect::<Vec<_>>();
        // After 0: 1 at 30 degrees, nothing known of 4, 3 opposite; then the history itself.
        assert_eq!(order(0), [1, 4, 3, 0, 2]);
        // After 1: 0 at 30 degrees, 2 at 60.
        assert_eq!(order(1), [0, 2, 4, 1, 3]);
        assert_eq!(order(2), [0, 1, 2, 3, 4]);
        assert!((best[1][0].score - 3f32.sqrt() / 2.0).abs() < 1e-6);
        assert!((best[1][1].score - 0.5).abs() < 1e-6);
    }

    #[test]
    fn scores_are_weighted_means_and_an_item_is_not_its_own_neighbour() {
        // The data return to items, so that those of the history keep their score.
        let knn = knn(&[0, 0, 0, 1, 2], 0.5);
        let scores = knn.scores(&[&[1, 0]]);
        let cos30 = 3f32.sqrt() / 2.0;
        // The weights are 2/3 for item 0 and 1/3 for item 1.
        let expected = [cos30 / 3.0, cos30 * 2.0 / 3.0, 0.5 / 3.0, -2.0 / 3.0 - cos30 / 3.0, 0.0];
        for (item, expected) in expected.iter().enumerate() {
            assert!((scores[item] - expected).abs() < 1e-6, "item {item}: {scores:?}");
        }
        assert_eq!(top_k(&scores, 1)[0].item, 1);
    }

    #[test]
    fn a_history_does_not_change_with_those_beside_it() {
        let knn = knn(&[0, 1, 2, 3], 0.9);
        let alone = knn.scores(&[&[2]]);
        let together = knn.scores(&[&[0, 1, 3, 2], &[2]]);
        for (a, b) in alone.iter().zip(&together[5..]) {
            assert!(a == b || (a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn nothing_of_validation_and_test_is_read() {
        let data = dataset(5, &[&[0, 1, 2, 3], &[2, 0, 1, 4]]);
        let scores = |data: &Dataset| {
            let knn = SemanticKnn::new(data, vectors(), Settings::DEFAULT).unwrap();
            knn.scores(&[&[0, 1]])
        };
        assert_eq!(scores(&data), scores(&with_other_targets(&data, 0)));
    }

    #[test]
    fn vectors_of_other_items_are_refused() {
        let error = SemanticKnn::new(&dataset(4, &[]), vectors(), Settings::DEFAULT).unwrap_err();
        assert!(error.to_string().contains("a content vector for each item"));
        let error =
            SemanticKnn::new(&dataset(5, &[]), vectors(), Settings { decay: -0.1 }).unwrap_err();
        assert!(error.to_string().contains("--semantic-knn-decay -0.1"));
    }
}
