//! The model as a plan: pure data, a list of dispatches over named buffers. Nothing here knows
//! a device, so that a plan can be counted, printed and tested anywhere.

use bytemuck::Pod;
use tigret_shaders::{Shader, shader};

use super::pack::{self, Axis, Packed};
use super::params::{
    AttentionParams, BeamsAttentionParams, CandidatesParams, EmbedParams, LinearParams,
    NormaliseParams, PARAMS, SelectParams, words,
};
use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::config::{T5Config, relative_position_bucket};
use crate::tokens::TokenLayout;
use crate::weights::WeightFormat;

/// Words of a beam record and of the header before the records (`shaders/shared/beam.wgsl`).
pub(super) const RECORD: usize = 16;
/// Where a record has the perturbed log-probability.
pub(super) const PERTURBED: usize = 5;
/// Most workgroups of a launch in one dimension, by WebGPU's default limits.
pub(super) const MAX_GROUPS: u32 = 65_535;
/// Outputs of a linear layer that are too few for a GPU, of which even a small one runs some thousand
/// invocations at once: less than 64 workgroups at 50 rows. Rows themselves do not count, so that an
/// answer does not depend, by the order of its sums, on who else is asked about and how widely.
const FEW_OUTPUTS: u32 = 1024;

/// A buffer of the plan, an index into its constants and then its scratch buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BufferId(pub(super) usize);

/// A buffer that is uploaded once.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) words: Vec<u32>,
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dispatch {
    pub(super) shader: &'static Shader,
    /// Storage buffers in the order of the shader's bindings.
    pub(super) buffers: Vec<BufferId>,
    /// The shader's `Params`.
    pub(super) params: [u32; PARAMS],
    /// Workgroups.
    pub(super) groups: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
struct Matrix {
    format: WeightFormat,
    weights: BufferId,
    scales: Option<BufferId>,
    inputs: Axis,
    /// All outputs together, padding included.
    outputs: u32,
    /// Whether four products with staged inputs fit into a half ([`pack::fits_halves`]).
    fits_halves: bool,
}

#[derive(Debug)]
struct EncoderLayer {
    norm: BufferId,
    qkv: Matrix,
    o: Matrix,
    feed_forward: FeedForward,
}

#[derive(Debug)]
struct FeedForward {
    norm: BufferId,
    wi: Matrix,
    wo: Matrix,
}

#[derive(Debug)]
struct DecoderLayer {
    norm: BufferId,
    qkv: Matrix,
    o: Matrix,
    cross_norm: BufferId,
    cross_q: Matrix,
    cross_o: Matrix,
    feed_forward: FeedForward,
}

/// Buffers whose contents a call makes, in their order behind the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scratch {
    /// Encoder input tokens.
    Input,
    /// Decoder input tokens of a step.
    Tokens,
    /// The users' filters.
    Listed,
    /// Tokens of each user's input.
    Lengths,
    /// Keys and temperatures of sampling.
    Samplings,
    /// Residual stream of the encoder.
    EncoderStream,
    /// Residual stream of the decoder.
    DecoderStream,
    /// Queries, keys and values of an encoder layer.
    EncoderQkv,
    /// Output of an attention before its projection.
    Context,
    /// Queries of a cross-attention.
    CrossQ,
    /// Keys and values of all cross-attentions.
    CrossKv,
    /// Hidden values of a feed-forward block.
    Hidden,
    /// Logits of a step.
    Logits,
    /// Softmax normalisers of a step.
    Normalisers,
    /// Candidates' keys of a step.
    Keys,
    /// Beam state before even steps.
    BeamsEven,
    /// Beam state before odd steps.
    BeamsOdd,
}

/// Buffers of [`Scratch`], behind which the self-attention caches lie, one a decoder layer.
const SCRATCH: usize = Scratch::BeamsOdd as usize + 1;

/// What a call needs room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Users.
    pub(super) users: usize,
    /// Beams of a user.
    pub(super) beams: usize,
    /// Words of all filters.
    pub(super) listed: usize,
}

/// What the dispatches of a call depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    /// Users, at least one.
    pub(super) users: u32,
    /// Rows of each user's input ([`input_rows`] of the longest).
    pub(super) input: u32,
    /// Beams of each user.
    pub(super) beams: usize,
    /// Whether items are sampled.
    pub(super) sampled: bool,
}

