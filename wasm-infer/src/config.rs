//! The model's configuration: the subset of Hugging Face's `T5Config` that fixes the function.

use serde::{Deserialize, Serialize};
use tigret_kernels::Heads;

use crate::error::BundleError;
use crate::search::MAX_BEAMS;
use crate::tokens::{MAX_HISTORY, MAX_LEVELS, TokenLayout};

/// Most numbers of a vector that a model computes with, and of all keys and values that a search keeps:
/// a page counts its bytes in 32 bits.
const MOST_NUMBERS: usize = 1 << 28;
/// Most numbers of the keys of all heads.
const MOST_INNER: usize = 1 << 14;
/// Hidden width of a feed-forward block.
const MOST_HIDDEN: usize = 1 << 15;
/// Most tokens of the encoder's input: a history's, a user's and `eos`.
const MOST_INPUT: usize = MAX_HISTORY * MAX_LEVELS + 2;
const _: () = assert!(MOST_INPUT * 3 * MOST_INNER <= MOST_NUMBERS, "queries, keys and values");
const _: () = assert!(MOST_INPUT * MOST_HIDDEN <= MOST_NUMBERS, "the feed-forward block");

/// Sizes and switches of a `T5ForConditionalGeneration`, under the names of HF's `config.json`.
///
/// Unknown keys are ignored when reading, so that a `config.json` written by `transformers`
/// can be read as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Rows of the shared embedding and of the logits.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head; `num_heads * d_kv` need not equal `d_model`.
    pub d_kv: usize,
    /// Hidden width of the feed-forward block.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Decoder layers; `num_layers` where a file does not say.
    #[serde(default)]
    pub num_decoder_layers: Option<usize>,
    /// Attention heads.
    pub num_heads: usize,
    /// Buckets of the relative position bias.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which all positions share the last bucket.
    #[serde(default = "default_max_distance")]
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norm.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f32,
    /// Dropout of training; unused in inference.
    #[serde(default = "default_dropout")]
    pub dropout_rate: f64,
    /// Feed-forward kind: only `relu` is supported.
    #[serde(default = "default_feed_forward")]
    pub feed_forward_proj: String,
    /// Whether the output head is the shared embedding.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// Whether the decoder's output is scaled by `d_model^-0.5` before the head;
    /// where a file does not say, it is exactly when the head is tied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// Padding token.
    #[serde(default)]
    pub pad_token_id: u32,
    /// End-of-sequence token.
    #[serde(default = "default_eos")]
    pub eos_token_id: u32,
    /// First token of the decoder.
    #[serde(default)]
    pub decoder_start_token_id: u32,
    /// HF's class marker, kept so that `AutoConfig` recognises the folder.
    #[serde(default = "default_model_type")]
    pub model_type: String,
}

fn default_buckets() -> usize {
    32
}
fn default_max_distance() -> usize {
    128
}
fn default_epsilon() -> f32 {
    1e-6
}
fn default_dropout() -> f64 {
    0.1
}
fn default_feed_forward() -> String {
    "relu".into()
}
fn default_true() -> bool {
    true
}
fn default_eos() -> u32 {
    1
}
fn default_model_type() -> String {
    "t5".into()
}

impl T5Config {
    /// Decoder layers.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Width of all heads together, `num_heads * d_kv`.
    pub fn inner(&self) -> usize {
        self.num_heads.saturating_mul(self.d_kv)
    }

    /// The heads of every attention.
    pub(crate) fn heads(&self) -> Heads {
        Heads { count: self.num_heads, width: self.d_kv }
    }

