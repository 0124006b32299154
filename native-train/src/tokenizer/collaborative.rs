//! Item vectors learned from interactions alone: implicit matrix factorisation by alternating
//! least squares (Hu, Koren and Volinsky 2008).
//!
//! Only the training part of each sequence is read, so nothing of validation or test leaks.

use indicatif::ProgressBar;
use tch::{Device, Kind, Tensor};

use crate::data::Dataset;
use crate::embed::Vectors;
use crate::model::params::to_vec;
use crate::random;

/// Settings of the factorisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Als {
    /// Length of the vectors.
    pub factors: i64,
    /// Rounds; each solves for users and for items once.
    pub rounds: usize,
    /// Confidence that an interaction adds to the 1 that every pair has.
    pub confidence: f64,
    /// Regularisation.
    pub regularisation: f64,
    /// Seed of the start.
    pub seed: u64,
}

impl Default for Als {
    fn default() -> Self {
        Self { factors: 64, rounds: 10, confidence: 40.0, regularisation: 10.0, seed: 0 }
    }
}

/// Rows whose systems are solved together at most.
const SYSTEMS: usize = 1024;
/// Partners whose factors are gathered at a time, also where one row alone has more: 256 MiB.
const GATHERED: usize = 1 << 20;

/// A vector of length 1 per item, or of zeros for an item without training interactions.
pub fn item_vectors(
    dataset: &Dataset,
    settings: Als,
    device: Device,
    progress: &ProgressBar,
) -> Vectors {
    let users: Vec<Vec<i64>> = dataset
        .sequences
        .iter()
        .map(|sequence| {
            let mut items: Vec<i64> = sequence.train().iter().map(|&item| item.into()).collect();
            items.sort_unstable();
            items.dedup();
            items
        })
        .collect();
    let mut items = vec![Vec::new(); dataset.items.len()];
    for (user, of_user) in users.iter().enumerate() {
        for &item in of_user {
            items[item as usize].push(user as i64);
        }
    }
    let start = random::normal(settings.seed, [items.len() as i64, settings.factors]);
    let mut item_factors = (start * 0.1).to_device(device);
    for _ in 0..settings.rounds {
        let user_factors = solve(&users, &item_factors, settings, GATHERED);
        item_factors = solve(&items, &user_factors, settings, GATHERED);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let mut vectors =
        Vectors { dimensions: settings.factors as usize, data: to_vec(&item_factors) };
    vectors.normalise();
    vectors
}

/// For each row its factors, given those of the other side (`[others, factors]`):
/// `(Y^T Y + a sum y y^T + l I) x = (1 + a) sum y` over the row's partners (Hu et al., equation 4).
/// Factors of at most `gathered` partners are in memory at a time.
fn solve(partners: &[Vec<i64>], others: &Tensor, settings: Als, gathered: usize) -> Tensor {
    let factors = settings.factors;
    let (kind, device) = (Kind::Float, others.device());
    let gram = others.transpose(0, 1).matmul(others)
        + Tensor::eye(factors, (kind, device)) * settings.regularisation;
    // One more row of zeros, which pads rows of fewer partners.
    let padded = Tensor::cat(&[others, &Tensor::zeros([1, factors], (kind, device))], 0);
    let pad = others.size()[0];
    let mut order: Vec<usize> = (0..partners.len()).collect();
    order.sort_by_key(|&row| partners[row].len());
    let mut solved = Tensor::zeros([partners.len() as i64, factors], (kind, device));
    let mut rest = &order[..];
    while !rest.is_empty() {
        let (rows, longest);
        (rows, longest, rest) = together(rest, |row| partners[row].len(), gathered);
        let [mut products, mut sums] = [[factors, factors], [factors, 1]].map(|[height, width]| {
            Tensor::zeros([rows.len() as i64, height, width], (kind, device))
        });
        let block = (gathered / rows.len()).max(1);
        for first in (0..longest).step_by(block) {
            let width = block.min(longest - first);
            let index: Vec<i64> = rows
                .iter()
                .flat_map(|&row| {
                    let known = partners[row].iter().skip(first).copied();
                    known.chain(std::iter::repeat(pad)).take(width)
                })
                .collect();
            let index = Tensor::from_slice(&index).to_device(device);
            let factors_of =
                padded.index_select(0, &index).view([rows.len() as i64, width as i64, factors]);
            let transposed = factors_of.transpose(1, 2);
            products += transposed.matmul(&factors_of);
            sums += transposed.sum_dim_intlist([2].as_slice(), true, kind);
        }
        if longest == 0 {
            continue;
        }
        let systems = products * settings.confidence + gram.unsqueeze(0);
        let right = sums * (1.0 + settings.confidence);
        let lower = systems.linalg_cholesky(false);
        let x = right.cholesky_solve(&lower, false).squeeze_dim(2);
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let _ = solved.index_copy_(0, &Tensor::from_slice(&rows).to_device(device), &x);
    }
    solved
}

/// Of rows in ascending order of their number of partners, those that are solved together, the
/// number of partners of the last of them, and the rest.
fn together(
    order: &[usize],
    partners: impl Fn(usize) -> usize,
    gathered: usize,
) -> (&[usize], usize, &[usize]) {
    let fits = |count: &usize| count * partners(order[count - 1]) <= gathered;
    let count = (2..=order.len().min(SYSTEMS)).take_while(fits).last().unwrap_or(1);
    let (rows, rest) = order.split_at(count);
    (rows, partners(rows[count - 1]), rest)
}

/// Content vectors with the learned ones behind them, these weighted by `weight` relative to
/// content vectors of length 1.
pub fn join(content: &Vectors, learned: &Vectors, weight: f64) -> Vectors {
    let rows = content.data.chunks_exact(content.dimensions);
    // The mean length of the content rows, so that a weight means the same for every encoder.
    let items = rows.len().max(1) as f64;
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let factor = (weight * rows.clone().map(length).sum::<f64>() / items) as f32;
    let data = rows
        .zip(learned.data.chunks_exact(learned.dimensions))
        .flat_map(|(content, learned)| {
            content.iter().copied().chain(learned.iter().map(move |x| x * factor))
        })
        .collect();
    Vectors { dimensions: content.dimensions + learned.dimensions, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{dataset, with_other_targets};
    use crate::device::testing::on_cpu_and_cuda;

    fn learn(dataset: &Dataset) -> Vectors {
        let als = Als { factors: 4, ..Als::default() };
        item_vectors(dataset, als, Device::Cpu, &ProgressBar::hidden())
    }

    #[test]
    fn items_of_the_same_readers_are_alike() {
        // Two communities: items 0-2 and 3-5; the last two of each sequence are not training.
        let sequences: Vec<&[u32]> = (0..20)
            .map(|i| if i % 2 == 0 { &[0, 1, 2, 0, 1][..] } else { &[3, 4, 5, 3, 4] })
            .collect();
        let vectors = learn(&dataset(6, &sequences));
        let cosine = |a: usize, b: usize| -> f32 {
            vectors.row(a).iter().zip(vectors.row(b)).map(|(x, y)| x * y).sum()
        };
        assert!(cosine(0, 1) > 0.95 && cosine(3, 5) > 0.95);
        assert!(cosine(0, 3).abs() < 0.3, "{}", cosine(0, 3));
    }

    #[test]
    fn factors_are_alike_on_cpu_and_cuda() {
        let sequences: Vec<Vec<u32>> =
            (0..50).map(|user| (0..6).map(|i| (i * i + 7 * user) % 20).collect()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = dataset(20, &sequences);
        let learn = |device| {
            let als = Als { factors: 8, ..Als::default() };
            item_vectors(&dataset, als, device, &ProgressBar::hidden())
        };
        let expected = learn(Device::Cpu);
        on_cpu_and_cuda(|device| {
            for (found, expected) in learn(device).data.iter().zip(&expected.data) {
                assert!((found - expected).abs() < 1e-2, "{found}, not {expected}");
            }
        });
    }

    #[test]
    fn nothing_of_validation_and_test_is_read() {
        let one = dataset(5, &[&[0, 1, 2, 3], &[1, 0, 3, 2], &[2, 1, 0, 3]]);
        let other = with_other_targets(&one, 4);
        let vectors = learn(&one);
        assert_eq!(vectors, learn(&other));
        assert!(vectors.row(4).iter().all(|&x| x == 0.0), "item 4 has no training interaction");
    }

    #[test]
    fn factors_do_not_depend_on_how_many_partners_are_gathered() {
        let als = Als { factors: 4, ..Als::default() };
        let others = random::normal(3, [50, als.factors]);
        // Rows of no partner, of a few, and of more than fit.
        let partners: Vec<Vec<i64>> = (0..30)
            .map(|row| (0..row * row / 18).map(|other| (other * 7 + row) % 50).collect())
            .collect();
        let solved = |gathered| to_vec(&solve(&partners, &others, als, gathered));
        let whole = solved(GATHERED);
        for gathered in [1, 5, 64, 300] {
            for (one, other) in whole.iter().zip(solved(gathered)) {
                assert!((one - other).abs() < 1e-5, "{gathered}: {one} and {other}");
            }
        }
    }

    #[test]
    fn joined_vectors_weigh_what_was_asked_for() {
        let content = Vectors { dimensions: 2, data: vec![3.0, 4.0, 0.0, 5.0] };
        let learned = Vectors { dimensions: 1, data: vec![1.0, 0.0] };
        let joined = join(&content, &learned, 0.5);
        assert_eq!(joined.data, [3.0, 4.0, 2.5, 0.0, 5.0, 0.0]);
    }
}
