//! The model as a plan: pure data, a list of dispatches over named buffers. Nothing here knows
//! a device, so that a plan can be counted, printed and tested anywhere.

mod kernels;
mod launch;
mod scratch;
mod weights;

#[cfg(test)]
pub(super) use kernels::Products;
pub(super) use kernels::{Kernels, MAX_GROUPS, cover, kernel};
pub(super) use launch::Dispatch;
pub(super) use scratch::{Capacity, PERTURBED, RECORD, Scratch};
pub(super) use weights::{Constant, pack_codes};

use super::pack::Axis;
use super::params::{
    AttentionParams, BeamsAttentionParams, CandidatesParams, EmbedParams, LinearParams,
    LogSumExpParams, SelectParams,
};
use crate::bundle::Bundle;
use crate::config::T5Config;
use crate::tokens::TokenLayout;
use launch::{AttentionShape, Keys, Linear, dispatch, spread};
use weights::{FeedForward, Matrix, Weights};

/// A buffer of the plan, an index into its constants and then its scratch buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BufferId(pub(super) usize);

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
    /// What the scratch buffers have room for.
    pub(super) capacity: Capacity,
    weights: Weights,
}

impl Plan {
    /// The plan of a bundle's model; packs all weights.
    pub(super) fn new(bundle: &Bundle) -> Self {
        let (weights, constants) = Weights::new(bundle);
        Self {
            constants,
            config: bundle.config.clone(),
            layout: bundle.tokens.clone(),
            items: bundle.catalog.len(),
            kernels: Kernels::default(),
            capacity: Capacity::LEAST,
            weights,
        }
    }

    /// The buffer with the codes of all items.
    pub(super) fn codes(&self) -> BufferId {
        self.weights.codes
    }

    /// Sets the number of items and returns the previous one.
    pub(super) fn set_items(&mut self, items: usize) -> usize {
        std::mem::replace(&mut self.items, items)
    }

    /// Sets the kernels that suit the device.
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

    /// Rows of the longest input.
    pub(super) fn longest_input(&self) -> usize {
        input_rows(self.layout.max_input())
    }

