//! What can be said of a set of semantic IDs before a model is trained on them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

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

impl LevelUse {
    /// From the number of items of each codeword.
    pub fn from_counts(counts: &[f32]) -> Self {
        let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        let used = counts.iter().filter(|&&count| count > 0.0);
        let entropy: f64 = used
            .clone()
            .map(|&count| {
                let p = f64::from(count) / total;
                -p * p.ln()
            })
            .sum();
        Self { used: used.count(), codewords: counts.len(), perplexity: entropy.exp() }
    }
}

/// Use of each level of the given sizes, from codes `[items, levels]`.
pub fn level_use(codes: &[u16], sizes: &[u32]) -> Vec<LevelUse> {
    sizes
        .iter()
        .enumerate()
        .map(|(level, &size)| {
            let mut counts = vec![0.0; size as usize];
            for row in codes.chunks_exact(sizes.len()) {
                counts[usize::from(row[level])] += 1.0;
            }
            LevelUse::from_counts(&counts)
        })
        .collect()
}

/// Collisions among codes `[items, levels]`.
pub fn collisions(codes: &[u16], levels: usize) -> Collisions {
    let mut groups: HashMap<&[u16], usize> = HashMap::new();
    for row in codes.chunks_exact(levels) {
        *groups.entry(row).or_default() += 1;
    }
    Collisions {
        items: codes.len() / levels,
        unique_items: groups.values().filter(|&&size| size == 1).count(),
        distinct: groups.len(),
        largest_group: groups.values().copied().max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_use_and_collisions() {
        let codes = [0, 1, 0, 1, 2, 1, 3, 1];
        let levels = level_use(&codes, &[4, 4]);
        assert_eq!((levels[0].used, levels[1].used), (3, 1));
        assert!((levels[1].perplexity - 1.0).abs() < 1e-12);
        let groups = collisions(&codes, 2);
        assert_eq!((groups.unique_items, groups.distinct, groups.largest_group), (2, 3, 2));
    }
}
