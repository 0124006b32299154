//! T5 on the CPU: encoder, and a decoder that steps all beams together.
//!
//! Semantics of Hugging Face's `T5ForConditionalGeneration`: RMS norm before each block, no
//! biases, unscaled attention, bucketed relative position bias from the first block of each stack.

use super::matmul::{Linear, dot};
use crate::bundle::Bundle;
use crate::config::{T5Config, relative_position_bucket};

/// A block's norm weight and the projections behind it.
#[derive(Debug)]
struct FeedForward {
    norm: Vec<f32>,
    wi: Linear,
    wo: Linear,
}

#[derive(Debug)]
struct SelfAttention {
    norm: Vec<f32>,
    /// `[3 * inner, d_model]`: queries, keys, values.
    qkv: Linear,
    o: Linear,
}

#[derive(Debug)]
struct CrossAttention {
    norm: Vec<f32>,
    q: Linear,
    /// `[2 * inner, d_model]`: keys, values of the encoder's output.
    kv: Linear,
    o: Linear,
}

/// Relative position bias of one stack, unrolled over distances so that no logarithm is left for
/// the inner loop.
#[derive(Debug)]
struct PositionBias {
    /// `[heads, 2 * reach + 1]`, by key position minus query position plus `reach`.
    table: Vec<f32>,
    reach: usize,
}

impl PositionBias {
    /// `buckets` is HF's table `[num_buckets, num_heads]`; positions stay below `positions`.
    fn new(config: &T5Config, bidirectional: bool, buckets: &[f32], positions: usize) -> Self {
        let reach = positions.saturating_sub(1);
        let table = (0..config.num_heads)
            .flat_map(|head| {
                (-(reach as i32)..=reach as i32).map(move |relative| {
                    let bucket = relative_position_bucket(
                        relative,
                        bidirectional,
                        config.relative_attention_num_buckets,
                        config.relative_attention_max_distance,
                    );
                    buckets[bucket * config.num_heads + head]
                })
            })
            .collect();
        Self { table, reach }
    }

    fn at(&self, head: usize, key: usize, query: usize) -> f32 {
        self.table[head * (2 * self.reach + 1) + key + self.reach - query]
    }
}

/// The unpacked weights.
#[derive(Debug)]
pub struct Model {
    config: T5Config,
    /// `[vocab_size, d_model]`.
    embedding: Vec<f32>,
    head: Linear,
    encoder: Vec<(SelfAttention, FeedForward)>,
    encoder_norm: Vec<f32>,
    encoder_bias: PositionBias,
    decoder: Vec<(SelfAttention, CrossAttention, FeedForward)>,
    decoder_norm: Vec<f32>,
    decoder_bias: PositionBias,
}

