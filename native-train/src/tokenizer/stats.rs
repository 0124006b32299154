//! What can be said of a set of semantic IDs before a model is trained on them.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::embed::Vectors;

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

/// Collisions of semantic IDs before they are resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collisions {
    /// Items.
    pub items: usize,
    /// Items that share their codes with no other.
    pub unique_items: usize,
    /// Distinct codes.
    pub distinct: usize,
    /// Items in the largest group.
    pub largest_group: usize,
}

/// Items that a tokenizer cannot tell apart, since their vectors are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alike {
    /// Items that share all codes, and their vector, with another.
    pub items: usize,
    /// Most items of one vector.
    pub largest: usize,
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

/// Collisions among codes `[items, levels]`.
pub fn collisions(codes: &[u16], levels: usize) -> Collisions {
    let (items, shared) = (codes.len() / levels, collision_groups(codes, levels));
    let unique_items = items - shared.iter().map(Vec::len).sum::<usize>();
    Collisions {
        items,
        unique_items,
        distinct: unique_items + shared.len(),
        largest_group: shared.first().map_or(items.min(1), Vec::len),
    }
}

/// Items of equal vectors among those that share their codes `[items, levels]`.
pub fn alike(codes: &[u16], levels: usize, vectors: &Vectors) -> Alike {
    let mut alike = Alike::default();
    for group in collision_groups(codes, levels) {
        let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
        for item in group {
            let bits = vectors.row(item as usize).iter().map(|x| x.to_bits()).collect();
            *counts.entry(bits).or_default() += 1;
        }
        for &count in counts.values().filter(|&&count| count > 1) {
            alike.items += count;
            alike.largest = alike.largest.max(count);
        }
    }
    alike
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

/// Groups of two or more items that share all codes, from codes `[items, levels]`: indices of
/// items, the largest group first, equal ones by their first item.
pub fn collision_groups(codes: &[u16], levels: usize) -> Vec<Vec<u32>> {
    let mut members: Vec<Vec<u32>> = Vec::new();
    for (item, group) in (0..).zip(groups(codes, levels, 0..levels)) {
        match members.get_mut(group as usize) {
            Some(members) => members.push(item),
            None => members.push(vec![item]),
        }
    }
    members.retain(|members| members.len() > 1);
    // Stable, and the groups stand in order of first appearance.
    members.sort_by_key(|members| std::cmp::Reverse(members.len()));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_equal_vectors_are_counted_among_those_that_collide() {
        let vectors = Vectors { dimensions: 1, data: vec![1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0] };
        let found = alike(&[5, 5, 5, 5, 5, 6, 7], 1, &vectors);
        assert_eq!(found, Alike { items: 5, largest: 3 });
        assert_eq!(alike(&[1, 2, 3, 4, 5, 6, 7], 1, &vectors), Alike::default());
    }

    #[test]
    fn counts_use_and_collisions() {
        let codes = [0, 1, 0, 1, 2, 1, 3, 1];
        let levels = level_use(&codes, &[4, 4]);
        assert_eq!((levels[0].used, levels[1].used), (3, 1));
        assert!((levels[1].perplexity - 1.0).abs() < 1e-12);
        let groups = collisions(&codes, 2);
        assert_eq!((groups.unique_items, groups.distinct, groups.largest_group), (2, 3, 2));
        for (codes, expected) in [(&[0, 1, 1, 0][..], (2, 2, 1)), (&[], (0, 0, 0))] {
            let groups = collisions(codes, 2);
            let found = (groups.unique_items, groups.distinct, groups.largest_group);
            assert_eq!(found, expected, "{codes:?}");
        }
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

    #[test]
    fn collision_groups_leave_unique_items_out_and_start_with_the_largest() {
        let codes = [0, 1, 5, 5, 3, 3, 0, 1, 3, 3, 3, 3];
        assert_eq!(collision_groups(&codes, 2), [vec![2, 4, 5], vec![0, 3]]);
    }
}