/// The plan of a model.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) constants: Vec<Constant>,
    config: T5Config,
    layout: TokenLayout,
    items: usize,
    kernels: Kernels,
    /// Values between the components of transposed keys: the inputs of all users side by side.
    key_stride: u32,
    embedding: Matrix,
    head: Matrix,
    encoder: Vec<EncoderLayer>,
    encoder_norm: BufferId,
    encoder_bias: BufferId,
    decoder: Vec<DecoderLayer>,
    decoder_norm: BufferId,
    decoder_bias: BufferId,
    cross_kv: Matrix,
    codes: BufferId,
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
    fn bias(&mut self, stack: &str, relatives: impl Iterator<Item = i32> + Clone) -> BufferId {
        let config = &self.bundle.config;
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let table = self.bundle.weight(&name).to_f32();
        let mut words = Vec::new();
        for head in 0..config.num_heads {
            for relative in relatives.clone() {
                let bucket = relative_position_bucket(
                    relative,
                    stack == "encoder",
                    config.relative_attention_num_buckets,
                    config.relative_attention_max_distance,
                );
                words.push(table[bucket * config.num_heads + head].to_bits());
            }
        }
        self.constant(name, words)
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

impl Plan {
    /// The plan of a bundle's model; packs all weights.
    pub(super) fn new(bundle: &Bundle) -> Self {
        let config = bundle.config.clone();
        let layout = bundle.tokens.clone();
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
        let encoder_bias = b.bias("encoder", -reach..=reach);
        let decoder_bias = b.bias("decoder", (0..layout.levels.len() as i32).map(|back| -back));
        let encoder_norm = b.vector("encoder.final_layer_norm.weight");
        let decoder_norm = b.vector("decoder.final_layer_norm.weight");
        let codes = b.constant("codes".into(), pack_codes(&bundle.catalog));
        Self {
            constants: b.constants,
            items: bundle.catalog.len(),
            kernels: Kernels::default(),
            key_stride: input_rows(layout.max_input()) as u32,
            config,
            layout,
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
        }
    }

    /// The buffer with the codes of all items.
    pub(super) fn codes(&self) -> BufferId {
        self.codes
    }

    /// Takes up another number of items and returns the one before.
    pub(super) fn set_items(&mut self, items: usize) -> usize {
        std::mem::replace(&mut self.items, items)
    }

    /// Takes up the kernels that suit the device.
    pub(super) fn set_kernels(&mut self, kernels: Kernels) {
        self.kernels = kernels;
    }

    fn heads(&self) -> Axis {
        Axis::Heads { heads: self.config.num_heads, d_kv: self.config.d_kv }
    }

    /// Words of an item's codes.
    fn code_words(&self) -> u32 {
        self.layout.levels.len().div_ceil(2) as u32
    }

    /// Beams of a user that can be alive before each step, and after the last: never more than there are
    /// prefixes or items.
    pub(super) fn rows(&self, beams: usize) -> Vec<u32> {
        let mut prefixes = 1usize;
        let mut rows = vec![1];
        for level in &self.layout.levels {
            prefixes = prefixes.saturating_mul(level.size as usize).min(self.items);
            rows.push(prefixes.min(beams) as u32);
        }
        rows
    }

    /// Name and bytes of each scratch buffer, in their order.
    pub(super) fn scratch(&self, capacity: Capacity) -> Vec<(String, u64)> {
        let quads = |quads: u32| u64::from(quads) * 16;
        let users = capacity.users as u64;
        let input = users * self.longest_input() as u64;
        let rows = users * u64::from(self.rows(capacity.beams).into_iter().max().unwrap_or(1));
        let both = input.max(rows);
        let (d4, part4) = (Axis::Plain(self.config.d_model).quads(), self.heads().quads());
        let codes = self.layout.levels.iter().map(|l| u64::from(l.size)).max().unwrap_or(1);
        let beams = (users + rows) * RECORD as u64 * 4;
        let levels = self.layout.levels.len() as u64;
        let fixed: [_; SCRATCH] = [
            (Scratch::Input, input * 4),
            (Scratch::Tokens, rows * 4),
            (Scratch::Listed, capacity.listed as u64 * 4),
            (Scratch::Lengths, users * 4),
            (Scratch::Samplings, levels * users * 16),
            (Scratch::EncoderStream, input * quads(d4)),
            (Scratch::DecoderStream, rows * quads(d4)),
            (Scratch::EncoderQkv, input * quads(4 * part4)),
            (Scratch::Context, both * quads(part4)),
            (Scratch::CrossQ, rows * quads(part4)),
            (Scratch::CrossKv, 3 * input * self.decoder.len() as u64 * quads(part4)),
            (Scratch::Hidden, both * quads(Axis::Plain(self.config.d_ff).quads())),
            (Scratch::Logits, rows * u64::from(self.head.outputs) * 4),
            (Scratch::Normalisers, rows * 16),
            (Scratch::Keys, rows * codes * 4),
            (Scratch::BeamsEven, beams),
            (Scratch::BeamsOdd, beams),
        ];
        debug_assert!(fixed.iter().zip(0..).all(|((scratch, _), at)| *scratch as usize == at));
        let caches = (0..self.decoder.len())
            .map(|layer| (format!("Cache({layer})"), levels * rows * quads(3 * part4)));
        fixed
            .into_iter()
            .map(|(scratch, bytes)| (format!("{scratch:?}"), bytes))
            .chain(caches)
            .map(|(name, bytes)| (name, bytes.max(16)))
            .collect()
    }

    /// The id of a scratch buffer.
    pub(super) fn id(&self, scratch: Scratch) -> BufferId {
        BufferId(self.constants.len() + scratch as usize)
    }

    /// The self-attention cache of a decoder layer: keys and values of all steps.
    fn cache(&self, layer: usize) -> BufferId {
        BufferId(self.constants.len() + SCRATCH + layer)
    }

    /// Beam state before a step; after the last step, the result.
    pub(super) fn beams_before(&self, step: usize) -> BufferId {
        self.id(if step.is_multiple_of(2) { Scratch::BeamsEven } else { Scratch::BeamsOdd })
    }

    /// The state before the first step: one beam a user, all items.
    pub(super) fn root(&self, users: usize) -> Vec<u32> {
        let mut state = vec![0; 2 * users * RECORD];
        state[..users].fill(1);
        for record in state[users * RECORD..].chunks_exact_mut(RECORD) {
            record[2] = self.items as u32;
        }
        state
    }

    /// Words of the state with so many rows a user.
    pub(super) fn state_words(users: usize, rows: u32) -> usize {
        users * (rows as usize + 1) * RECORD
    }

    /// Most candidates of a user in a step.
    pub(super) fn most_candidates(&self, beams: usize) -> u64 {
        let rows = self.rows(beams);
        let levels = self.layout.levels.iter().zip(rows);
        levels.map(|(level, rows)| u64::from(level.size) * u64::from(rows)).max().unwrap_or(0)
    }

    /// Rows of the longest input.
    pub(super) fn longest_input(&self) -> usize {
        input_rows(self.layout.max_input())
    }

    /// Takes up how many users there is room for.
    pub(super) fn set_users(&mut self, users: usize) {
        self.key_stride = (users * self.longest_input()) as u32;
    }

    /// Everything that one call launches, in order.
    pub(super) fn dispatches(&self, batch: Batch) -> Vec<Dispatch> {
        let mut out = Vec::new();
        let rows = self.rows(batch.beams);
        let step_rows = batch.users * rows.iter().copied().max().unwrap_or(1);
        self.encoder(batch, &mut out);
        for step in 0..self.layout.levels.len() {
            self.decoder_step(step as u32, rows[step], step_rows, batch, &mut out);
            self.search_step(step, rows[step], rows[step + 1], batch, &mut out);
        }
        out
    }

    /// A launch of one workgroup that does nothing.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn nothing(&self) -> Dispatch {
        let embed = self.embed(self.id(Scratch::Tokens), self.id(Scratch::DecoderStream), 0);
        Dispatch { groups: [1, 1], ..embed }
    }

    /// The constants that a launch reads whole: the weights of a linear layer.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn weights_of(&self, dispatch: &Dispatch) -> Vec<BufferId> {
        let linear = dispatch.shader.name.starts_with("linear");
        let constant = |id: &BufferId| id.0 < self.constants.len();
        dispatch.buffers.iter().copied().filter(|id| linear && constant(id)).collect()
    }

    fn encoder(&self, batch: Batch, out: &mut Vec<Dispatch>) {
        let id = |scratch| self.id(scratch);
        let part = self.heads().padded() as u32;
        let stream = id(Scratch::EncoderStream);
        let input = batch.users * batch.input;
        out.push(self.embed(id(Scratch::Input), stream, input));
        let transposed = self.key_stride * 3 * part;
        for layer in &self.encoder {
            let qkv = id(Scratch::EncoderQkv);
            out.push(
                self.linear(input, stream, &layer.qkv, qkv)
                    .norm(layer.norm, &self.config)
                    .keys(Keys {
                        part,
                        parts: 3,
                        key_part: 1,
                        key_offset: transposed,
                        key_stride: self.key_stride,
                    })
                    .into(),
            );
            out.push(self.attention(AttentionShape {
                users: batch.users,
                queries: batch.input,
                key_rows: batch.input,
                q: qkv,
                q_stride: 3 * part,
                kv: qkv,
                k_offset: transposed,
                v_offset: 2 * part,
                v_stride: 3 * part,
                bias: Some(self.encoder_bias),
            }));
            out.push(self.linear(input, id(Scratch::Context), &layer.o, stream).residual().into());
            self.feed_forward(input, stream, &layer.feed_forward, out);
        }
        let kv = self.linear(input, stream, &self.cross_kv, id(Scratch::CrossKv));
        let transposed = self.key_stride * self.cross_kv.outputs;
        out.push(
            kv.norm(self.encoder_norm, &self.config)
                .keys(Keys {
                    part,
                    parts: 2,
                    key_part: 0,
                    key_offset: transposed,
                    key_stride: self.key_stride,
                })
                .into(),
        );
    }

    fn decoder_step(
        &self,
        step: u32,
        user_rows: u32,
        step_rows: u32,
        batch: Batch,
        out: &mut Vec<Dispatch>,
    ) {
        let id = |scratch| self.id(scratch);
        let rows = batch.users * user_rows;
        let part = self.heads().padded() as u32;
        let stream = id(Scratch::DecoderStream);
        out.push(self.embed(id(Scratch::Tokens), stream, rows));
        for (index, layer) in self.decoder.iter().enumerate() {
            let cache = self.cache(index);
            out.push(
                self.linear(rows, stream, &layer.qkv, cache)
                    .norm(layer.norm, &self.config)
                    .at(step * step_rows * 3 * part)
                    .into(),
            );
            let head4 = part / 4 / self.config.num_heads as u32;
            out.push(spread(dispatch(
                kernel(&["attention_beams"]),
                &[cache, self.beams_before(step as usize), self.decoder_bias, id(Scratch::Context)],
                BeamsAttentionParams {
                    rows,
                    heads: self.config.num_heads as u32,
                    head4,
                    step,
                    step_rows,
                    bias_stride: self.layout.levels.len() as u32,
                    users: batch.users,
                },
                [rows * self.config.num_heads as u32, 1],
            )));
            out.push(self.linear(rows, id(Scratch::Context), &layer.o, stream).residual().into());
            out.push(
                self.linear(rows, stream, &layer.cross_q, id(Scratch::CrossQ))
                    .norm(layer.cross_norm, &self.config)
                    .into(),
            );
            out.push(self.attention(AttentionShape {
                users: batch.users,
                queries: user_rows,
                key_rows: batch.input,
                q: id(Scratch::CrossQ),
                q_stride: part,
                kv: id(Scratch::CrossKv),
                k_offset: self.key_stride * (self.cross_kv.outputs + index as u32 * part),
                v_offset: (2 * index as u32 + 1) * part,
                v_stride: self.cross_kv.outputs,
                bias: None,
            }));
            out.push(
                self.linear(rows, id(Scratch::Context), &layer.cross_o, stream).residual().into(),
            );
            self.feed_forward(rows, stream, &layer.feed_forward, out);
        }
    }

    fn search_step(
        &self,
        step: usize,
        user_rows: u32,
        next_rows: u32,
        batch: Batch,
        out: &mut Vec<Dispatch>,
    ) {
        let id = |scratch| self.id(scratch);
        let rows = batch.users * user_rows;
        let level = self.layout.levels[step];
        let (logits, normalisers, keys) =
            (id(Scratch::Logits), id(Scratch::Normalisers), id(Scratch::Keys));
        let head = self.linear(rows, id(Scratch::DecoderStream), &self.head, logits);
        out.push(head.norm(self.decoder_norm, &self.config).scale(self.config.head_scale()).into());
        let stride = self.head.outputs;
        let vocabulary = self.config.vocab_size as u32;
        out.push(Dispatch {
            groups: [rows, 1],
            ..dispatch(
                self.kernels.reducing("normalise"),
                &[logits, normalisers],
                NormaliseParams { vocabulary, stride },
                [1, 1],
            )
        });
        let (before, after) = (self.beams_before(step), self.beams_before(step + 1));
        let of_candidates = CandidatesParams {
            level: step as u32,
            words: self.code_words(),
            codes: level.size,
            offset: level.offset,
            stride,
            users: batch.users,
            rows: user_rows,
        };
        out.push(dispatch(
            kernel(&["candidates"]),
            &[self.codes, before, logits, normalisers, id(Scratch::Listed), keys],
            of_candidates,
            [level.size, rows],
        ));
        let mut select = vec![self.codes, before, keys, after, id(Scratch::Tokens)];
        let of_select = SelectParams {
            level: step as u32,
            words: self.code_words(),
            codes: level.size,
            offset: level.offset,
            rows: user_rows,
            width: batch.beams as u32,
            next_rows,
            users: batch.users,
            stride,
        };
        let groups = [batch.users, 1];
        if !batch.sampled {
            out.push(Dispatch {
                groups,
                ..dispatch(self.kernels.reducing("select"), &select, of_select, [1, 1])
            });
            return;
        }
        let samplings = id(Scratch::Samplings);
        let perturb = [self.codes, before, logits, keys, normalisers, samplings];
        let a_row = [rows, 1];
        let shader = self.kernels.reducing("perturb");
        out.push(Dispatch { groups: a_row, ..dispatch(shader, &perturb, of_candidates, [1, 1]) });
        select.extend([logits, normalisers, samplings]);
        let shader = self.kernels.reducing("select_sampled");
        out.push(Dispatch { groups, ..dispatch(shader, &select, of_select, [1, 1]) });
    }

    fn embed(&self, tokens: BufferId, stream: BufferId, rows: u32) -> Dispatch {
        let width4 = self.embedding.inputs.quads();
        let mut buffers = vec![tokens, stream, self.embedding.weights];
        buffers.extend(self.embedding.scales);
        let shader = kernel(&["embed_", self.embedding.format.name()]);
        let params = EmbedParams { rows, width4, outputs: self.embedding.outputs };
        spread(dispatch(shader, &buffers, params, [rows * width4, 1]))
    }

    fn feed_forward(
        &self,
        rows: u32,
        stream: BufferId,
        block: &FeedForward,
        out: &mut Vec<Dispatch>,
    ) {
        let hidden = self.id(Scratch::Hidden);
        out.push(
            self.linear(rows, stream, &block.wi, hidden)
                .norm(block.norm, &self.config)
                .relu()
                .into(),
        );
        out.push(self.linear(rows, hidden, &block.wo, stream).residual().into());
    }

    fn linear(&self, rows: u32, x: BufferId, matrix: &Matrix, y: BufferId) -> Linear {
        let inputs = match matrix.inputs {
            Axis::Plain(len) => len as u32,
            heads @ Axis::Heads { .. } => heads.padded() as u32,
        };
        // Without a norm, some buffer has to be bound all the same.
        let mut buffers = vec![x, self.decoder_norm, y, matrix.weights];
        buffers.extend(matrix.scales);
        let products = self.kernels.products(matrix);
        let shader = products.linear(matrix.format);
        Linear {
            shader,
            buffers,
            params: LinearParams {
                rows,
                inputs4: matrix.inputs.quads(),
                outputs: matrix.outputs,
                inputs,
                scale: 1.0,
                ..LinearParams::default()
            },
            groups: products.groups(shader, rows, matrix.outputs),
        }
    }

    fn attention(&self, shape: AttentionShape) -> Dispatch {
        let heads = self.config.num_heads as u32;
        let part = self.heads().padded() as u32;
        let bias = shape.bias.unwrap_or(self.encoder_bias);
        let lengths = self.id(Scratch::Lengths);
        let buffers = [shape.q, shape.kv, bias, self.id(Scratch::Context), lengths];
        let params = AttentionParams {
            queries: shape.queries,
            key_rows: shape.key_rows,
            heads,
            head4: part / 4 / heads,
            q_stride4: shape.q_stride / 4,
            k_offset4: shape.k_offset / 4,
            k_stride4: self.key_stride / 4,
            v_offset4: shape.v_offset / 4,
            v_stride4: shape.v_stride / 4,
            biased: u32::from(shape.bias.is_some()),
            reach: self.layout.max_input() as u32 - 1,
        };
        Dispatch {
            groups: [shape.queries.div_ceil(self.kernels.queries()), heads * shape.users],
            ..dispatch(self.kernels.attention(), &buffers, params, [1, 1])
        }
    }
}

