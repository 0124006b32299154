//! Item-KNN on co-occurrence (Sarwar et al. 2001; Deshpande and Karypis 2004): items that share
//! users are similar, and an item's score is its similarity to the history.

use rayon::prelude::*;
use serde::Serialize;

use super::{Baseline, Repeats, recency_weights};
use crate::data::Dataset;
use crate::error::{Result, check_range};

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Item-KNN")]
pub struct Settings {
    /// Neighbours kept of each item.
    #[arg(id = "item-knn-neighbours", long, value_name = "N",
          default_value_t = Settings::DEFAULT.neighbours)]
    pub neighbours: usize,
    /// Weight of an item of the history against that of the one after it.
    #[arg(id = "item-knn-decay", long, allow_negative_numbers = true, value_name = "W",
          default_value_t = Settings::DEFAULT.decay)]
    pub decay: f64,
    /// Added to the denominator of a similarity, so that few shared users count for less.
    #[arg(id = "item-knn-shrinkage", long, allow_negative_numbers = true, value_name = "S",
          default_value_t = Settings::DEFAULT.shrinkage)]
    pub shrinkage: f64,
}

impl Settings {
    /// The defaults.
    pub const DEFAULT: Self = Self { neighbours: 500, decay: 0.7, shrinkage: 5.0 };

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`crate::TrainError::Usage`] naming the option.
    pub fn validate(&self) -> Result<()> {
        check_range("--item-knn-neighbours", self.neighbours as f64, 1.0..=1e6)?;
        check_range("--item-knn-decay", self.decay, 0.0..=1.0)?;
        check_range("--item-knn-shrinkage", self.shrinkage, 0.0..=1e6)
    }
}

/// Similarities between items.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemKnn {
    /// Of each item its neighbours and how similar they are, the most similar first.
    neighbours: Vec<Vec<(u32, f32)>>,
    decay: f64,
    repeats: Repeats,
}

impl ItemKnn {
    /// Counts, over the training part of every sequence, in how many of them two items stand
    /// together: similarity(i, j) = n(i, j) / (sqrt(n(i) n(j)) + shrinkage), n(i) being the
    /// sequences that have i. An item is not its own neighbour. Memory is that of the kept
    /// neighbours.
    ///
    /// # Errors
    /// [`crate::TrainError::Usage`] for settings out of range.
    pub fn fit(dataset: &Dataset, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let items = dataset.items.len();
        let baskets: Vec<Vec<u32>> = dataset
            .sequences
            .par_iter()
            .map(|sequence| {
                let mut basket = sequence.train().to_vec();
                basket.sort_unstable();
                basket.dedup();
                basket
            })
            .collect();
        let mut baskets_of = vec![Vec::new(); items];
        for (basket, index) in baskets.iter().zip(0u32..) {
            for &item in basket {
                baskets_of[item as usize].push(index);
            }
        }
        let neighbours = (0..items)
            .into_par_iter()
            .map_init(
                || vec![0u32; items],
                |counts, item| {
                    let mut met = Vec::new();
                    for &basket in &baskets_of[item] {
                        for &other in &baskets[basket as usize] {
                            if counts[other as usize] == 0 {
                                met.push(other);
                            }
                            counts[other as usize] += 1;
                        }
                    }
                    let own = baskets_of[item].len() as f64;
                    let mut similar = Vec::with_capacity(met.len());
                    for other in met {
                        let together = std::mem::take(&mut counts[other as usize]);
                        if other as usize != item {
                            let its = baskets_of[other as usize].len() as f64;
                            let norm = (own * its).sqrt() + settings.shrinkage;
                            similar.push((other, (f64::from(together) / norm) as f32));
                        }
                    }
                    similar.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    similar.truncate(settings.neighbours);
                    similar.shrink_to_fit();
                    similar
                },
            )
            .collect();
        Ok(Self { neighbours, decay: settings.decay, repeats: Repeats::of(dataset) })
    }
}

