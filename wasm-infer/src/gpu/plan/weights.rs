//! What a plan uploads once: weights in the layout of the kernels, and the codes of all items.

use super::BufferId;
use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::config::Stack;
use crate::gpu::pack::{self, Axis, Packed};
use crate::weights::WeightFormat;

/// A buffer that is uploaded once.
#[derive(Debug)]
pub(in crate::gpu) struct Constant {
    pub(in crate::gpu) name: String,
    pub(in crate::gpu) words: Vec<u32>,
}

/// Matrices of the same shape, one above the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub(super) format: WeightFormat,
    pub(super) weights: BufferId,
    pub(super) scales: Option<BufferId>,
    pub(super) inputs: Axis,
    /// All outputs together, padding included.
    pub(super) outputs: u32,
    /// Whether four products with staged inputs fit into a half ([`pack::fits_halves`]).
    pub(super) fits_halves: bool,
}

#[derive(Debug)]
pub(super) struct EncoderLayer {
    pub(super) norm: BufferId,
    pub(super) qkv: Matrix,
    pub(super) o: Matrix,
    pub(super) feed_forward: FeedForward,
}

#[derive(Debug)]
pub(super) struct FeedForward {
    pub(super) norm: BufferId,
    pub(super) wi: Matrix,
    pub(super) wo: Matrix,
}

#[derive(Debug)]
pub(super) struct DecoderLayer {
    pub(super) norm: BufferId,
    pub(super) qkv: Matrix,
    pub(super) o: Matrix,
    pub(super) cross_norm: BufferId,
    pub(super) cross_q: Matrix,
    pub(super) cross_o: Matrix,
    pub(super) feed_forward: FeedForward,
}

/// Where the parts of a model are among the constants.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) embedding: Matrix,
    pub(super) head: Matrix,
    pub(super) encoder: Vec<EncoderLayer>,
    pub(super) encoder_norm: BufferId,
    /// By head and distance.
    pub(super) encoder_bias: BufferId,
    pub(super) decoder: Vec<DecoderLayer>,
    pub(super) decoder_norm: BufferId,
    /// By head and steps back.
    pub(super) decoder_bias: BufferId,
    /// Keys and values of all decoder layers.
    pub(super) cross_kv: Matrix,
    /// Codes of all items.
    pub(super) codes: BufferId,
}

/// Collects constants while the plan is made.
struct Builder<'a> {
    bundle: &'a Bundle,
    constants: Vec<Constant>,
}

impl Builder<'_> {
    fn constant(&mut self, name: String, words: Vec<u32>) -> BufferId {
        self.constants.push(Constant { name, words });
        BufferId(self.constants.len() - 1)
    }

    fn vector(&mut self, name: &str) -> BufferId {
        let words = pack::vector(&self.bundle.weight(name).to_f32());
        self.constant(name.to_owned(), words)
    }

    /// Matrices one above the other, under the name of the first.
    fn matrix(&mut self, names: &[String], outputs: Axis, inputs: Axis) -> Matrix {
        let weights: Vec<_> = names.iter().map(|name| self.bundle.weight(name)).collect();
        let Packed { format, words, scales } = pack::matrix(&weights, outputs, inputs);
        let name = names[0].clone();
        let scales = (!scales.is_empty()).then(|| self.constant(format!("{name}.scale"), scales));
        let fits_halves = format == WeightFormat::F16 && pack::fits_halves(&words);
        let weights = self.constant(name, words);
        let outputs = (outputs.padded() * names.len()) as u32;
        Matrix { format, weights, scales, inputs, outputs, fits_halves }
    }

    /// A relative position bias, `[heads, distances]`, over `relatives`.
    fn bias(&mut self, stack: Stack, relatives: &[i32]) -> BufferId {
        let bias = self.bundle.position_bias(stack);
        let mut words = Vec::new();
        for head in 0..self.bundle.config.num_heads {
            words.extend(relatives.iter().map(|&relative| bias(head, relative).to_bits()));
        }
        self.constant(stack.position_bias(), words)
    }

    fn feed_forward(&mut self, at: &str, layer: usize) -> FeedForward {
        let (d, ff) =
            (Axis::Plain(self.bundle.config.d_model), Axis::Plain(self.bundle.config.d_ff));
        let at = format!("{at}.{layer}");
        FeedForward {
            norm: self.vector(&format!("{at}.layer_norm.weight")),
            wi: self.matrix(&[format!("{at}.DenseReluDense.wi.weight")], ff, d),
            wo: self.matrix(&[format!("{at}.DenseReluDense.wo.weight")], d, ff),
        }
    }
}

