//! The catalogue: item ids and semantic IDs, sorted by code, so that the order is the trie.
//!
//! A trie node is a range of *ranks* (positions in the sorted order) that share a prefix. No
//! pointers are stored: children are found by binary search inside the range.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::BundleError;
use crate::ids::Ids;
use crate::tokens::TokenLayout;

/// Most items of a catalogue: ranks are `u32` and the GPU indexes with them.
pub const MAX_ITEMS: usize = 1 << 28;

/// One entry of `catalog.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogItem {
    /// The shop's own id.
    pub id: String,
    /// The semantic ID, a code a level.
    pub codes: Vec<u32>,
}

/// The file `catalog.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogFile {
    /// Items in any order.
    pub items: Vec<CatalogItem>,
}

/// Items sorted by semantic ID; both look-up directions.
#[derive(Debug, Clone)]
pub struct Catalog {
    levels: usize,
    /// Row-major `[items, levels]`, rows strictly increasing.
    codes: Vec<u16>,
    ids: Ids,
}

impl Catalog {
    /// Builds a catalogue from items in any order.
    ///
    /// # Errors
    /// [`BundleError::Catalog`] for no items, an empty id, ids or codes that occur twice, a wrong
    /// number of codes or a code outside its level.
    pub fn from_items(items: Vec<CatalogItem>, layout: &TokenLayout) -> Result<Self, BundleError> {
        let levels = layout.levels.len();
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            if item.codes.len() != levels {
                return Err(BundleError::Catalog(format!(
                    "item \"{}\" has {} codes, the layout has {levels} levels",
                    item.id,
                    item.codes.len()
                )));
            }
            let mut codes = Vec::with_capacity(levels);
            for (level, (&code, range)) in item.codes.iter().zip(&layout.levels).enumerate() {
                match u16::try_from(code) {
                    Ok(narrow) if code < range.size => codes.push(narrow),
                    _ => return Err(outside(&item.id, code, level, range.size)),
                }
            }
            rows.push((codes, item.id));
        }
        rows.sort_unstable();
        let (codes, ids): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let ids = Ids::new(ids.iter().map(|id: &String| &id[..]))?;
        Self::from_sorted(codes.concat(), ids, layout)
    }

    /// Builds a catalogue from rows already sorted by code, as a bundle stores them.
    ///
    /// # Errors
    /// As [`Catalog::from_items`], and for rows out of order.
    pub(crate) fn from_sorted(
        codes: Vec<u16>,
        ids: Ids,
        layout: &TokenLayout,
    ) -> Result<Self, BundleError> {
        let levels = layout.levels.len();
        let bad = |what: String| Err(BundleError::Catalog(what));
        if ids.is_empty() {
            return bad("it has no items".into());
        }
        if ids.iter().any(str::is_empty) {
            return bad("an item has an empty id".into());
        }
        if ids.len() > MAX_ITEMS {
            return bad(format!("{} items, more than {MAX_ITEMS}", ids.len()));
        }
        if codes.len() != ids.len() * levels {
            return bad(format!(
                "{} codes for {} items of {levels} levels",
                codes.len(),
                ids.len()
            ));
        }
        for (rank, row) in codes.chunks_exact(levels).enumerate() {
            for (level, (&code, range)) in row.iter().zip(&layout.levels).enumerate() {
                if u32::from(code) >= range.size {
                    return Err(outside(ids.get(rank as u32), code.into(), level, range.size));
                }
            }
            if rank > 0 {
                let previous = &codes[(rank - 1) * levels..rank * levels];
                if previous == row {
                    return bad(format!(
                        "items \"{}\" and \"{}\" share the semantic ID {row:?}",
                        ids.get(rank as u32 - 1),
                        ids.get(rank as u32)
                    ));
                }
                if previous > row {
                    return bad(format!("item \"{}\" is out of order", ids.get(rank as u32)));
                }
            }
        }
        Ok(Self { levels, codes, ids })
    }

    /// The catalogue with more items, whose codes are inside their levels.
    ///
    /// # Errors
    /// [`BundleError::Catalog`] for more than [`MAX_ITEMS`], or an id or semantic ID that is taken.
    pub(crate) fn with_added(&self, added: &[(&[u16], &str)]) -> Result<Self, BundleError> {
        let bad = |what: String| Err(BundleError::Catalog(what));
        let total = self.len() + added.len();
        if total > MAX_ITEMS {
            return bad(format!("{total} items, more than {MAX_ITEMS}"));
        }
        let mut order: Vec<usize> = (0..added.len()).collect();
        // By the last code first, and each time with the order so far behind the code, so that it stays
        // among equals. Sorting 64 bits is what the search does, too: the code is there already.
        for level in (0..self.levels).rev() {
            let code = |at: usize| u64::from(added[at].0[level]);
            let mut places: Vec<u64> =
                order.iter().zip(0..).map(|(&at, place)| code(at) << 32 | place).collect();
            places.sort_unstable();
            order = places.iter().map(|&place| order[place as u32 as usize]).collect();
        }
        let mut merged: Vec<u16> = Vec::with_capacity(total * self.levels);
        let mut ids = Vec::with_capacity(total);
        let mut old = self.codes.chunks_exact(self.levels).zip(self.ids.iter()).peekable();
        let mut new = order.iter().map(|&at| added[at]).peekable();
        loop {
            let next = match (old.peek(), new.peek()) {
                (Some((a, _)), Some((b, _))) if a < b => old.next(),
                (Some((a, x)), Some((b, y))) if a == b => {
                    return bad(format!("items \"{x}\" and \"{y}\" share the semantic ID {a:?}"));
                }
                (Some(_), None) => old.next(),
                _ => new.next(),
            };
            let Some((codes, id)) = next else { break };
            if merged.ends_with(codes) {
                return bad(format!("the semantic ID {codes:?} occurs twice"));
            }
            merged.extend_from_slice(codes);
            ids.push(id);
        }
        Ok(Self { levels: self.levels, codes: merged, ids: Ids::new(ids)? })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Always false: a catalogue has at least one item.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Levels of a semantic ID.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// All codes, row-major `[items, levels]`, in rank order.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// All ids, in rank order.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The semantic ID of the item at a rank.
    ///
    /// # Panics
    /// For a rank beyond the catalogue.
    pub fn codes_of(&self, rank: u32) -> &[u16] {
        &self.codes[rank as usize * self.levels..][..self.levels]
    }

    /// The id of the item at a rank.
    ///
    /// # Panics
    /// For a rank beyond the catalogue.
    pub fn id_of(&self, rank: u32) -> &str {
        self.ids.get(rank)
    }

    /// The rank of an item.
    pub fn rank_of(&self, id: &str) -> Option<u32> {
        self.ids.rank_of(id)
    }

    /// The node of a prefix; empty if there is none.
    pub(crate) fn node(&self, prefix: &[u16]) -> Range<u32> {
        let root = 0..self.len() as u32;
        prefix.iter().enumerate().fold(root, |node, (level, &code)| self.child(level, node, code))
    }

    /// The item that a whole semantic ID names.
    pub fn rank_of_codes(&self, codes: &[u16]) -> Option<u32> {
        let node = self.node(codes);
        (codes.len() == self.levels && !node.is_empty()).then_some(node.start)
    }

    fn code_at(&self, level: usize, rank: u32) -> u16 {
        self.codes[rank as usize * self.levels + level]
    }

    /// First rank in `node` whose code at `level` is at least `code`.
    fn lower_bound(&self, level: usize, node: Range<u32>, code: u32) -> u32 {
        let (mut low, mut high) = (node.start, node.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if u32::from(self.code_at(level, middle)) < code {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The child of a node under `code`; empty if there is none.
    ///
    /// `node` is a range of ranks that agree before `level`.
    pub fn child(&self, level: usize, node: Range<u32>, code: u16) -> Range<u32> {
        let start = self.lower_bound(level, node.clone(), code.into());
        let end = self.lower_bound(level, start..node.end, u32::from(code) + 1);
        start..end
    }

    /// The children of a node in ascending order of code: `(code, ranks)`.
    pub fn children(
        &self,
        level: usize,
        node: Range<u32>,
    ) -> impl Iterator<Item = (u16, Range<u32>)> {
        let mut at = node.start;
        std::iter::from_fn(move || {
            (at < node.end).then(|| {
                let code = self.code_at(level, at);
                // Steps that double until they leave the child: the cost follows its size, not
                // the node's.
                let (mut inside, mut step) = (at, 1);
                while step < node.end - inside && self.code_at(level, inside + step) == code {
                    inside += step;
                    step = step.saturating_mul(2);
                }
                let beyond = node.end.min(inside.saturating_add(step));
                let end = self.lower_bound(level, inside + 1..beyond, u32::from(code) + 1);
                let child = at..end;
                at = end;
                (code, child)
            })
        })
    }
}

/// An item's code is none of its level.
fn outside(id: &str, code: u32, level: usize, size: u32) -> BundleError {
    let what = format!("item \"{id}\" has code {code} at level {level}, outside 0..{size}");
    BundleError::Catalog(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> TokenLayout {
        TokenLayout::contiguous(&[3, 4], 0, 1)
    }

    fn item(id: &str, codes: &[u32]) -> CatalogItem {
        CatalogItem { id: id.into(), codes: codes.to_vec() }
    }

    fn said<T>(outcome: Result<T, BundleError>) -> String {
        outcome.err().expect("a catalogue that is none is taken").to_string()
    }

    #[test]
    fn items_are_found_by_their_whole_semantic_id() {
        let items = vec![item("b", &[2, 3]), item("a", &[0, 1]), item("c", &[2, 0])];
        let catalog = Catalog::from_items(items, &layout()).unwrap();
        assert_eq!(catalog.ids().iter().collect::<Vec<_>>(), ["a", "c", "b"]);
        assert_eq!(catalog.rank_of_codes(&[2, 3]), Some(2));
        for none in [&[2, 1][..], &[1, 0], &[2], &[]] {
            assert_eq!(catalog.rank_of_codes(none), None, "{none:?}");
        }
    }

    #[test]
    fn items_that_do_not_fit_are_refused_by_name() {
        let of = |items: &[(&str, &[u32])]| {
            let items = items.iter().map(|(id, codes)| item(id, codes)).collect();
            said(Catalog::from_items(items, &layout()))
        };
        assert!(of(&[]).contains("it has no items"));
        assert!(of(&[("", &[0, 0])]).contains("an item has an empty id"));
        assert!(of(&[("a", &[0])]).contains("item \"a\" has 1 codes, the layout has 2 levels"));
        assert!(of(&[("a", &[0, 1, 2])]).contains("item \"a\" has 3 codes"));
        let beyond = "item \"b\" has code 4 at level 1, outside 0..4";
        assert!(of(&[("a", &[0, 0]), ("b", &[0, 4])]).contains(beyond));
        assert!(of(&[("a", &[65_536, 0])]).contains("has code 65536 at level 0"));
        let shared = "items \"a\" and \"b\" share the semantic ID [1, 1]";
        assert!(of(&[("b", &[1, 1]), ("a", &[1, 1])]).contains(shared));
    }

    #[test]
    fn rows_of_a_file_ascend_inside_their_levels() {
        let of = |codes: &[u16], ids: &[&str]| {
            Catalog::from_sorted(codes.to_vec(), Ids::new(ids.iter().copied())?, &layout())
        };
        assert_eq!(of(&[0, 3, 2, 0], &["a", "b"]).unwrap().len(), 2);
        let unsorted = said(of(&[0, 1, 2, 0, 1, 3], &["a", "b", "c"]));
        assert!(unsorted.contains("item \"c\" is out of order"), "{unsorted}");
        let beyond = said(of(&[0, 1, 0, 4], &["a", "b"]));
        assert!(beyond.contains("item \"b\" has code 4 at level 1, outside 0..4"), "{beyond}");
        let short = said(of(&[0, 1, 0], &["a", "b"]));
        assert!(short.contains("3 codes for 2 items of 2 levels"), "{short}");
    }

    #[test]
    fn added_items_are_sorted_in_and_take_no_semantic_id_twice() {
        let items = vec![item("b", &[1, 1]), item("d", &[2, 0])];
        let catalog = Catalog::from_items(items, &layout()).unwrap();
        let with = |added: &[(&str, [u16; 2])]| {
            let rows: Vec<_> = added.iter().map(|(id, codes)| (&codes[..], *id)).collect();
            catalog.with_added(&rows)
        };
        let all = with(&[("e", [2, 3]), ("a", [0, 0]), ("c", [1, 2])]).unwrap();
        assert_eq!(all.ids().iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
        assert_eq!(all.codes(), [0, 0, 1, 1, 1, 2, 2, 0, 2, 3]);
        let taken = said(with(&[("x", [2, 0])]));
        assert!(taken.contains("items \"d\" and \"x\" share the semantic ID [2, 0]"), "{taken}");
        assert!(said(with(&[("x", [0, 3]), ("y", [0, 3])])).contains("[0, 3] occurs twice"));
        assert!(said(with(&[("b", [0, 3])])).contains("the id \"b\" occurs twice"));
    }

    #[test]
    fn items_added_in_any_order_make_the_catalogue_of_all() {
        let all: Vec<CatalogItem> =
            (0..12).map(|n| item(&n.to_string(), &[n * 2 % 3, n / 3])).collect();
        let whole = Catalog::from_items(all.clone(), &layout()).unwrap();
        let catalog = Catalog::from_items(all[4..6].to_vec(), &layout()).unwrap();
        let others = all.iter().filter(|item| catalog.rank_of(&item.id).is_none());
        let codes = |item: &CatalogItem| item.codes.iter().map(|&code| code as u16).collect();
        let others: Vec<(Vec<u16>, &str)> =
            others.map(|item| (codes(item), &item.id[..])).collect();
        let added: Vec<_> = others.iter().map(|(codes, id)| (&codes[..], *id)).collect();
        let found = catalog.with_added(&added).unwrap();
        assert_eq!(found.codes(), whole.codes());
        assert!(found.ids().iter().eq(whole.ids().iter()));
    }
}
