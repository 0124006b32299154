//! The encoder-decoder Transformer, exactly Hugging Face's `T5ForConditionalGeneration` with a
//! ReLU feed-forward: names, shapes and arithmetic agree, so that checkpoints pass both ways.

use tch::{Device, Kind, Tensor};
use tigret_infer::T5Config;
use tigret_infer::config::relative_position_bucket;

use super::params::{Init, Spec, Views};

/// The network; its weights live in [`super::params::Params`].
#[derive(Debug, Clone)]
pub struct T5 {
    config: T5Config,
}

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
        Self { config }
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
                Spec { name, shape: shape.iter().map(|&s| s as i64).collect(), init }
            })
            .collect()
    }

    /// Encodes `tokens` (`[batch, input]`, `i64`); `keep` (`[batch, input]`, bool) is false at
    /// padding. Returns `[batch, input, d_model]`.
    pub fn encode(&self, w: &Views, tokens: &Tensor, keep: &Tensor, train: bool) -> Tensor {
        let mask = additive_mask(keep);
        let length = tokens.size()[1];
        let bias = self.position_bias(w, "encoder", length) + &mask;
        let mut x = self.dropout(&self.embed(w, tokens), train);
        for block in 0..self.config.num_layers {
            let at = format!("encoder.block.{block}.layer");
            let normed = self.norm(&x, w.get(&format!("{at}.0.layer_norm.weight")));
            let attention = format!("{at}.0.SelfAttention");
            let [q, k, v] = ["q", "k", "v"].map(|p| self.project(w, &attention, p, &normed));
            x = self.residual(x, self.attend(w, &attention, &q, &k, &v, &bias, train), train);
            x = self.feed_forward(w, &at, 1, x, train);
        }
        let x = self.norm(&x, w.get("encoder.final_layer_norm.weight"));
        self.dropout(&x, train)
    }

    /// Keys and values for the decoder, once a batch.
    pub fn cross_state(&self, w: &Views, encoded: &Tensor, keep: &Tensor) -> CrossState {
        let layers = (0..self.config.decoder_layers())
            .map(|block| {
                let at = format!("decoder.block.{block}.layer.1.EncDecAttention");
                (self.project(w, &at, "k", encoded), self.project(w, &at, "v", encoded))
            })
            .collect();
        CrossState { layers, mask: additive_mask(keep) }
    }

    /// Logits `[batch, length, vocab_size]` with the decoder's input given (`[batch, length]`,
    /// beginning with the start token).
    pub fn decode(&self, w: &Views, tokens: &Tensor, cross: &CrossState, train: bool) -> Tensor {
        let length = tokens.size()[1];
        let causal = Tensor::ones([length, length], (Kind::Bool, tokens.device())).tril(0);
        let bias = self.position_bias(w, "decoder", length) + additive_mask_of(&causal);
        let mut x = self.dropout(&self.embed(w, tokens), train);
        for block in 0..self.config.decoder_layers() {
            let at = format!("decoder.block.{block}.layer");
            let normed = self.norm(&x, w.get(&format!("{at}.0.layer_norm.weight")));
            let attention = format!("{at}.0.SelfAttention");
            let [q, k, v] = ["q", "k", "v"].map(|p| self.project(w, &attention, p, &normed));
            x = self.residual(x, self.attend(w, &attention, &q, &k, &v, &bias, train), train);
            x = self.cross_attention(w, &at, x, &cross.layers[block], &cross.mask, train);
            x = self.feed_forward(w, &at, 2, x, train);
        }
        let x = self.norm(&x, w.get("decoder.final_layer_norm.weight"));
        self.head(w, &self.dropout(&x, train))
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
        let bias = self.position_bias(w, "decoder", position + 1).narrow(2, position, 1).view([
            1,
            heads,
            1,
            1,
            position + 1,
        ]);
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
            let [q, k, v] =
                ["q", "k", "v"].map(|p| self.project(w, &attention, p, &normed).unsqueeze(3));
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
            x = self.cross_attention(w, &at, x, &cross.layers[block], &cross.mask, false);
            x = self.feed_forward(w, &at, 2, x, false);
        }
        self.head(w, &self.norm(&x, w.get("decoder.final_layer_norm.weight")))
    }

    fn embed(&self, w: &Views, tokens: &Tensor) -> Tensor {
        Tensor::embedding(w.get("shared.weight"), tokens, -1, false, false)
    }

    fn head(&self, w: &Views, x: &Tensor) -> Tensor {
        let name = if self.config.tie_word_embeddings { "shared.weight" } else { "lm_head.weight" };
        let scaled = x * f64::from(self.config.head_scale());
        scaled.linear(w.get(name), None::<Tensor>)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let variance = x.square().mean_dim([-1].as_slice(), true, Kind::Float);
        x * (variance + f64::from(self.config.layer_norm_epsilon)).rsqrt() * weight
    }

    fn dropout(&self, x: &Tensor, train: bool) -> Tensor {
        if train && self.config.dropout_rate > 0.0 {
            x.dropout(self.config.dropout_rate, true)
        } else {
            x.shallow_clone()
        }
    }

    fn residual(&self, x: Tensor, update: Tensor, train: bool) -> Tensor {
        x + self.dropout(&update, train)
    }

    /// `[batch, length, d_model]` to heads, `[batch, heads, length, d_kv]`.
    fn project(&self, w: &Views, attention: &str, part: &str, x: &Tensor) -> Tensor {
        let (batch, length) = (x.size()[0], x.size()[1]);
        x.linear(w.get(&format!("{attention}.{part}.weight")), None::<Tensor>)
            .view([batch, length, self.config.num_heads as i64, self.config.d_kv as i64])
            .transpose(1, 2)
    }

    /// Heads back to `[batch, length, d_model]`.
    fn output(&self, w: &Views, attention: &str, context: &Tensor) -> Tensor {
        let (batch, length) = (context.size()[0], context.size()[2]);
        context
            .transpose(1, 2)
            .reshape([batch, length, self.config.inner() as i64])
            .linear(w.get(&format!("{attention}.o.weight")), None::<Tensor>)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of one attention")]
    fn attend(
        &self,
        w: &Views,
        attention: &str,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        bias: &Tensor,
        train: bool,
    ) -> Tensor {
        let scores = q.matmul(&k.transpose(-1, -2)) + bias;
        let weights = self.dropout(&scores.softmax(-1, Kind::Float), train);
        self.output(w, attention, &weights.matmul(v))
    }

    fn cross_attention(
        &self,
        w: &Views,
        at: &str,
        x: Tensor,
        (k, v): &(Tensor, Tensor),
        mask: &Tensor,
        train: bool,
    ) -> Tensor {
        let normed = self.norm(&x, w.get(&format!("{at}.1.layer_norm.weight")));
        let attention = format!("{at}.1.EncDecAttention");
        let q = self.project(w, &attention, "q", &normed);
        self.residual(x, self.attend(w, &attention, &q, k, v, mask, train), train)
    }

    fn feed_forward(&self, w: &Views, at: &str, layer: usize, x: Tensor, train: bool) -> Tensor {
        let normed = self.norm(&x, w.get(&format!("{at}.{layer}.layer_norm.weight")));
        let wi = w.get(&format!("{at}.{layer}.DenseReluDense.wi.weight"));
        let wo = w.get(&format!("{at}.{layer}.DenseReluDense.wo.weight"));
        let hidden = self.dropout(&normed.linear(wi, None::<Tensor>).relu(), train);
        self.residual(x, hidden.linear(wo, None::<Tensor>), train)
    }

    /// Relative position bias of a stack, `[1, heads, length, length]`.
    fn position_bias(&self, w: &Views, stack: &str, length: i64) -> Tensor {
        let c = &self.config;
        let mut buckets = Vec::with_capacity((length * length) as usize);
        for query in 0..length {
            for key in 0..length {
                buckets.push(relative_position_bucket(
                    (key - query) as i32,
                    stack == "encoder",
                    c.relative_attention_num_buckets,
                    c.relative_attention_max_distance,
                ) as i64);
            }
        }
        let table =
            w.get(&format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
        let buckets = Tensor::from_slice(&buckets).to_device(table.device());
        Tensor::embedding(table, &buckets, -1, false, false)
            .view([length, length, c.num_heads as i64])
            .permute([2, 0, 1])
            .unsqueeze(0)
    }
}

/// `[batch, length]` bool to an additive mask `[batch, 1, 1, length]`.
fn additive_mask(keep: &Tensor) -> Tensor {
    additive_mask_of(keep).unsqueeze(1).unsqueeze(1)
}

/// 0 where true, the least `f32` where false: finite, so that a row with nothing to see is
/// uniform instead of NaN.
fn additive_mask_of(keep: &Tensor) -> Tensor {
    keep.logical_not().to_kind(Kind::Float) * f64::from(f32::MIN)
}

/// The device that a user asked for.
///
/// # Errors
/// [`crate::TrainError::Usage`] when CUDA is asked for and there is none.
pub fn device(name: &str) -> crate::Result<Device> {
    match name {
        "auto" => Ok(Device::cuda_if_available()),
        "cpu" => Ok(Device::Cpu),
        "cuda" if tch::Cuda::is_available() => Ok(Device::Cuda(0)),
        "cuda" => Err(crate::TrainError::usage(
            "--device cuda: this libtorch sees no CUDA device; install the CUDA build of torch \
             2.11.0 and point LIBTORCH at it, or use --device cpu",
        )),
        other => {
            Err(crate::TrainError::usage(format!("--device {other}: use one of auto, cpu, cuda")))
        }
    }
}
