//! Training samples and their batches: every prefix of a training sequence predicts its next item.

use clap::ValueEnum;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::data::Dataset;
use crate::tokenizer::SemanticIds;

/// A history and the item after it: `sequences[sequence].items[..target]` and `[target]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Index of the sequence.
    pub sequence: u32,
    /// Position of the item to predict; at least 1.
    pub target: u32,
}

/// Encoder input, mask and labels of one batch, on a device.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, input]`, `i64`, padded on the left: only distances matter to the encoder.
    pub tokens: Tensor,
    /// `[batch, input]`, bool, false at padding.
    pub keep: Tensor,
    /// `[batch, levels]`, `i64`: the tokens of the target's semantic ID.
    pub labels: Tensor,
    /// What else the samples teach, if they do.
    pub past: Option<Past>,
}

/// An item of each sample's history, drawn at random, that is to be unlikely.
#[derive(Debug)]
pub struct Past {
    /// `[batch, levels]`, `i64`: the tokens of its semantic ID.
    pub labels: Tensor,
    /// Weight of its unlikelihood beside the cross-entropy.
    pub weight: f64,
}

/// What is drawn for each sample whenever it is in a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// Probability that its user token is dropped.
    pub drop_user: f64,
    /// Probability that an item of its history is dropped; the latest never is.
    pub drop_items: f64,
    /// Weight of the unlikelihood of an item of its history; none is drawn where this is 0.
    pub unlikelihood: f64,
}

impl Draws {
    /// Nothing: every sample as it is.
    pub const NONE: Self = Self { drop_user: 0.0, drop_items: 0.0, unlikelihood: 0.0 };
}

impl Batch {
    /// Its number of samples.
    pub fn rows(&self) -> usize {
        self.labels.size()[0] as usize
    }
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

/// Samples whose gradient one thread of a CPU computes at a time. A constant, so that the weights do
/// not depend on the number of threads; small enough for a cache, large enough for matrix products.
pub(super) const MICRO_BATCH: usize = 32;

/// Everything that batches are made of, on the device that trains: a step then uploads nothing.
#[derive(Debug)]
pub struct Resident {
    /// All sequences' items, one behind the other, `i32`.
    history: Tensor,
    /// Tokens of each item, `[items, levels]`, `i64`.
    item_tokens: Tensor,
    /// User token of each sequence, `i64`; `None` for a layout without users.
    user_tokens: Option<Tensor>,
    /// Of each sample: the sequence, where in `history` the target is, items of the history.
    sequences: Tensor,
    targets: Tensor,
    lengths: Tensor,
    /// The last of these on the host as well: the width of a batch must be known there.
    host_lengths: Vec<u16>,
    pad: i64,
    eos: Option<i64>,
}

impl Resident {
    /// Lays the data of `samples` on a device.
    pub fn new(dataset: &Dataset, ids: &SemanticIds, samples: &[Sample], device: Device) -> Self {
        let layout = &ids.layout;
        let levels = layout.levels.len() as i64;
        let mut starts = Vec::with_capacity(dataset.sequences.len());
        let mut history: Vec<i32> = Vec::new();
        for sequence in &dataset.sequences {
            starts.push(history.len() as i64);
            history.extend(sequence.items.iter().map(|&item| item as i32));
        }
        let item_tokens: Vec<i64> = (0..dataset.items.len() as u32)
            .flat_map(|item| layout.tokens_of(ids.codes(item)).map(i64::from))
            .collect();
        let user_tokens = layout.users.map(|_| {
            let token = |user: &str| layout.user_token(user).unwrap_or(layout.pad);
            let tokens: Vec<i64> =
                dataset.sequences.iter().map(|s| i64::from(token(&s.user))).collect();
            Tensor::from_slice(&tokens).to_device(device)
        });
        let sequences: Vec<i32> = samples.iter().map(|s| s.sequence as i32).collect();
        let targets: Vec<i64> =
            samples.iter().map(|s| starts[s.sequence as usize] + i64::from(s.target)).collect();
        let host_lengths: Vec<u16> =
            samples.iter().map(|s| (s.target as usize).min(layout.max_items) as u16).collect();
        let lengths: Vec<i64> = host_lengths.iter().map(|&length| i64::from(length)).collect();
        Self {
            history: Tensor::from_slice(&history).to_device(device),
            item_tokens: Tensor::from_slice(&item_tokens).view([-1, levels]).to_device(device),
            user_tokens,
            sequences: Tensor::from_slice(&sequences).to_device(device),
            targets: Tensor::from_slice(&targets).to_device(device),
            lengths: Tensor::from_slice(&lengths).to_device(device),
            host_lengths,
            pad: layout.pad.into(),
            eos: layout.append_eos.then_some(layout.eos.into()),
        }
    }

