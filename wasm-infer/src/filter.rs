//! Which items a search may return, counted inside any trie node at a cost that does not grow with
//! the catalogue.

use std::ops::Range;

/// Which items a search may return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFilter {
    /// Whether the listed items are those allowed; else they are those excluded.
    allow: bool,
    listed: RankSet,
}

/// A set of ranks that says how many of them lie below a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RankSet {
    /// Ascending and distinct: a binary search.
    List(Vec<u32>),
    /// A bit a rank, 32 a word, and beside each word how many are set before it: one look.
    Bits(Vec<[u32; 2]>),
}

const BITS: usize = u32::BITS as usize;

impl ItemFilter {
    /// All items.
    pub fn everything() -> Self {
        Self { allow: false, listed: RankSet::List(Vec::new()) }
    }

    /// Everything but `exclude`, cut to `allow` if given. Ranks in any order, repeats allowed.
    ///
    /// # Panics
    /// Maybe, for a rank that is not below `items`, the size of the catalogue.
    pub fn new(exclude: &[u32], allow: Option<&[u32]>, items: usize) -> Self {
        match allow {
            None => Self { allow: false, listed: RankSet::new(exclude, &[], items) },
            Some(allow) => Self { allow: true, listed: RankSet::new(allow, exclude, items) },
        }
    }

    /// Allowed items in a range of ranks.
    pub fn allowed_in(&self, node: Range<u32>) -> u32 {
        let listed = self.listed.below(node.end) - self.listed.below(node.start);
        if self.allow { listed } else { (node.end - node.start) - listed }
    }

    /// The filter as the kernel `candidates` reads it: flags (1: the listed are allowed, 2: bits),
    /// the length of the list, then the list, or pairs of a word and how many bits are set before.
    pub(crate) fn words(&self) -> Vec<u32> {
        let (head, ranks) = self.parts();
        [&head, ranks].concat()
    }

    /// How many words those are.
    pub(crate) fn word_count(&self) -> usize {
        let (head, ranks) = self.parts();
        head.len() + ranks.len()
    }

    fn parts(&self) -> ([u32; 2], &[u32]) {
        let (flag, length, ranks): (u32, usize, &[u32]) = match &self.listed {
            RankSet::List(ranks) => (0, ranks.len(), ranks),
            RankSet::Bits(words) => (2, 0, words.as_flattened()),
        };
        ([flag | u32::from(self.allow), length as u32], ranks)
    }
}

impl RankSet {
    /// The ranks of one list that are not in another, in whichever form is smaller.
    fn new(ranks: &[u32], less: &[u32], items: usize) -> Self {
        let words = items / BITS + 1;
        if ranks.len() <= 2 * words {
            // Sorting 64 bits is what the search does, too: the code is there already.
            let sorted = |ranks: &[u32]| {
                let mut ranks: Vec<u64> = ranks.iter().copied().map(u64::from).collect();
                ranks.sort_unstable();
                ranks.dedup();
                ranks
            };
            let less = sorted(less);
            let left = sorted(ranks).into_iter().filter(|rank| less.binary_search(rank).is_err());
            return Self::List(left.map(|rank| rank as u32).collect());
        }
        let mut bits = vec![[0u32; 2]; words];
        let place = |rank: u32| (rank as usize / BITS, 1u32 << (rank as usize % BITS));
        for (word, bit) in ranks.iter().map(|&rank| place(rank)) {
            bits[word][0] |= bit;
        }
        for (word, bit) in less.iter().map(|&rank| place(rank)) {
            bits[word][0] &= !bit;
        }
        let mut before = 0;
        for [word, count] in &mut bits {
            *count = before;
            before += word.count_ones();
        }
        Self::Bits(bits)
    }

    /// How many ranks lie below one, which is at most the number of items.
    fn below(&self, rank: u32) -> u32 {
        match self {
            Self::List(ranks) => ranks.partition_point(|&listed| listed < rank) as u32,
            Self::Bits(bits) => {
                let [word, before] = bits[rank as usize / BITS];
                before + (word & ((1 << (rank as usize % BITS)) - 1)).count_ones()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn both_forms_count_what_a_plain_loop_counts() {
        let mut random = Random::new(5);
        for items in [1, 31, 32, 33, 64, 1000] {
            for listed in [0, 1, items / 40, items / 2, items, 3 * items] {
                let mut some = |count| -> Vec<u32> {
                    (0..count).map(|_| random.below(items) as u32).collect()
                };
                let (ranks, less) = (some(listed), some(listed / 3));
                let filters = [
                    ItemFilter::new(&ranks, None, items),
                    ItemFilter::new(&less, Some(&ranks), items),
                ];
                for (filter, allow) in filters.iter().zip([false, true]) {
                    let allowed = |rank: &u32| {
                        if allow {
                            ranks.contains(rank) && !less.contains(rank)
                        } else {
                            !ranks.contains(rank)
                        }
                    };
                    for start in (0..=items as u32).step_by(items.div_ceil(40)) {
                        for end in [start, (start + 1).min(items as u32), items as u32] {
                            let expected = (start..end).filter(allowed).count();
                            let found = filter.allowed_in(start..end) as usize;
                            assert_eq!(found, expected, "{items} items, {start}..{end}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_smaller_form_is_taken() {
        let few: Vec<u32> = (0..60).collect();
        assert!(matches!(ItemFilter::new(&few, None, 1000).listed, RankSet::List(_)));
        let many: Vec<u32> = (0..70).collect();
        assert!(matches!(ItemFilter::new(&[], Some(&many), 1000).listed, RankSet::Bits(_)));
        let half: Vec<u32> = (0..5_000_000).collect();
        let words = ItemFilter::new(&[], Some(&half), 10_000_000).words();
        assert!(words.len() * 4 <= 10_000_000 / 4 + 16, "two bits an item");
    }
}
