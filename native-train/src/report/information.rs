//! How much the codes of items say about their categories.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::tokenizer::stats;

/// Shuffles that the mean by chance is taken over.
const SHUFFLES: usize = 20;

/// What groups of items (by codes) say about labels of items (categories). Entropies and mutual
/// information in nats.
///
/// Many small groups "explain" any labels, even random ones: a group of one item knows its item's
/// label. [`Information::mutual_by_chance`] measures this bias by shuffling the labels, and
/// [`Information::adjusted`] removes it (Vinh, Epps and Bailey, JMLR 2010).
/// [`Information::share_beyond_chance`] is the same over the labels' entropy alone, so that codes
/// are not blamed for what they say beside the label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Information {
    /// Entropy of the groups.
    pub(crate) groups_entropy: f64,
    /// Entropy of the labels.
    pub(crate) labels_entropy: f64,
    /// Mutual information of the two.
    pub(crate) mutual: f64,
    /// Mean mutual information of the groups and shuffled labels.
    pub(crate) mutual_by_chance: f64,
}

/// [`Information`] as the report gives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Shares {
    /// I / H(category): 1 where the codes determine the category.
    pub(crate) share: f64,
    /// The same with shuffled categories.
    pub(crate) share_by_chance: f64,
    /// (I - I by chance) / (H(category) - I by chance): of what chance leaves open, the share
    /// that the codes tell. 0 for codes that know nothing.
    pub(crate) share_beyond_chance: f64,
    /// Normalised mutual information, 2 I / (H(codes) + H(category)). It falls with every code
    /// that says more than the category.
    pub(crate) nmi: f64,
    /// The same with shuffled categories.
    pub(crate) nmi_by_chance: f64,
    /// Adjusted mutual information, (I - I by chance) / (mean of both entropies - I by chance).
    pub(crate) ami: f64,
}

impl Information {
    /// Of groups and labels, one each an item; both are dense numbers from 0.
    pub(crate) fn new(groups: &[u32], labels: &[u32], seed: u64) -> Self {
        let grouped = Grouped::new(groups);
        let mut shuffled = labels.to_vec();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut by_chance = 0.0;
        for _ in 0..SHUFFLES {
            shuffled.shuffle(&mut random);
            by_chance += grouped.mutual_information(&shuffled);
        }
        Self {
            groups_entropy: entropy(groups),
            labels_entropy: entropy(labels),
            mutual: grouped.mutual_information(labels),
            mutual_by_chance: by_chance / SHUFFLES as f64,
        }
    }

    /// Share of the labels' entropy that the groups explain; 0 where there is none to explain.
    pub(crate) fn share(&self) -> f64 {
        ratio(self.mutual, self.labels_entropy)
    }

    /// Normalised mutual information: over the mean of both entropies.
    pub(crate) fn normalised(&self) -> f64 {
        ratio(self.mutual, self.mean_entropy())
    }

    /// Adjusted mutual information: normalised, less what shuffled labels reach.
    pub(crate) fn adjusted(&self) -> f64 {
        ratio(self.mutual - self.mutual_by_chance, self.mean_entropy() - self.mutual_by_chance)
    }

    /// Share of the labels' entropy beyond what shuffled labels reach that the groups explain.
    pub(crate) fn share_beyond_chance(&self) -> f64 {
        ratio(self.mutual - self.mutual_by_chance, self.labels_entropy - self.mutual_by_chance)
    }

    /// All of it for the report.
    pub(crate) fn shares(&self) -> Shares {
        Shares {
            share: self.share(),
            share_by_chance: ratio(self.mutual_by_chance, self.labels_entropy),
            share_beyond_chance: self.share_beyond_chance(),
            nmi: self.normalised(),
            nmi_by_chance: ratio(self.mutual_by_chance, self.mean_entropy()),
            ami: self.adjusted(),
        }
    }

    fn mean_entropy(&self) -> f64 {
        (self.groups_entropy + self.labels_entropy) / 2.0
    }
}

/// Items by group, so that a contingency table needs no more than a row of it at a time.
struct Grouped {
    items: Vec<u32>,
    sizes: Vec<usize>,
}

impl Grouped {
    fn new(groups: &[u32]) -> Self {
        let mut items: Vec<u32> = (0..groups.len() as u32).collect();
        items.sort_by_key(|&item| groups[item as usize]);
        Self { items, sizes: counts(groups) }
    }

