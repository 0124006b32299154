//! Attention with relative position bias (T5): of many queries over keys that they share, and of
//! beams over their own pasts.

use crate::lanes::{Floats, PANEL, wide};
use crate::math::{attend_here, softmax};
use crate::matmul::{UNSCALED, Write, product};

/// Most steps of a decoder.
pub const MAX_STEPS: usize = 8;

/// The heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Numbers of a key.
    pub width: usize,
}

impl Heads {
    /// Numbers of the keys of all heads.
    fn inner(self) -> usize {
        self.count * self.width
    }

    /// Numbers that packed keys of all heads take at most, and values likewise.
    pub fn held(self) -> usize {
        self.count * self.width.next_multiple_of(PANEL)
    }
}

/// Relative position bias of one stack, unrolled over distances so that no logarithm is left for
/// the inner loop.
#[derive(Debug)]
pub struct PositionBias {
    /// `[heads, 2 * reach + 1]`, by key position minus query position plus `reach`.
    table: Vec<f32>,
    reach: usize,
}

impl PositionBias {
    /// Of `heads` heads for positions below `positions`: `bias` has it for a head and the position
    /// of a key minus that of the query.
    pub fn new(heads: usize, positions: usize, bias: impl Fn(usize, i32) -> f32) -> Self {
        let reach = positions.saturating_sub(1);
        let relative = -(reach as i32)..=reach as i32;
        let table = (0..heads).flat_map(|head| relative.clone().map(move |r| (head, r)));
        Self { table: table.map(|(head, relative)| bias(head, relative)).collect(), reach }
    }

    /// The bias of a query towards the keys from position 0 on.
    #[inline(always)]
    pub(crate) fn of(&self, head: usize, query: usize) -> &[f32] {
        &self.table[head * (2 * self.reach + 1)..][..2 * self.reach + 1][self.reach - query..]
    }
}

/// Keys and values, packed for products with rows of queries and of weights.
#[derive(Debug, Default)]
pub struct SharedKeys {
    count: usize,
    /// A head: `[count / PANEL, d_kv]`.
    keys: Vec<Floats>,
    /// A head: `[d_kv / PANEL, count]`.
    values: Vec<Floats>,
}

impl SharedKeys {
    /// Packs rows of `stride` numbers that hold the keys of all heads at `at` and the values
    /// behind them.
    pub fn pack(&mut self, heads: Heads, rows: &[f32], stride: usize, at: usize) {
        let (inner, d_kv) = (heads.inner(), heads.width);
        let count = rows.len() / stride;
        let (key_panels, value_panels) = (count.div_ceil(PANEL), d_kv.div_ceil(PANEL));
        self.count = count;
        // What lies behind the last key, and behind the last number of a value, is never looked at.
        self.keys.resize(heads.count * key_panels * d_kv, Floats([0.0; PANEL]));
        self.values.resize(heads.count * value_panels * count, Floats([0.0; PANEL]));
        for (position, row) in rows.chunks_exact(stride).enumerate() {
            let (keys, values) = row[at..at + 2 * inner].split_at(inner);
            for head in 0..heads.count {
                let panel = head * key_panels + position / PANEL;
                let panel = &mut self.keys[panel * d_kv..][..d_kv];
                for (column, key) in panel.iter_mut().zip(&keys[head * d_kv..]) {
                    column.0[position % PANEL] = *key;
                }
                for (index, part) in values[head * d_kv..][..d_kv].chunks(PANEL).enumerate() {
                    let panel = head * value_panels + index;
                    self.values[panel * count + position].0[..part.len()].copy_from_slice(part);
                }
            }
        }
    }

    /// Attends from queries that lie at the start of rows of `stride` numbers, to `context`
    /// (`[rows, inner]`). `bias` comes with the position of the first query.
    pub fn attend(
        &self,
        heads: Heads,
        (queries, stride): (&[f32], usize),
        bias: Option<(&PositionBias, usize)>,
        scores: &mut Vec<f32>,
        context: &mut [f32],
    ) {
        let (inner, d_kv, count) = (heads.inner(), heads.width, self.count);
        let rows = context.len() / inner;
        let width = count.next_multiple_of(PANEL);
        scores.resize(rows * (width + 1), 0.0);
        let (scores, factors) = scores.split_at_mut(rows * width);
        let of_head = |panels: usize| panels / heads.count;
        let keys = self.keys.chunks_exact(of_head(self.keys.len()));
        let values = self.values.chunks_exact(of_head(self.values.len()));
        for (head, (keys, values)) in keys.zip(values).enumerate() {
            let query = |row: usize| &queries[row * stride + head * d_kv..][..d_kv];
            product(keys, d_kv, rows, query, |row, column, tile| {
                Write::Store.write(
                    &mut scores[row * width + column..],
                    width,
                    PANEL,
                    tile,
                    UNSCALED,
                );
            });
            if let Some((bias, first)) = bias {
                for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
                    let bias = bias.of(head, first + row);
                    scores[..count].iter_mut().zip(bias).for_each(|(score, b)| *score += b);
                }
            }
            softmax(scores, width, count, factors);
            let weights = |row: usize| &scores[row * width..][..count];
            product(values, count, rows, weights, |row, column, tile| {
                let part = PANEL.min(d_kv - column);
                let out = &mut context[row * inner + head * d_kv + column..];
                Write::Store.write(out, inner, part, tile, &factors[row..]);
            });
        }
    }
}

