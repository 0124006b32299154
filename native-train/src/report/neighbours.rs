//! Whether items with similar vectors share codes, and items that share codes are similar.

use std::cmp::Ordering;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::Tensor;

use crate::embed::Vectors;
use crate::error::Result;

/// How many nearest items by cosine are held against the codes.
pub(crate) const NEAREST: usize = 10;

/// Items shown with their neighbours, and neighbours shown of each.
const EXAMPLES: usize = 5;
const SHOWN: usize = 5;

/// Cosines held at once.
const BLOCK_CELLS: usize = 1 << 24;

/// Neighbours by code against neighbours by cosine, over a sample of items.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Neighbours {
    /// Items sampled; each is compared with all others.
    pub(crate) sampled: usize,
    /// Nearest items by cosine looked at, at most [`NEAREST`].
    pub(crate) nearest: usize,
    /// By the number of leading codes that two items share, from 0 to all.
    pub(crate) by_shared: Vec<Shared>,
    /// Some items with their neighbours by either measure.
    #[serde(skip)]
    pub(crate) examples: Vec<Example>,
}

/// Pairs that share exactly so many leading codes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Shared {
    /// Pairs of a sampled item and another.
    pub(crate) pairs: u64,
    /// Their mean cosine; `None` without a pair.
    pub(crate) mean_cosine: Option<f64>,
    /// Share of the nearest items by cosine that share at least so many codes.
    pub(crate) of_nearest: f64,
    /// The same share of all items: what neighbours drawn by lot would reach.
    pub(crate) by_chance: f64,
}

/// An item and its neighbours.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Example {
    /// The item.
    pub(crate) item: u32,
    /// The nearest by cosine.
    pub(crate) by_cosine: Vec<Neighbour>,
    /// Those that share the most leading codes, in the order of the data set where equal.
    pub(crate) by_codes: Vec<Neighbour>,
}

/// One neighbour of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Neighbour {
    /// The neighbour.
    pub(crate) item: u32,
    /// Its cosine with the item.
    pub(crate) cosine: f32,
    /// Leading codes that the two share.
    pub(crate) shared: usize,
}

