//! A balanced last level, as LC-Rec (Zheng et al. 2024) has it: while training, a batch is shared
//! out evenly over the codewords; afterwards, items that still share all codes are separated.

use std::collections::{BTreeMap, BinaryHeap};

use tch::{Kind, Tensor};

use super::kmeans::relative_distances;
use crate::model::params::to_vec;

/// Rounds of normalising rows and columns: the plan changes no more after some tens.
const ROUNDS: usize = 50;
/// Distances that are held at once.
const DISTANCES: usize = 1 << 22;
/// Sharpness of the plan, relative to the mean spread of a point's distances.
const SHARPNESS: f64 = 20.0;

/// The codeword of each point, from distances `[points, codewords]`, so that every codeword takes
/// about as many points as any other: the Sinkhorn-Knopp algorithm (Cuturi 2013). No value is read
/// back.
pub(super) fn balanced(distances: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let (points, codewords) = distances.size2().unwrap_or((1, 1));
        // Only differences within a row matter; the scale makes the plan independent of units.
        let nearest = distances.amin([1].as_slice(), true);
        let spread = (distances - &nearest).mean(Kind::Float).clamp_min(1e-12);
        // The nearest codeword of a point is 1, one of average distance e^-SHARPNESS.
        let plan = ((distances - nearest) / spread * -SHARPNESS).exp();
        let share = points as f64 / codewords as f64;
        let (by_row, by_column) = (guarded(&plan), guarded(&(&plan / share).transpose(0, 1)));
        let mut columns = Tensor::ones([codewords + 1], (Kind::Float, distances.device()));
        for _ in 0..ROUNDS {
            // A product and a reciprocal each: on a GPU this takes as long as its launches do.
            let rows = by_row.mv(&columns).reciprocal_();
            columns = by_column.mv(&rows).reciprocal_();
        }
        (plan * columns.narrow(0, 0, codewords)).argmax(1, false)
    })
}

/// A matrix `[n, m]` with one more row and column, `[n + 1, m + 1]`: by a vector that ends in 1 it
/// gives the sums plus the least that a sum shall be, and 1 again.
fn guarded(plan: &Tensor) -> Tensor {
    let (rows, columns) = plan.size2().unwrap_or((1, 1));
    let guarded = plan.constant_pad_nd([0, 1, 0, 1]);
    let _ = guarded.narrow(1, columns, 1).fill_(1e-30);
    let _ = guarded.narrow(1, columns, 1).narrow(0, rows, 1).fill_(1.0);
    guarded
}

/// Moves items that share all codes (`[items, levels]`) to other codewords of the last level that
/// no item under the same parent has: the nearest pairs first. Returns how many moved.
///
/// `residual` is what the last level quantises, `[items, width]`; `codebook` its codewords,
/// `[size, width]`. Where a parent has more items than codewords, some go on sharing.
pub(super) fn separate(
    codes: &mut [u16],
    levels: usize,
    residual: &Tensor,
    codebook: &Tensor,
) -> usize {
    let mut parents: BTreeMap<&[u16], BTreeMap<u16, Vec<usize>>> = BTreeMap::new();
    for (item, row) in codes.chunks_exact(levels).enumerate() {
        let (parent, last) = row.split_at(levels - 1);
        parents.entry(parent).or_default().entry(last[0]).or_default().push(item);
    }
    let mut moves = Vec::new();
    for groups in parents.values().filter(|groups| groups.values().any(|g| g.len() > 1)) {
        let crowded: Vec<usize> =
            groups.values().filter(|group| group.len() > 1).flatten().copied().collect();
        let mut free: Vec<bool> = vec![true; codebook.size()[0] as usize];
        for (code, _) in groups.iter().filter(|(_, group)| group.len() == 1) {
            free[usize::from(*code)] = false;
        }
        let mut placed = vec![false; crowded.len()];
        for (_, at, code) in nearest_pairs(&crowded, &free, residual, codebook) {
            if !placed[at] && free[code] {
                (placed[at], free[code]) = (true, false);
                moves.push((crowded[at], code as u16));
            }
        }
    }
    moves.retain(|&(item, code)| codes[item * levels + levels - 1] != code);
    for &(item, code) in &moves {
        codes[item * levels + levels - 1] = code;
    }
    moves.len()
}

