//! The tree of semantic IDs, cut into cells that are large enough to be drawn.

use super::category::Categories;

/// Items named in a cell.
const EXAMPLES: usize = 3;

/// A prefix, or several prefixes with the same parent that would be too small to see apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// Codes of the prefix less one: 0 in the innermost ring.
    pub(super) depth: usize,
    /// The first item, counted along the ring.
    pub(super) start: usize,
    /// How many items.
    pub(super) items: usize,
    /// The prefix, of `depth + 1` codes; of several the first.
    pub(super) prefix: Vec<u16>,
    /// How many prefixes.
    pub(super) prefixes: usize,
    /// The commonest category; `None` where no item has one.
    pub(super) category: Option<u32>,
    /// How many items have it.
    pub(super) of_category: usize,
    /// The first items of the commonest category (of all where there is none).
    pub(super) examples: Vec<u32>,
}

/// The tree of codes `[items, levels]`, parents before their children.
///
/// Codes are labels without an order, so siblings are ordered by their commonest category and
/// then by size. Siblings narrower than `smallest` items are merged, within a category as far as
/// that makes them wide enough.
pub(super) fn tree(
    codes: &[u16],
    levels: usize,
    categories: Option<&Categories>,
    smallest: f64,
) -> Vec<Cell> {
    let mut tree = Tree { codes, levels, categories, smallest, cells: Vec::new() };
    let items: Vec<u32> = (0..(codes.len() / levels) as u32).collect();
    tree.split(0, 0, items);
    tree.cells
}

struct Tree<'a> {
    codes: &'a [u16],
    levels: usize,
    categories: Option<&'a Categories>,
    smallest: f64,
    cells: Vec<Cell>,
}

