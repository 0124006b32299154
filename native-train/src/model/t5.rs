//! The encoder-decoder Transformer, exactly Hugging Face's `T5ForConditionalGeneration` with a
//! ReLU feed-forward: names, shapes and arithmetic agree, so that checkpoints pass both ways.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;
use tigret_infer::config::Stack;

use super::dropout::Dropout;
use super::layers::{Pass, additive_mask, additive_mask_of, aligned};
use super::params::{Init, Read, Spec, Views};

/// The network; its weights live in [`super::params::Params`].
///
/// The residual stream, the norms and the loss are `f32`; matrix products compute in the kind of
/// the weights' [`Views::matrix`].
#[derive(Debug)]
pub struct T5 {
    config: T5Config,
    /// Buckets of the relative positions of the longest input so far, by stack: without them a
    /// step would wait for the device to take up a table.
    buckets: Mutex<HashMap<Stack, Tensor>>,
}

/// Keys and values of the encoder's output, a pair a decoder layer, `[batch, heads, input, d_kv]`,
/// and the additive mask `[batch, 1, 1, input]`.
#[derive(Debug)]
pub struct CrossState {
    layers: Vec<(Tensor, Tensor)>,
    mask: Tensor,
}

impl CrossState {
    /// The same inputs once more behind themselves: `[2 * batch, ...]`.
    pub fn twice(&self) -> Self {
        let twice = |t: &Tensor| Tensor::cat(&[t, t], 0);
        let layers = self.layers.iter().map(|(keys, values)| (twice(keys), twice(values)));
        let mask = twice(&self.mask);
        // As `Pass::for_attention` had it, which copies do not keep.
        let mask = if mask.device() == Device::Cpu { mask } else { aligned(&mask) };
        Self { layers: layers.collect(), mask }
    }
}

/// Keys and values of the decoder's steps so far, a pair a layer,
/// `[batch, heads, rows, steps, d_kv]`.
#[derive(Debug, Default)]
pub struct Cache(Vec<(Tensor, Tensor)>);

impl T5 {
    /// A network of these sizes.
    pub fn new(config: T5Config) -> Self {
        Self { config, buckets: Mutex::default() }
    }

    /// Its sizes.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Names, shapes and starts of the weights; the starts are HF's `_init_weights`.
    pub fn specs(&self) -> Vec<Spec> {
        let c = &self.config;
        let (d, inner, ff) = (c.d_model as f64, c.inner() as f64, c.d_ff as f64);
        c.weight_shapes()
            .into_iter()
            .map(|(name, shape)| {
                let init = if name.ends_with("layer_norm.weight") {
                    Init::Constant(1.0)
                } else if name == "shared.weight" || name == "lm_head.weight" {
                    Init::Normal(1.0)
                } else if name.ends_with(".q.weight") {
                    Init::Normal((d * c.d_kv as f64).powf(-0.5))
                } else if name.ends_with(".o.weight") {
                    Init::Normal(inner.powf(-0.5))
                } else if name.ends_with(".wo.weight") {
                    Init::Normal(ff.powf(-0.5))
                } else {
                    Init::Normal(d.powf(-0.5))
                };
                // The embedding is the last product's matrix too, unless that has its own.
                let read = if name == "shared.weight" && c.tie_word_embeddings {
                    Read::Both
                } else if shape.len() > 1
                    && name != "shared.weight"
                    && ![Stack::Encoder, Stack::Decoder].iter().any(|s| name == s.position_bias())
                {
                    Read::Reduced
                } else {
                    Read::Full
                };
                let shape = shape.iter().map(|&s| s as i64).collect();
                Spec { stack: stack_of(&name), read, ..Spec::new(name, shape, init) }
            })
            .collect()
    }

    /// Encodes `tokens` (`[batch, input]`, `i64`); `keep` (`[batch, input]`, bool) is false at
    /// padding. Returns `[batch, input, d_model]`.
    pub fn encode(
        &self,
        w: &Views,
        tokens: &Tensor,
        keep: &Tensor,
        train: Option<&Dropout>,
    ) -> Tensor {
        let pass = Pass { model: self, weights: w, train };
        let bias = pass.position_bias(Stack::Encoder, tokens.size()[1]) + additive_mask(keep);
        let bias = pass.for_attention(bias);
        let mut x = pass.dropout(pass.embed(tokens));
        for block in 0..self.config.num_layers {
            let at = format!("encoder.block.{block}.layer");
            x = pass.self_attention(&at, x, &bias);
            x = pass.feed_forward(&at, 1, x);
        }
        pass.dropout(pass.norm(&x, "encoder.final_layer_norm"))
    }

    /// Keys and values for the decoder, once a batch.
    pub fn cross_state(&self, w: &Views, encoded: &Tensor, keep: &Tensor) -> CrossState {
        let pass = Pass { model: self, weights: w, train: None };
        let encoded = pass.for_products(encoded);
        let layers = (0..self.config.decoder_layers())
            .map(|block| {
                let at = format!("decoder.block.{block}.layer.1.EncDecAttention");
                let [k, v] = pass.project(&format!("{at}.kv.weight"), &encoded);
                (k, v)
            })
            .collect();
        CrossState { layers, mask: pass.for_attention(additive_mask(keep)) }
    }

