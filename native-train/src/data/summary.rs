//! What `prepare` made: the counts of the summary table and the settings behind them.

use serde::{Deserialize, Serialize};

use super::Dataset;
use super::template::TextRecipe;

/// The content of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Where the data came from: `log`, `amazon`, `movielens`, `research` or `classics`.
    pub source: String,
    /// Whether the users are simulated.
    pub simulated: bool,
    /// The k of the k-core filter; 0: not filtered.
    pub k_core: usize,
    /// What the k-core left out, and users who were too short in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_by_core: Option<Counts>,
    /// How the items' texts were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRecipe>,
    /// Seed of simulated users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Sequences.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Items of all sequences.
    pub interactions: usize,
    /// Mean length of a sequence.
    pub mean_length: f64,
    /// Median length of a sequence.
    pub median_length: f64,
    /// The share of all pairs of a user and an item that occur, once or more often.
    pub density: f64,
}

/// Sizes of a data set, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sequences.
    pub users: usize,
    /// Items.
    pub items: usize,
    /// Items of all sequences.
    pub interactions: usize,
}

impl Counts {
    /// Counts a data set.
    pub fn of(dataset: &Dataset) -> Self {
        Self {
            users: dataset.sequences.len(),
            items: dataset.items.len(),
            interactions: dataset.interactions(),
        }
    }
}

impl Summary {
    /// Counts a data set.
    pub fn new(dataset: &Dataset, source: &str, k_core: usize) -> Self {
        let (users, items) = (dataset.sequences.len(), dataset.items.len());
        let interactions = dataset.interactions();
        let mut lengths: Vec<usize> = dataset.sequences.iter().map(|s| s.items.len()).collect();
        lengths.sort_unstable();
        let median_length = match users {
            0 => 0.0,
            _ => (lengths[(users - 1) / 2] + lengths[users / 2]) as f64 / 2.0,
        };
        // An item that a user comes back to is one pair.
        let mut of_user = Vec::new();
        let pairs: usize = dataset
            .sequences
            .iter()
            .map(|sequence| {
                of_user.clone_from(&sequence.items);
                of_user.sort_unstable();
                of_user.dedup();
                of_user.len()
            })
            .sum();
        let ratio = |over: usize, under: f64| if under > 0.0 { over as f64 / under } else { 0.0 };
        Self {
            source: source.to_owned(),
            simulated: false,
            k_core,
            left_by_core: None,
            text: None,
            seed: None,
            users,
            items,
            interactions,
            mean_length: ratio(interactions, users as f64),
            median_length,
            density: ratio(pairs, users as f64 * items as f64),
        }
    }

    /// The same, of a data set that had so much before the k-core.
    #[must_use]
    pub fn out_of(mut self, before: Counts) -> Self {
        let left = Counts {
            users: before.users - self.users,
            items: before.items - self.items,
            interactions: before.interactions - self.interactions,
        };
        self.left_by_core = (left.users + left.items + left.interactions > 0).then_some(left);
        self
    }

    /// The same, with what made the items' texts.
    #[must_use]
    pub fn with_text(mut self, recipe: TextRecipe) -> Self {
        self.text = Some(recipe);
        self
    }

    /// The same, marked as simulated from a seed.
    #[must_use]
    pub fn simulated(mut self, seed: u64) -> Self {
        self.simulated = true;
        self.seed = Some(seed);
        self
    }

    /// The summary table for people.
    pub fn table(&self) -> String {
        let users = if self.simulated { "users (simulated)" } else { "users" };
        let mut rows = vec![
            (users, self.users.to_string()),
            ("items", self.items.to_string()),
            ("interactions", self.interactions.to_string()),
            ("mean length", format!("{:.2}", self.mean_length)),
            ("median length", self.median_length.to_string()),
            ("density", format!("{:.4} %", 100.0 * self.density)),
        ];
        if let Some(Counts { users, items, interactions }) = self.left_by_core {
            let left_out = [
                ("users left out", users),
                ("items left out", items),
                ("interactions left out", interactions),
            ];
            rows.extend(left_out.map(|(name, count)| (name, count.to_string())));
        }
        let lines = rows.iter().map(|(name, value)| format!("{name:<21} {value:>12}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}