impl Tree<'_> {
    fn prefix(&self, item: u32, depth: usize) -> &[u16] {
        &self.codes[item as usize * self.levels..][..=depth]
    }

    fn category(&self, item: u32) -> Option<u32> {
        self.categories.and_then(|categories| categories.of_item[item as usize])
    }

    /// The commonest category of some items and how many have it; of equally common ones the one
    /// that is commoner everywhere.
    fn commonest(&self, items: &[u32]) -> (Option<u32>, usize) {
        let mut found: Vec<u32> = items.iter().filter_map(|&item| self.category(item)).collect();
        found.sort_unstable();
        let runs = found.chunk_by(|a, b| a == b);
        let commonest = runs.max_by_key(|run| (run.len(), std::cmp::Reverse(run[0])));
        (commonest.map(|run| run[0]), commonest.map_or(0, <[u32]>::len))
    }

    /// Cuts the items of one cell by their codes up to `depth`.
    fn split(&mut self, depth: usize, start: usize, mut items: Vec<u32>) {
        if depth == self.levels {
            return;
        }
        items.sort_by(|&a, &b| self.prefix(a, depth).cmp(self.prefix(b, depth)));
        let same = |&a: &u32, &b: &u32| self.prefix(a, depth) == self.prefix(b, depth);
        let mut siblings: Vec<(Option<u32>, Vec<u32>)> =
            items.chunk_by(same).map(|group| (self.commonest(group).0, group.to_vec())).collect();
        // Items without a category last; the sort is stable, so equal ones stay by code.
        siblings.sort_by_key(|(category, group)| {
            (category.unwrap_or(u32::MAX), std::cmp::Reverse(group.len()))
        });
        let mut start = start;
        for (prefixes, items) in self.merge(siblings) {
            let count = items.len();
            self.push(depth, start, prefixes, &items);
            self.split(depth + 1, start, items);
            start += count;
        }
    }

    /// Joins neighbouring siblings that are too narrow; gives the number of prefixes and the items
    /// of each cell.
    fn merge(&self, siblings: Vec<(Option<u32>, Vec<u32>)>) -> Vec<(usize, Vec<u32>)> {
        let narrow = |items: &[u32]| (items.len() as f64) < self.smallest;
        let mut cells: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut last = None;
        for (category, items) in siblings {
            match cells.last_mut() {
                // What is narrow still grows: with its own category, or, where that has ended,
                // with the next.
                Some((prefixes, before))
                    if narrow(&items)
                        && (narrow(before) || (*prefixes > 1 && last == Some(category))) =>
                {
                    *prefixes += 1;
                    before.extend(items);
                }
                _ => cells.push((1, items)),
            }
            last = Some(category);
        }
        cells
    }

    fn push(&mut self, depth: usize, start: usize, prefixes: usize, items: &[u32]) {
        let (category, of_category) = self.commonest(items);
        let typical = items.iter().filter(|&&item| self.category(item) == category);
        self.cells.push(Cell {
            depth,
            start,
            items: items.len(),
            prefix: self.prefix(items[0], depth).to_vec(),
            prefixes,
            category,
            of_category,
            examples: typical.take(EXAMPLES).copied().collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categories(of_item: &[Option<u32>]) -> Categories {
        Categories {
            field: "category",
            depth: 0,
            names: vec!["a".into(), "b".into()],
            counts: vec![],
            of_item: of_item.to_vec(),
        }
    }

    /// Depth, first item, items, prefix, prefixes and category.
    type Row<'a> = (usize, usize, usize, &'a [u16], usize, Option<u32>);

    fn rows(cells: &[Cell]) -> Vec<Row<'_>> {
        cells
            .iter()
            .map(|c| (c.depth, c.start, c.items, &c.prefix[..], c.prefixes, c.category))
            .collect()
    }

    #[test]
    fn siblings_stand_by_category_then_by_size() {
        let codes = [9, 0, 1, 0, 1, 1, 5, 0, 5, 0, 5, 1];
        let found = categories(&[Some(0), Some(1), Some(1), Some(0), Some(0), Some(1)]);
        let cells = tree(&codes, 2, Some(&found), 0.0);
        assert_eq!(
            rows(&cells),
            [
                (0, 0, 3, &[5][..], 1, Some(0)),
                (1, 0, 2, &[5, 0], 1, Some(0)),
                (1, 2, 1, &[5, 1], 1, Some(1)),
                (0, 3, 1, &[9], 1, Some(0)),
                (1, 3, 1, &[9, 0], 1, Some(0)),
                (0, 4, 2, &[1], 1, Some(1)),
                (1, 4, 1, &[1, 0], 1, Some(1)),
                (1, 5, 1, &[1, 1], 1, Some(1)),
            ]
        );
        assert_eq!((cells[0].of_category, &cells[0].examples[..]), (2, &[3, 4][..]));
    }

    #[test]
    fn narrow_siblings_are_merged_and_no_item_is_lost() {
        let codes: Vec<u16> = [0_u16; 10].into_iter().chain(1..=9).collect();
        let labels: Vec<Option<u32>> = (0..19).map(|item| Some(u32::from(item >= 14))).collect();
        let cells = tree(&codes, 1, Some(&categories(&labels)), 3.0);
        assert_eq!(
            rows(&cells),
            [
                (0, 0, 10, &[0][..], 1, Some(0)),
                (0, 10, 4, &[1], 4, Some(0)),
                (0, 14, 5, &[5], 5, Some(1)),
            ]
        );
    }

    #[test]
    fn each_ring_holds_every_item_once() {
        let codes: Vec<u16> = (0..3000_u32).map(|x| (x * x % 23 % 11) as u16).collect();
        for smallest in [0.0, 2.5, 40.0, 5000.0] {
            let cells = tree(&codes, 3, None, smallest);
            for depth in 0..3 {
                let mut end = 0;
                for cell in cells.iter().filter(|cell| cell.depth == depth) {
                    assert_eq!(cell.start, end);
                    end += cell.items;
                }
                assert_eq!(end, 1000);
            }
        }
    }

    #[test]
    fn without_categories_siblings_stand_by_size() {
        let cells = tree(&[4, 7, 7], 1, None, 0.0);
        assert_eq!(rows(&cells), [(0, 0, 2, &[7][..], 1, None), (0, 2, 1, &[4], 1, None)]);
        assert_eq!(cells[0].examples, [1, 2]);
    }
}
