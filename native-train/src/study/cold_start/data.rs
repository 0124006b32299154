//! The data set without the unseen items, and the one that has them again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tigret_infer::Structure;

use crate::data::{Dataset, Item, MIN_SEQUENCE, Sequence};
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::files::{write_atomically, write_line};
use crate::run_dir::RunDir;
use crate::tokenizer::assign::assign;
use crate::tokenizer::quantizer_file::load_quantizer;

/// Share of the test items that is removed from training.
pub(super) const UNSEEN: f64 = 0.05;

/// The items that are removed: a share of those that are some user's test item.
pub(super) fn draw(dataset: &Dataset, seed: u64) -> HashSet<u32> {
    let mut targets: Vec<u32> = dataset.sequences.iter().map(|s| s.test().1).collect();
    targets.sort_unstable();
    targets.dedup();
    let count = (UNSEEN * targets.len() as f64).ceil() as usize;
    targets.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    targets.into_iter().take(count).collect()
}

/// The data set without items; sequences that get too short are left out, of the others the last
/// two items that are left are held out.
pub(super) fn without(
    dataset: &Dataset,
    vectors: &Vectors,
    unseen: &HashSet<u32>,
) -> (Dataset, Vectors) {
    let kept: Vec<u32> =
        (0..dataset.items.len() as u32).filter(|item| !unseen.contains(item)).collect();
    let new: HashMap<u32, u32> = kept.iter().copied().zip(0..).collect();
    let sequences = dataset
        .sequences
        .iter()
        .map(|sequence| Sequence {
            user: sequence.user.clone(),
            items: sequence.items.iter().filter_map(|item| new.get(item).copied()).collect(),
        })
        .filter(|sequence| sequence.items.len() >= MIN_SEQUENCE)
        .collect();
    let items = kept.iter().map(|&item| dataset.items[item as usize].clone()).collect();
    (Dataset { items, sequences }, rows(vectors, &kept))
}

pub(super) fn rows(vectors: &Vectors, items: &[u32]) -> Vectors {
    let data = items.iter().flat_map(|&item| vectors.row(item as usize)).copied().collect();
    Vectors { dimensions: vectors.dimensions, data }
}

/// A run directory with all items: the seen ones with the IDs that they have, the unseen ones with
/// those that the trained tokenizer gives them.
pub(super) fn assign_unseen(
    run: &RunDir,
    whole: &RunDir,
    dataset: &Dataset,
    vectors: &Vectors,
    unseen: &HashSet<u32>,
) -> Result<RunDir> {
    let root = run.root().join("unseen");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(|e| TrainError::file(&root, e))?;
    }
    let joined = RunDir::create(&root)?;
    for (from, to) in [
        (run.dataset(), joined.dataset()),
        (run.items(), joined.items()),
        (run.catalog(), joined.catalog()),
        (run.tokens(), joined.tokens()),
        (run.tokenizer(), joined.tokenizer()),
        (run.tokenizer_report(), joined.tokenizer_report()),
        (whole.sequences(), joined.sequences()),
    ] {
        fs::copy(&from, &to).map_err(|e| TrainError::file(&from, e))?;
    }
    let mut items: Vec<u32> = unseen.iter().copied().collect();
    items.sort_unstable();
    let new = RunDir::create(root.join("new"))?;
    let of_items: Vec<Item> =
        items.iter().map(|&item| dataset.items[item as usize].clone()).collect();
    write_items(&new.items(), &of_items)?;
    rows(vectors, &items).save(&new, &of_items, "as embedded with all items", false)?;
    // Every item has a vector, so no text is encoded.
    let no_encoder = |run: &RunDir| Err(TrainError::file(run.vectors(), "lacks a vector"));
    let draws = load_quantizer(&joined)?.config().structure == Structure::Hash;
    let vectors = (!draws).then(|| new.vectors());
    assign(&joined, &new.items(), vectors.as_deref(), &no_encoder, &ProgressBar::hidden())?;
    Ok(joined)
}

fn write_items(path: &Path, items: &[Item]) -> Result<()> {
    write_atomically(path, |file| items.iter().try_for_each(|item| write_line(file, item)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::dataset;

    #[test]
    fn nothing_of_unseen_items_is_left_to_train_on() {
        let dataset = dataset(5, &[&[0, 1, 2, 3], &[1, 3, 1, 0], &[3, 3, 4, 2, 3, 0]]);
        let vectors = Vectors { dimensions: 1, data: vec![0.0, 1.0, 2.0, 3.0, 4.0] };
        let (seen, rows) = without(&dataset, &vectors, &HashSet::from([3, 4]));
        assert_eq!(seen.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!(rows.data, [0.0, 1.0, 2.0]);
        let left: Vec<_> = seen.sequences.iter().map(|s| s.items.clone()).collect();
        assert_eq!(left, [vec![0, 1, 2], vec![1, 1, 0]], "the third user has two items left");
    }

    #[test]
    fn the_unseen_are_a_share_of_the_test_items() {
        let sequences: Vec<Vec<u32>> = (0..100).map(|i| vec![0, 1, i % 40]).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = dataset(60, &sequences);
        let unseen = draw(&dataset, 0);
        assert_eq!(unseen.len(), 2, "5 % of the 40 test items");
        assert!(unseen.iter().all(|&item| item < 40));
        assert_eq!(unseen, draw(&dataset, 0));
        assert!((1..20).any(|seed| draw(&dataset, seed) != unseen));
    }
}
