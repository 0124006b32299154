//! Training samples and the order in which they are trained on: every prefix of a training sequence
//! predicts its next item.

use clap::ValueEnum;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::data::Dataset;

/// A history and the item after it: `sequences[sequence].items[..target]` and `[target]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Index of the sequence.
    pub sequence: u32,
    /// Position of the item to predict; at least 1.
    pub target: u32,
}

/// Every prefix of every training sequence.
pub fn training_samples(dataset: &Dataset) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (sequence, s) in dataset.sequences.iter().enumerate() {
        for target in 1..s.train().len() {
            samples.push(Sample { sequence: sequence as u32, target: target as u32 });
        }
    }
    samples
}

/// What the batches of an epoch have in common. Either way there are as many, and a batch holds
/// histories of similar length, so that little is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Batching {
    /// As many samples each.
    Samples,
    /// About as many tokens each: many short histories or few long ones.
    Tokens,
}

/// The samples of an epoch in the order in which they are trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Indices of samples.
    pub order: Vec<u32>,
    /// The batches, ranges of `order`.
    pub batches: Vec<std::ops::Range<usize>>,
}

/// The batches of one epoch; the same seed and epoch give the same batches. `size` is the largest
/// mean number of samples of a batch.
pub fn epoch_batches(
    samples: &[Sample],
    max_items: usize,
    size: usize,
    batching: Batching,
    seed: u64,
    epoch: u64,
) -> Epoch {
    // Batches are cut from buckets of this many: large enough to sort by length, small enough that
    // a batch is still a random draw.
    const BUCKET: usize = 16;
    let length = |i: u32| (samples[i as usize].target as usize).min(max_items);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut order: Vec<u32> = (0..samples.len() as u32).collect();
    order.shuffle(&mut rng);
    let total = samples.len().div_ceil(size);
    // Even sizes: a last batch of a sample or two would count for as much as one of hundreds.
    let end = |batch: usize| samples.len() * batch / total;
    let mut batches = Vec::with_capacity(total);
    for first in (0..total).step_by(BUCKET) {
        let count = BUCKET.min(total - first);
        let start = end(first);
        let bucket = &mut order[start..end(first + count)];
        bucket.sort_by_key(|&i| length(i));
        let mut from = 0;
        for number in 1..=count {
            let to = match batching {
                Batching::Samples => end(first + number) - start,
                Batching::Tokens => {
                    let all: usize = bucket.iter().map(|&i| length(i)).sum();
                    let mut sum = 0;
                    let end = bucket.iter().position(|&i| {
                        sum += length(i);
                        sum * count > all * number
                    });
                    // Every batch has a sample, whatever the lengths.
                    end.unwrap_or(bucket.len()).clamp(from + 1, bucket.len() - (count - number))
                }
            };
            batches.push(start + from..start + to);
            from = to;
        }
    }
    batches.shuffle(&mut rng);
    Epoch { order, batches }
}

/// Gives each step its samples. Keeps the order of one epoch, on the device as well: a step then
/// uploads nothing.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) samples: Vec<Sample>,
    max_items: usize,
    size: usize,
    batching: Batching,
    seed: u64,
    device: Device,
    epoch: Option<(u64, Epoch, Tensor)>,
}

