//! Items that share all codes: found, counted, and told apart by one code more (paper, section 3.1).

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::stats::groups;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};

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
    members.sort_by_key(|members| Reverse(members.len()));
    members
}

/// Gives items that share all codes a further code 0, 1, 2, … in the order of the data set
/// (paper, section 3.1, "handling collisions"); a unique item gets 0.
///
/// `codes` is row-major `[items, levels]`; the result is `[items, levels + 1]`.
///
/// # Errors
/// [`TrainError::Usage`] when a group is larger than `size`, naming the codes they share, and what
/// mends that if at most `alike` items have equal vectors.
pub fn resolve_collisions(
    codes: &[u16],
    levels: usize,
    size: u32,
    alike: usize,
) -> Result<Vec<u16>> {
    let mut seen: HashMap<&[u16], u32> = HashMap::new();
    let mut resolved = Vec::with_capacity(codes.len() / levels * (levels + 1));
    for row in codes.chunks_exact(levels) {
        let next = seen.entry(row).or_insert(0);
        resolved.extend_from_slice(row);
        resolved.push(u16::try_from(*next).unwrap_or(u16::MAX));
        *next += 1;
    }
    match seen.iter().max_by_key(|&(&row, &count)| (count, Reverse(row))) {
        Some((row, &count)) if count > size && seen.len() == 1 => Err(TrainError::usage(format!(
            "all {count} items have the codes {row:?}: the codebooks have collapsed; check that the \
             vectors differ, and try another --normalize or a lower --learning-rate (rq-vae, vq-vae), \
             or compare with --method rq-kmeans"
        ))),
        Some((row, &count)) if alike > size as usize => Err(TrainError::usage(format!(
            "{alike} items have the same vector, as those of equal or empty texts do, {count} share \
             the codes {row:?}, and the collision level holds {size}; raise --collision-size, or give \
             the items better texts or another encoder"
        ))),
        Some((row, &count)) if count > size => Err(TrainError::usage(format!(
            "{count} items share the codes {row:?}, but the collision level holds {size}; raise \
             --collision-size, --codebook-size or --levels"
        ))),
        _ => Ok(resolved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collisions_are_counted() {
        for (codes, expected) in [
            (&[0, 1, 0, 1, 2, 1, 3, 1][..], (2, 3, 2)),
            (&[0, 1, 1, 0], (2, 2, 1)),
            (&[], (0, 0, 0)),
        ] {
            let groups = collisions(codes, 2);
            let found = (groups.unique_items, groups.distinct, groups.largest_group);
            assert_eq!(found, expected, "{codes:?}");
        }
    }

    #[test]
    fn items_of_equal_vectors_are_counted_among_those_that_collide() {
        let vectors = Vectors { dimensions: 1, data: vec![1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0] };
        let found = alike(&[5, 5, 5, 5, 5, 6, 7], 1, &vectors);
        assert_eq!(found, Alike { items: 5, largest: 3 });
        assert_eq!(alike(&[1, 2, 3, 4, 5, 6, 7], 1, &vectors), Alike::default());
    }

    #[test]
    fn collision_groups_leave_unique_items_out_and_start_with_the_largest() {
        let codes = [0, 1, 5, 5, 3, 3, 0, 1, 3, 3, 3, 3];
        assert_eq!(collision_groups(&codes, 2), [vec![2, 4, 5], vec![0, 3]]);
    }

    #[test]
    fn a_group_beyond_the_collision_level_is_refused_with_what_mends_it() {
        let resolved = resolve_collisions(&[1, 2, 1, 2, 3, 4], 2, 2, 2).unwrap();
        assert_eq!(resolved, [1, 2, 0, 1, 2, 1, 3, 4, 0]);
        let refused_of =
            |codes: &[u16], alike| resolve_collisions(codes, 2, 1, alike).unwrap_err().to_string();
        let refused = |codes: &[u16]| refused_of(codes, 0);
        let some = refused(&[1, 2, 1, 2, 3, 4]);
        assert!(
            some.contains("2 items share the codes [1, 2]") && some.contains("--collision-size")
        );
        // Levels would not help where the vectors are equal.
        let alike = refused_of(&[1, 2, 1, 2, 3, 4], 2);
        assert!(alike.contains("2 items have the same vector") && !alike.contains("--levels"));
        assert!(
            alike.contains("raise --collision-size, or give the items better texts"),
            "{alike}"
        );
        // Room for them would not help: the codes tell nobody apart.
        let all = refused(&[1, 2, 1, 2]);
        assert!(all.contains("all 2 items have the codes [1, 2]: the codebooks have collapsed"));
        assert!(!all.contains("--collision-size"), "{all}");
    }
}
