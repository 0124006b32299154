//! Random models for tests and benchmarks (feature `testing`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use crate::bundle::Bundle;
use crate::catalog::{Catalog, CatalogItem};
use crate::config::T5Config;
use crate::cpu::Model;
use crate::error::{BundleError, InferError};
use crate::quantizer::{Quantizer, QuantizerConfig, QuantizerTensors, Structure};
use crate::search::{EngineQuery, Hit, best_first};
use crate::tokens::TokenLayout;
use crate::weights::WeightFormat;

/// What a random bundle is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Codes of each level.
    pub levels: Vec<u32>,
    /// Items.
    pub items: usize,
    /// User tokens.
    pub users: u32,
    /// Items of a history.
    pub max_items: usize,
    /// Whether the encoder's input ends with `eos`.
    pub append_eos: bool,
    /// Encoder layers, decoder layers.
    pub layers: (usize, usize),
    /// Width of the residual stream.
    pub d_model: usize,
    /// Heads and their width.
    pub heads: (usize, usize),
    /// Width of the feed-forward block.
    pub d_ff: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// What a norm adds to the mean of squares.
    pub epsilon: f32,
    /// First token of the decoder.
    pub decoder_start: u32,
    /// Tokens of the vocabulary that stand for nothing, behind all others.
    pub unused: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            levels: vec![16, 16, 16, 8],
            items: 300,
            users: 10,
            max_items: 8,
            append_eos: true,
            layers: (2, 2),
            d_model: 32,
            heads: (4, 8),
            d_ff: 64,
            tied: true,
            epsilon: 1e-6,
            decoder_start: 0,
            unused: 0,
        }
    }
}

impl Shape {
    /// The smallest model.
    pub fn narrow() -> Self {
        Self { d_model: 8, d_ff: 8, layers: (1, 1), heads: (1, 8), ..Self::default() }
    }

    /// The paper's sizes over a catalogue as large as its Beauty set.
    pub fn paper() -> Self {
        Self {
            levels: vec![256; 4],
            items: 12_101,
            users: 2000,
            max_items: 20,
            append_eos: true,
            layers: (4, 4),
            d_model: 128,
            heads: (6, 64),
            d_ff: 1024,
            tied: true,
            epsilon: 1e-6,
            decoder_start: 0,
            unused: 0,
        }
    }
}

/// A small generator (splitmix64): tests need no more.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }

    /// A number in `-1..1`.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A bundle with random weights and codes; items are called `item-0`, `item-1`, ….
///
/// # Panics
/// When there are more items than semantic IDs.
pub fn random_bundle(shape: &Shape, format: WeightFormat, seed: u64) -> Bundle {
    let mut random = Random::new(seed);
    let tokens = TokenLayout {
        append_eos: shape.append_eos,
        decoder_start: shape.decoder_start,
        ..TokenLayout::contiguous(&shape.levels, shape.users, shape.max_items)
    };
    let config = T5Config {
        vocab_size: tokens.vocab_size() + shape.unused,
        d_model: shape.d_model,
        d_kv: shape.heads.1,
        d_ff: shape.d_ff,
        num_layers: shape.layers.0,
        num_decoder_layers: Some(shape.layers.1),
        num_heads: shape.heads.0,
        relative_attention_num_buckets: 16,
        relative_attention_max_distance: 40,
        layer_norm_epsilon: shape.epsilon,
        dropout_rate: 0.0,
        feed_forward_proj: "relu".into(),
        tie_word_embeddings: shape.tied,
        scale_decoder_outputs: None,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: shape.decoder_start,
        model_type: "t5".into(),
    };
    let possible = shape.levels.iter().fold(1usize, |n, &s| n.saturating_mul(s as usize));
    assert!(shape.items <= possible, "{} items, {possible} semantic IDs", shape.items);
    let mut codes = BTreeSet::new();
    while codes.len() < shape.items {
        codes.insert(
            shape.levels.iter().map(|&s| random.below(s as usize) as u32).collect::<Vec<_>>(),
        );
    }
    let items = codes
        .into_iter()
        .enumerate()
        .map(|(index, codes)| CatalogItem { id: format!("item-{index}"), codes })
        .collect();
    let weights: BTreeMap<_, _> = config
        .weight_shapes()
        .into_iter()
        .map(|(name, dimensions)| {
            let count = dimensions.iter().product();
            let norm = name.ends_with("layer_norm.weight");
            // Steep enough that scores differ, flat enough that softmaxes do not saturate.
            let scale = if name == "shared.weight" && shape.tied { 1.0 } else { 0.25 };
            let values = (0..count)
                .map(|_| if norm { 1.0 + 0.3 * random.signed() } else { scale * random.signed() })
                .collect();
            (name, (dimensions, values))
        })
        .collect();
    Catalog::from_items(items, &tokens)
        .and_then(|catalog| Bundle::new(config, tokens, catalog, weights, format))
        .unwrap_or_else(|e| panic!("a random bundle is valid: {e}"))
}