impl Model {
    pub(crate) fn new(bundle: &Bundle) -> Self {
        let config = bundle.config.clone();
        let vector = |name: String| bundle.weight(&name).to_f32();
        let linear = |name: String| Linear::stack(&[bundle.weight(&name)]);
        let stacked = |at: &str, parts: &[&str]| {
            let weights: Vec<_> =
                parts.iter().map(|p| bundle.weight(&format!("{at}.{p}.weight"))).collect();
            Linear::stack(&weights)
        };
        let self_attention = |at: &str| SelfAttention {
            norm: vector(format!("{at}.0.layer_norm.weight")),
            qkv: stacked(&format!("{at}.0.SelfAttention"), &["q", "k", "v"]),
            o: linear(format!("{at}.0.SelfAttention.o.weight")),
        };
        let feed_forward = |at: &str, layer: usize| FeedForward {
            norm: vector(format!("{at}.{layer}.layer_norm.weight")),
            wi: linear(format!("{at}.{layer}.DenseReluDense.wi.weight")),
            wo: linear(format!("{at}.{layer}.DenseReluDense.wo.weight")),
        };
        let bias = |stack: &str, positions: usize| {
            let name =
                format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
            PositionBias::new(&config, stack == "encoder", &vector(name), positions)
        };
        let encoder_bias = bias("encoder", bundle.tokens.max_input());
        let decoder_bias = bias("decoder", bundle.tokens.levels.len());
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
                    q: linear(format!("{at}.1.EncDecAttention.q.weight")),
                    kv: stacked(&format!("{at}.1.EncDecAttention"), &["k", "v"]),
                    o: linear(format!("{at}.1.EncDecAttention.o.weight")),
                };
                (self_attention(&at), cross, feed_forward(&at, 2))
            })
            .collect();
        let head =
            if config.tie_word_embeddings { "shared.weight" } else { "lm_head.weight" }.to_owned();
        Self {
            embedding: vector("shared.weight".into()),
            head: linear(head),
            encoder,
            encoder_norm: vector("encoder.final_layer_norm.weight".into()),
            encoder_bias,
            decoder,
            decoder_norm: vector("decoder.final_layer_norm.weight".into()),
            decoder_bias,
            config,
        }
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let d = self.config.d_model;
        tokens.iter().flat_map(|&t| &self.embedding[t as usize * d..][..d]).copied().collect()
    }

    /// RMS norm of each row of `x` (`[rows, d_model]`), times `weight`.
    fn normalise(&self, x: &[f32], weight: &[f32], out: &mut Vec<f32>) {
        out.clear();
        for row in x.chunks_exact(self.config.d_model) {
            let mean = dot(row, row) / row.len() as f32;
            let factor = 1.0 / (mean + self.config.layer_norm_epsilon).sqrt();
            out.extend(row.iter().zip(weight).map(|(v, w)| v * factor * w));
        }
    }

    fn feed_forward(&self, block: &FeedForward, x: &mut [f32]) {
        let (mut normed, mut hidden, mut out) = (Vec::new(), Vec::new(), Vec::new());
        self.normalise(x, &block.norm, &mut normed);
        block.wi.apply(&normed, &mut hidden);
        hidden.iter_mut().for_each(|v| *v = v.max(0.0));
        block.wo.apply(&hidden, &mut out);
        add(x, &out);
    }

    /// The encoder's output for one sequence, `[tokens, d_model]`, final norm applied.
    pub fn encode(&self, tokens: &[u32]) -> Vec<f32> {
        let (inner, d_kv) = (self.config.inner(), self.config.d_kv);
        let mut x = self.embed(tokens);
        let (mut normed, mut qkv, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut scores = Vec::new();
        for (attention, feed_forward) in &self.encoder {
            self.normalise(&x, &attention.norm, &mut normed);
            attention.qkv.apply(&normed, &mut qkv);
            let mut context = vec![0.0; tokens.len() * inner];
            for head in 0..self.config.num_heads {
                let part = |row: usize, which: usize| {
                    &qkv[row * 3 * inner + which * inner + head * d_kv..][..d_kv]
                };
                for query in 0..tokens.len() {
                    attend(
                        part(query, 0),
                        tokens.len(),
                        |key| part(key, 1),
                        |key| part(key, 2),
                        |key| self.encoder_bias.at(head, key, query),
                        &mut scores,
                        &mut context[query * inner + head * d_kv..][..d_kv],
                    );
                }
            }
            attention.o.apply(&context, &mut out);
            add(&mut x, &out);
            self.feed_forward(feed_forward, &mut x);
        }
        self.normalise(&x, &self.encoder_norm, &mut normed);
        normed
    }

    /// Encodes a sequence and gets ready to decode.
    pub fn decoder(&self, input: &[u32]) -> Decoder<'_> {
        let encoded = self.encode(input);
        let cross = self
            .decoder
            .iter()
            .map(|(_, cross, _)| {
                let mut kv = Vec::new();
                cross.kv.apply(&encoded, &mut kv);
                kv
            })
            .collect();
        Decoder {
            model: self,
            input_len: input.len(),
            cross,
            cache: vec![Vec::new(); self.decoder.len()],
            paths: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Logits `[decoder_tokens, vocab_size]` of one sequence with the decoder's input given, at
    /// most as many tokens as there are levels.
    pub fn forced_logits(&self, input: &[u32], decoder_tokens: &[u32]) -> Vec<f32> {
        let mut decoder = self.decoder(input);
        decoder_tokens.iter().flat_map(|&token| decoder.step(&[token], &[0]).to_vec()).collect()
    }
}

/// The decoder in the middle of a search.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Model,
    input_len: usize,
    /// A layer: `[input, 2 * inner]`.
    cross: Vec<Vec<f32>>,
    /// A layer, a step: `[rows, 3 * inner]`. Rows are never moved: beams point to them.
    cache: Vec<Vec<Vec<f32>>>,
    /// A row: its ancestors' rows in the steps before and itself.
    paths: Vec<Vec<usize>>,
    logits: Vec<f32>,
}