impl Baseline for ItemKnn {
    fn items(&self) -> usize {
        self.neighbours.len()
    }

    /// Of each item the recency-weighted sum of its similarities to the items of the history.
    fn scores(&self, histories: &[&[u32]]) -> Vec<f32> {
        let items = self.items();
        let mut scores = vec![0.0; histories.len() * items];
        scores.par_chunks_mut(items.max(1)).zip(histories).for_each(|(row, history)| {
            for (item, weight) in recency_weights(history, self.decay) {
                for &(neighbour, similarity) in &self.neighbours[item as usize] {
                    row[neighbour as usize] += weight * similarity;
                }
            }
            self.repeats.apply(history, row);
        });
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{dataset, with_other_targets};

    const PLAIN: Settings = Settings { neighbours: 10, decay: 0.5, shrinkage: 0.0 };

    /// Training parts: 0 1 2 | 0 1 | 0 3 | 1 3 3.
    fn data() -> Dataset {
        dataset(5, &[&[0, 1, 2, 4, 4], &[0, 1, 2, 3], &[0, 3, 1, 1], &[1, 3, 3, 0, 2]])
    }

    #[test]
    fn similarities_are_the_cosines_of_co_occurrence() {
        let knn = ItemKnn::fit(&data(), PLAIN).unwrap();
        // Sequences that have 0, 1, 2, 3: 3, 3, 1, 2.
        let (c01, c02, c03) = (2.0 / 3.0, 1.0 / 3f64.sqrt(), 1.0 / 6f64.sqrt());
        let expected = [
            vec![(1, c01), (2, c02), (3, c03)],
            vec![(0, c01), (2, c02), (3, c03)],
            vec![(0, c02), (1, c02)],
            vec![(0, c03), (1, c03)],
            vec![],
        ];
        for (item, expected) in expected.iter().enumerate() {
            let expected: Vec<(u32, f32)> = expected.iter().map(|&(j, s)| (j, s as f32)).collect();
            assert_eq!(knn.neighbours[item], expected, "item {item}");
        }
    }

    #[test]
    fn scores_are_weighted_by_recency() {
        let knn = ItemKnn::fit(&data(), PLAIN).unwrap();
        assert!(knn.repeats.happen, "3 3 is a repeat");
        let scores = knn.scores(&[&[0, 3], &[], &[4]]);
        // The latest, 3, counts once; 0 before it counts half.
        let (c01, c02, c03) = (2.0 / 3.0f32, 1.0 / 3f32.sqrt(), 1.0 / 6f32.sqrt());
        let expected = [c03, c03 + 0.5 * c01, 0.5 * c02, 0.5 * c03, 0.0];
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-6, "{scores:?}");
        }
        assert!(scores[5..].iter().all(|&score| score == 0.0));
    }

    #[test]
    fn shrinkage_and_the_number_of_neighbours_hold() {
        let settings = Settings { neighbours: 1, shrinkage: 3.0, ..PLAIN };
        let knn = ItemKnn::fit(&data(), settings).unwrap();
        assert_eq!(knn.neighbours[0], [(1, 2.0 / 6.0)]);
        assert_eq!(knn.neighbours[2].len(), 1, "of equals the smaller index");
        assert_eq!(knn.neighbours[2][0].0, 0);
    }

    #[test]
    fn nothing_of_validation_and_test_is_read() {
        let data = data();
        let one = ItemKnn::fit(&data, PLAIN).unwrap();
        assert_eq!(one, ItemKnn::fit(&with_other_targets(&data, 4), PLAIN).unwrap());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (settings, option) in [
            (Settings { neighbours: 0, ..PLAIN }, "--item-knn-neighbours 0"),
            (Settings { decay: 1.5, ..PLAIN }, "--item-knn-decay 1.5"),
            (Settings { shrinkage: f64::NAN, ..PLAIN }, "--item-knn-shrinkage NaN"),
        ] {
            let error = ItemKnn::fit(&data(), settings).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
        assert!(Settings::DEFAULT.validate().is_ok());
    }
}
