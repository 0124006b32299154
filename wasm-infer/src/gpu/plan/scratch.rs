//! Buffers whose contents a call makes, and how large they are.

use super::{BufferId, Plan};
use crate::gpu::pack::Axis;
use crate::recommender::DEFAULT_BEAMS;

/// Words of a beam record and of the header before the records: `shaders/shared/beam.wgsl`, and a
/// test makes sure that these are its constants.
pub(in crate::gpu) const RECORD: usize = 16;
/// Where a record has the perturbed log-probability.
pub(in crate::gpu) const PERTURBED: usize = 5;

/// Buffers whose contents a call makes, in their order behind the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) enum Scratch {
    /// Encoder input tokens.
    Input,
    /// Decoder input tokens of a step.
    Tokens,
    /// The users' filters.
    Listed,
    /// Tokens of each user's input.
    Lengths,
    /// Keys and temperatures of sampling.
    Samplings,
    /// Residual stream of the encoder.
    EncoderStream,
    /// Residual stream of the decoder.
    DecoderStream,
    /// Queries, keys and values of an encoder layer.
    EncoderQkv,
    /// Output of an attention before its projection.
    Context,
    /// Queries of a cross-attention.
    CrossQ,
    /// Keys and values of all cross-attentions.
    CrossKv,
    /// Hidden values of a feed-forward block.
    Hidden,
    /// Logits of a step.
    Logits,
    /// Softmax normalisers of a step.
    Normalisers,
    /// Candidates' keys of a step.
    Keys,
    /// Beam state before even steps.
    BeamsEven,
    /// Beam state before odd steps.
    BeamsOdd,
}

/// Buffers of [`Scratch`], behind which the self-attention caches lie, one a decoder layer.
const SCRATCH: usize = Scratch::BeamsOdd as usize + 1;

/// What a call needs room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) struct Capacity {
    /// Users.
    pub(in crate::gpu) users: usize,
    /// Beams of a user.
    pub(in crate::gpu) beams: usize,
    /// Words of all filters.
    pub(in crate::gpu) listed: usize,
}

impl Capacity {
    /// What an engine has before its first call.
    pub(in crate::gpu) const LEAST: Self = Self { users: 1, beams: DEFAULT_BEAMS, listed: 1024 };
}

impl Plan {
    /// Beams of a user that can be alive before each step, and after the last: never more than there are
    /// prefixes or items.
    pub(in crate::gpu) fn rows(&self, beams: usize) -> Vec<u32> {
        let mut prefixes = 1usize;
        let mut rows = vec![1];
        for level in &self.layout.levels {
            prefixes = prefixes.saturating_mul(level.size as usize).min(self.items);
            rows.push(prefixes.min(beams) as u32);
        }
        rows
    }

    /// Name and bytes of each scratch buffer, in their order.
    pub(in crate::gpu) fn scratch(&self, capacity: Capacity) -> Vec<(String, u64)> {
        let quads = |quads: u32| u64::from(quads) * 16;
        let users = capacity.users as u64;
        let input = users * self.longest_input() as u64;
        let rows = users * u64::from(self.rows(capacity.beams).into_iter().max().unwrap_or(1));
        let both = input.max(rows);
        let (d4, part4) = (Axis::Plain(self.config.d_model).quads(), self.heads().quads());
        let codes = self.layout.levels.iter().map(|l| u64::from(l.size)).max().unwrap_or(1);
        let beams = (users + rows) * RECORD as u64 * 4;
        let levels = self.layout.levels.len() as u64;
        let fixed: [_; SCRATCH] = [
            (Scratch::Input, input * 4),
            (Scratch::Tokens, rows * 4),
            (Scratch::Listed, capacity.listed as u64 * 4),
            (Scratch::Lengths, users * 4),
            (Scratch::Samplings, levels * users * 16),
            (Scratch::EncoderStream, input * quads(d4)),
            (Scratch::DecoderStream, rows * quads(d4)),
            (Scratch::EncoderQkv, input * quads(4 * part4)),
            (Scratch::Context, both * quads(part4)),
            (Scratch::CrossQ, rows * quads(part4)),
            (Scratch::CrossKv, 3 * input * self.weights.decoder.len() as u64 * quads(part4)),
            (Scratch::Hidden, both * quads(Axis::Plain(self.config.d_ff).quads())),
            (Scratch::Logits, rows * u64::from(self.weights.head.outputs) * 4),
            (Scratch::Normalisers, rows * 16),
            (Scratch::Keys, rows * codes * 4),
            (Scratch::BeamsEven, beams),
            (Scratch::BeamsOdd, beams),
        ];
        debug_assert!(fixed.iter().zip(0..).all(|((scratch, _), at)| *scratch as usize == at));
        let caches = (0..self.weights.decoder.len())
            .map(|layer| (format!("Cache({layer})"), levels * rows * quads(3 * part4)));
        fixed
            .into_iter()
            .map(|(scratch, bytes)| (format!("{scratch:?}"), bytes))
            .chain(caches)
            .map(|(name, bytes)| (name, bytes.max(16)))
            .collect()
    }

    /// The id of a scratch buffer.
    pub(in crate::gpu) fn id(&self, scratch: Scratch) -> BufferId {
        BufferId(self.constants.len() + scratch as usize)
    }

    /// The self-attention cache of a decoder layer: keys and values of all steps.
    pub(super) fn cache(&self, layer: usize) -> BufferId {
        BufferId(self.constants.len() + SCRATCH + layer)
    }

    /// Beam state before a step; after the last step, the result.
    pub(in crate::gpu) fn beams_before(&self, step: usize) -> BufferId {
        self.id(if step.is_multiple_of(2) { Scratch::BeamsEven } else { Scratch::BeamsOdd })
    }

    /// The state before the first step of a call: one beam a user, all items.
    pub(in crate::gpu) fn root(&self, users: usize, call: u32) -> Vec<u32> {
        let mut state = vec![0; 2 * users * RECORD];
        state[..users].fill(1);
        state[users] = call;
        for record in state[users * RECORD..].chunks_exact_mut(RECORD) {
            record[2] = self.items as u32;
        }
        state
    }

    /// Words of the beam state, of `rows` rows a user.
    pub(in crate::gpu) fn state_words(users: usize, rows: u32) -> usize {
        users * (rows as usize + 1) * RECORD
    }

    /// Most iterations that an invocation of either attention over shared keys makes, all loops
    /// together, for an input of `tokens` tokens.
    pub(in crate::gpu) fn most_iterations(&self, tokens: u32) -> u64 {
        let quads = self.config.d_kv.div_ceil(4) as u64;
        let tokens = u64::from(tokens);
        // The values' components come in blocks; for each block the keys come in chunks; for each
        // chunk there are loops over components and, in the narrow kernel, over its keys and a tile's
        // invocations: 2 turns of the outer loop, 16, 8 and 128. The wide kernel writes a block's values in
        // eight loops of four.
        let blocks = quads.div_ceil(16);
        let wide = blocks * (tokens.div_ceil(16) * (quads + 5) + 33);
        let narrow = blocks * tokens.div_ceil(128) * (2 * quads + 154);
        wide.max(narrow)
    }

    /// Most candidates of a user in a step.
    pub(in crate::gpu) fn most_candidates(&self, beams: usize) -> u64 {
        let rows = self.rows(beams);
        let levels = self.layout.levels.iter().zip(rows);
        levels.map(|(level, rows)| u64::from(level.size) * u64::from(rows)).max().unwrap_or(0)
    }
}
