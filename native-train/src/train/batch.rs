//! The batches of training: what the model is given of samples, and what it is to answer.

use tch::{Device, Kind, Tensor};

use super::samples::Sample;
use crate::data::Dataset;
use crate::tokenizer::SemanticIds;

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

/// Samples whose gradient one thread of a CPU computes at a time. A constant, so that the weights do
/// not depend on the number of threads; small enough for a cache, large enough for matrix products.
pub(super) const MICRO_BATCH: usize = 32;
/// The same of a GPU, where a step is one pass wherever it can be: ATen's fused attention takes fewer
/// than 65,536 rows, and unlikelihood makes two of a sample.
pub(super) const GPU_BATCH: usize = 32_767;

/// Everything that batches are made of, on the device that trains: a step then uploads nothing.
#[derive(Debug)]
pub struct Resident {
    /// All sequences' items, one behind the other, `[interactions]`, `i32`.
    history: Tensor,
    /// Tokens of each item, `[items, levels]`, `i64`.
    item_tokens: Tensor,
    /// User token of each sequence, `[sequences]`, `i64`; `None` for a layout without users.
    user_tokens: Option<Tensor>,
    /// The sequence of each sample, `[samples]`, `i32`.
    sequences: Tensor,
    /// Where in `history` its target is, `[samples]`, `i64`.
    targets: Tensor,
    /// Items that the model sees of its history, `[samples]`, `i64`.
    lengths: Tensor,
    /// The same on the host: the width of a batch must be known there.
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
        let targets = self.history.index_select(0, &self.targets.index_select(0, index));
        let mut histories = self.histories(chosen, index);
        if draws.drop_items > 0.0 {
            histories = histories.without_some(draws.drop_items);
        }
        let (tokens, keep) = self.input(&histories, index, draws.drop_user);
        let past = (draws.unlikelihood > 0.0).then(|| Past {
            labels: self.item_tokens.index_select(0, &histories.one_each()),
            weight: draws.unlikelihood,
        });
        Batch { tokens, keep, labels: self.item_tokens.index_select(0, &targets), past }
    }

    /// What the model sees of the histories of some samples, named as in [`Resident::batch`].
    fn histories(&self, chosen: &[u32], index: &Tensor) -> Histories {
        let longest = chosen.iter().map(|&i| self.host_lengths[i as usize]).max().unwrap_or(0);
        let longest = i64::from(longest);
        let columns = Tensor::arange(longest, (Kind::Int64, index.device()));
        let at = self.targets.index_select(0, index).unsqueeze(1) + &columns - longest;
        let items = self.history.index_select(0, &at.clamp_min(0).view([-1]));
        Histories {
            items: items.view([chosen.len() as i64, longest]),
            lengths: self.lengths.index_select(0, index),
        }
    }

    /// The encoder's input and its mask, as in [`Batch`]: the user token unless it is dropped, which has
    /// this probability, the items' tokens, and the end token.
    fn input(&self, histories: &Histories, index: &Tensor, drop_user: f64) -> (Tensor, Tensor) {
        let (rows, columns) = (index.size()[0], histories.columns());
        let levels = self.item_tokens.size()[1];
        let items = self.item_tokens.index_select(0, &histories.items.view([-1]));
        let items = items
            .view([rows, columns, levels])
            .masked_fill(&histories.outside().unsqueeze(2), self.pad)
            .view([rows, columns * levels]);
        let column = |token| Tensor::full([rows, 1], token, (Kind::Int64, index.device()));
        let mut parts = vec![items];
        // With users, one column more in front, and what would be the last padding is the user.
        if self.user_tokens.is_some() {
            parts.insert(0, column(self.pad));
        }
        if let Some(eos) = self.eos {
            parts.push(column(eos));
        }
        let mut tokens = Tensor::cat(&parts, 1);
        let mut first = histories.begin() * levels;
        if let Some(users) = &self.user_tokens {
            let kept = match drop_user {
                0.0 => Tensor::ones([rows, 1], (Kind::Bool, index.device())),
                drop => Tensor::rand([rows, 1], (Kind::Float, index.device())).ge(drop),
            };
            let user = users.index_select(0, &self.sequences.index_select(0, index)).unsqueeze(1);
            let _ = tokens.scatter_(1, &first, &user.where_self(&kept, &column(self.pad)));
            first = first + 1 - kept.to_kind(Kind::Int64);
        }
        let all = Tensor::arange(tokens.size()[1], (Kind::Int64, index.device()));
        (tokens, all.greater_equal_tensor(&first))
    }
}

/// The histories of a batch, on a device.
struct Histories {
    /// `[batch, columns]`, `i32`, each history at the right; what is before it means nothing.
    items: Tensor,
    /// Items of each, `[batch]`, `i64`.
    lengths: Tensor,
}

impl Histories {
    fn columns(&self) -> i64 {
        self.items.size()[1]
    }

    /// The column in which each begins, `[batch, 1]`.
    fn begin(&self) -> Tensor {
        (self.lengths.neg() + self.columns()).unsqueeze(1)
    }

    /// Whether a column is before a history, `[batch, columns]`.
    fn outside(&self) -> Tensor {
        let columns = Tensor::arange(self.columns(), (Kind::Int64, self.items.device()));
        columns.less_tensor(&self.begin())
    }

    /// The same without items that are drawn, each with this probability, the latest never among them;
    /// the others keep their order.
    fn without_some(&self, probability: f64) -> Self {
        let mut kept =
            Tensor::rand(self.items.size(), (Kind::Float, self.items.device())).ge(probability);
        let _ = kept.narrow(1, self.columns() - 1, 1).fill_(1);
        kept = kept.logical_and(&self.outside().logical_not());
        // What is kept moves to the right.
        let order = kept.to_kind(Kind::Int8).argsort_stable(true, 1, false);
        Self {
            items: self.items.gather(1, &order, false),
            lengths: kept.sum_dim_intlist(1, false, Kind::Int64),
        }
    }

    /// An item of each, drawn evenly, `[batch]`.
    fn one_each(&self) -> Tensor {
        let draw = Tensor::rand(self.lengths.size(), (Kind::Float, self.lengths.device()));
        // The lowest float of a draw is 0, and rounding can make a product the whole length.
        let back = (draw * &self.lengths).floor().to_kind(Kind::Int64) + 1;
        let column = (back.minimum(&self.lengths).neg() + self.columns()).unsqueeze(1);
        self.items.gather(1, &column, false).view([-1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Item, Sequence};
    use crate::random;
    use crate::train::samples::training_samples;
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
}
