//! T5's weights in the form in which the CPU engine computes with them.
//!
//! Semantics of Hugging Face's `T5ForConditionalGeneration`: RMS norm before each block, no
//! biases, unscaled attention, bucketed relative position bias from the first block of each stack.

use std::sync::Arc;

use tigret_kernels::{FixedPoint, PositionBias, Write, log_sum_exp, rms_norm};

use super::decoder::Part;
use super::first_layer::FirstLayer;
use super::matrix::Matrix;
use super::threads::Idle;
use crate::bundle::Bundle;
use crate::config::{Stack, T5Config};
use crate::tokens::{Level, TokenLayout};

/// A block's norm weight and the projections behind it.
#[derive(Debug)]
pub(super) struct FeedForward {
    norm: Vec<f32>,
    wi: Matrix,
    wo: Matrix,
}

#[derive(Debug)]
pub(super) struct SelfAttention {
    pub(super) norm: Vec<f32>,
    /// `[3 * inner, d_model]`: queries, keys, values.
    pub(super) qkv: Matrix,
    pub(super) o: Matrix,
}

#[derive(Debug)]
pub(super) struct CrossAttention {
    pub(super) norm: Vec<f32>,
    pub(super) q: Matrix,
    /// `[2 * inner, d_model]`: keys, values of the encoder's output.
    pub(super) kv: Matrix,
    pub(super) o: Matrix,
}

#[derive(Debug)]
pub(super) struct DecoderLayer {
    pub(super) attention: SelfAttention,
    pub(super) cross: CrossAttention,
    pub(super) feed_forward: FeedForward,
}

/// The packed weights.
#[derive(Debug)]
pub struct Model {
    bundle: Arc<Bundle>,
    head: Matrix,
    pub(super) encoder: Vec<(SelfAttention, FeedForward)>,
    pub(super) encoder_first: FirstLayer,
    pub(super) encoder_norm: Vec<f32>,
    pub(super) encoder_bias: PositionBias,
    pub(super) decoder: Vec<DecoderLayer>,
    pub(super) decoder_first: FirstLayer,
    decoder_norm: Vec<f32>,
    pub(super) decoder_bias: PositionBias,
    /// Logits of a few rows, `[rows, vocab_size]`: far more than all else that a thread computes
    /// with, so a thread has them while it needs them, whatever search it works for.
    all_logits: Idle<Vec<f32>>,
}

/// Logits that a thread holds at once: all of 512 beams over a vocabulary of 4,096 tokens. A larger
/// one, which may have a million, would take gigabytes, more than a page has.
const LOGITS: usize = 512 * 4096;
/// Rows that share a reading of the head's weights, however large the vocabulary.
const FEWEST_ROWS: usize = 16;

/// Of so many rows those whose logits are held at once, at least one. A small vocabulary would leave
/// room for more rows than a page can count the numbers of.
fn rows_at_once(vocabulary: usize, rows: usize) -> usize {
    (LOGITS / vocabulary).max(FEWEST_ROWS).min(rows).max(1)
}

/// What the layers of one thread compute with, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) fixed: FixedPoint,
    /// Places of tokens of which the first layer keeps nothing yet.
    missing: Vec<usize>,
    pub(super) normed: Vec<f32>,
    /// Hidden values of a feed-forward block; at first the embeddings of the missing tokens.
    hidden: Vec<f32>,
    pub(super) scores: Vec<f32>,
    /// Output of an attention, `[rows, inner]`.
    pub(super) context: Vec<f32>,
}

impl Model {
    pub(crate) fn new(bundle: Arc<Bundle>) -> Self {
        let config = &bundle.config;
        let vector = |name: String| bundle.weight(&name).to_f32();
        let matrix = |name: String| Matrix::stack(&[bundle.weight(&name)]);
        let stacked = |at: &str, parts: &[&str]| {
            let weights: Vec<_> =
                parts.iter().map(|p| bundle.weight(&format!("{at}.{p}.weight"))).collect();
            Matrix::stack(&weights)
        };
        let self_attention = |at: &str| SelfAttention {
            norm: vector(format!("{at}.0.layer_norm.weight")),
            qkv: stacked(&format!("{at}.0.SelfAttention"), &["q", "k", "v"]),
            o: matrix(format!("{at}.0.SelfAttention.o.weight")),
        };
        let feed_forward = |at: &str, layer: usize| FeedForward {
            norm: vector(format!("{at}.{layer}.layer_norm.weight")),
            wi: matrix(format!("{at}.{layer}.DenseReluDense.wi.weight")),
            wo: matrix(format!("{at}.{layer}.DenseReluDense.wo.weight")),
        };
        let bias = |stack, positions| {
            PositionBias::new(config.num_heads, positions, bundle.position_bias(stack))
        };
        let encoder_bias = bias(Stack::Encoder, bundle.tokens.max_input());
        let decoder_bias = bias(Stack::Decoder, bundle.tokens.levels.len());
        let encoder = (0..config.num_layers)
            .map(|block| {
                let at = format!("encoder.block.{block}.layer");
                (self_attention(&at), feed_forward(&at, 1))
            })
            .collect();
        let decoder = (0..config.decoder_layers())
            .map(|block| {
                let at = format!("decoder.block.{block}.layer");
                let cross = CrossAttention {
                    norm: vector(format!("{at}.1.layer_norm.weight")),
                    q: matrix(format!("{at}.1.EncDecAttention.q.weight")),
                    kv: stacked(&format!("{at}.1.EncDecAttention"), &["k", "v"]),
                    o: matrix(format!("{at}.1.EncDecAttention.o.weight")),
                };
                let (attention, feed_forward) = (self_attention(&at), feed_forward(&at, 2));
                DecoderLayer { attention, cross, feed_forward }
            })
            .collect();
        let head = if config.tie_word_embeddings { "shared.weight" } else { "lm_head.weight" };
        let head = matrix(head.to_owned());
        let encoder_norm = vector("encoder.final_layer_norm.weight".into());
        let decoder_norm = vector("decoder.final_layer_norm.weight".into());
        let first = || FirstLayer::new(config.vocab_size, 3 * config.inner());
        Self {
            head,
            encoder,
            encoder_first: first(),
            encoder_norm,
            encoder_bias,
            decoder,
            decoder_first: first(),
            decoder_norm,
            decoder_bias,
            all_logits: Idle::default(),
            bundle,
        }
    }