    /// Logits `[batch, length, vocab_size]` with the decoder's input given (`[batch, length]`,
    /// beginning with the start token).
    pub fn decode(
        &self,
        w: &Views,
        tokens: &Tensor,
        cross: &CrossState,
        train: Option<&Dropout>,
    ) -> Tensor {
        let pass = Pass { model: self, weights: w, train };
        let length = tokens.size()[1];
        let causal = Tensor::ones([length, length], (Kind::Bool, tokens.device())).tril(0);
        let bias = pass.position_bias(Stack::Decoder, length) + additive_mask_of(&causal);
        let bias = pass.for_attention(bias);
        let mut x = pass.dropout(pass.embed(tokens));
        for block in 0..self.config.decoder_layers() {
            let at = format!("decoder.block.{block}.layer");
            x = pass.self_attention(&at, x, &bias);
            x = pass.cross_attention(&at, x, &cross.layers[block], &cross.mask);
            x = pass.feed_forward(&at, 2, x);
        }
        pass.head(&pass.dropout(pass.norm(&x, "decoder.final_layer_norm")))
    }

    /// One step of a search: `tokens` (`[batch, rows]`) continue the rows of the step before that
    /// `parents` (`[batch, rows]`) name. Returns logits `[batch, rows, vocab_size]`.
    pub fn step(
        &self,
        w: &Views,
        tokens: &Tensor,
        parents: &Tensor,
        cross: &CrossState,
        cache: &mut Cache,
    ) -> Tensor {
        let pass = Pass { model: self, weights: w, train: None };
        let (batch, rows) = (tokens.size()[0], tokens.size()[1]);
        let (heads, d_kv) = (self.config.num_heads as i64, self.config.d_kv as i64);
        let position = cache.0.first().map_or(0, |(k, _)| k.size()[3]);
        // The last row of the full table: this position against all before and itself.
        let bias = pass.position_bias(Stack::Decoder, position + 1).narrow(2, position, 1).view([
            1,
            heads,
            1,
            1,
            position + 1,
        ]);
        let mut x = pass.embed(tokens);
        let continue_rows = |t: &Tensor| {
            let index = parents
                .view([batch, 1, rows, 1, 1])
                .expand([batch, heads, rows, position, d_kv], false);
            t.gather(2, &index, false)
        };
        for block in 0..self.config.decoder_layers() {
            let at = format!("decoder.block.{block}.layer");
            let normed = pass.norm(&x, &format!("{at}.0.layer_norm"));
            let attention = format!("{at}.0.SelfAttention");
            let [q, k, v] = pass
                .project(&format!("{attention}.qkv.weight"), &normed)
                .map(|part| part.unsqueeze(3));
            let (keys, values) = match cache.0.get(block) {
                None => (k, v),
                Some((keys, values)) => (
                    Tensor::cat(&[continue_rows(keys), k], 3),
                    Tensor::cat(&[continue_rows(values), v], 3),
                ),
            };
            let scores = q.matmul(&keys.transpose(-1, -2)) + &bias;
            let context = scores.softmax(-1, Kind::Float).matmul(&values).squeeze_dim(3);
            x += pass.output(&attention, &context);
            match cache.0.get_mut(block) {
                None => cache.0.push((keys, values)),
                Some(slot) => *slot = (keys, values),
            }
            x = pass.cross_attention(&at, x, &cross.layers[block], &cross.mask);
            x = pass.feed_forward(&at, 2, x);
        }
        pass.head(&pass.norm(&x, "decoder.final_layer_norm"))
    }

    /// Buckets of key position minus query position, `[length, length]`.
    pub(super) fn position_buckets(&self, stack: Stack, length: i64, device: Device) -> Tensor {
        let mut known = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let of_stack = known.get(&stack);
        if of_stack.is_none_or(|b| b.size()[0] < length || b.device() != device) {
            known.insert(stack, buckets_of(&self.config, stack, length).to_device(device));
        }
        known[&stack].narrow(0, 0, length).narrow(1, 0, length)
    }
}

fn buckets_of(config: &T5Config, stack: Stack, length: i64) -> Tensor {
    let bucket = |query, key| config.position_bucket(stack, (key - query) as i32) as i64;
    let buckets: Vec<i64> =
        (0..length).flat_map(|query| (0..length).map(move |key| bucket(query, key))).collect();
    Tensor::from_slice(&buckets).view([length, length])
}

/// The stack of a projection: those of one input are one product.
pub(crate) fn stack_of(name: &str) -> Option<String> {
    let (attention, part) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    match part {
        "q" | "k" | "v" if attention.ends_with("SelfAttention") => {
            Some(format!("{attention}.qkv.weight"))
        }
        "k" | "v" if attention.ends_with("EncDecAttention") => {
            Some(format!("{attention}.kv.weight"))
        }
        _ => None,
    }
}