    /// The batch of some samples, named by `chosen` on the host and by `index` (`[batch]`, `i64`)
    /// on the device, with what `draws` asks for by the device's own random numbers.
    pub fn batch(&self, chosen: &[u32], index: &Tensor, draws: Draws) -> Batch {
        let device = index.device();
        let rows = chosen.len() as i64;
        let levels = self.item_tokens.size()[1];
        let longest = chosen.iter().map(|&i| self.host_lengths[i as usize]).max().unwrap_or(0);
        let longest = i64::from(longest);
        let targets = self.targets.index_select(0, index);
        let labels = self.item_tokens.index_select(0, &self.history.index_select(0, &targets));
        let mut lengths = self.lengths.index_select(0, index);
        let columns = Tensor::arange(longest, (Kind::Int64, device));
        let at = (targets.unsqueeze(1) + &columns - longest).clamp_min(0);
        let mut items = self.history.index_select(0, &at.view([-1])).view([rows, longest]);
        // Where each row's history begins among the columns of items.
        let begin = |lengths: &Tensor| (lengths.neg() + longest).unsqueeze(1);
        if draws.drop_items > 0.0 {
            let drawn = Tensor::rand([rows, longest], (Kind::Float, device)).ge(draws.drop_items);
            let kept = drawn
                .logical_or(&columns.eq(longest - 1))
                .logical_and(&columns.greater_equal_tensor(&begin(&lengths)));
            // What is kept moves to the right, in its order.
            let order = kept.to_kind(Kind::Int8).argsort_stable(true, 1, false);
            items = items.gather(1, &order, false);
            lengths = kept.sum_dim_intlist(1, false, Kind::Int64);
        }
        let first = begin(&lengths);
        let tokens = self.item_tokens.index_select(0, &items.view([-1]));
        let tokens = tokens.view([rows, longest, levels]);
        let outside = columns.less_tensor(&first).unsqueeze(2);
        let tokens = tokens.masked_fill(&outside, self.pad).view([rows, longest * levels]);

        let padding = || Tensor::full([rows, 1], self.pad, (Kind::Int64, device));
        let mut parts = vec![tokens];
        // With users, one column more in front, and what would be the last padding is the user.
        let first = first * levels;
        let mut kept_user = None;
        if self.user_tokens.is_some() {
            parts.insert(0, padding());
        }
        if let Some(eos) = self.eos {
            parts.push(Tensor::full([rows, 1], eos, (Kind::Int64, device)));
        }
        let mut tokens = Tensor::cat(&parts, 1);
        if let Some(users) = &self.user_tokens {
            let kept = match draws.drop_user {
                0.0 => Tensor::ones([rows, 1], (Kind::Bool, device)),
                drop => Tensor::rand([rows, 1], (Kind::Float, device)).ge(drop),
            };
            let user = users.index_select(0, &self.sequences.index_select(0, index)).unsqueeze(1);
            let _ = tokens.scatter_(1, &first, &user.where_self(&kept, &padding()));
            kept_user = Some(kept);
        }
        let columns = Tensor::arange(tokens.size()[1], (Kind::Int64, device));
        let keep = match kept_user {
            Some(kept) => columns.greater_equal_tensor(&(&first + 1 - kept.to_kind(Kind::Int64))),
            None => columns.greater_equal_tensor(&first),
        };
        let past = (draws.unlikelihood > 0.0).then(|| {
            // The lowest float of a draw is 0, and rounding can make a product the whole length.
            let draw = Tensor::rand([rows], (Kind::Float, device));
            let back = (draw * &lengths).floor().to_kind(Kind::Int64) + 1;
            let column = (back.minimum(&lengths).neg() + longest).unsqueeze(1);
            let past = items.gather(1, &column, false).view([-1]);
            let labels = self.item_tokens.index_select(0, &past);
            Past { labels, weight: draws.unlikelihood }
        });
        Batch { tokens, keep, labels, past }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Item, Sequence};
    use crate::random;
    use tigret_infer::TokenLayout;

