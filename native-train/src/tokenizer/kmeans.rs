//! k-means: Lloyd's algorithm with k-means++ seeding.

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use tch::{Kind, Tensor};

use crate::model::params::to_vec;

/// Most rounds; most data sets settle in fewer.
const ROUNDS: usize = 50;
/// Rounds between looks at the error, so that a device is not waited for in each.
const LOOK_EVERY: usize = 5;
/// Relative fall of the error between two looks below which k-means has settled.
const SETTLED: f64 = 1e-3;
/// Most distances that are held at once, 256 MB of them.
const MOST_DISTANCES: i64 = 1 << 26;

/// Points a codeword that k-means is fitted to; more change the codebook by less than another
/// seed does.
const MOST_POINTS_PER_CODEWORD: i64 = 256;

/// The rows that k-means is fitted to: all, or a random part of a large data set.
pub(super) fn sample(data: &Tensor, largest_codebook: i64, rng: &mut impl Rng) -> Tensor {
    let (items, wanted) = (data.size()[0], largest_codebook * MOST_POINTS_PER_CODEWORD);
    if items <= wanted {
        return data.shallow_clone();
    }
    let rows = rand::seq::index::sample(rng, items as usize, wanted as usize);
    let rows: Vec<i64> = rows.into_iter().map(|row| row as i64).collect();
    data.index_select(0, &Tensor::from_slice(&rows).to_device(data.device()))
}

/// Squared distances `[points, centres]`, each less the point's own squared length: enough to find
/// the nearest centre.
pub(super) fn relative_distances(points: &Tensor, centres: &Tensor) -> Tensor {
    Centres::new(centres).relative_distances(points)
}

/// What distances from centres need of the centres alone.
#[derive(Debug)]
pub(super) struct Centres {
    /// Squared lengths, `[centres]`.
    lengths: Tensor,
    /// The centres times -2, `[d, centres]`.
    turned: Tensor,
}

impl Centres {
    /// Of centres `[k, d]`.
    pub(super) fn new(centres: &Tensor) -> Self {
        Self {
            lengths: centres.square().sum_dim_intlist([1].as_slice(), false, Kind::Float),
            turned: centres.transpose(0, 1) * -2.0,
        }
    }

    /// `count` of the centres from `first` on.
    #[must_use]
    pub(super) fn narrow(&self, first: i64, count: i64) -> Self {
        Self {
            lengths: self.lengths.narrow(0, first, count),
            turned: self.turned.narrow(1, first, count),
        }
    }

    /// [`relative_distances`] of points `[n, d]`.
    pub(super) fn relative_distances(&self, points: &Tensor) -> Tensor {
        self.lengths.addmm(points, &self.turned)
    }
}

/// Each point's distance from its nearest centre, as in [`relative_distances`], and the index of
/// that centre, `[n]` each; the distances of all points from all centres are never held at once.
pub(super) fn nearest(points: &Tensor, centres: &Tensor) -> (Tensor, Tensor) {
    nearest_in_chunks(points, centres, (MOST_DISTANCES / centres.size()[0].max(1)).max(1))
}

/// [`nearest`], so many points at once.
fn nearest_in_chunks(points: &Tensor, centres: &Tensor, rows: i64) -> (Tensor, Tensor) {
    let centres = Centres::new(centres);
    let chunks = points.split(rows, 0);
    let found = chunks.iter().map(|chunk| centres.relative_distances(chunk).min_dim(1, false));
    let (distances, nearest): (Vec<Tensor>, Vec<Tensor>) = found.unzip();
    (Tensor::cat(&distances, 0), Tensor::cat(&nearest, 0))
}

/// What k-means found.
#[derive(Debug)]
pub(super) struct Clusters {
    /// `[k, d]`.
    pub(super) centres: Tensor,
    /// Index of each point's nearest centre, `[n]`.
    pub(super) nearest: Tensor,
}