/// Self-attention of the decoder's rows in one layer: each attends to its ancestors in the steps
/// before and to itself.
#[derive(Debug, Clone, Copy)]
pub struct PathAttention<'a> {
    /// The heads.
    pub heads: Heads,
    /// The decoder's bias.
    pub bias: &'a PositionBias,
    /// The steps before this one: rows of `width` numbers with keys and values of all layers.
    pub before: &'a [Vec<f32>],
    /// This step, likewise; its rows are those that attend.
    pub step: &'a [f32],
    /// Numbers of a row of a step.
    pub width: usize,
    /// Where in a row the layer's keys begin, all heads'; its values follow them.
    pub at: usize,
}

impl PathAttention<'_> {
    /// Attends from the queries at the start of each row of `qkv` (`[rows, 3 * inner]`) to
    /// `context` (`[rows, inner]`); `paths` has each row's ancestor in each step before.
    pub fn attend(&self, paths: &[[u32; MAX_STEPS]], qkv: &[f32], context: &mut [f32]) {
        let Self { heads, bias, before, step, width, at } = *self;
        let (inner, position) = (heads.inner(), before.len());
        wide(
            #[inline(always)]
            || {
                for (row, path) in paths.iter().enumerate() {
                    let part = |of: usize, which: usize, head: usize| {
                        let (rows, row) = if of == position {
                            (step, row)
                        } else {
                            (&*before[of], path[of] as usize)
                        };
                        let at = row * width + at + which * inner + head * heads.width;
                        &rows[at..][..heads.width]
                    };
                    for head in 0..heads.count {
                        let bias = bias.of(head, position);
                        attend_here(
                            &qkv[row * 3 * inner + head * heads.width..][..heads.width],
                            &mut [0.0; MAX_STEPS][..=position],
                            |step| part(step, 0, head),
                            |step| part(step, 1, head),
                            |step| bias[step],
                            &mut context[row * inner + head * heads.width..][..heads.width],
                        );
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers in -1..1 that look drawn.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| (i + 1).wrapping_mul(seed + 1).wrapping_mul(2_654_435_761) % 2003;
        (0..count).map(|i| number(i) as f32 / 1001.5 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn queries_attend_to_shared_keys_as_plain_loops_do(
            rows in 1usize..14,
            count in 1usize..40,
            width in 1usize..36,
            heads in 1usize..5,
            before in 0usize..3,
            biased in any::<bool>(),
            first in 0usize..3,
            seed in 0usize..1000,
        ) {
            let heads = Heads { count: heads, width };
            let inner = heads.inner();
            let (key_stride, query_stride) = (before + 2 * inner + 1, inner + before);
            let held = numbers(count * key_stride, seed);
            let queries = numbers(rows * query_stride, seed + 1);
            let bias_of = |head: usize, relative: i32| (head as f32 - relative as f32).sin();
            let bias = PositionBias::new(heads.count, count.max(first + rows), bias_of);
            let mut shared = SharedKeys::default();
            // Something larger first: packing again leaves none of it.
            shared.pack(heads, &numbers((count + 20) * key_stride, 7), key_stride, before);
            shared.pack(heads, &held, key_stride, before);
            let mut context = vec![f32::NAN; rows * inner];
            let mut scores = vec![f32::NAN; 5];
            let with = biased.then_some((&bias, first));
            shared.attend(heads, (&queries, query_stride), with, &mut scores, &mut context);
            for row in 0..rows {
                for head in 0..heads.count {
                    let query = &queries[row * query_stride + head * width..][..width];
                    let part = |position: usize, of: usize| {
                        &held[position * key_stride + before + of * inner + head * width..][..width]
                    };
                    let weights: Vec<f32> = (0..count)
                        .map(|position| {
                            let key = part(position, 0);
                            let score: f32 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                            let relative = position as i32 - (first + row) as i32;
                            let bias = if biased { bias_of(head, relative) } else { 0.0 };
                            (score + bias).exp()
                        })
                        .collect();
                    let sum: f32 = weights.iter().sum();
                    for column in 0..width {
                        let value: f32 = (0..count).map(|p| weights[p] * part(p, 1)[column]).sum();
                        let found = context[row * inner + head * width + column];
                        prop_assert!((found - value / sum).abs() < 1e-5, "{found} {}", value / sum);
                    }
                }
            }
        }
    }
}