    fn dataset() -> Dataset {
        let item =
            |i: u32| Item { id: i.to_string(), text: String::new(), fields: Default::default() };
        let sequence = |user: u32| Sequence {
            user: format!("u{user}"),
            items: (0..3 + user).map(|i| (7 * i + user) % 20).collect(),
        };
        Dataset { items: (0..20).map(item).collect(), sequences: (0..9).map(sequence).collect() }
    }

    fn layouts() -> Vec<TokenLayout> {
        let with = |users, append_eos| TokenLayout {
            append_eos,
            ..TokenLayout::contiguous(&[5, 4, 2], users, 4)
        };
        vec![with(6, true), with(0, true), with(6, false), with(0, false)]
    }

    #[test]
    fn a_batch_is_what_inference_makes_of_the_same_histories() {
        let dataset = dataset();
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        let samples = training_samples(&dataset);
        for layout in layouts() {
            let ids = SemanticIds::new(&dataset.items, layout, &codes).unwrap();
            let resident = Resident::new(&dataset, &ids, &samples, Device::Cpu);
            let chosen: Vec<u32> = (0..samples.len() as u32).rev().collect();
            let index: Vec<i64> = chosen.iter().map(|&i| i64::from(i)).collect();
            for drop_user in [0.0, 1.0] {
                let draws = Draws { drop_user, ..Draws::NONE };
                // Drawn alone: others may be at their seeded draws.
                let batch = || resident.batch(&chosen, &Tensor::from_slice(&index), draws);
                let batch = random::seeded(0, batch);
                for (row, &i) in chosen.iter().enumerate() {
                    let sample = samples[i as usize];
                    let sequence = &dataset.sequences[sample.sequence as usize];
                    let (history, rest) = sequence.items.split_at(sample.target as usize);
                    let user = (drop_user == 0.0).then(|| ids.layout.user_token(&sequence.user));
                    let expected = ids
                        .layout
                        .encoder_input(user.flatten(), history.iter().map(|&i| ids.codes(i)));
                    let keep = batch.keep.get(row as i64);
                    let kept = batch.tokens.get(row as i64).masked_select(&keep);
                    let kept: Vec<i64> = kept.try_into().unwrap();
                    assert_eq!(kept, expected.iter().map(|&t| i64::from(t)).collect::<Vec<_>>());
                    // Padding stands on the left only.
                    let keep: Vec<bool> = keep.try_into().unwrap();
                    assert!(keep.is_sorted(), "{keep:?}");
                    let labels: Vec<i64> = batch.labels.get(row as i64).try_into().unwrap();
                    let target = ids.layout.tokens_of(ids.codes(rest[0]));
                    assert_eq!(labels, target.map(i64::from).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn past_items_are_drawn_evenly_from_what_the_model_sees_of_a_history() {
        let dataset = dataset();
        let samples = training_samples(&dataset);
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        let ids = SemanticIds::new(&dataset.items, layouts().remove(0), &codes).unwrap();
        let resident = Resident::new(&dataset, &ids, &samples, Device::Cpu);
        // The longest history, longer than what the model sees of it, and the shortest.
        for sample in [samples.len() - 1, 0] {
            let Sample { sequence, target } = samples[sample];
            let items = &dataset.sequences[sequence as usize].items[..target as usize];
            let seen = &items[items.len().saturating_sub(ids.layout.max_items)..];
            let many = 4000;
            let index = Tensor::full([many], sample as i64, (Kind::Int64, Device::Cpu));
            let draws = Draws { unlikelihood: 0.5, ..Draws::NONE };
            let chosen = vec![sample as u32; many as usize];
            let batch = random::seeded(0, || resident.batch(&chosen, &index, draws));
            let past = batch.past.expect("it was asked for");
            assert_eq!(past.weight, 0.5);
            let drawn: Vec<i64> = past.labels.reshape([-1]).try_into().unwrap();
            let mut left = many as usize;
            for &item in seen {
                let tokens = ids.layout.tokens_of(ids.codes(item));
                let tokens: Vec<i64> = tokens.map(i64::from).collect();
                let count = drawn.chunks(tokens.len()).filter(|&d| d == tokens).count();
                left -= count;
                let share = count as f64 / many as f64;
                let even = 1.0 / seen.len() as f64;
                assert!((share - even).abs() < 0.05, "item {item}: {share} instead of {even}");
            }
            assert_eq!(left, 0, "nothing else was drawn");
        }
    }

    #[test]
    fn dropped_items_leave_the_others_in_their_order_and_the_latest_in_its_place() {
        let dataset = dataset();
        let samples = training_samples(&dataset);
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        for layout in layouts() {
            let ids = SemanticIds::new(&dataset.items, layout, &codes).unwrap();
            let resident = Resident::new(&dataset, &ids, &samples, Device::Cpu);
            let draws = Draws { drop_items: 0.4, unlikelihood: 0.5, ..Draws::NONE };
            // Every sample many times, so that histories of all lengths are in one batch.
            let chosen: Vec<u32> = (0..1000).flat_map(|_| 0..samples.len() as u32).collect();
            let index: Vec<i64> = chosen.iter().map(|&i| i64::from(i)).collect();
            let index = Tensor::from_slice(&index);
            let batch = random::seeded(0, || resident.batch(&chosen, &index, draws));
            let (columns, levels) = (batch.tokens.size()[1] as usize, ids.layout.levels.len());
            let tokens: Vec<i64> = batch.tokens.reshape([-1]).try_into().unwrap();
            let keep: Vec<bool> = batch.keep.reshape([-1]).try_into().unwrap();
            let past = batch.past.expect("it was asked for").labels.reshape([-1]);
            let past: Vec<i64> = past.try_into().unwrap();
            let (mut kept, mut all) = (0, 0);
            for (row, &i) in chosen.iter().enumerate() {
                let sample = samples[i as usize];
                let sequence = &dataset.sequences[sample.sequence as usize];
                let history = &sequence.items[..sample.target as usize];
                let seen = &history[history.len().saturating_sub(ids.layout.max_items)..];
                let tokens_of = |item: u32| -> Vec<i64> {
                    ids.layout.tokens_of(ids.codes(item)).map(i64::from).collect()
                };
                let keep = &keep[row * columns..][..columns];
                assert!(keep.is_sorted(), "padding stands on the left only: {keep:?}");
                let padding = keep.iter().filter(|&&keep| !keep).count();
                let found = &tokens[row * columns..][padding..columns];
                let user = usize::from(ids.layout.user_token(&sequence.user).is_some());
                let found = &found[user..found.len() - usize::from(ids.layout.append_eos)];
                let mut rest = seen.iter();
                for item in found.chunks(levels) {
                    assert!(rest.any(|&seen| tokens_of(seen) == item), "{item:?} of {seen:?}");
                }
                assert_eq!(rest.next(), None, "the latest is the last: {found:?} of {seen:?}");
                let past = &past[row * levels..][..levels];
                assert!(found.chunks(levels).any(|item| item == past), "{past:?} is not seen");
                (kept, all) = (kept + found.len() / levels - 1, all + seen.len() - 1);
            }
            let share = kept as f64 / all as f64;
            assert!((share - 0.6).abs() < 0.01, "{share} of the earlier items are left");
        }
    }

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
}