/// Clusters `points` (`[n, d]`, `n >= k`) around `k` centres.
///
/// A centre without points moves to the point that lies farthest from its own centre, so that no
/// cluster is empty while points differ.
pub(super) fn kmeans(points: &Tensor, k: i64, rng: &mut impl Rng) -> Clusters {
    tch::no_grad(|| {
        let mut centres = seed(points, k, rng);
        let mut before = f64::INFINITY;
        let ones = Tensor::ones([points.size()[0]], (Kind::Float, points.device()));
        for round in 0..ROUNDS {
            let (distance, nearest) = nearest(points, &centres);
            if round % LOOK_EVERY == LOOK_EVERY - 1 {
                // Up to the points' own lengths, which no round changes.
                let lengths = points.square().sum(Kind::Float);
                let error = (distance.sum(Kind::Float) + lengths).double_value(&[]);
                if before - error < SETTLED * before {
                    break;
                }
                before = error;
            }
            let sums = sums_by(&nearest, points, k);
            let mut counts = Tensor::zeros([k], (Kind::Float, points.device()));
            let _ = counts.index_add_(0, &nearest, &ones);
            centres = sums / counts.clamp_min(1.0).unsqueeze(1);
            fill_empty(points, &mut centres, &counts, &distance);
        }
        let (_, nearest) = nearest(points, &centres);
        Clusters { centres, nearest }
    })
}

/// Sums `[k, d]` of the points `[n, d]` of each group, in an order that is fixed on every device.
pub(super) fn sums_by(group: &Tensor, points: &Tensor, k: i64) -> Tensor {
    if points.device().is_cuda() {
        // `index_add_` adds by atomics there, and its rounding would change from run to run.
        return Tensor::embedding_dense_backward(points, group, k, -1, false);
    }
    let mut sums = Tensor::zeros([k, points.size()[1]], (points.kind(), points.device()));
    // One row after the other; the kernel above is ten times slower on a CPU.
    sums.index_add_(0, group, points)
}

/// Moves the centres without points onto the points that are farthest from theirs.
fn fill_empty(points: &Tensor, centres: &mut Tensor, counts: &Tensor, distance: &Tensor) {
    let lengths = points.square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
    let k = counts.size()[0].min(points.size()[0]);
    let (_, farthest) = (distance + lengths).topk(k, 0, true, true);
    // The i-th empty centre takes the i-th farthest point, without asking how many are empty.
    let empty = counts.eq(0.0);
    let place = (empty.to_kind(Kind::Int64).cumsum(0, Kind::Int64) - 1).clamp(0, k - 1);
    let moved = points.index_select(0, &farthest.index_select(0, &place));
    *centres = moved.where_self(&empty.unsqueeze(1), centres);
}