/// Which permutations of the kernels a device is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kernels {
    /// Whether linear layers in floats and attentions compute wide tiles; takes subgroups.
    pub(super) wide: bool,
    /// Whether linear layers in floats of few outputs are shared out further.
    pub(super) split: bool,
    /// Whether `f16` weights are multiplied in halves.
    pub(super) halves: bool,
    /// Whether integer weights are multiplied by packed dot products.
    pub(super) packed_products: bool,
    /// Whether reductions over a workgroup use subgroups.
    pub(super) subgroups: bool,
}

impl Kernels {
    fn products(self, matrix: &Matrix) -> Products {
        let rounded = match matrix.format {
            WeightFormat::F32 => false,
            WeightFormat::F16 => self.halves && matrix.fits_halves,
            WeightFormat::Q8 | WeightFormat::Q4 => self.packed_products,
        };
        match self {
            _ if rounded => Products::Rounded,
            Self { wide: true, .. } => Products::Wide,
            Self { split: true, .. } if matrix.outputs < FEW_OUTPUTS => Products::Split,
            Self { wide: false, .. } => Products::Narrow,
        }
    }

    pub(super) fn attention(self) -> &'static Shader {
        if self.wide { kernel(&["attention_wide"]) } else { self.reducing("attention") }
    }

    /// Queries of a workgroup of an attention.
    pub(super) fn queries(self) -> u32 {
        if self.wide { 8 } else { 4 }
    }

    /// A kernel in which the invocations of a workgroup reduce or scan something together.
    pub(super) fn reducing(self, name: &str) -> &'static Shader {
        kernel(&[name, if self.subgroups { "_subgroups" } else { "" }])
    }
}

