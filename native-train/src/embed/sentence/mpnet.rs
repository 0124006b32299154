//! MPNet's encoder (Song et al. 2020, <https://arxiv.org/abs/2004.09297>): BERT with a bucketed
//! relative position bias that all layers share, and without token types.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder};
use serde::Deserialize;

/// The padding token, whose position is its own number.
const PADDING: u32 = 1;

/// Position of the first token: those before it belong to padding.
pub(super) const FIRST_POSITION: usize = 2;

/// Distances from here on share the last bucket.
pub(super) const MAX_DISTANCE: usize = 128;

/// The fields of `config.json` that the encoder needs, with the defaults of `transformers`.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) hidden_act: String,
    pub(super) max_position_embeddings: usize,
    pub(super) layer_norm_eps: f64,
    pub(super) relative_attention_num_buckets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            relative_attention_num_buckets: 32,
        }
    }
}

/// The encoder.
pub(super) struct MpNet {
    words: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    /// `[buckets, heads]`.
    bias: Embedding,
    buckets: usize,
    layers: Vec<Layer>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl MpNet {
    pub(super) fn load(vb: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let embeddings = vb.pp("embeddings");
        let encoder = vb.pp("encoder");
        let buckets = config.relative_attention_num_buckets;
        let layers = (0..config.num_hidden_layers)
            .map(|at| Layer::load(&encoder.pp("layer").pp(at), config))
            .collect::<Result<_>>()?;
        Ok(Self {
            words: candle_nn::embedding(
                config.vocab_size,
                width,
                embeddings.pp("word_embeddings"),
            )?,
            positions: candle_nn::embedding(
                config.max_position_embeddings,
                width,
                embeddings.pp("position_embeddings"),
            )?,
            norm: candle_nn::layer_norm(width, eps, embeddings.pp("LayerNorm"))?,
            bias: candle_nn::embedding(
                buckets,
                config.num_attention_heads,
                encoder.pp("relative_attention_bias"),
            )?,
            buckets,
            layers,
        })
    }

    /// Vectors `[texts, tokens, width]` of `[texts, tokens]`.
    pub(super) fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let device = tokens.device();
        let length = tokens.dim(1)?;
        let positions = self.positions.forward(&positions(tokens)?)?;
        let mut hidden = self.norm.forward(&(self.words.forward(tokens)? + positions)?)?;
        let bias = self.bias.forward(&buckets(length, self.buckets, device)?)?;
        let bias = bias.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &bias)?;
        }
        Ok(hidden)
    }
}

impl Layer {
    fn load(vb: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (width, wide, eps) =
            (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = vb.pp("attention");
        let square = |name: &str| candle_nn::linear(width, width, attention.pp("attn").pp(name));
        Ok(Self {
            query: square("q")?,
            key: square("k")?,
            value: square("v")?,
            output: square("o")?,
            attention_norm: candle_nn::layer_norm(width, eps, attention.pp("LayerNorm"))?,
            up: candle_nn::linear(width, wide, vb.pp("intermediate").pp("dense"))?,
            down: candle_nn::linear(wide, width, vb.pp("output").pp("dense"))?,
            norm: candle_nn::layer_norm(width, eps, vb.pp("output").pp("LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    /// `hidden`: `[texts, tokens, width]`, `bias`: `[1, heads, tokens, tokens]`.
    fn forward(&self, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (texts, tokens, width) = hidden.dims3()?;
        let split = |projection: &Linear| {
            let shape = (texts, tokens, self.heads, width / self.heads);
            projection.forward(hidden)?.reshape(shape)?.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(bias)?;
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((texts, tokens, width))?;
        let attended = self.attention_norm.forward(&(self.output.forward(&mixed)? + hidden)?)?;
        let inner = self.up.forward(&attended)?.gelu_erf()?;
        self.norm.forward(&(self.down.forward(&inner)? + attended)?)
    }
}

/// Positions `[texts, tokens]`: tokens are counted from [`FIRST_POSITION`]. A text may spell the
/// padding token; it keeps its own position and is not counted, as in `transformers`.
fn positions(tokens: &Tensor) -> Result<Tensor> {
    let (texts, length) = tokens.dims2()?;
    let ids = tokens.flatten_all()?.to_vec1::<u32>()?;
    let mut positions = Vec::with_capacity(ids.len());
    for text in ids.chunks_exact(length) {
        let mut next = FIRST_POSITION as u32;
        for &token in text {
            positions.push(if token == PADDING { PADDING } else { next });
            next += u32::from(token != PADDING);
        }
    }
    Tensor::from_vec(positions, (texts, length), tokens.device())
}

/// Bucket `[query, key]` of every pair of tokens.
fn buckets(length: usize, buckets: usize, device: &Device) -> Result<Tensor> {
    let pairs = (0..length).flat_map(|query| (0..length).map(move |key| (query, key)));
    let buckets = pairs.map(|(query, key)| bucket(query, key, buckets as u32)).collect();
    Tensor::from_vec(buckets, (length, length), device)
}

/// Half of the buckets are for keys after the query; half of those hold one distance each, the
/// others grow with the logarithm of the distance.
fn bucket(query: usize, key: usize, buckets: u32) -> u32 {
    let half = buckets / 2;
    let exact = half / 2;
    let distance = query.abs_diff(key) as u32;
    let within = if distance < exact {
        distance
    } else {
        let ratio = f64::from(distance) / f64::from(exact);
        let share = ratio.ln() / (MAX_DISTANCE as f64 / f64::from(exact)).ln();
        (exact + (share * f64::from(half - exact)) as u32).min(half - 1)
    };
    within + if key > query { half } else { 0 }
}
