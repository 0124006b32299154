//! The decoder, which steps all beams together.

use tigret_kernels::{MAX_STEPS, PathAttention, SharedKeys, Write};

use super::encoder::Encoder;
use super::model::{DecoderLayer, Model, Scratch};
use super::threads::{self, by_rows};
use crate::tokens::{Level, MAX_LEVELS};

/// A row's ancestors: its row in each step so far, its own included.
type Path = [u32; MAX_STEPS];

const _: () = assert!(MAX_LEVELS == MAX_STEPS, "a step a level");

/// The decoder in the middle of a search; keeps its memory from one search to the next.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    encoder: Encoder,
    /// A layer: keys and values of the encoder's output.
    cross: Vec<SharedKeys>,
    /// A step: `[rows, layers, 2 * inner]`, keys and values. Rows are never moved: beams point to
    /// them.
    steps: Vec<Vec<f32>>,
    /// Steps done.
    position: usize,
    paths: Vec<Path>,
    /// The paths of the step before.
    parents: Vec<Path>,
    /// One a thread.
    parts: Vec<Part>,
    /// The rows of the last step, shared out over the parts in order, and the tokens whose logits they
    /// have.
    rows: usize,
    asked: Level,
}

/// The rows of a step that one thread computes.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Residual stream, `[rows, d_model]`.
    pub(super) x: Vec<f32>,
    /// Queries, or with keys and values, of a layer.
    qkv: Vec<f32>,
    /// `[rows, tokens that are asked for]`.
    pub(super) logits: Vec<f32>,
    /// `ln(sum(exp(logits)))` of each row, over the whole vocabulary.
    pub(super) normalisers: Vec<f32>,
    pub(super) scratch: Scratch,
}

impl Decoder {
    /// Encodes a sequence and gets ready for the first step.
    pub(super) fn begin(&mut self, model: &Model, input: &[u32]) {
        self.parts.resize_with(threads::count(), Part::default);
        self.encoder.encode(model, input, &mut self.parts, &mut self.cross);
        self.position = 0;
        self.paths.clear();
        self.paths.push(Path::default());
    }

    /// Feeds one token a row; `parents[row]` is the row of the step before that it continues. The
    /// logits of `asked`, a range of tokens as a level's is, are there to be read afterwards.
    pub(super) fn step(&mut self, model: &Model, tokens: &[u32], parents: &[usize], asked: Level) {
        let position = self.position;
        std::mem::swap(&mut self.paths, &mut self.parents);
        self.paths.clear();
        self.paths.extend(parents.iter().enumerate().map(|(row, &parent)| {
            let mut path = self.parents[parent];
            path[position] = row as u32;
            path
        }));
        if self.steps.len() == position {
            self.steps.push(Vec::new());
        }
        let width = model.decoder.len() * 2 * model.config().inner();
        let Self { cross, steps, paths, parts, .. } = self;
        let (steps, step) = steps.split_at_mut(position);
        let step = &mut step[0];
        step.resize(tokens.len() * width, 0.0);
        // Not every part may get rows.
        for part in &mut *parts {
            part.logits.clear();
            part.normalisers.clear();
        }
        by_rows(step, width, parts, |first, step, part| {
            let rows = step.len() / width;
            let tokens = &tokens[first..first + rows];
            model.embed(tokens.iter().copied(), &mut part.x);
            let paths = &paths[first..first + rows];
            for (index, layer) in model.decoder.iter().enumerate() {
                Rows { model, tokens, steps, paths, width, index }
                    .attend_to_path(layer, step, part);
                attend_to_encoder(model, layer, &cross[index], part);
                model.feed_forward(&layer.feed_forward, &mut part.x, &mut part.scratch);
            }
            model.logits(asked, part);
        });
        self.position += 1;
        self.rows = tokens.len();
        self.asked = asked;
    }

    /// Logits of the last step's first rows, `[rows, tokens asked for]`: all, if there was one.
    #[cfg(feature = "testing")]
    pub(super) fn logits(&self) -> &[f32] {
        &self.parts[0].logits
    }

    /// Log-probabilities of the tokens asked for after the last step, `[rows, tokens]`, to
    /// `log_probs`; the softmax is over the whole vocabulary.
    pub(super) fn log_probs(&self, log_probs: &mut Vec<f32>) {
        let tokens = self.asked.size as usize;
        log_probs.resize(self.rows * tokens, 0.0);
        let logits = self.parts.iter().flat_map(|part| part.logits.chunks_exact(tokens));
        let normalisers = self.parts.iter().flat_map(|part| &part.normalisers);
        let rows = logits.zip(normalisers).zip(log_probs.chunks_exact_mut(tokens));
        for ((logits, normaliser), out) in rows {
            out.iter_mut().zip(logits).for_each(|(out, logit)| *out = logit - normaliser);
        }
    }
}

/// Some rows of a step, in one layer.
struct Rows<'a> {
    model: &'a Model,
    tokens: &'a [u32],
    /// The steps before this one.
    steps: &'a [Vec<f32>],
    paths: &'a [Path],
    /// Numbers of a row of a step.
    width: usize,
    /// The layer's.
    index: usize,
}

impl Rows<'_> {
    /// Self-attention: each row attends to its ancestors and to itself. The layer's keys and
    /// values go to `step`.
    fn attend_to_path(&self, layer: &DecoderLayer, step: &mut [f32], part: &mut Part) {
        let Self { model, tokens, steps, paths, width, index } = *self;
        let inner = model.config().inner();
        let Part { x, qkv, scratch, .. } = part;
        qkv.resize(paths.len() * 3 * inner, 0.0);
        if index == 0 {
            let first = &model.decoder_first;
            model.project_tokens(first, &layer.attention, tokens, qkv, scratch);
        } else {
            model.project(&layer.attention, x, qkv, scratch);
        }
        let Scratch { fixed, context, .. } = scratch;
        context.resize(paths.len() * inner, 0.0);
        let at = index * 2 * inner;
        for (qkv, step) in qkv.chunks_exact(3 * inner).zip(step.chunks_exact_mut(width)) {
            step[at..at + 2 * inner].copy_from_slice(&qkv[inner..]);
        }
        PathAttention {
            heads: model.config().heads(),
            bias: &model.decoder_bias,
            before: steps,
            step,
            width,
            at,
        }
        .attend(paths, qkv, context);
        layer.attention.o.apply(context, fixed, x, Write::Add);
    }
}

/// Cross-attention of some rows.
fn attend_to_encoder(model: &Model, layer: &DecoderLayer, keys: &SharedKeys, part: &mut Part) {
    let inner = model.config().inner();
    let Part { x, qkv, scratch, .. } = part;
    let Scratch { fixed, normed, scores, context, .. } = scratch;
    let rows = x.len() / model.config().d_model;
    model.rms_norm(x, &layer.cross.norm, normed);
    qkv.resize(rows * inner, 0.0);
    layer.cross.q.apply(normed, fixed, qkv, Write::Store);
    context.resize(rows * inner, 0.0);
    keys.attend(model.config().heads(), (qkv, inner), None, scores, context);
    layer.cross.o.apply(context, fixed, x, Write::Add);
}