/// How a linear layer multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    /// In floats, an invocation four rows by four outputs: for GPUs.
    Narrow,
    /// The same, shared by four invocations: for matrices of few outputs.
    Split,
    /// In floats, eight rows by sixteen outputs: for software with subgroups.
    Wide,
    /// Inputs rounded to what the device multiplies fastest, four rows by four outputs.
    Rounded,
}

impl Products {
    /// The kernel of a linear layer; there is none that rounds for `f32`.
    pub(super) fn linear(self, format: WeightFormat) -> &'static Shader {
        let how = match (self, format) {
            (Self::Narrow, _) | (Self::Rounded, WeightFormat::F32) => "",
            (Self::Split, _) => "_split",
            (Self::Wide, _) => "_wide",
            (Self::Rounded, WeightFormat::F16) => "_half",
            (Self::Rounded, WeightFormat::Q8 | WeightFormat::Q4) => "_packed",
        };
        kernel(&["linear_", format.name(), how])
    }

    /// The workgroups of its kernel.
    pub(super) fn groups(self, shader: &Shader, rows: u32, outputs: u32) -> [u32; 2] {
        let (outputs_each, rows_each) = match self {
            Self::Narrow | Self::Rounded => (4, 4),
            // Four rows for each four invocations.
            Self::Split => (4, 1),
            Self::Wide => (16, 8),
        };
        cover(shader, [outputs.div_ceil(outputs_each), rows.div_ceil(rows_each)])
    }
}

