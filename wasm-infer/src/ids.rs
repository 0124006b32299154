//! The items' own ids by rank, in one piece of memory, and ranks by id.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::bundle::ID_OFFSETS;
use crate::error::BundleError;

/// Distinct ids; a rank is a position among them.
#[derive(Debug, Clone)]
pub struct Ids {
    /// All ids, one behind the other.
    text: String,
    /// Where each id begins in `text`, and where the last one ends.
    offsets: Vec<u32>,
    hasher: RandomState,
    ranks: HashTable<u32>,
}

impl Ids {
    /// Ids in rank order.
    ///
    /// # Errors
    /// [`BundleError::Catalog`] for an id that occurs twice and for more than 4 GiB of them.
    pub fn new<'a>(ids: impl IntoIterator<Item = &'a str>) -> Result<Self, BundleError> {
        let (mut text, mut offsets) = (String::new(), vec![0]);
        for id in ids {
            text += id;
            offsets.push(offset(text.len())?);
        }
        Self::from_parts(text, offsets)
    }

    /// Ids as a bundle stores them: a text, and where each id begins and the last one ends.
    ///
    /// # Errors
    /// [`BundleError::Catalog`] for an id that occurs twice, [`BundleError::Tensor`] for offsets that
    /// do not cover the text, do not ascend or split a character.
    pub fn from_parts(text: String, offsets: Vec<u32>) -> Result<Self, BundleError> {
        let wrong = offsets
            .windows(2)
            .position(|pair| text.get(pair[0] as usize..pair[1] as usize).is_none());
        if let Some(rank) = wrong {
            let what = format!("entry {rank} is out of range, or splits a character");
            return Err(BundleError::tensor(ID_OFFSETS, what));
        }
        // None at all are those of no items.
        let [first, end] = [offsets.first(), offsets.last()].map(|end| end.copied().unwrap_or(0));
        if first != 0 || end as usize != text.len() {
            let what = format!("it does not begin at 0 and end at {}", text.len());
            return Err(BundleError::tensor(ID_OFFSETS, what));
        }
        let hasher = RandomState::new();
        let mut ranks = HashTable::with_capacity(offsets.len().saturating_sub(1));
        for rank in 0..offsets.len().saturating_sub(1) as u32 {
            let id = slice(&text, &offsets, rank);
            let entry = ranks.entry(
                hasher.hash_one(id),
                |&other| slice(&text, &offsets, other) == id,
                |&other| hasher.hash_one(slice(&text, &offsets, other)),
            );
            match entry {
                Entry::Vacant(free) => free.insert(rank),
                Entry::Occupied(_) => {
                    return Err(BundleError::Catalog(format!("the id \"{id}\" occurs twice")));
                }
            };
        }
        Ok(Self { text, offsets, hasher, ranks })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id at a rank.
    ///
    /// # Panics
    /// For a rank that is not below [`Ids::len`].
    pub fn get(&self, rank: u32) -> &str {
        slice(&self.text, &self.offsets, rank)
    }

    /// The rank of an id.
    pub fn rank_of(&self, id: &str) -> Option<u32> {
        self.ranks.find(self.hasher.hash_one(id), |&rank| self.get(rank) == id).copied()
    }

    /// All ids, in rank order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|rank| self.get(rank))
    }

    /// Text and offsets, as [`Ids::from_parts`] takes them.
    pub fn parts(&self) -> (&str, &[u32]) {
        (&self.text, &self.offsets)
    }
}

/// The length of a text as an offset.
fn offset(length: usize) -> Result<u32, BundleError> {
    u32::try_from(length).map_err(|_| BundleError::Catalog("the ids exceed 4 GiB".into()))
}

fn slice<'a>(text: &'a str, offsets: &[u32], rank: u32) -> &'a str {
    &text[offsets[rank as usize] as usize..offsets[rank as usize + 1] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_by_rank_and_ranks_by_id() {
        let ids = Ids::new(["b", "", "Zürich", "a"]).unwrap();
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["b", "", "Zürich", "a"]);
        for rank in 0..4 {
            assert_eq!(ids.rank_of(ids.get(rank)), Some(rank));
        }
        assert_eq!(ids.rank_of("Zü"), None);
        let (text, offsets) = ids.parts();
        assert_eq!(Ids::from_parts(text.into(), offsets.into()).unwrap().parts(), ids.parts());
        assert!(Ids::new([]).unwrap().is_empty());
    }

    #[test]
    fn what_are_no_ids_is_refused() {
        let says = |ids: Result<Ids, BundleError>| ids.unwrap_err().to_string();
        assert!(says(Ids::new(["a", "b", "a"])).contains("\"a\" occurs twice"));
        for offsets in [vec![0, 9], vec![2, 1], vec![0, 1, 2, 3]] {
            let message = says(Ids::from_parts("ü1".into(), offsets));
            assert!(message.contains("entry 0 is out of range"), "{message}");
        }
        for offsets in [vec![2, 3], vec![0, 2], vec![]] {
            let message = says(Ids::from_parts("ü1".into(), offsets));
            assert!(message.contains("it does not begin at 0 and end at 3"), "{message}");
        }
    }
}
