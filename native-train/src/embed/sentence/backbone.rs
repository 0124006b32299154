//! The transformer of a folder: tokens to a vector per token.

use candle_core::{Device, Tensor};
use candle_transformers::models::{bert, t5};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::folder::Recipe;
use super::mpnet;
use super::weights::Weights;
use crate::error::{Result, TrainError};

/// A loaded transformer.
pub(super) struct Backbone {
    network: Network,
    /// Width of a token's vector.
    pub(super) width: usize,
    /// Tokens that have an embedding.
    pub(super) vocabulary: usize,
    /// Longest input in tokens; `None` where positions are only relative.
    pub(super) positions: Option<usize>,
}

enum Network {
    Bert(Box<bert::BertModel>),
    MpNet(Box<mpnet::MpNet>),
    T5(Box<t5::T5EncoderModel>),
}

/// The fields of BERT's `config.json` that its encoder needs, with the defaults of `transformers`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct BertConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: None,
        }
    }
}

/// The fields of T5's `config.json` that its encoder needs, with the defaults of `transformers`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct T5Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".into(),
        }
    }
}

impl Backbone {
    /// Reads `config.json` and the weights; their bytes go into `hash`.
    ///
    /// # Errors
    /// [`TrainError::File`] for an architecture that is not known, a missing file, or a
    /// configuration that the weights contradict.
    pub(super) fn load(recipe: &Recipe, device: &Device, hash: &mut Sha256) -> Result<Self> {
        let folder = &recipe.transformer;
        let path = folder.join("config.json");
        let text = crate::files::read_text(&path, "the folder is not complete")?;
        hash.update(&text);
        let wrong = |reason: String| TrainError::file(&path, reason);
        let config: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or("(none)").to_owned();
        if !["bert", "mpnet", "t5"].contains(&kind.as_str()) {
            return Err(wrong(format!(
                "names the architecture \"{kind}\"; bert (MiniLM too), mpnet and t5 are known"
            )));
        }
        let weights = Weights::read(folder, device, hash)?;
        match kind.as_str() {
            "bert" => Self::bert(parse(config).map_err(wrong)?, weights, device, wrong),
            "mpnet" => Self::mpnet(parse(config).map_err(wrong)?, weights, device, wrong),
            _ => Self::t5(parse(config).map_err(wrong)?, weights, device, wrong),
        }
    }

