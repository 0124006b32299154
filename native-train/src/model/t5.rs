//! The encoder-decoder Transformer, exactly Hugging Face's `T5ForConditionalGeneration` with a
//! ReLU feed-forward: names, shapes and arithmetic agree, so that checkpoints pass both ways.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;
use tigret_infer::config::relative_position_bucket;

use super::dropout::Dropout;
use super::params::{Init, Spec, Views};

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

/// The two stacks of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stack {
    Encoder,
    Decoder,
}

impl Stack {
    fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }
}

/// What hides a position. Far from the least `f32`: as `bf16`, or times the logarithm of e to base 2
/// inside a fused kernel, that would be infinite, and a row with nothing to see not a number instead
/// of uniform.
const HIDDEN: f64 = -1e30;

/// To multiples of how many elements ATen pads the rows of a bias for its fused kernel.
const BIAS_ROW: i64 = 8;

/// Keys and values of the encoder's output, a pair a decoder layer, `[batch, heads, input, d_kv]`,
/// and the additive mask `[batch, 1, 1, input]`.
#[derive(Debug)]
pub struct CrossState {
    layers: Vec<(Tensor, Tensor)>,
    mask: Tensor,
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
                let shape = shape.iter().map(|&s| s as i64).collect();
                Spec { stack: stack_of(&name), ..Spec::new(name, shape, init) }
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
        let bias = self.position_bias(w, Stack::Encoder, tokens.size()[1]) + additive_mask(keep);
        let bias = for_attention(bias, self.kind(w));
        let mut x = self.dropout(self.embed(w, tokens), train);
        for block in 0..self.config.num_layers {
            let at = format!("encoder.block.{block}.layer");
            x = self.self_attention(w, &at, x, &bias, train);
            x = self.feed_forward(w, &at, 1, x, train);
        }
        self.dropout(self.norm(&x, w.get("encoder.final_layer_norm.weight")), train)
    }

    /// Keys and values for the decoder, once a batch.
    pub fn cross_state(&self, w: &Views, encoded: &Tensor, keep: &Tensor) -> CrossState {
        let layers = (0..self.config.decoder_layers())
            .map(|block| {
                let at = format!("decoder.block.{block}.layer.1.EncDecAttention");
                let [k, v] = self.project(w, &format!("{at}.kv.weight"), encoded);
                (k, v)
            })
            .collect();
        CrossState { layers, mask: for_attention(additive_mask(keep), self.kind(w)) }
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
        let length = tokens.size()[1];
        let causal = Tensor::ones([length, length], (Kind::Bool, tokens.device())).tril(0);
        let bias = self.position_bias(w, Stack::Decoder, length) + additive_mask_of(&causal);
        let bias = for_attention(bias, self.kind(w));
        let mut x = self.dropout(self.embed(w, tokens), train);
        for block in 0..self.config.decoder_layers() {
            let at = format!("decoder.block.{block}.layer");
            x = self.self_attention(w, &at, x, &bias, train);
            x = self.cross_attention(w, &at, x, &cross.layers[block], &cross.mask, train);
            x = self.feed_forward(w, &at, 2, x, train);
        }
        let x = self.norm(&x, w.get("decoder.final_layer_norm.weight"));
        self.head(w, &self.dropout(x, train))
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
        let (batch, rows) = (tokens.size()[0], tokens.size()[1]);
        let (heads, d_kv) = (self.config.num_heads as i64, self.config.d_kv as i64);
        let position = cache.0.first().map_or(0, |(k, _)| k.size()[3]);
        // The last row of the full table: this position against all before and itself.
        let bias = self
            .position_bias(w, Stack::Decoder, position + 1)
            .narrow(2, position, 1)
            .view([1, heads, 1, 1, position + 1]);
        let mut x = self.embed(w, tokens);
        let continue_rows = |t: &Tensor| {
            let index = parents
                .view([batch, 1, rows, 1, 1])
                .expand([batch, heads, rows, position, d_kv], false);
            t.gather(2, &index, false)
        };
        for block in 0..self.config.decoder_layers() {
            let at = format!("decoder.block.{block}.layer");
            let normed = self.norm(&x, w.get(&format!("{at}.0.layer_norm.weight")));
            let attention = format!("{at}.0.SelfAttention");
            let [q, k, v] = self
                .project(w, &format!("{attention}.qkv.weight"), &normed)
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
            x += self.output(w, &attention, &context);
            match cache.0.get_mut(block) {
                None => cache.0.push((keys, values)),
                Some(slot) => *slot = (keys, values),
            }
            x = self.cross_attention(w, &at, x, &cross.layers[block], &cross.mask, None);
            x = self.feed_forward(w, &at, 2, x, None);
        }
        self.head(w, &self.norm(&x, w.get("decoder.final_layer_norm.weight")))
    }

    fn embed(&self, w: &Views, tokens: &Tensor) -> Tensor {
        Tensor::embedding(w.get("shared.weight"), tokens, -1, false, false)
    }

    fn head(&self, w: &Views, x: &Tensor) -> Tensor {
        let name = if self.config.tie_word_embeddings { "shared.weight" } else { "lm_head.weight" };
        w.linear(name, &(x * f64::from(self.config.head_scale()))).to_kind(Kind::Float)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let width = self.config.d_model as i64;
        x.rms_norm([width], Some(weight), f64::from(self.config.layer_norm_epsilon))
    }

    /// Dropout, in place on a CPU: `x` must be nothing that autograd reads again.
    fn dropout(&self, x: Tensor, train: Option<&Dropout>) -> Tensor {
        match train {
            Some(dropout) => dropout.apply_(x),
            None => x,
        }
    }

    fn residual(&self, x: Tensor, update: Tensor, train: Option<&Dropout>) -> Tensor {
        x + self.dropout(update, train)
    }

    /// `[batch, length, d_model]` by a matrix of `N` projections one below the other, each to
    /// heads, `[batch, heads, length, d_kv]`.
    fn project<const N: usize>(&self, w: &Views, name: &str, x: &Tensor) -> [Tensor; N] {
        let (batch, length) = (x.size()[0], x.size()[1]);
        let (heads, d_kv) = (self.config.num_heads as i64, self.config.d_kv as i64);
        let all = w.linear(name, x).view([batch, length, N as i64, heads, d_kv]);
        // One copy now, and one on the way back, instead of one for each part.
        let parts = all.permute([2, 0, 3, 1, 4]).contiguous().unbind(0);
        // `unbind` returns as many parts as the axis is long.
        std::array::from_fn(|part| parts[part].shallow_clone())
    }

    /// Heads back to `[batch, length, d_model]`.
    fn output(&self, w: &Views, attention: &str, context: &Tensor) -> Tensor {
        let (batch, length) = (context.size()[0], context.size()[2]);
        let joined = context.transpose(1, 2).reshape([batch, length, self.config.inner() as i64]);
        w.linear(&format!("{attention}.o.weight"), &joined)
    }

    /// Unscaled attention with an additive bias (`[batch or 1, heads or 1, query or 1, key]`, from
    /// [`for_attention`]); one fused kernel where the device has it for these operands.
    fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        bias: &Tensor,
        train: Option<&Dropout>,
    ) -> Tensor {
        if q.device() == Device::Cpu {
            // ATen has no fused CPU kernel with dropout or a bias that learns, and its fallback
            // scales queries and keys apart: two passes over memory for a factor of 1.
            let mut scores = q.matmul(&k.transpose(-1, -2));
            let weights = match scores.kind() == bias.kind() {
                true => scores.g_add_(bias),
                false => scores + bias,
            }
            .softmax(-1, Kind::Float);
            // Softmax's gradient reads its result, so not in place.
            let weights = match train {
                Some(dropout) => dropout.apply(&weights),
                None => weights,
            };
            return weights.to_kind(v.kind()).matmul(v);
        }
        let (batch, heads) = (q.size()[0], q.size()[1]);
        let (query, key) = (q.size()[2], k.size()[2]);
        let bias = match train {
            // With a bias that needs no gradient ATen takes cuDNN's kernel, some of which round the
            // dropout to sixteenths, and which need not give the same result again. What is left may
            // still add the parts of a gradient in any order (docs/fidelity.md, randomness).
            Some(_) if !bias.requires_grad() => bias.detach().set_requires_grad(true),
            _ => bias.shallow_clone(),
        };
        let bias = bias.expand([batch, heads, query, key], true);
        let rate = train.map_or(0.0, Dropout::rate);
        Tensor::scaled_dot_product_attention(q, k, v, Some(bias), rate, false, 1.0, false)
    }

    fn self_attention(
        &self,
        w: &Views,
        at: &str,
        x: Tensor,
        bias: &Tensor,
        train: Option<&Dropout>,
    ) -> Tensor {
        let normed = self.norm(&x, w.get(&format!("{at}.0.layer_norm.weight")));
        let attention = format!("{at}.0.SelfAttention");
        let [q, k, v] = self.project(w, &format!("{attention}.qkv.weight"), &normed);
        let context = self.attend(&q, &k, &v, bias, train);
        self.residual(x, self.output(w, &attention, &context), train)
    }

    fn cross_attention(
        &self,
        w: &Views,
        at: &str,
        x: Tensor,
        (k, v): &(Tensor, Tensor),
        mask: &Tensor,
        train: Option<&Dropout>,
    ) -> Tensor {
        let normed = self.norm(&x, w.get(&format!("{at}.1.layer_norm.weight")));
        let attention = format!("{at}.1.EncDecAttention");
        let [q] = self.project(w, &format!("{attention}.q.weight"), &normed);
        let context = self.attend(&q, k, v, mask, train);
        self.residual(x, self.output(w, &attention, &context), train)
    }

    fn feed_forward(
        &self,
        w: &Views,
        at: &str,
        layer: usize,
        x: Tensor,
        train: Option<&Dropout>,
    ) -> Tensor {
        let normed = self.norm(&x, w.get(&format!("{at}.{layer}.layer_norm.weight")));
        let dense = format!("{at}.{layer}.DenseReluDense");
        // HF drops after ReLU. A factor of 0 or more commutes with it, and in this order both can
        // work in place.
        let hidden = self.dropout(w.linear(&format!("{dense}.wi.weight"), &normed), train).relu_();
        self.residual(x, w.linear(&format!("{dense}.wo.weight"), &hidden), train)
    }

    /// Relative position bias of a stack, `[1, heads, length, length]`.
    fn position_bias(&self, w: &Views, stack: Stack, length: i64) -> Tensor {
        let name = stack.name();
        let table =
            w.get(&format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.get(&stack);
        if known.is_none_or(|b| b.size()[0] < length || b.device() != table.device()) {
            buckets.insert(stack, self.position_buckets(stack, length).to_device(table.device()));
        }
        let buckets = buckets[&stack].narrow(0, 0, length).narrow(1, 0, length);
        let bias = Tensor::embedding(table, &buckets, -1, false, false).permute([2, 0, 1]);
        // No fused kernel takes a bias whose neighbouring keys are not neighbours in memory.
        bias.contiguous().unsqueeze(0)
    }

    /// What the matrix products of a pass compute in.
    fn kind(&self, w: &Views) -> Kind {
        w.matrix("encoder.block.0.layer.0.SelfAttention.o.weight").kind()
    }

    /// Buckets of key position minus query position, `[length, length]`.
    fn position_buckets(&self, stack: Stack, length: i64) -> Tensor {
        let c = &self.config;
        let mut buckets = Vec::with_capacity((length * length) as usize);
        for query in 0..length {
            for key in 0..length {
                buckets.push(relative_position_bucket(
                    (key - query) as i32,
                    stack == Stack::Encoder,
                    c.relative_attention_num_buckets,
                    c.relative_attention_max_distance,
                ) as i64);
            }
        }
        Tensor::from_slice(&buckets).view([length, length])
    }
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

/// `[batch, length]` bool to an additive mask `[batch, 1, 1, length]`.
fn additive_mask(keep: &Tensor) -> Tensor {
    additive_mask_of(keep).unsqueeze(1).unsqueeze(1)
}

/// A bias as [`T5::attend`] takes it, made once for all layers: on CUDA what ATen would make of it for
/// its fused kernel in each layer anew.
fn for_attention(bias: Tensor, kind: Kind) -> Tensor {
    match bias.device() {
        Device::Cpu => bias,
        _ => aligned(&bias.to_kind(kind)),
    }
}

/// The same values in rows that begin at multiples of [`BIAS_ROW`] elements.
fn aligned(bias: &Tensor) -> Tensor {
    let keys = bias.size()[bias.dim() - 1];
    bias.constant_pad_nd([0, (BIAS_ROW - keys % BIAS_ROW) % BIAS_ROW]).narrow(-1, 0, keys)
}

/// 0 where true, [`HIDDEN`] where false.
fn additive_mask_of(keep: &Tensor) -> Tensor {
    keep.logical_not().to_kind(Kind::Float) * HIDDEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Params;
    use crate::model::presets::Preset;
    use tigret_infer::TokenLayout;

    #[test]
    fn a_bias_lies_in_memory_as_fused_kernels_take_it() {
        let layout = TokenLayout::contiguous(&[5, 4, 2], 6, 4);
        let model = T5::new(Preset::Tiny.config(&layout));
        let weights = Params::new(model.specs(), 0, Device::Cpu).views();
        let keep = Tensor::from_slice(&[true, true, true, false]).view([1, 4]);
        for length in [3, 8, 13] {
            let bias = model.position_bias(&weights, Stack::Encoder, length);
            for bias in [bias, additive_mask(&keep)] {
                let aligned = aligned(&bias);
                let strides = aligned.stride();
                assert_eq!(strides[3], 1);
                assert!(strides[..3].iter().all(|stride| stride % BIAS_ROW == 0), "{strides:?}");
                assert!(aligned.equal(&bias));
            }
        }
    }
}