/// Compares codes `[items, levels]` with the vectors of the same items, over at most `sample`
/// items drawn by `seed`. Items whose vector is zero are left out. `None` where fewer than two
/// items remain.
///
/// # Errors
/// [`crate::TrainError::Torch`].
pub(crate) fn neighbours(
    mut vectors: Vectors,
    codes: &[u16],
    levels: usize,
    sample: usize,
    seed: u64,
) -> Result<Option<Neighbours>> {
    vectors.normalise();
    let present: Vec<u32> = (0..(codes.len() / levels) as u32)
        .filter(|&item| vectors.row(item as usize).iter().any(|&x| x != 0.0))
        .collect();
    let sample = sample.min(present.len());
    if present.len() < 2 || sample == 0 {
        return Ok(None);
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let sampled: Vec<u32> =
        index::sample(&mut random, present.len(), sample).iter().map(|at| present[at]).collect();

    let rows = codes.len() / levels;
    let dimensions = vectors.dimensions as i64;
    let all = Tensor::f_from_slice(&vectors.data)?.f_view([rows as i64, dimensions])?;
    drop(vectors);
    let mut tally = Tally::new(levels, NEAREST.min(present.len() - 1));
    for block in sampled.chunks((BLOCK_CELLS / rows).max(1)) {
        let picked: Vec<i64> = block.iter().map(|&item| i64::from(item)).collect();
        let queries = all.f_index_select(0, &Tensor::f_from_slice(&picked)?)?;
        let cosines = queries.f_matmul(&all.f_tr()?)?;
        let mut row = vec![0_f32; rows];
        for (at, &item) in block.iter().enumerate() {
            cosines.f_get(at as i64)?.f_copy_data(&mut row, rows)?;
            let others = present.iter().filter(|&&other| other != item).map(|&other| Neighbour {
                item: other,
                cosine: row[other as usize],
                shared: shared_codes(codes, levels, item, other),
            });
            tally.add(item, others.collect());
        }
    }
    Ok(Some(tally.finish(sample)))
}

fn shared_codes(codes: &[u16], levels: usize, a: u32, b: u32) -> usize {
    let of = |item: u32| &codes[item as usize * levels..][..levels];
    of(a).iter().zip(of(b)).take_while(|(a, b)| a == b).count()
}

/// Sums over the sampled items.
struct Tally {
    nearest: usize,
    pairs: Vec<u64>,
    cosines: Vec<f64>,
    of_nearest: Vec<u64>,
    examples: Vec<Example>,
}

impl Tally {
    fn new(levels: usize, nearest: usize) -> Self {
        Self {
            nearest,
            pairs: vec![0; levels + 1],
            cosines: vec![0.0; levels + 1],
            of_nearest: vec![0; levels + 1],
            examples: Vec::new(),
        }
    }

    /// Counts an item against all `others`, which stand in the order of the data set.
    fn add(&mut self, item: u32, mut others: Vec<Neighbour>) {
        for other in &others {
            self.pairs[other.shared] += 1;
            self.cosines[other.shared] += f64::from(other.cosine);
        }
        // An item that shares its first code with no other shows nothing.
        let by_codes = (self.examples.len() < EXAMPLES && others.iter().any(|o| o.shared > 0))
            .then(|| {
                nearest(&mut others.clone(), SHOWN, |a, b| {
                    b.shared.cmp(&a.shared).then(a.item.cmp(&b.item))
                })
            });
        let by_cosine = nearest(&mut others, self.nearest, |a, b| {
            b.cosine.total_cmp(&a.cosine).then(a.item.cmp(&b.item))
        });
        for other in &by_cosine {
            self.of_nearest[other.shared] += 1;
        }
        if let Some(by_codes) = by_codes {
            let by_cosine = by_cosine[..SHOWN.min(by_cosine.len())].to_vec();
            self.examples.push(Example { item, by_cosine, by_codes });
        }
    }

    fn finish(self, sampled: usize) -> Neighbours {
        let all_pairs = self.pairs.iter().sum::<u64>() as f64;
        let all_nearest = (sampled * self.nearest) as f64;
        let at_least = |counts: &[u64], shared: usize| counts[shared..].iter().sum::<u64>() as f64;
        let by_shared = (0..self.pairs.len()).map(|shared| {
            let pairs = self.pairs[shared];
            Shared {
                pairs,
                mean_cosine: (pairs > 0).then(|| self.cosines[shared] / pairs as f64),
                of_nearest: at_least(&self.of_nearest, shared) / all_nearest,
                by_chance: at_least(&self.pairs, shared) / all_pairs,
            }
        });
        Neighbours {
            sampled,
            nearest: self.nearest,
            by_shared: by_shared.collect(),
            examples: self.examples,
        }
    }
}

/// The first `count` in an order.
fn nearest(
    others: &mut Vec<Neighbour>,
    count: usize,
    order: impl Fn(&Neighbour, &Neighbour) -> Ordering,
) -> Vec<Neighbour> {
    if count < others.len() {
        others.select_nth_unstable_by(count, &order);
        others.truncate(count);
    }
    others.sort_unstable_by(&order);
    others.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two near pairs at right angles; item 4 has no vector.
    fn vectors() -> Vectors {
        let data = vec![2.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0];
        Vectors { dimensions: 2, data }
    }

    #[test]
    fn codes_that_follow_the_vectors() {
        // Codes of two levels: 0 and 1 share both, 2 and 3 the first.
        let codes = [0, 5, 0, 5, 1, 5, 1, 6, 0, 5];
        let found = neighbours(vectors(), &codes, 2, 100, 0).unwrap().unwrap();
        assert_eq!((found.sampled, found.nearest), (4, 3));
        let pairs: Vec<u64> = found.by_shared.iter().map(|s| s.pairs).collect();
        assert_eq!(pairs, [8, 2, 2]);
        let cosines: Vec<_> = found.by_shared.iter().map(|s| s.mean_cosine.unwrap()).collect();
        assert_eq!(cosines, [0.0, 1.0, 1.0]);
        // All three others are looked at, so the nearest are as good as chance.
        for shared in &found.by_shared {
            assert!((shared.of_nearest - shared.by_chance).abs() < 1e-12);
        }
        assert_eq!(found.by_shared[1].by_chance, 4.0 / 12.0);
    }

    #[test]
    fn the_nearest_are_those_of_largest_cosine_in_order() {
        // Item 0 looks along the axis, the others turn away from it one by one; only the last
        // shares its code.
        let angle = |item: usize| (item as f32 * 0.1).sin_cos();
        let data = (0..13).flat_map(|item| [angle(item).1, angle(item).0]).collect();
        let codes: Vec<u16> = (0..13).map(|item| item % 12).collect();
        let found = neighbours(Vectors { dimensions: 2, data }, &codes, 1, 13, 3).unwrap().unwrap();
        let example = found.examples.iter().find(|example| example.item == 0).unwrap();
        let by_cosine: Vec<u32> = example.by_cosine.iter().map(|other| other.item).collect();
        assert_eq!(by_cosine, [1, 2, 3, 4, 5]);
        assert_eq!((example.by_codes[0].item, example.by_codes[0].shared), (12, 1));
        assert!((example.by_codes[0].cosine - 1.2_f32.cos()).abs() < 1e-6);
    }

    #[test]
    fn the_same_seed_draws_the_same_items() {
        let data: Vec<f32> = (1..=60).map(|x| (x * x % 17) as f32 + 1.0).collect();
        let codes: Vec<u16> = (0..30).map(|item| item % 4).collect();
        let run = |seed| {
            let vectors = Vectors { dimensions: 2, data: data.clone() };
            neighbours(vectors, &codes, 1, 7, seed).unwrap().unwrap()
        };
        assert_eq!(run(1), run(1));
        assert_eq!(run(1).sampled, 7);
        assert_ne!(run(1).examples, run(2).examples);
    }

    #[test]
    fn fewer_than_two_vectors_give_nothing() {
        let vectors = Vectors { dimensions: 1, data: vec![1.0, 0.0] };
        assert_eq!(neighbours(vectors, &[0, 0], 1, 5, 0).unwrap(), None);
    }
}
