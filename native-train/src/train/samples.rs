//! Training samples and their batches: every prefix of a training sequence predicts its next item.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
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

/// The batches of one epoch as index lists: shuffled, with histories of similar length together,
/// so that little is padded. The same seed and epoch give the same batches.
pub fn epoch_batches(
    samples: &[Sample],
    max_items: usize,
    batch_size: usize,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<u32>> {
    // Batches are cut from shards of this many: long enough to sort by length, short enough that
    // a batch is still a random draw.
    const SHARD: usize = 16;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut order: Vec<u32> = (0..samples.len() as u32).collect();
    order.shuffle(&mut rng);
    let mut batches = Vec::with_capacity(samples.len().div_ceil(batch_size));
    for shard in order.chunks_mut(SHARD * batch_size) {
        shard.sort_by_key(|&i| (samples[i as usize].target as usize).min(max_items));
        batches.extend(shard.chunks(batch_size).map(<[u32]>::to_vec));
    }
    batches.shuffle(&mut rng);
    batches
}

/// Turns samples into tensors.
#[derive(Debug)]
pub struct Batcher<'a> {
    /// The sequences.
    pub dataset: &'a Dataset,
    /// Their items' tokens.
    pub ids: &'a SemanticIds,
    /// Where the tensors go.
    pub device: Device,
}

impl Batcher<'_> {
    /// One batch; each user token is dropped with probability `drop_user`.
    pub fn batch(&self, samples: &[Sample], drop_user: f64, rng: &mut impl Rng) -> Batch {
        let layout = &self.ids.layout;
        let rows: Vec<Vec<u32>> = samples
            .iter()
            .map(|sample| {
                let sequence = &self.dataset.sequences[sample.sequence as usize];
                let user = if rng.random_bool(drop_user) {
                    None
                } else {
                    layout.user_token(&sequence.user)
                };
                let history = &sequence.items[..sample.target as usize];
                layout.encoder_input(user, history.iter().map(|&item| self.ids.codes(item)))
            })
            .collect();
        let labels: Vec<i64> = samples
            .iter()
            .flat_map(|sample| {
                let sequence = &self.dataset.sequences[sample.sequence as usize];
                let codes = self.ids.codes(sequence.items[sample.target as usize]);
                layout.levels.iter().zip(codes).map(|(l, &c)| i64::from(l.offset) + i64::from(c))
            })
            .collect();
        let (tokens, keep) = pad_left(&rows, layout.pad, self.device);
        let labels = Tensor::from_slice(&labels)
            .view([samples.len() as i64, layout.levels.len() as i64])
            .to_device(self.device);
        Batch { tokens, keep, labels }
    }
}

/// Rows of tokens to `[rows, longest]` tensors of tokens and of which are not padding.
pub fn pad_left(rows: &[Vec<u32>], pad: u32, device: Device) -> (Tensor, Tensor) {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut tokens = vec![i64::from(pad); rows.len() * longest];
    let mut keep = vec![false; rows.len() * longest];
    for (index, row) in rows.iter().enumerate() {
        let start = (index + 1) * longest - row.len();
        for (offset, &token) in row.iter().enumerate() {
            tokens[start + offset] = i64::from(token);
            keep[start + offset] = true;
        }
    }
    let shape = [rows.len() as i64, longest as i64];
    let on_device = |t: Tensor| t.view(shape).to_device(device);
    (
        on_device(Tensor::from_slice(&tokens)),
        on_device(Tensor::from_slice(&keep).to_kind(Kind::Bool)),
    )
}