    fn bert(
        config: BertConfig,
        weights: Weights,
        device: &Device,
        wrong: impl Fn(String) -> TrainError,
    ) -> Result<Self> {
        in_range(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ])
        .and_then(|()| heads_divide(config.hidden_size, config.num_attention_heads))
        .map_err(&wrong)?;
        let hidden_act = match config.hidden_act.as_str() {
            "gelu" => bert::HiddenAct::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => bert::HiddenAct::GeluApproximate,
            "relu" => bert::HiddenAct::Relu,
            other => return Err(wrong(format!("has the activation \"{other}\"; gelu is known"))),
        };
        if let Some(other) = config.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(wrong(format!("has positions \"{other}\"; \"absolute\" are known")));
        }
        let weights = weights.without_prefix("bert.");
        no_more_layers(&weights, "encoder.layer.", config.num_hidden_layers)?;
        let of_candle = bert::Config {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            intermediate_size: config.intermediate_size,
            hidden_act,
            max_position_embeddings: config.max_position_embeddings,
            type_vocab_size: config.type_vocab_size,
            layer_norm_eps: config.layer_norm_eps,
            ..bert::Config::default()
        };
        let network = weights.build(device, |vb| bert::BertModel::load(vb, &of_candle))?;
        Ok(Self {
            network: Network::Bert(Box::new(network)),
            width: config.hidden_size,
            vocabulary: config.vocab_size,
            positions: Some(config.max_position_embeddings),
        })
    }

    fn mpnet(
        config: mpnet::Config,
        weights: Weights,
        device: &Device,
        wrong: impl Fn(String) -> TrainError,
    ) -> Result<Self> {
        in_range(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
        ])
        .and_then(|()| heads_divide(config.hidden_size, config.num_attention_heads))
        .map_err(&wrong)?;
        if config.hidden_act != "gelu" {
            let other = &config.hidden_act;
            return Err(wrong(format!("has the activation \"{other}\"; gelu is known")));
        }
        check_buckets(config.relative_attention_num_buckets, mpnet::MAX_DISTANCE)
            .map_err(&wrong)?;
        let weights = weights.without_prefix("mpnet.");
        no_more_layers(&weights, "encoder.layer.", config.num_hidden_layers)?;
        let network = weights.build(device, |vb| mpnet::MpNet::load(&vb, &config))?;
        Ok(Self {
            network: Network::MpNet(Box::new(network)),
            width: config.hidden_size,
            vocabulary: config.vocab_size,
            positions: Some(config.max_position_embeddings.saturating_sub(mpnet::FIRST_POSITION)),
        })
    }

    fn t5(
        config: T5Config,
        weights: Weights,
        device: &Device,
        wrong: impl Fn(String) -> TrainError,
    ) -> Result<Self> {
        in_range(&[
            ("vocab_size", config.vocab_size),
            ("d_model", config.d_model),
            ("d_kv", config.d_kv),
            ("d_ff", config.d_ff),
            ("num_heads", config.num_heads),
        ])
        .map_err(&wrong)?;
        // Without a gate candle computes ReLU, whatever the activation.
        let (gated, activation) = match config.feed_forward_proj.as_str() {
            "relu" => (false, candle_nn::Activation::Relu),
            "gated-gelu" => (true, candle_nn::Activation::NewGelu),
            "gated-silu" => (true, candle_nn::Activation::Silu),
            other => {
                return Err(wrong(format!(
                    "has the feed-forward layer \"{other}\"; relu, gated-gelu and gated-silu are \
                     known"
                )));
            }
        };
        let most = config.relative_attention_max_distance;
        check_buckets(config.relative_attention_num_buckets, most).map_err(&wrong)?;
        no_more_layers(&weights, "encoder.block.", config.num_layers)?;
        let of_candle = t5::Config {
            vocab_size: config.vocab_size,
            d_model: config.d_model,
            d_kv: config.d_kv,
            d_ff: config.d_ff,
            num_layers: config.num_layers,
            num_heads: config.num_heads,
            relative_attention_num_buckets: config.relative_attention_num_buckets,
            relative_attention_max_distance: config.relative_attention_max_distance,
            layer_norm_epsilon: config.layer_norm_epsilon,
            feed_forward_proj: t5::ActivationWithOptionalGating { gated, activation },
            use_cache: false,
            ..t5::Config::default()
        };
        let network = weights.build(device, |vb| t5::T5EncoderModel::load(vb, &of_candle))?;
        Ok(Self {
            network: Network::T5(Box::new(network)),
            width: config.d_model,
            vocabulary: config.vocab_size,
            positions: None,
        })
    }

    /// Vectors `[texts, tokens, width]` of texts of one length, `[texts, tokens]`.
    pub(super) fn forward(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        match &self.network {
            Network::Bert(model) => model.forward(tokens, &tokens.zeros_like()?, None),
            Network::MpNet(model) => model.forward(tokens),
            // Its forward pass wants to be the only user, for a cache that encoders do not fill;
            // a clone shares the weights.
            Network::T5(model) => model.as_ref().clone().forward(tokens),
        }
    }
}

fn parse<T: DeserializeOwned>(config: Value) -> Result<T, String> {
    serde_json::from_value(config).map_err(|e| e.to_string())
}

/// Half of the buckets are for either direction, and half of those hold one distance each; the others
/// grow with the logarithm of the distance, up to `most`.
fn check_buckets(buckets: usize, most: usize) -> Result<(), String> {
    match buckets >= 4 && most > buckets / 4 {
        true => Ok(()),
        false => Err(format!(
            "has {buckets} relative_attention_num_buckets, which do not suit distances up to {most} \
             (relative_attention_max_distance)"
        )),
    }
}

/// Refuses sizes of which no model is. Where the weights say the same, candle counts with them:
/// it divides by them, and multiplies them with each other.
fn in_range(sizes: &[(&str, usize)]) -> Result<(), String> {
    const MOST: usize = 1 << 24;
    match sizes.iter().find(|(_, size)| !(1..=MOST).contains(size)) {
        Some((name, size)) => Err(format!("has {name} {size}, outside 1..={MOST}")),
        None => Ok(()),
    }
}

fn heads_divide(width: usize, heads: usize) -> Result<(), String> {
    match width.is_multiple_of(heads) {
        true => Ok(()),
        false => Err(format!("has hidden_size {width}, which {heads} heads do not divide")),
    }
}

/// Weights of layers that the configuration does not have would be left out without a word.
fn no_more_layers(weights: &Weights, prefix: &str, layers: usize) -> Result<()> {
    if weights.has(&format!("{prefix}{layers}.")) {
        return Err(TrainError::file(
            weights.path(),
            format!("does not fit config.json: it has more than {layers} layers"),
        ));
    }
    Ok(())
}