/// Operands of an attention over shared keys, in values.
struct AttentionShape {
    users: u32,
    /// Queries of a user.
    queries: u32,
    /// Rows of keys and values of a user.
    key_rows: u32,
    q: BufferId,
    q_stride: u32,
    kv: BufferId,
    /// Where the transposed keys begin.
    k_offset: u32,
    v_offset: u32,
    v_stride: u32,
    bias: Option<BufferId>,
}

/// Which outputs of a linear layer are keys, and where they go.
struct Keys {
    /// Outputs of a part: queries, keys or values of a layer.
    part: u32,
    /// Parts of a layer.
    parts: u32,
    /// Which of them are the keys.
    key_part: u32,
    /// Where the transposed keys begin.
    key_offset: u32,
    /// Values between the components of a key.
    key_stride: u32,
}

/// A linear layer that is being described.
struct Linear {
    shader: &'static Shader,
    buffers: Vec<BufferId>,
    params: LinearParams,
    groups: [u32; 2],
}

impl Linear {
    fn norm(mut self, norm: BufferId, config: &T5Config) -> Self {
        self.buffers[1] = norm;
        self.params.normalise = 1;
        self.params.epsilon = config.layer_norm_epsilon;
        self
    }

    fn relu(mut self) -> Self {
        self.params.relu = 1;
        self
    }