    /// Factor on the decoder's output before the head.
    pub fn head_scale(&self) -> f32 {
        if self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings) {
            (self.d_model as f32).powf(-0.5)
        } else {
            1.0
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] when the text is not such a file or a value is out of range.
    pub fn parse(json: &str) -> Result<Self, BundleError> {
        let config: Self =
            serde_json::from_str(json).map_err(|e| BundleError::metadata("config", e))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every value against what the engines can run.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] naming the field.
    pub fn validate(&self) -> Result<(), BundleError> {
        let bad = |what: String| Err(BundleError::metadata("config", what));
        for (name, value, limit) in [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("d_model", self.d_model, 1 << 13),
            ("d_kv", self.d_kv, 1 << 10),
            ("d_ff", self.d_ff, MOST_HIDDEN),
            ("num_layers", self.num_layers, 64),
            ("num_decoder_layers", self.decoder_layers(), 64),
            ("num_heads", self.num_heads, 256),
            ("num_heads * d_kv", self.inner(), MOST_INNER),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets, 1 << 12),
            ("relative_attention_max_distance", self.relative_attention_max_distance, 1 << 16),
        ] {
            if value == 0 || value > limit {
                return bad(format!("{name} is {value}, outside 1..={limit}"));
            }
        }
        // Below four buckets, HF's bucket formula divides by zero or takes log of nothing.
        if self.relative_attention_num_buckets < 4 {
            return bad("relative_attention_num_buckets is less than 4".into());
        }
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets / 2 {
            return bad("relative_attention_max_distance is not above half of relative_attention_num_buckets".into());
        }
        for (name, value, only) in [
            // MT5 and UMT5 have the same names of weights and compute something else.
            ("model_type", &self.model_type, "t5"),
            ("feed_forward_proj", &self.feed_forward_proj, "relu"),
        ] {
            if value != only {
                return bad(format!("{name} is \"{value}\", only \"{only}\" is read"));
            }
        }
        if !(self.layer_norm_epsilon.is_finite() && self.layer_norm_epsilon > 0.0) {
            return bad("layer_norm_epsilon is not a positive number".into());
        }
        Ok(())
    }

    /// Checks configuration and token layout, also against each other: the vocabulary, and how much a
    /// search keeps.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] or [`BundleError::Tokens`] naming the field.
    pub fn validate_with(&self, tokens: &TokenLayout) -> Result<(), BundleError> {
        self.validate()?;
        tokens.validate(self.vocab_size)?;
        let (input, levels, layers) =
            (tokens.max_input(), tokens.levels.len(), self.decoder_layers());
        // The decoder keeps its keys and values of the longest input, and of all beams at each level.
        let numbers =
            (input + levels * MAX_BEAMS) as u64 * 2 * (layers * self.heads().held()) as u64;
        if numbers > MOST_NUMBERS as u64 {
            return Err(BundleError::metadata(
                "config",
                format!(
                    "{layers} decoder layers of {} * {} numbers keep {numbers} numbers of an input \
                     of {input} tokens and {MAX_BEAMS} beams at {levels} levels, more than \
                     {MOST_NUMBERS}; use fewer or smaller layers, or a smaller max_items",
                    self.num_heads, self.d_kv
                ),
            ));
        }
        Ok(())
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.weight_shapes()
            .iter()
            .map(|(_, shape)| shape.iter().copied().fold(1, usize::saturating_mul))
            .fold(0, usize::saturating_add)
    }

    /// Names and shapes of the weights, under HF's names, in the order of the network.
    ///
    /// The shared embedding stands once, as `shared.weight`; `lm_head.weight` only if untied.
    pub fn weight_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, inner, ff) = (self.d_model, self.inner(), self.d_ff);
        let mut all = vec![("shared.weight".to_owned(), vec![self.vocab_size, d])];
        for (stack, layers) in
            [(Stack::Encoder, self.num_layers), (Stack::Decoder, self.decoder_layers())]
        {
            let name = stack.name();
            for block in 0..layers {
                let at = format!("{name}.block.{block}.layer");
                let mut attention = |layer: usize, kind: &str, biased: bool| {
                    for part in ["q", "k", "v"] {
                        all.push((format!("{at}.{layer}.{kind}.{part}.weight"), vec![inner, d]));
                    }
                    all.push((format!("{at}.{layer}.{kind}.o.weight"), vec![d, inner]));
                    if biased {
                        all.push((
                            format!("{at}.{layer}.{kind}.relative_attention_bias.weight"),
                            vec![self.relative_attention_num_buckets, self.num_heads],
                        ));
                    }
                    all.push((format!("{at}.{layer}.layer_norm.weight"), vec![d]));
                };
                attention(0, "SelfAttention", block == 0);
                let feed_forward = if stack == Stack::Decoder {
                    attention(1, "EncDecAttention", false);
                    2
                } else {
                    1
                };
                all.push((format!("{at}.{feed_forward}.DenseReluDense.wi.weight"), vec![ff, d]));
                all.push((format!("{at}.{feed_forward}.DenseReluDense.wo.weight"), vec![d, ff]));
                all.push((format!("{at}.{feed_forward}.layer_norm.weight"), vec![d]));
            }
            all.push((format!("{name}.final_layer_norm.weight"), vec![d]));
        }
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, d]));
        }
        all
    }

    /// Bucket of a relative position, key minus query, in the bias of a stack (Raffel et al. 2020,
    /// section 2.1; HF's `_relative_position_bucket`).
    pub fn position_bucket(&self, stack: Stack, relative: i32) -> usize {
        let mut buckets = self.relative_attention_num_buckets;
        let mut base = 0;
        let distance = match stack {
            Stack::Encoder => {
                buckets /= 2;
                if relative > 0 {
                    base = buckets;
                }
                relative.unsigned_abs() as usize
            }
            Stack::Decoder => (-relative).max(0) as usize,
        };
        let max_exact = buckets / 2;
        if distance < max_exact {
            return base + distance;
        }
        // In f32, as HF computes it, so that the bucket borders agree.
        let log = (distance as f32 / max_exact as f32).ln()
            / (self.relative_attention_max_distance as f32 / max_exact as f32).ln()
            * (buckets - max_exact) as f32;
        base + (max_exact + log as usize).min(buckets - 1)
    }
}

