//! The encoder, and what the decoder needs of it.

use tigret_kernels::{SharedKeys, Write};

use super::decoder::Part;
use super::model::{Model, Scratch};
use super::threads::by_rows;

/// A sequence in the encoder.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Residual stream, `[tokens, d_model]`.
    x: Vec<f32>,
    /// The encoder's output, `[tokens, d_model]`.
    output: Vec<f32>,
    /// Queries, keys and values of a layer, `[tokens, 3 * inner]`.
    qkv: Vec<f32>,
    keys: SharedKeys,
}

impl Encoder {
    /// Encodes a sequence and leaves the keys and values that each decoder layer attends to in
    /// `cross`.
    pub(super) fn encode(
        &mut self,
        model: &Model,
        input: &[u32],
        parts: &mut [Part],
        cross: &mut Vec<SharedKeys>,
    ) {
        let config = model.config();
        let (d, inner) = (config.d_model, config.inner());
        let Self { x, output, qkv, keys } = self;
        model.embed(input.iter().copied(), x);
        for (index, (attention, feed_forward)) in model.encoder.iter().enumerate() {
            qkv.resize(input.len() * 3 * inner, 0.0);
            by_rows(qkv, 3 * inner, parts, |first, qkv, Part { scratch, .. }| {
                let rows = qkv.len() / (3 * inner);
                if index == 0 {
                    let tokens = &input[first..][..rows];
                    model.project_tokens(&model.encoder_first, attention, tokens, qkv, scratch);
                } else {
                    model.project(attention, &x[first * d..][..rows * d], qkv, scratch);
                }
            });
            keys.pack(config.heads(), qkv, 3 * inner, inner);
            by_rows(x, d, parts, |first, x, Part { scratch, .. }| {
                let Scratch { fixed, scores, context, .. } = scratch;
                context.resize(x.len() / d * inner, 0.0);
                let queries = (&qkv[first * 3 * inner..], 3 * inner);
                let bias = Some((&model.encoder_bias, first));
                keys.attend(config.heads(), queries, bias, scores, context);
                attention.o.apply(context, fixed, x, Write::Add);
                model.feed_forward(feed_forward, x, scratch);
            });
        }
        model.rms_norm(x, &model.encoder_norm, output);
        cross.resize_with(model.decoder.len(), SharedKeys::default);
        qkv.resize(input.len() * 2 * inner, 0.0);
        for (layer, keys) in model.decoder.iter().zip(cross) {
            by_rows(qkv, 2 * inner, parts, |first, kv, Part { scratch, .. }| {
                let output = &output[first * d..][..kv.len() / (2 * inner) * d];
                layer.cross.kv.apply(output, &mut scratch.fixed, kv, Write::Store);
            });
            keys.pack(config.heads(), qkv, 2 * inner, 0);
        }
    }
}