    fn residual(mut self) -> Self {
        self.params.residual = 1;
        self
    }

    fn at(mut self, y_offset: u32) -> Self {
        self.params.y_offset = y_offset;
        self
    }

    fn keys(mut self, Keys { part, parts, key_part, key_offset, key_stride }: Keys) -> Self {
        self.params = LinearParams { part, parts, key_part, key_offset, key_stride, ..self.params };
        self
    }

    fn scale(mut self, scale: f32) -> Self {
        self.params.scale = scale;
        self
    }
}

impl From<Linear> for Dispatch {
    fn from(Linear { shader, buffers, params, groups }: Linear) -> Self {
        Self { shader, buffers, params: words(params), groups }
    }
}

/// The kernel whose name in `shaders/permutations.txt` these parts make. A plan is tested with all that
/// it may ask for, so there is one.
pub(super) fn kernel(name: &[&str]) -> &'static Shader {
    let name = name.concat();
    shader(&name).unwrap_or_else(|| panic!("there is no kernel {name}"))
}

/// A dispatch with at least these invocations in x and y.
fn dispatch(
    shader: &'static Shader,
    buffers: &[BufferId],
    params: impl Pod,
    invocations: [u32; 2],
) -> Dispatch {
    Dispatch {
        shader,
        buffers: buffers.to_vec(),
        params: words(params),
        groups: cover(shader, invocations),
    }
}