/// The two stacks of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stack {
    /// Of the history; attends both ways.
    Encoder,
    /// Of the semantic ID; attends backwards.
    Decoder,
}

impl Stack {
    /// Its name in those of weights.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }

    /// The name of its table of relative position biases, `[buckets, heads]`, which all of its layers
    /// share.
    pub fn position_bias(self) -> String {
        let stack = self.name();
        format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a file that says no more than it has to becomes with one more value.
    fn with(name: &str, value: impl Into<Value>) -> Result<T5Config, String> {
        let mut file = json!({
            "vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 3, "num_heads": 2,
        });
        file[name] = value.into();
        T5Config::parse(&file.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_file_does_not_say_is_as_transformers_has_it() {
        let config = with("vocab_size", 40).unwrap();
        assert_eq!(config.decoder_layers(), 3);
        assert_eq!(with("num_decoder_layers", 2).unwrap().decoder_layers(), 2);
        assert_eq!(config.relative_attention_num_buckets, 32);
        assert_eq!(config.relative_attention_max_distance, 128);
        assert_eq!((config.layer_norm_epsilon, config.dropout_rate), (1e-6, 0.1));
        assert_eq!((config.pad_token_id, config.eos_token_id), (0, 1));
        assert_eq!(config.decoder_start_token_id, 0);
        assert_eq!((&config.feed_forward_proj[..], &config.model_type[..]), ("relu", "t5"));
        assert!(config.tie_word_embeddings);
    }

    #[test]
    fn the_decoders_output_is_scaled_as_the_file_says_and_else_where_the_head_is_tied() {
        for (tied, said, scale) in [
            (true, None, 0.25),
            (false, None, 1.0),
            (true, Some(false), 1.0),
            (false, Some(true), 0.25),
        ] {
            let config = with("tie_word_embeddings", tied).unwrap();
            let config = T5Config { scale_decoder_outputs: said, ..config };
            assert_eq!(config.head_scale(), scale, "tied: {tied}, said: {said:?}");
        }
    }

    #[test]
    fn sizes_are_taken_up_to_the_documented_limits() {
        for (name, most) in [
            ("vocab_size", 1 << 20),
            ("d_model", 8192),
            ("d_kv", 1024),
            ("d_ff", 32_768),
            ("num_layers", 64),
            ("num_decoder_layers", 64),
            ("num_heads", 256),
            ("relative_attention_max_distance", 65_536),
        ] {
            assert_eq!(with(name, most).map(|_| ()), Ok(()));
            for wrong in [0, most + 1] {
                let expected = format!("{name} is {wrong}, outside 1..={most}");
                let refused = with(name, wrong).unwrap_err();
                assert!(refused.contains(&expected), "{refused}");
            }
        }
    }

    #[test]
    fn a_bias_has_four_buckets_at_least_and_reaches_beyond_half_of_them() {
        let config = |buckets, reach| {
            let config = T5Config { relative_attention_num_buckets: buckets, ..with("d_ff", 8)? };
            let config = T5Config { relative_attention_max_distance: reach, ..config };
            config.validate().map_err(|e| e.to_string())
        };
        assert_eq!(config(4, 3), Ok(()));
        assert_eq!(config(4096, 2049), Ok(()));
        for (buckets, reach, said) in [
            (3, 9, "relative_attention_num_buckets is less than 4"),
            (4097, 9000, "relative_attention_num_buckets is 4097, outside 1..=4096"),
            (4, 2, "not above half of relative_attention_num_buckets"),
            (4096, 2048, "not above half of relative_attention_num_buckets"),
        ] {
            let refused = config(buckets, reach).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn distances_share_buckets_as_transformers_has_it() {
        let config = with("d_ff", 8).unwrap();
        for (stack, buckets) in [
            (Stack::Encoder, [31, 26, 24, 17, 0, 1, 7, 8, 10, 12, 15]),
            (Stack::Decoder, [0, 0, 0, 0, 0, 1, 7, 8, 17, 23, 31]),
        ] {
            let relatives = [1000, 20, 8, 1, 0, -1, -7, -8, -20, -40, -1000];
            let found = relatives.map(|relative| config.position_bucket(stack, relative));
            assert_eq!(found, buckets, "{stack:?}");
        }
    }

    #[test]
    fn what_the_engines_do_not_compute_is_refused() {
        for (name, value) in [
            ("feed_forward_proj", json!("gated-gelu")),
            ("layer_norm_epsilon", json!(0.0)),
            ("layer_norm_epsilon", json!(-1e-6)),
        ] {
            let refused = with(name, value.clone()).unwrap_err();
            assert!(refused.contains(&format!("`config`: {name}")), "{value}: {refused}");
        }
        // Too large for the field: serde_json says so first where it reads numbers to the last bit.
        let refused = with("layer_norm_epsilon", json!(1e39)).unwrap_err();
        assert!(refused.contains("`config`: "), "{refused}");
    }
}