    pub(super) fn config(&self) -> &T5Config {
        &self.bundle.config
    }

    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How semantic IDs are tokens.
    pub(crate) fn layout(&self) -> &TokenLayout {
        &self.bundle.tokens
    }

    /// The embeddings of tokens to `x[tokens, d_model]`.
    pub(super) fn embed(&self, tokens: impl ExactSizeIterator<Item = u32>, x: &mut Vec<f32>) {
        let d = self.config().d_model;
        let embedding = self.bundle.weight("shared.weight");
        x.resize(tokens.len() * d, 0.0);
        for (token, row) in tokens.zip(x.chunks_exact_mut(d)) {
            embedding.row_to_f32(token as usize, row);
        }
    }

    /// RMS norm of each row of `x` (`[rows, d_model]`), times `weight`.
    pub(super) fn rms_norm(&self, x: &[f32], weight: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len(), 0.0);
        rms_norm(x, weight, self.config().layer_norm_epsilon, out);
    }

    /// Queries, keys and values of rows of the residual stream, `[rows, 3 * inner]`.
    pub(super) fn project(
        &self,
        attention: &SelfAttention,
        x: &[f32],
        qkv: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { fixed, normed, .. } = scratch;
        self.rms_norm(x, &attention.norm, normed);
        attention.qkv.apply(normed, fixed, qkv, Write::Store);
    }

    /// The same of tokens, in the first layer of a stack.
    pub(super) fn project_tokens(
        &self,
        first: &FirstLayer,
        attention: &SelfAttention,
        tokens: &[u32],
        qkv: &mut [f32],
        scratch: &mut Scratch,
    ) {
        first.missing(tokens, &mut scratch.missing);
        if !scratch.missing.is_empty() {
            let Scratch { fixed, missing, normed, hidden, .. } = scratch;
            self.embed(missing.iter().map(|&place| tokens[place]), hidden);
            let computed = &mut qkv[..missing.len() * attention.qkv.outputs()];
            self.rms_norm(hidden, &attention.norm, normed);
            attention.qkv.apply(normed, fixed, computed, Write::Store);
        }
        first.fill(tokens, &scratch.missing, qkv);
    }

    /// The feed-forward block, added to rows of the residual stream.
    pub(super) fn feed_forward(&self, block: &FeedForward, x: &mut [f32], scratch: &mut Scratch) {
        let Scratch { fixed, normed, hidden, .. } = scratch;
        self.rms_norm(x, &block.norm, normed);
        hidden.resize(x.len() / self.config().d_model * block.wi.outputs(), 0.0);
        block.wi.apply(normed, fixed, hidden, Write::Relu);
        block.wo.apply(hidden, fixed, x, Write::Add);
    }

    /// The decoder's last norm and the head on `part.x`: the logits of `tokens` are added to
    /// `part.logits`, and the normalisers of all logits to `part.normalisers`.
    pub(super) fn logits(&self, tokens: Level, part: &mut Part) {
        let Part { x, logits, normalisers, scratch, .. } = part;
        let Scratch { fixed, normed, .. } = scratch;
        let mut all_logits = self.all_logits.take();
        self.rms_norm(x, &self.decoder_norm, normed);
        let scale = self.config().head_scale();
        normed.iter_mut().for_each(|v| *v *= scale);
        let (width, vocabulary) = (self.config().d_model, self.head.outputs());
        let rows = rows_at_once(vocabulary, normed.len() / width);
        for normed in normed.chunks(rows * width) {
            all_logits.resize(normed.len() / width * vocabulary, 0.0);
            self.head.apply(normed, fixed, &mut all_logits, Write::Store);
            for row in all_logits.chunks_exact(vocabulary) {
                let from = tokens.offset as usize;
                logits.extend_from_slice(&row[from..from + tokens.size as usize]);
                normalisers.push(log_sum_exp(row));
            }
        }
        self.all_logits.give_back(all_logits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_whose_logits_are_held_at_once_have_numbers_that_a_page_can_count() {
        assert_eq!(rows_at_once(4, 512), 512);
        assert_eq!(rows_at_once(8192, 512), 256);
        assert_eq!(rows_at_once(1 << 20, 512), FEWEST_ROWS);
        assert_eq!(rows_at_once(4, 0), 1);
    }
}
