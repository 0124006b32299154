//! The k-core filter, and dropping what leave-one-out or the sequences cannot use.

use super::{Dataset, MIN_SEQUENCE};

/// Removes users with fewer than `k` items and items with fewer than `k` interactions until
/// neither is left; then the items without interactions, too.
///
/// Users need at least [`MIN_SEQUENCE`] items whatever `k` is. Repeated interactions count each.
/// The result does not depend on the order of removal: the k-core is the largest such subset.
#[must_use]
pub fn k_core(mut dataset: Dataset, k: usize) -> Dataset {
    let least_of_user = k.max(MIN_SEQUENCE);
    let mut counts = vec![0usize; dataset.items.len()];
    for &item in dataset.sequences.iter().flat_map(|sequence| &sequence.items) {
        counts[item as usize] += 1;
    }
    loop {
        let mut removed = false;
        dataset.sequences.retain_mut(|sequence| {
            let before = sequence.items.len();
            // Every count read here is from this pass or earlier ones, so an item may fall below
            // `k` after some of its users were passed; the next pass removes it there.
            sequence.items.retain(|&item| {
                let keep = counts[item as usize] >= k;
                if !keep {
                    counts[item as usize] -= 1;
                }
                keep
            });
            let keep = sequence.items.len() >= least_of_user;
            if !keep {
                for &item in &sequence.items {
                    counts[item as usize] -= 1;
                }
            }
            removed |= !keep || sequence.items.len() < before;
            keep
        });
        if !removed {
            break;
        }
    }
    let mut new_index = vec![u32::MAX; dataset.items.len()];
    let mut kept = Vec::new();
    for (at, item) in dataset.items.into_iter().enumerate() {
        if counts[at] > 0 {
            new_index[at] = kept.len() as u32;
            kept.push(item);
        }
    }
    for item in dataset.sequences.iter_mut().flat_map(|sequence| &mut sequence.items) {
        *item = new_index[*item as usize];
    }
    Dataset { items: kept, sequences: dataset.sequences }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sequence;
    use crate::data::testing::dataset;

    /// Users with the ids of their items.
    fn content(dataset: &Dataset) -> Vec<(&str, Vec<&str>)> {
        let ids = |s: &Sequence| {
            s.items.iter().map(|&at| dataset.items[at as usize].id.as_str()).collect()
        };
        dataset.sequences.iter().map(|s| (s.user.as_str(), ids(s))).collect()
    }

    #[test]
    fn removal_runs_to_the_fixed_point() {
        // User 3 is short; without it item 4 has two; without that, user 2 has two and falls, and
        // so on.
        let data =
            dataset(6, &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 4, 5], &[4, 5], &[2, 1, 0], &[4, 3, 3]]);
        let core = k_core(data, 3);
        assert_eq!(
            content(&core),
            [("0", vec!["0", "1", "2"]), ("1", vec!["0", "1", "2"]), ("4", vec!["2", "1", "0"])]
        );
    }

    #[test]
    fn every_count_of_a_core_reaches_k() {
        // Pseudo-random sequences, sparse enough that several rounds are needed.
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let sequences: Vec<Vec<u32>> =
            (0..400).map(|_| (0..1 + next(12)).map(|_| next(20) * next(15)).collect()).collect();
        let views: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let core = k_core(dataset(300, &views), 5);
        assert!(!core.sequences.is_empty() && core.items.len() < 200);
        let mut counts = vec![0; core.items.len()];
        for sequence in &core.sequences {
            assert!(sequence.items.len() >= 5);
            sequence.items.iter().for_each(|&item| counts[item as usize] += 1);
        }
        assert!(counts.iter().all(|&count| count >= 5));
        assert_eq!(k_core(core.clone(), 5), core, "a core is its own core");
    }

    #[test]
    fn without_a_core_short_users_and_unused_items_go() {
        let core = k_core(dataset(5, &[&[4, 2, 4], &[0, 1]]), 0);
        assert_eq!(content(&core), [("0", vec!["4", "2", "4"])]);
        assert_eq!(core.items.len(), 2);
    }
}