impl Decoder<'_> {
    /// Feeds one token a row; `parents[row]` is the row of the step before that it continues.
    /// Returns logits `[rows, vocab_size]`.
    pub fn step(&mut self, tokens: &[u32], parents: &[usize]) -> &[f32] {
        let model = self.model;
        let (inner, d_kv) = (model.config.inner(), model.config.d_kv);
        let position = self.cache.first().map_or(0, Vec::len);
        self.paths = parents
            .iter()
            .enumerate()
            .map(|(row, &parent)| {
                let mut path = self.paths.get(parent).cloned().unwrap_or_default();
                path.push(row);
                path
            })
            .collect();
        let rows = tokens.len();
        let mut x = model.embed(tokens);
        let (mut normed, mut out, mut q) = (Vec::new(), Vec::new(), Vec::new());
        let mut context = vec![0.0; rows * inner];
        let mut scores = Vec::new();
        for (layer, (attention, cross, feed_forward)) in model.decoder.iter().enumerate() {
            model.normalise(&x, &attention.norm, &mut normed);
            let mut qkv = Vec::new();
            attention.qkv.apply(&normed, &mut qkv);
            self.cache[layer].push(qkv);
            let steps = &self.cache[layer];
            for (row, path) in self.paths.iter().enumerate() {
                for head in 0..model.config.num_heads {
                    let part = |step: usize, which: usize| {
                        &steps[step][path[step] * 3 * inner + which * inner + head * d_kv..][..d_kv]
                    };
                    attend(
                        part(position, 0),
                        position + 1,
                        |step| part(step, 1),
                        |step| part(step, 2),
                        |step| model.decoder_bias.at(head, step, position),
                        &mut scores,
                        &mut context[row * inner + head * d_kv..][..d_kv],
                    );
                }
            }
            attention.o.apply(&context, &mut out);
            add(&mut x, &out);

            model.normalise(&x, &cross.norm, &mut normed);
            cross.q.apply(&normed, &mut q);
            let kv = &self.cross[layer];
            for row in 0..rows {
                for head in 0..model.config.num_heads {
                    let part = |key: usize, which: usize| {
                        &kv[key * 2 * inner + which * inner + head * d_kv..][..d_kv]
                    };
                    let at = row * inner + head * d_kv;
                    attend(
                        &q[at..][..d_kv],
                        self.input_len,
                        |key| part(key, 0),
                        |key| part(key, 1),
                        |_| 0.0,
                        &mut scores,
                        &mut context[at..][..d_kv],
                    );
                }
            }
            cross.o.apply(&context, &mut out);
            add(&mut x, &out);
            model.feed_forward(feed_forward, &mut x);
        }
        model.normalise(&x, &model.decoder_norm, &mut normed);
        let scale = model.config.head_scale();
        normed.iter_mut().for_each(|v| *v *= scale);
        model.head.apply(&normed, &mut self.logits);
        &self.logits
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// One head of one query: `out = softmax(q . k + bias) v`, all `[d_kv]`; `scores` is scratch.
fn attend<'a>(
    q: &[f32],
    keys: usize,
    k: impl Fn(usize) -> &'a [f32],
    v: impl Fn(usize) -> &'a [f32],
    bias: impl Fn(usize) -> f32,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    scores.clear();
    scores.extend((0..keys).map(|key| dot(q, k(key)) + bias(key)));
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    out.fill(0.0);
    for (key, score) in scores.iter().enumerate() {
        let weight = score / sum;
        out.iter_mut().zip(v(key)).for_each(|(o, v)| *o += weight * v);
    }
}