    /// Values between the components of transposed keys: the inputs of all users side by side.
    fn key_stride(&self) -> u32 {
        (self.capacity.users * self.longest_input()) as u32
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

    fn encoder(&self, batch: Batch, out: &mut Vec<Dispatch>) {
        let id = |scratch| self.id(scratch);
        let part = self.heads().padded() as u32;
        let stream = id(Scratch::EncoderStream);
        let input = batch.users * batch.input;
        out.push(self.embed(id(Scratch::Input), stream, input));
        let transposed = self.key_stride() * 3 * part;
        for layer in &self.weights.encoder {
            let qkv = id(Scratch::EncoderQkv);
            out.push(
                self.linear(input, stream, &layer.qkv, qkv)
                    .norm(layer.norm, &self.config)
                    .keys(Keys {
                        part,
                        parts: 3,
                        key_part: 1,
                        key_offset: transposed,
                        key_stride: self.key_stride(),
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
                bias: Some(self.weights.encoder_bias),
            }));
            out.push(self.linear(input, id(Scratch::Context), &layer.o, stream).residual().into());
            self.feed_forward(input, stream, &layer.feed_forward, out);
        }
        let kv = self.linear(input, stream, &self.weights.cross_kv, id(Scratch::CrossKv));
        let transposed = self.key_stride() * self.weights.cross_kv.outputs;
        out.push(
            kv.norm(self.weights.encoder_norm, &self.config)
                .keys(Keys {
                    part,
                    parts: 2,
                    key_part: 0,
                    key_offset: transposed,
                    key_stride: self.key_stride(),
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
        for (index, layer) in self.weights.decoder.iter().enumerate() {
            let cache = self.cache(index);
            out.push(
                self.linear(rows, stream, &layer.qkv, cache)
                    .norm(layer.norm, &self.config)
                    .at(step * step_rows * 3 * part)
                    .into(),
            );
            let head4 = part / 4 / self.config.num_heads as u32;
            let shader = kernel(&["attention_beams"]);
            out.push(dispatch(
                shader,
                &[
                    cache,
                    self.beams_before(step as usize),
                    self.weights.decoder_bias,
                    id(Scratch::Context),
                ],
                BeamsAttentionParams {
                    rows,
                    heads: self.config.num_heads as u32,
                    head4,
                    step,
                    step_rows,
                    bias_stride: self.layout.levels.len() as u32,
                    users: batch.users,
                },
                spread(cover(shader, [rows * self.config.num_heads as u32, 1])),
            ));
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
                k_offset: self.key_stride() * (self.weights.cross_kv.outputs + index as u32 * part),
                v_offset: (2 * index as u32 + 1) * part,
                v_stride: self.weights.cross_kv.outputs,
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
        let head = self.linear(rows, id(Scratch::DecoderStream), &self.weights.head, logits);
        out.push(
            head.norm(self.weights.decoder_norm, &self.config)
                .scale(self.config.head_scale())
                .into(),
        );
        let stride = self.weights.head.outputs;
        let vocabulary = self.config.vocab_size as u32;
        out.push(dispatch(
            self.kernels.reducing("log_sum_exp"),
            &[logits, normalisers],
            LogSumExpParams { vocabulary, stride },
            [rows, 1],
        ));
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
        let shader = kernel(&["candidates"]);
        out.push(dispatch(
            shader,
            &[self.weights.codes, before, logits, normalisers, id(Scratch::Listed), keys],
            of_candidates,
            cover(shader, [level.size, rows]),
        ));
        let mut select = vec![self.weights.codes, before, keys, after, id(Scratch::Tokens)];
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
        let mut name = "select";
        if batch.sampled {
            let samplings = id(Scratch::Samplings);
            let perturb = [self.weights.codes, before, logits, keys, normalisers, samplings];
            let shader = self.kernels.reducing("perturb");
            out.push(dispatch(shader, &perturb, of_candidates, [rows, 1]));
            select.extend([logits, normalisers, samplings]);
            name = "select_sampled";
        }
        out.push(dispatch(self.kernels.reducing(name), &select, of_select, [batch.users, 1]));
    }

    pub(super) fn embed(&self, tokens: BufferId, stream: BufferId, rows: u32) -> Dispatch {
        let width4 = self.weights.embedding.inputs.quads();
        let mut buffers = vec![tokens, stream, self.weights.embedding.weights];
        buffers.extend(self.weights.embedding.scales);
        let shader = kernel(&["embed_", self.weights.embedding.format.name()]);
        let params = EmbedParams { rows, width4, outputs: self.weights.embedding.outputs };
        dispatch(shader, &buffers, params, spread(cover(shader, [rows * width4, 1])))
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
            // Inputs in heads have no norm, of whose mean this is the divisor.
            Axis::Heads { .. } => 1,
        };
        // Without a norm, some buffer has to be bound all the same.
        let mut buffers = vec![x, self.weights.decoder_norm, y, matrix.weights];
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
        let bias = shape.bias.unwrap_or(self.weights.encoder_bias);
        let lengths = self.id(Scratch::Lengths);
        let buffers = [shape.q, shape.kv, bias, self.id(Scratch::Context), lengths];
        let params = AttentionParams {
            queries: shape.queries,
            key_rows: shape.key_rows,
            heads,
            head4: part / 4 / heads,
            q_stride4: shape.q_stride / 4,
            k_offset4: shape.k_offset / 4,
            k_stride4: self.key_stride() / 4,
            v_offset4: shape.v_offset / 4,
            v_stride4: shape.v_stride / 4,
            biased: u32::from(shape.bias.is_some()),
            reach: self.layout.max_input() as u32 - 1,
        };
        let groups = [shape.queries.div_ceil(self.kernels.queries()), heads * shape.users];
        dispatch(self.kernels.attention(), &buffers, params, groups)
    }
}

/// Rows of an input of `tokens` tokens: kernels read keys in quads, so each user has whole quads.
pub(super) fn input_rows(tokens: usize) -> usize {
    tokens.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::WeightFormat;
    use crate::testing::{Shape, random_bundle, reweighted};

    #[test]
    fn a_matrix_that_halves_cannot_hold_is_the_only_one_multiplied_in_floats() {
        let large = "encoder.block.1.layer.1.DenseReluDense.wo.weight";
        let bundle = random_bundle(&Shape::default(), WeightFormat::F16, 0);
        let bundle = reweighted(&bundle, WeightFormat::F16, |name, _, values| {
            if name == large {
                values[5] = 33.0;
            }
        });
        let mut plan = Plan::new(&bundle.unwrap());
        plan.set_kernels(Kernels { halves: true, ..Kernels::default() });
        let mut in_floats = Vec::new();
        for dispatch in plan.dispatches(Batch { users: 1, input: 4, beams: 10, sampled: false }) {
            let Some(how) = dispatch.shader.name.strip_prefix("linear_f16") else { continue };
            if how != "_half" {
                in_floats.push(plan.constants[dispatch.buffers[3].0].name.as_str());
            }
        }
        assert_eq!(in_floats, [large]);
    }

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
        // Bundles hold the embedding in eight bits at least; older ones may hold it in four.
        launched.insert("embed_q4");
        let all: BTreeSet<_> = tigret_shaders::SHADERS.iter().map(|shader| shader.name).collect();
        assert_eq!(launched, all);
    }
}