impl Sampler {
    /// For [`epoch_batches`] of these.
    pub(crate) fn new(
        samples: Vec<Sample>,
        max_items: usize,
        size: usize,
        batching: Batching,
        seed: u64,
        device: Device,
    ) -> Self {
        Self { samples, max_items, size, batching, seed, device, epoch: None }
    }

    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.samples.len().div_ceil(self.size) as u64
    }

    /// The samples of a step, counted from 0 over all epochs: on the host, and as an index on the
    /// device (`[batch]`, `i64`).
    pub(crate) fn of_step(&mut self, step: u64) -> (&[u32], Tensor) {
        let (number, at) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        if self.epoch.as_ref().is_none_or(|(loaded, ..)| *loaded != number) {
            self.epoch = None;
        }
        let (_, epoch, order) = self.epoch.get_or_insert_with(|| {
            let Self { max_items, size, batching, seed, .. } = *self;
            let epoch = epoch_batches(&self.samples, max_items, size, batching, seed, number);
            let order: Vec<i64> = epoch.order.iter().map(|&i| i64::from(i)).collect();
            (number, epoch, Tensor::from_slice(&order).to_device(self.device))
        });
        let range = epoch.batches[at as usize].clone();
        (&epoch.order[range.clone()], order.narrow(0, range.start as i64, range.len() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_is_much_smaller_than_the_others() {
        for count in [1, 7, 16 * 32 + 1, 1025, 4096, 4097] {
            let samples = vec![Sample { sequence: 0, target: 1 }; count];
            for batching in [Batching::Samples, Batching::Tokens] {
                let epoch = epoch_batches(&samples, 20, 32, batching, 3, 1);
                let sizes = || epoch.batches.iter().map(std::ops::Range::len);
                assert_eq!(sizes().sum::<usize>(), count);
                assert!(sizes().all(|size| size <= 33), "{count} {batching:?}");
                assert!(2 * sizes().min().unwrap_or(0) >= count.min(32), "{count} {batching:?}");
            }
        }
    }

    #[test]
    fn an_epoch_has_every_sample_once_in_batches_of_like_cost() {
        let samples: Vec<Sample> =
            (0..1000).map(|i| Sample { sequence: i, target: 1 + i * i % 30 }).collect();
        let length = |i: u32| (samples[i as usize].target as usize).min(20);
        for batching in [Batching::Samples, Batching::Tokens] {
            let epoch = epoch_batches(&samples, 20, 32, batching, 3, 1);
            assert_eq!(epoch, epoch_batches(&samples, 20, 32, batching, 3, 1));
            assert_ne!(epoch.order, epoch_batches(&samples, 20, 32, batching, 3, 2).order);
            assert_eq!(epoch.batches.len(), 1000usize.div_ceil(32));
            let mut seen: Vec<u32> =
                epoch.batches.iter().flat_map(|b| epoch.order[b.clone()].to_vec()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..1000).collect::<Vec<_>>());
            let cost = |b: &std::ops::Range<usize>| match batching {
                Batching::Samples => b.len(),
                Batching::Tokens => epoch.order[b.clone()].iter().map(|&i| length(i)).sum(),
            };
            let costs: Vec<usize> = epoch.batches.iter().map(cost).collect();
            let mean = costs.iter().sum::<usize>() as f64 / costs.len() as f64;
            let largest = costs.iter().copied().max().unwrap_or(0) as f64;
            assert!(largest < 1.2 * mean, "{batching:?}: {largest} beside a mean of {mean}");
        }
    }

    #[test]
    fn each_epoch_of_a_sampler_has_all_samples_in_an_order_of_its_own() {
        let samples: Vec<Sample> =
            (0..100).map(|i| Sample { sequence: i, target: 1 + i % 7 }).collect();
        for batching in [Batching::Samples, Batching::Tokens] {
            let mut sampler = Sampler::new(samples.clone(), 20, 16, batching, 3, Device::Cpu);
            let steps = sampler.steps_per_epoch();
            assert_eq!(steps, 7);
            let mut of_epoch = |number: u64| -> Vec<u32> {
                let mut all = Vec::new();
                for step in number * steps..(number + 1) * steps {
                    let (chosen, index) = sampler.of_step(step);
                    let index: Vec<i64> = index.try_into().unwrap();
                    assert!(chosen.iter().map(|&i| i64::from(i)).eq(index), "step {step}");
                    all.extend(chosen);
                }
                all
            };
            let mut orders = [of_epoch(0), of_epoch(1)];
            assert_ne!(orders[0], orders[1], "{batching:?}");
            // Also if it has gone on to another since.
            assert_eq!(of_epoch(0), orders[0], "{batching:?}");
            for order in &mut orders {
                order.sort_unstable();
                assert!(order.iter().copied().eq(0..100), "{batching:?}: {order:?}");
            }
        }
    }
}
