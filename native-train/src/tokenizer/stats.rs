//! What can be said of a set of semantic IDs before a model is trained on them.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// With fewer items to a codeword of the first level, the first code is nearly the item's own id:
/// it says little that several items have in common.
const ITEMS_A_CODEWORD: usize = 8;

/// The smallest codebook that is worth its level.
const SMALLEST_CODEBOOK: usize = 8;

/// Use of one level's codewords.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LevelUse {
    /// Codewords with at least one item.
    pub used: usize,
    /// Codewords there are.
    pub codewords: usize,
    /// exp(entropy) of the distribution of items over codewords.
    pub perplexity: f64,
}

impl LevelUse {
    /// From the number of items of each codeword.
    pub fn from_counts(counts: &[impl Copy + Into<f64>]) -> Self {
        let counts = counts.iter().map(|&count| count.into());
        Self {
            used: counts.clone().filter(|&count: &f64| count > 0.0).count(),
            codewords: counts.len(),
            perplexity: entropy(counts).exp(),
        }
    }
}

/// Entropy in nats of a distribution, from the number of times that each value is there.
pub fn entropy(counts: impl Iterator<Item = f64> + Clone) -> f64 {
    let total: f64 = counts.clone().sum();
    let terms = counts.filter(|&count| count > 0.0).map(|count| {
        let share = count / total;
        share * share.ln()
    });
    // 0 - 0 and not -0, where all are the same.
    0.0 - terms.sum::<f64>()
}

/// A size for the codebooks where `items` are few for `codewords` in the first level: the largest
/// power of two that leaves each enough of them. `None` where they are enough, or the codebook is
/// as small as can be.
pub fn smaller_codebook(items: usize, codewords: usize) -> Option<usize> {
    let most = (items / ITEMS_A_CODEWORD).max(SMALLEST_CODEBOOK);
    let better = 1 << most.ilog2();
    (most < codewords && better < codewords).then_some(better)
}

/// Use of each level of the given sizes, from codes `[items, levels]`.
pub fn level_use(codes: &[u16], sizes: &[u32]) -> Vec<LevelUse> {
    level_counts(codes, sizes).iter().map(|counts| LevelUse::from_counts(counts)).collect()
}

/// Items of each codeword of each level, from codes `[items, levels]`; `sizes` are the codewords
/// of each level.
pub fn level_counts(codes: &[u16], sizes: &[u32]) -> Vec<Vec<u32>> {
    let mut counts: Vec<Vec<u32>> = sizes.iter().map(|&size| vec![0; size as usize]).collect();
    for row in codes.chunks_exact(sizes.len()) {
        for (counts, &code) in counts.iter_mut().zip(row) {
            counts[usize::from(code)] += 1;
        }
    }
    counts
}

/// A number for each item, from codes `[items, levels]`, equal for two items if and only if their
/// codes at the levels `at` are; numbers are dense and in order of first appearance.
pub fn groups(codes: &[u16], levels: usize, at: Range<usize>) -> Vec<u32> {
    let mut numbers: HashMap<&[u16], u32> = HashMap::new();
    codes
        .chunks_exact(levels)
        .map(|row| {
            let next = numbers.len() as u32;
            *numbers.entry(&row[at.clone()]).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_counted_by_level() {
        let codes = [0, 1, 0, 1, 2, 1, 3, 1];
        let levels = level_use(&codes, &[4, 4]);
        assert_eq!((levels[0].used, levels[1].used), (3, 1));
        assert!((levels[1].perplexity - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_small_catalogue_is_told_a_smaller_codebook() {
        for (items, codewords, better) in [
            (389, 256, Some(32)),
            (512, 256, Some(64)),
            (2_047, 256, Some(128)),
            (2_048, 256, None),
            (389, 32, None),
            (389, 48, None),
            (60, 16, Some(8)),
            (20, 8, None),
            (20, 4, None),
        ] {
            assert_eq!(smaller_codebook(items, codewords), better, "{items} for {codewords}");
        }
    }

    #[test]
    fn items_of_each_codeword_are_counted_by_level() {
        let codes = [0, 1, 0, 1, 2, 1, 3, 1];
        assert_eq!(level_counts(&codes, &[4, 2]), [vec![2, 0, 1, 1], vec![0, 4]]);
    }

    #[test]
    fn groups_are_numbered_by_any_range_of_levels() {
        let codes = [7, 1, 5, 7, 2, 5, 9, 1, 5, 7, 1, 4];
        assert_eq!(groups(&codes, 3, 0..1), [0, 0, 1, 0]);
        assert_eq!(groups(&codes, 3, 0..2), [0, 1, 2, 0]);
        assert_eq!(groups(&codes, 3, 1..2), [0, 1, 0, 0]);
        assert_eq!(groups(&codes, 3, 0..0), [0, 0, 0, 0]);
    }
}