    /// `I(G; L) = H(L) - H(L | G)`.
    fn mutual_information(&self, labels: &[u32]) -> f64 {
        let labels_in_all = counts(labels);
        let mut in_group = vec![0_usize; labels_in_all.len()];
        let mut touched = Vec::new();
        let mut conditional = 0.0;
        let mut rest = self.items.as_slice();
        for &size in &self.sizes {
            let (group, after) = rest.split_at(size);
            rest = after;
            for &item in group {
                let label = labels[item as usize];
                if in_group[label as usize] == 0 {
                    touched.push(label);
                }
                in_group[label as usize] += 1;
            }
            for label in touched.drain(..) {
                let count = std::mem::take(&mut in_group[label as usize]) as f64;
                conditional -= count * (count / size as f64).ln();
            }
        }
        let information =
            entropy_of_counts(&labels_in_all) - ratio(conditional, labels.len() as f64);
        // Rounding may leave a negative of the last digit.
        information.max(0.0)
    }
}

/// Entropy of dense labels, in nats.
pub(crate) fn entropy(labels: &[u32]) -> f64 {
    entropy_of_counts(&counts(labels))
}

fn entropy_of_counts(counts: &[usize]) -> f64 {
    stats::entropy(counts.iter().map(|&count| count as f64))
}

fn counts(labels: &[u32]) -> Vec<usize> {
    let mut counts = vec![0; labels.iter().max().map_or(0, |&largest| largest as usize + 1)];
    for &label in labels {
        counts[label as usize] += 1;
    }
    counts
}

/// 0 where the denominator is (up to rounding).
fn ratio(over: f64, under: f64) -> f64 {
    if under > 1e-12 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LN_2: f64 = std::f64::consts::LN_2;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn groups_that_are_the_labels_carry_all_and_independent_ones_none() {
        let labels = [0, 0, 1, 1];
        let same = Information::new(&[1, 1, 0, 0], &labels, 0);
        close(same.mutual, LN_2);
        close(same.share(), 1.0);
        close(same.normalised(), 1.0);
        close(same.adjusted(), 1.0);
        close(same.share_beyond_chance(), 1.0);
        let independent = Information::new(&[0, 1, 0, 1], &labels, 0);
        close(independent.mutual, 0.0);
        close(independent.normalised(), 0.0);
        assert!(independent.adjusted() < 0.0);
    }

    #[test]
    fn a_half_known_label_by_hand() {
        // Group 0 holds both labels, groups 1 and 2 one each.
        let information = Information::new(&[0, 0, 1, 1, 2, 2, 0, 0], &[0, 1, 0, 0, 1, 1, 0, 1], 0);
        close(information.labels_entropy, LN_2);
        close(information.groups_entropy, 1.5 * LN_2);
        close(information.mutual, 0.5 * LN_2);
        close(information.share(), 0.5);
        close(information.normalised(), 0.5 / 1.25);
    }

    #[test]
    fn chance_is_the_mean_over_all_permutations() {
        // Of the three ways to pair four items, one is the labels' own: I is ln 2 with
        // probability 1/3 and 0 otherwise.
        let labels: Vec<u32> = vec![0, 0, 1, 1];
        let means = (0..100).map(|seed| Information::new(&labels, &labels, seed).mutual_by_chance);
        let mean = means.sum::<f64>() / 100.0;
        assert!((mean - LN_2 / 3.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn a_group_for_each_item_knows_everything_and_is_worth_nothing() {
        let groups: Vec<u32> = (0..64).collect();
        let labels: Vec<u32> = (0..64).map(|item| item % 4).collect();
        let information = Information::new(&groups, &labels, 0);
        close(information.share(), 1.0);
        close(information.shares().share_by_chance, 1.0);
        close(information.adjusted(), 0.0);
        close(information.share_beyond_chance(), 0.0);
    }

    #[test]
    fn finer_groups_than_labels_keep_their_share_beyond_chance() {
        // 200 groups of five items, all of one label; the labels of a group are drawn evenly.
        let groups: Vec<u32> = (0..1000).map(|item| item / 5).collect();
        let labels: Vec<u32> = (0..1000).map(|item| item / 5 % 4).collect();
        let shares = Information::new(&groups, &labels, 0).shares();
        close(shares.share, 1.0);
        close(shares.share_beyond_chance, 1.0);
        assert!(shares.share_by_chance > 0.2 && shares.ami < 0.5, "{shares:?}");
        let mut shuffled = labels;
        shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(9));
        let shares = Information::new(&groups, &shuffled, 0).shares();
        assert!(shares.share_beyond_chance.abs() < 0.1, "{shares:?}");
    }

    #[test]
    fn one_label_or_no_items_give_zero_and_no_nan() {
        for (groups, labels) in [(&[0, 1][..], &[0, 0][..]), (&[], &[])] {
            let shares = Information::new(groups, labels, 0).shares();
            assert_eq!((shares.share, shares.nmi, shares.ami), (0.0, 0.0, 0.0));
        }
    }
}
