//! Model sizes by name.

use clap::ValueEnum;
use tigret_infer::{T5Config, TokenLayout};

/// A named set of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 2 + 2 layers of width 64: minutes on a laptop's CPU.
    Tiny,
    /// 2 + 2 layers of width 128: an hour on a CPU for a data set of the paper's size.
    Small,
    /// 4 + 4 layers, 6 heads of 64, width 128, feed-forward 1024 (paper, section 4).
    Paper,
}

impl Preset {
    /// The configuration for a token layout.
    pub fn config(self, layout: &TokenLayout) -> T5Config {
        let (layers, d_model, num_heads, d_kv, d_ff) = match self {
            Self::Tiny => (2, 64, 4, 16, 256),
            Self::Small => (2, 128, 4, 32, 512),
            Self::Paper => (4, 128, 6, 64, 1024),
        };
        T5Config {
            vocab_size: layout.vocab_size(),
            d_model,
            d_kv,
            d_ff,
            num_layers: layers,
            num_decoder_layers: Some(layers),
            num_heads,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            dropout_rate: 0.1,
            feed_forward_proj: "relu".into(),
            tie_word_embeddings: true,
            scale_decoder_outputs: None,
            pad_token_id: layout.pad,
            eos_token_id: layout.eos,
            decoder_start_token_id: layout.decoder_start,
            model_type: "t5".into(),
        }
    }
}
