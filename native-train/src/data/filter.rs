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