/// A quantiser of random numbers; in a tree the root has all its children and other nodes some.
///
/// # Errors
/// [`BundleError`] for sizes that do not fit together.
pub fn random_quantizer(config: QuantizerConfig, seed: u64) -> Result<Quantizer, BundleError> {
    config.validate()?;
    let mut random = Random::new(seed);
    let mut values = |count: usize| -> Vec<f32> {
        std::iter::repeat_with(|| random.signed()).take(count).collect()
    };
    let mut tensors = QuantizerTensors::default();
    if config.structure != Structure::Hash {
        tensors.mean = values(config.input);
        tensors.scale = values(config.input).iter().map(|x| 1.5 + x).collect();
        let mut before = config.input;
        for &width in &config.widths {
            tensors.layers.push((values(width * before), values(width)));
            before = width;
        }
        let mut parents = 1;
        for (level, &size) in config.sizes.iter().enumerate() {
            let (rows, width) = match config.structure {
                Structure::Tree => {
                    let mut starts = vec![0u32];
                    for node in 0..parents as u32 {
                        let children = if level == 0 { size } else { 1 + (node * 7 + 3) % size };
                        starts.push(starts[node as usize] + children);
                    }
                    parents = starts[parents] as usize;
                    tensors.first_child.push(starts);
                    (parents, before)
                }
                Structure::Product => (size as usize, before / config.sizes.len()),
                Structure::Hyperplanes => (size.trailing_zeros() as usize, before),
                Structure::Residual | Structure::Hash => (size as usize, before),
            };
            tensors.codebooks.push(values(rows * width));
        }
    }
    Quantizer::new(config, tensors)
}

/// A random bundle that carries a random quantiser for embeddings of six numbers.
///
/// # Panics
/// As [`random_bundle`].
pub fn random_bundle_with_quantizer(shape: &Shape, format: WeightFormat, seed: u64) -> Bundle {
    let config = QuantizerConfig {
        method: "rq-vae".into(),
        structure: Structure::Residual,
        input: 6,
        learned: 0,
        unit_length: false,
        sizes: shape.levels[..shape.levels.len() - 1].to_vec(),
        widths: vec![9, 5],
        seed: 0,
    };
    random_quantizer(config, seed)
        .and_then(|quantizer| random_bundle(shape, format, seed).with_quantizer(quantizer))
        .unwrap_or_else(|e| panic!("a random quantiser is valid: {e}"))
}

/// The same function in `f32`: what a bundle's quantised weights stand for.
///
/// # Panics
/// Never: a bundle's weights are valid.
pub fn widened(bundle: &Bundle) -> Bundle {
    reweighted(bundle, WeightFormat::F32, |_, _, _| {})
        .unwrap_or_else(|e| panic!("a bundle's parts are valid: {e}"))
}

/// A bundle in another format, after `change` was given each weight's name, shape and values.
///
/// # Errors
/// [`BundleError`] for weights that are not the model's any more, or that the format cannot hold.
pub fn reweighted(
    bundle: &Bundle,
    format: WeightFormat,
    mut change: impl FnMut(&str, &mut Vec<usize>, &mut Vec<f32>),
) -> Result<Bundle, BundleError> {
    let weights = bundle.weights().iter().map(|(name, weight)| {
        let (mut shape, mut values) = (weight.shape.clone(), weight.to_f32());
        change(name, &mut shape, &mut values);
        (name.clone(), (shape, values))
    });
    let (config, tokens) = (bundle.config.clone(), bundle.tokens.clone());
    let made = Bundle::new(config, tokens, (*bundle.catalog).clone(), weights.collect(), format)?;
    match bundle.quantizer() {
        Some(quantizer) => made.with_quantizer(quantizer.clone()),
        None => Ok(made),
    }
}

/// Scores every allowed item of a catalogue one by one, without any search: what all engines are held
/// to.
pub fn exhaustive(bundle: &Bundle, catalog: &Catalog, query: &EngineQuery) -> Vec<Hit> {
    let model = Model::new(Arc::new(widened(bundle)));
    let mut hits = Vec::new();
    for rank in 0..catalog.len() as u32 {
        if query.filter.allowed_in(rank..rank + 1) == 0 {
            continue;
        }
        let codes = catalog.codes_of(rank);
        let path: Vec<u32> = bundle.tokens.tokens_of(codes).collect();
        let mut decoder = vec![bundle.tokens.decoder_start];
        decoder.extend(&path[..path.len() - 1]);
        let logits = model.forced_logits(&query.input, &decoder);
        let score = logits
            .chunks_exact(bundle.config.vocab_size)
            .zip(&path)
            .map(|(row, &token)| {
                let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
                f64::from(row[token as usize]) - sum.ln()
            })
            .sum::<f64>();
        hits.push(Hit::scored(rank, score as f32));
    }
    best_first(hits.len(), |at| hits[at], &mut Vec::new())
}