/// Folds a launch of more workgroups in x than WebGPU allows into rows of y; the kernel counts its
/// invocations over both.
fn spread(dispatch: Dispatch) -> Dispatch {
    let [x, y] = dispatch.groups;
    Dispatch { groups: [x.min(MAX_GROUPS), y * x.div_ceil(MAX_GROUPS)], ..dispatch }
}

/// Workgroups that cover so many invocations.
pub(super) fn cover(shader: &Shader, invocations: [u32; 2]) -> [u32; 2] {
    let [x, y, _] = shader.workgroup_size;
    [invocations[0].div_ceil(x), invocations[1].div_ceil(y)]
}

/// Rows of an input of so many tokens: kernels read keys in quads, so each user has whole ones.
pub(super) fn input_rows(tokens: usize) -> usize {
    tokens.next_multiple_of(4)
}

/// Codes of all items in rank order, two a word, each item on whole words.
pub(super) fn pack_codes(catalog: &Catalog) -> Vec<u32> {
    catalog
        .codes()
        .chunks_exact(catalog.levels())
        .flat_map(|row| {
            row.chunks(2)
                .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 16)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::{Shape, random_bundle};

    #[test]
    fn there_is_a_kernel_for_all_that_a_plan_may_launch() {
        let mut launched = BTreeSet::new();
        for format in WeightFormat::ALL {
            let mut plan = Plan::new(&random_bundle(&Shape::default(), format, 0));
            for switches in 0..1 << 5 {
                let on = |switch: u32| switches >> switch & 1 == 1;
                plan.set_kernels(Kernels {
                    wide: on(0),
                    split: on(1),
                    halves: on(2),
                    packed_products: on(3),
                    subgroups: on(4),
                });
                for sampled in [false, true] {
                    let batch = Batch { users: 1, input: 4, beams: 10, sampled };
                    let dispatches = plan.dispatches(batch);
                    launched.extend(dispatches.iter().map(|dispatch| dispatch.shader.name));
                }
            }
        }
        // Bundles hold the embedding in eight bits at least; those of before may hold it in four.
        launched.insert("embed_q4");
        let all: BTreeSet<_> = tigret_shaders::SHADERS.iter().map(|shader| shader.name).collect();
        assert_eq!(launched, all);
    }
}
