//! Lists of the best items with unseen ones among them, and the recall of such lists.

use std::collections::{HashMap, HashSet};

use tigret_infer::search::Hit;

use crate::data::Sequence;
use crate::tokenizer::SemanticIds;

pub(super) const MOST: usize = 20;

/// Recall of lists of 1 to [`MOST`] items.
pub(super) type Curve = Vec<f64>;

/// The codes of an item without the last, which only tells apart.
fn prefix(ids: &SemanticIds, item: u32) -> &[u16] {
    let codes = ids.codes(item);
    &codes[..codes.len() - 1]
}

pub(super) fn unseen_by_prefix<'a>(
    ids: &'a SemanticIds,
    is_unseen: &[bool],
) -> HashMap<&'a [u16], Vec<u32>> {
    let mut by_prefix: HashMap<&[u16], Vec<u32>> = HashMap::new();
    for (item, _) in is_unseen.iter().enumerate().filter(|(_, unseen)| **unseen) {
        by_prefix.entry(prefix(ids, item as u32)).or_default().push(item as u32);
    }
    by_prefix
}

/// The items of a search in order, each followed by the unseen ones that share all its codes but
/// the last.
pub(super) fn candidates(
    ids: &SemanticIds,
    hits: &[Hit],
    is_unseen: &[bool],
    by_prefix: &HashMap<&[u16], Vec<u32>>,
) -> Vec<u32> {
    let mut list = Vec::new();
    let mut joined = HashSet::new();
    for hit in hits {
        let item = ids.item_of_rank[hit.rank as usize];
        if !is_unseen[item as usize] {
            list.push(item);
        }
        if joined.insert(prefix(ids, item)) {
            list.extend(by_prefix.get(prefix(ids, item)).into_iter().flatten());
        }
    }
    list
}

/// The first `k` of a list of which at most a share `epsilon` is unseen.
pub(super) fn cut(list: &[u32], is_unseen: &[bool], k: usize, epsilon: f64) -> Vec<u32> {
    // Products such as 0.3 * 10 may end a hair below the whole number.
    let mut room = (epsilon * k as f64 + 1e-9).floor() as usize;
    let mut cut = Vec::with_capacity(k);
    for &item in list {
        if cut.len() == k {
            break;
        }
        if is_unseen[item as usize] {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        cut.push(item);
    }
    cut
}

pub(super) fn curve(
    of: &[usize],
    users: &[&Sequence],
    list: impl Fn(usize, usize) -> Vec<u32>,
) -> Curve {
    (1..=MOST).map(|k| recall(of, users, |user| list(user, k))).collect()
}

/// Share of users whose test item is in their list.
pub(super) fn recall(of: &[usize], users: &[&Sequence], list: impl Fn(usize) -> Vec<u32>) -> f64 {
    let hits = of.iter().filter(|&&user| list(user).contains(&users[user].test().1)).count();
    hits as f64 / of.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use tigret_infer::TokenLayout;

    use super::*;
    use crate::data::testing::dataset;

    #[test]
    fn unseen_items_follow_those_that_share_their_codes_up_to_their_share() {
        // Items 1 and 4 are unseen; 1 shares the first code with 0 and 2, 4 with none.
        let codes = [0, 0, 0, 1, 0, 2, 1, 0, 2, 0];
        let ids = SemanticIds::new(
            &dataset(5, &[]).items,
            TokenLayout::contiguous(&[3, 3], 0, 4),
            &codes,
        )
        .unwrap();
        let is_unseen = [false, true, false, false, true];
        let by_prefix = unseen_by_prefix(&ids, &is_unseen);
        let hits: Vec<Hit> = [3, 0, 4, 2, 1]
            .map(|item: u32| Hit::scored(ids.rank_of_item[item as usize], 0.0))
            .into();
        let list = candidates(&ids, &hits, &is_unseen, &by_prefix);
        assert_eq!(list, [3, 0, 1, 4, 2]);
        assert_eq!(cut(&list, &is_unseen, 5, 1.0), [3, 0, 1, 4, 2]);
        assert_eq!(cut(&list, &is_unseen, 5, 0.2), [3, 0, 1, 2]);
        assert_eq!(cut(&list, &is_unseen, 5, 0.1), [3, 0, 2]);
        assert_eq!(cut(&list, &is_unseen, 2, 0.5), [3, 0]);
        assert_eq!(cut(&list, &is_unseen, 3, 0.34), [3, 0, 1]);
    }
}