/// Holds two answers against each other by the contract's rule: scores and keys agree within
/// `tolerance`, and so does the order wherever neighbouring keys differ by more.
///
/// # Errors
/// What differs.
pub fn same_answer(expected: &[Hit], found: &[Hit], tolerance: f32) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} hits instead of {}", found.len(), expected.len()));
    }
    let close = |a: f32, b: f32, most: f32| (a - b).abs() <= most;
    for (place, (e, f)) in expected.iter().zip(found).enumerate() {
        if !close(e.key, f.key, tolerance) {
            return Err(format!("place {place}: {f:?}, not {e:?}"));
        }
        let own = expected.iter().find(|hit| hit.rank == f.rank);
        if let Some(own) = own.filter(|own| !close(own.score, f.score, tolerance)) {
            return Err(format!("place {place}: {f:?}, not {own:?}"));
        }
        // The last places may go to items just outside the expected answer.
        let own = own.or(expected.last()).map_or(0.0, |hit| hit.key);
        if !close(own, e.key, 2.0 * tolerance) {
            return Err(format!("place {place}: {f:?}, not {e:?}"));
        }
    }
    Ok(())
}

/// What was made on a GPU; where there is none, prints why and returns `None`. Where
/// `TIGRET_REQUIRE_GPU` is set, a test has to find one.
///
/// # Panics
/// On any other error, and where there is no GPU but has to be.
pub fn on_gpu<T>(made: Result<T, InferError>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(InferError::NoGpu(why)) if std::env::var_os("TIGRET_REQUIRE_GPU").is_none() => {
            skipped(&why);
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Prints that a test leaves out `what`, which the adapter of this name cannot do. Mesa's llvmpipe can
/// do all that any kernel asks for: where `TIGRET_REQUIRE_GPU` is set, nothing is left out on it.
///
/// # Panics
/// Where that variable is set and the adapter is llvmpipe.
pub fn leave_out(what: &str, adapter: &str) {
    let required = std::env::var_os("TIGRET_REQUIRE_GPU").is_some();
    assert!(!(required && adapter.starts_with("llvmpipe")), "{adapter} has to do {what}");
    skipped(&format!("{what}, which {adapter} cannot do"));
}

/// Says what a test leaves out and why: prints it, and adds it as a line to the file that
/// `TIGRET_SKIPPED` names, for `cargo xtask test` to tell, as a test that passes shows nothing.
///
/// # Panics
/// Where that file cannot be written to.
pub fn skipped(what: &str) {
    println!("skipped: {what}");
    if let Some(path) = std::env::var_os("TIGRET_SKIPPED") {
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
        // In one piece: other tests write at the same time.
        let written = opened.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes()));
        written.expect("TIGRET_SKIPPED names a file that can be written to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(list: &[(u32, f32)]) -> Vec<Hit> {
        list.iter().map(|&(rank, score)| Hit::scored(rank, score)).collect()
    }

    #[test]
    fn order_may_differ_only_between_equal_scores() {
        let expected = hits(&[(1, -1.0), (2, -2.0), (3, -2.0001)]);
        let same = |found: &[(u32, f32)]| same_answer(&expected, &hits(found), 1e-3).is_ok();
        assert!(same(&[(1, -1.0), (3, -2.0), (2, -2.0)]));
        assert!(!same(&[(2, -1.0), (1, -2.0), (3, -2.0)]));
        assert!(!same(&[(1, -1.1), (2, -2.0), (3, -2.0)]));
        assert!(!same(&[(1, f32::NAN), (2, -2.0), (3, -2.0)]));
        assert!(!same(&[(1, -1.0)]));
    }

    #[test]
    fn an_item_just_outside_may_stand_last_and_keys_count_as_scores_do() {
        let expected = hits(&[(1, -1.0), (2, -2.0)]);
        assert!(same_answer(&expected, &hits(&[(1, -1.0), (7, -2.0)]), 1e-3).is_ok());
        assert!(same_answer(&expected, &hits(&[(7, -1.0), (2, -2.0)]), 1e-3).is_err());
        let mut found = expected.clone();
        found[0].key = -1.1;
        assert!(same_answer(&expected, &found, 1e-3).is_err());
    }
}