/// k-means++ (Arthur and Vassilvitskii 2007): each further centre is drawn with probability
/// proportional to the squared distance from those chosen.
fn seed(points: &Tensor, k: i64, rng: &mut impl Rng) -> Tensor {
    let n = points.size()[0];
    let lengths = points.square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
    let mut chosen = vec![rng.random_range(0..n)];
    let mut nearest = vec![f32::INFINITY; n as usize];
    while chosen.len() < k as usize {
        let last = chosen[chosen.len() - 1];
        let point = points.get(last);
        let distances = &lengths - points.mv(&point) * 2.0 + lengths.get(last);
        for (best, distance) in nearest.iter_mut().zip(to_vec(&distances)) {
            *best = best.min(distance.max(0.0));
        }
        // Rounding leaves a chosen point a little weight; it must not be drawn again.
        nearest[last as usize] = 0.0;
        // All weights are zero when every point coincides with a centre: any point will do.
        let next = match WeightedIndex::new(&nearest) {
            Ok(weights) => weights.sample(rng) as i64,
            Err(_) => rng.random_range(0..n),
        };
        chosen.push(next);
    }
    points.index_select(0, &Tensor::from_slice(&chosen).to_device(points.device()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::on_cpu_and_cuda;
    use crate::random;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn finds_well_separated_clusters() {
        let points: Vec<f32> = (0..60)
            .flat_map(|i| {
                let cluster = (i % 3) as f32 * 10.0;
                [cluster + (i as f32 * 0.7).sin() * 0.1, -cluster]
            })
            .collect();
        let points = Tensor::from_slice(&points).view([60, 2]);
        let clusters = kmeans(&points, 3, &mut ChaCha8Rng::seed_from_u64(1));
        let mut found: Vec<f32> = to_vec(&clusters.centres.select(1, 1));
        found.sort_by(f32::total_cmp);
        assert_eq!(found.iter().map(|v| v.round()).collect::<Vec<_>>(), [-20.0, -10.0, 0.0]);
        let nearest = to_vec(&clusters.nearest);
        assert!((0..57).all(|i| nearest[i] == nearest[i + 3]), "{nearest:?}");
    }

    #[test]
    fn the_nearest_centres_do_not_depend_on_how_many_points_are_compared_at_once() {
        let numbers = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| (i as f32 * step).sin()).collect()
        };
        let points = Tensor::from_slice(&numbers(100 * 8, 0.7)).view([100, 8]);
        let centres = Tensor::from_slice(&numbers(7 * 8, 1.3)).view([7, 8]);
        let (distance, at) = nearest(&points, &centres);
        let squares = (points.unsqueeze(1) - centres.unsqueeze(0)).square();
        let squares = squares.sum_dim_intlist([2].as_slice(), false, Kind::Float);
        assert_eq!(at, squares.argmin(1, false), "as computed from the differences");
        for rows in [1, 33, 99, 100, 1000] {
            let (distance_in_chunks, at_in_chunks) = nearest_in_chunks(&points, &centres, rows);
            assert_eq!(at_in_chunks, at, "{rows} at once");
            assert!(distance_in_chunks.allclose(&distance, 1e-5, 1e-5, false), "{rows} at once");
        }
    }

    #[test]
    fn clusters_and_sums_are_alike_on_cpu_and_cuda_and_the_same_again() {
        // Around five places, so that rounding moves no point to another cluster.
        let place = Tensor::arange(500, (Kind::Int64, tch::Device::Cpu)).remainder(5);
        let places = random::normal(1, [5, 16]) * 10.0;
        let points = random::normal(2, [500, 16]) + places.index_select(0, &place);
        let expected = kmeans(&points, 5, &mut ChaCha8Rng::seed_from_u64(3));
        let sums = sums_by(&place, &points, 5);
        on_cpu_and_cuda(|device| {
            let (points, place) = (points.to_device(device), place.to_device(device));
            let found = kmeans(&points, 5, &mut ChaCha8Rng::seed_from_u64(3));
            assert_eq!(to_vec(&found.nearest), to_vec(&expected.nearest));
            let is_close = |a: &Tensor, b: &Tensor| {
                a.to_device(tch::Device::Cpu).allclose(b, 1e-4, 1e-3, false)
            };
            assert!(is_close(&found.centres, &expected.centres));
            let found = sums_by(&place, &points, 5);
            assert!(is_close(&found, &sums));
            assert!((0..5).all(|_| sums_by(&place, &points, 5).equal(&found)));
        });
    }

    #[test]
    fn no_cluster_is_empty_while_points_differ() {
        // 40 copies of one point and 9 others: ten centres, one each.
        let points: Vec<f32> = (0..49).map(|i| if i < 40 { 0.0 } else { i as f32 }).collect();
        let points = Tensor::from_slice(&points).view([49, 1]);
        let clusters = kmeans(&points, 10, &mut ChaCha8Rng::seed_from_u64(3));
        let mut centres = to_vec(&clusters.centres);
        centres.sort_by(f32::total_cmp);
        let expected: Vec<f32> = std::iter::once(0.0).chain((40..49).map(|i| i as f32)).collect();
        assert_eq!(centres, expected);
    }
}
