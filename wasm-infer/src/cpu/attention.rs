//! Attention of many queries over keys that they share: the encoder's own, and the decoder's on it.

use super::lanes::{Floats, PANEL};
use super::math::softmax;
use super::matmul::{Write, product};
use crate::config::{T5Config, relative_position_bucket};

/// Relative position bias of one stack, unrolled over distances so that no logarithm is left for
/// the inner loop.
#[derive(Debug)]
pub(super) struct PositionBias {
    /// `[heads, 2 * reach + 1]`, by key position minus query position plus `reach`.
    table: Vec<f32>,
    reach: usize,
}

impl PositionBias {
    /// `buckets` is HF's table `[num_buckets, num_heads]`; positions stay below `positions`.
    pub(super) fn new(
        config: &T5Config,
        bidirectional: bool,
        buckets: &[f32],
        positions: usize,
    ) -> Self {
        let reach = positions.saturating_sub(1);
        let table = (0..config.num_heads)
            .flat_map(|head| {
                (-(reach as i32)..=reach as i32).map(move |relative| {
                    let bucket = relative_position_bucket(
                        relative,
                        bidirectional,
                        config.relative_attention_num_buckets,
                        config.relative_attention_max_distance,
                    );
                    buckets[bucket * config.num_heads + head]
                })
            })
            .collect();
        Self { table, reach }
    }

    /// The bias of a query towards the keys from position 0 on.
    #[inline(always)]
    pub(super) fn of(&self, head: usize, query: usize) -> &[f32] {
        &self.table[head * (2 * self.reach + 1)..][..2 * self.reach + 1][self.reach - query..]
    }
}

/// Keys and values, packed for products with rows of queries and of weights.
#[derive(Debug, Default)]
pub(super) struct SharedKeys {
    count: usize,
    /// A head: `[count / PANEL, d_kv]`.
    keys: Vec<Floats>,
    /// A head: `[d_kv / PANEL, count]`.
    values: Vec<Floats>,
}

impl SharedKeys {
    /// Packs rows of `stride` numbers that hold the keys of all heads at `at` and the values
    /// behind them.
    pub(super) fn pack(&mut self, config: &T5Config, rows: &[f32], stride: usize, at: usize) {
        let (inner, d_kv) = (config.inner(), config.d_kv);
        let count = rows.len() / stride;
        let (key_panels, value_panels) = (count.div_ceil(PANEL), d_kv.div_ceil(PANEL));
        self.count = count;
        self.keys.clear();
        self.keys.resize(config.num_heads * key_panels * d_kv, Floats([0.0; PANEL]));
        self.values.clear();
        self.values.resize(config.num_heads * value_panels * count, Floats([0.0; PANEL]));
        for (position, row) in rows.chunks_exact(stride).enumerate() {
            let (keys, values) = row[at..at + 2 * inner].split_at(inner);
            for head in 0..config.num_heads {
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
    pub(super) fn attend(
        &self,
        config: &T5Config,
        (queries, stride): (&[f32], usize),
        bias: Option<(&PositionBias, usize)>,
        scores: &mut Vec<f32>,
        context: &mut [f32],
    ) {
        let (inner, d_kv, count) = (config.inner(), config.d_kv, self.count);
        let rows = context.len() / inner;
        let width = count.next_multiple_of(PANEL);
        scores.resize(rows * width, 0.0);
        let of_head = |panels: usize| panels / config.num_heads;
        let keys = self.keys.chunks_exact(of_head(self.keys.len()));
        let values = self.values.chunks_exact(of_head(self.values.len()));
        for (head, (keys, values)) in keys.zip(values).enumerate() {
            let query = |row: usize| &queries[row * stride + head * d_kv..][..d_kv];
            product(keys, d_kv, rows, query, |row, column, values| {
                Write::Store.write(&mut scores[row * width + column..][..PANEL], values);
            });
            if let Some((bias, first)) = bias {
                for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
                    let bias = bias.of(head, first + row);
                    scores[..count].iter_mut().zip(bias).for_each(|(score, b)| *score += b);
                }
            }
            softmax(scores, width, count);
            let weights = |row: usize| &scores[row * width..][..count];
            product(values, count, rows, weights, |row, column, values| {
                let part = PANEL.min(d_kv - column);
                let at = row * inner + head * d_kv + column;
                Write::Store.write(&mut context[at..at + part], values);
            });
        }
    }
}