/// Pairs of crowded items (by their place among them) and free codewords, nearest first. With F free
/// codewords only each one's F nearest items matter: at least one of them is still unplaced when its
/// turn comes.
fn nearest_pairs(
    crowded: &[usize],
    free: &[bool],
    residual: &Tensor,
    codebook: &Tensor,
) -> Vec<(u32, usize, usize)> {
    let most = free.iter().filter(|&&free| free).count();
    let mut nearest: Vec<BinaryHeap<(u32, usize)>> = vec![BinaryHeap::new(); free.len()];
    let block = (DISTANCES / free.len()).max(1);
    for (number, items) in crowded.chunks(block).enumerate() {
        let rows: Vec<i64> = items.iter().map(|&item| item as i64).collect();
        let points =
            residual.index_select(0, &Tensor::from_slice(&rows).to_device(residual.device()));
        // Compared across items, so with the items' own lengths.
        let lengths = points.square().sum_dim_intlist([1].as_slice(), true, Kind::Float);
        let distances = to_vec(&(relative_distances(&points, codebook) + lengths));
        for (row, distances) in distances.chunks_exact(free.len()).enumerate() {
            for (code, &distance) in distances.iter().enumerate().filter(|(code, _)| free[*code]) {
                let (pair, heap) = ((ordered(distance), number * block + row), &mut nearest[code]);
                if heap.len() < most {
                    heap.push(pair);
                } else if heap.peek().is_some_and(|farthest| pair < *farthest) {
                    heap.pop();
                    heap.push(pair);
                }
            }
        }
    }
    // By the item and the code where distances are equal, so that ties do not depend on the sort.
    let pairs = nearest.into_iter().enumerate();
    let pairs = pairs.flat_map(|(code, heap)| heap.into_iter().map(move |(d, at)| (d, at, code)));
    let mut pairs: Vec<(u32, usize, usize)> = pairs.collect();
    pairs.sort_unstable();
    pairs
}

/// A number that is in the order of floats.
fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_points_are_shared_out_and_clear_preferences_are_kept() {
        // Eight points, four of them in two pairs beside each of two codewords: kept as they are.
        let clear: Vec<f32> =
            (0..8).flat_map(|i| if i < 4 { [0.0, 9.0] } else { [9.0, 0.0] }).collect();
        let codes = balanced(&Tensor::from_slice(&clear).view([8, 2]));
        assert_eq!(to_vec(&codes), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        // All prefer codeword 0, some by less: those give way.
        let lean: Vec<f32> = (0..8).flat_map(|i| [0.0, 1.0 + i as f32]).collect();
        let codes = to_vec(&balanced(&Tensor::from_slice(&lean).view([8, 2])));
        assert_eq!(codes, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn items_that_share_all_codes_take_the_nearest_free_codewords() {
        // Codewords at 0, 1, 2, 3. Under parent 0 three items share code 1 and one has code 2;
        // under parent 1 nothing is shared.
        let codebook = Tensor::from_slice(&[0.0f32, 1.0, 2.0, 3.0]).view([4, 1]);
        let mut codes = [0, 1, 0, 1, 0, 1, 0, 2, 1, 1];
        let residual = Tensor::from_slice(&[1.0f32, 1.2, 0.9, 2.0, 1.0]).view([5, 1]);
        assert_eq!(separate(&mut codes, 2, &residual, &codebook), 2);
        assert_eq!(codes, [0, 1, 0, 3, 0, 0, 0, 2, 1, 1]);
        // More items than codewords: four are told apart, the others stay.
        let mut codes = [0u16, 1].repeat(6);
        let residual = Tensor::ones([6, 1], (Kind::Float, tch::Device::Cpu));
        separate(&mut codes, 2, &residual, &codebook);
        let mut last: Vec<u16> = codes.chunks(2).map(|row| row[1]).collect();
        last.sort_unstable();
        assert_eq!(last, [0, 1, 1, 1, 2, 3]);
    }

    #[test]
    fn pairs_that_are_left_out_would_change_nothing() {
        let number = |i: usize| ((i * 7919) % 1009) as f32 / 100.0;
        for (items, size) in [(3, 8), (8, 8), (40, 5), (200, 16)] {
            let points: Vec<f32> = (0..items).map(number).collect();
            let codewords: Vec<f32> = (0..size).map(|code| number(code + 300)).collect();
            let residual = Tensor::from_slice(&points).view([items as i64, 1]);
            let codebook = Tensor::from_slice(&codewords).view([size as i64, 1]);
            // Codeword 0 is taken by an item of its own.
            let mut codes: Vec<u16> = (0..items).flat_map(|i| [0, u16::from(i > 0)]).collect();
            separate(&mut codes, 2, &residual, &codebook);
            let mut all: Vec<(f32, usize, usize)> = (1..items)
                .flat_map(|i| (1..size).map(move |c| (i, c)))
                .map(|(i, c)| ((points[i] - codewords[c]).powi(2), i, c))
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let mut expected = vec![None; items];
            let mut free = vec![true; size];
            for (_, i, c) in all {
                if expected[i].is_none() && free[c] {
                    (expected[i], free[c]) = (Some(c as u16), false);
                }
            }
            for (i, expected) in expected.iter().enumerate().skip(1) {
                assert_eq!(codes[2 * i + 1], expected.unwrap_or(1), "{items} {size} {i}");
            }
        }
        assert!([-2.0, -0.0, 0.0, 1e-9, 3.0].map(ordered).is_sorted());
    }
}
