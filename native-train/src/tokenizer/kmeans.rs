//! Lloyd's k-means with k-means++ seeding, for the first codewords of a codebook.

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use tch::{Kind, Tensor};

use crate::model::params::to_vec;

/// Squared distances `[points, centres]` up to a constant a point: the nearest centre is right.
pub fn relative_distances(points: &Tensor, centres: &Tensor) -> Tensor {
    let norms = centres.square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
    norms - points.matmul(&centres.transpose(0, 1)) * 2.0
}

/// `k` centres (`[k, d]`) of `points` (`[n, d]`, `n >= k`).
pub fn kmeans(points: &Tensor, k: i64, iterations: usize, rng: &mut impl Rng) -> Tensor {
    let mut centres = seed(points, k, rng);
    let n = points.size()[0];
    for _ in 0..iterations {
        let nearest = relative_distances(points, &centres).argmin(1, false);
        let mut sums = centres.zeros_like();
        let _ = sums.index_add_(0, &nearest, points);
        let counts = nearest.bincount(None::<Tensor>, k).to_kind(Kind::Float);
        let means = sums / counts.clamp_min(1.0).unsqueeze(1);
        // An empty cluster takes over a random point.
        let random: Vec<i64> = (0..k).map(|_| rng.random_range(0..n)).collect();
        let random = Tensor::from_slice(&random).to_device(points.device());
        let strays = points.index_select(0, &random);
        centres = means.where_self(&counts.gt(0.0).unsqueeze(1), &strays);
    }
    centres
}

/// k-means++ (Arthur and Vassilvitskii 2007): each further centre is drawn with probability
/// proportional to the squared distance from those chosen.
fn seed(points: &Tensor, k: i64, rng: &mut impl Rng) -> Tensor {
    let n = points.size()[0];
    let mut chosen = vec![rng.random_range(0..n)];
    let mut nearest = vec![f32::INFINITY; n as usize];
    while chosen.len() < k as usize {
        let last = points.get(chosen[chosen.len() - 1]);
        let distances =
            (points - last).square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
        for (best, distance) in nearest.iter_mut().zip(to_vec(&distances)) {
            *best = best.min(distance);
        }
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
        let centres = kmeans(&points, 3, 10, &mut ChaCha8Rng::seed_from_u64(1));
        let mut found: Vec<f32> = to_vec(&centres.select(1, 1));
        found.sort_by(f32::total_cmp);
        assert_eq!(found.iter().map(|v| v.round()).collect::<Vec<_>>(), [-20.0, -10.0, 0.0]);
    }
}