impl Weights {
    /// Those of a bundle, and the constants that they name.
    pub(super) fn new(bundle: &Bundle) -> (Self, Vec<Constant>) {
        let (config, layout) = (&bundle.config, &bundle.tokens);
        let d = Axis::Plain(config.d_model);
        let heads = Axis::Heads { heads: config.num_heads, d_kv: config.d_kv };
        let mut b = Builder { bundle, constants: Vec::new() };
        let names = |at: &str, parts: &[&str]| -> Vec<String> {
            parts.iter().map(|part| format!("{at}.{part}.weight")).collect()
        };
        let vocabulary = Axis::Plain(config.vocab_size);
        let embedding = b.matrix(&["shared.weight".into()], vocabulary, d);
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            b.matrix(&["lm_head.weight".into()], vocabulary, d)
        };
        let encoder = (0..config.num_layers)
            .map(|block| {
                let at = format!("encoder.block.{block}.layer");
                let attention = format!("{at}.0.SelfAttention");
                EncoderLayer {
                    norm: b.vector(&format!("{at}.0.layer_norm.weight")),
                    qkv: b.matrix(&names(&attention, &["q", "k", "v"]), heads, d),
                    o: b.matrix(&names(&attention, &["o"]), d, heads),
                    feed_forward: b.feed_forward(&at, 1),
                }
            })
            .collect();
        let decoder = (0..config.decoder_layers())
            .map(|block| {
                let at = format!("decoder.block.{block}.layer");
                let (own, cross) =
                    (format!("{at}.0.SelfAttention"), format!("{at}.1.EncDecAttention"));
                DecoderLayer {
                    norm: b.vector(&format!("{at}.0.layer_norm.weight")),
                    qkv: b.matrix(&names(&own, &["q", "k", "v"]), heads, d),
                    o: b.matrix(&names(&own, &["o"]), d, heads),
                    cross_norm: b.vector(&format!("{at}.1.layer_norm.weight")),
                    cross_q: b.matrix(&names(&cross, &["q"]), heads, d),
                    cross_o: b.matrix(&names(&cross, &["o"]), d, heads),
                    feed_forward: b.feed_forward(&at, 2),
                }
            })
            .collect();
        let cross: Vec<String> = (0..config.decoder_layers())
            .flat_map(|block| {
                names(&format!("decoder.block.{block}.layer.1.EncDecAttention"), &["k", "v"])
            })
            .collect();
        let cross_kv = b.matrix(&cross, heads, d);
        let reach = layout.max_input() as i32 - 1;
        let distances: Vec<i32> = (-reach..reach + 1).collect();
        let encoder_bias = b.bias(Stack::Encoder, &distances);
        let steps_back: Vec<i32> = (0..layout.levels.len() as i32).map(|back| -back).collect();
        let decoder_bias = b.bias(Stack::Decoder, &steps_back);
        let encoder_norm = b.vector("encoder.final_layer_norm.weight");
        let decoder_norm = b.vector("decoder.final_layer_norm.weight");
        let codes = b.constant("codes".into(), pack_codes(&bundle.catalog));
        let weights = Self {
            embedding,
            head,
            encoder,
            encoder_norm,
            encoder_bias,
            decoder,
            decoder_norm,
            decoder_bias,
            cross_kv,
            codes,
        };
        (weights, b.constants)
    }
}

/// Codes of all items in rank order, two a word, each item on whole words.
pub(in crate::gpu) fn pack_codes(catalog: &Catalog) -> Vec<u32> {
    catalog
        .codes()
        .chunks_exact(catalog.levels())
        .flat_map(|row| {
            row.chunks(2)
                .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 16)
        })
        .collect()
}
