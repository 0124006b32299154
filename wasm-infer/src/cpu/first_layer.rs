//! The projections of a stack's first layer. Its input is the embedding of a token and nothing else,
//! so each token's queries, keys and values are computed once and kept.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most numbers that a stack keeps: 8 MiB.
const MOST: usize = 2 << 20;

/// Rows of queries, keys and values, by token.
#[derive(Debug)]
pub(super) struct FirstLayer {
    /// Numbers of a row.
    width: usize,
    rows: Vec<OnceLock<Box<[f32]>>>,
    /// Rows that are kept.
    kept: AtomicUsize,
}

impl FirstLayer {
    /// Of a vocabulary, with rows of `width` numbers.
    pub(super) fn new(vocabulary: usize, width: usize) -> Self {
        let rows = std::iter::repeat_with(OnceLock::new).take(vocabulary).collect();
        Self { width, rows, kept: AtomicUsize::new(0) }
    }

    /// Writes the rows of `tokens` to `out`; `compute` is asked for those that are not kept yet, all
    /// at once, and writes them one after the other. `missing` is scratch.
    pub(super) fn project(
        &self,
        tokens: &[u32],
        missing: &mut Vec<u32>,
        out: &mut [f32],
        compute: impl FnOnce(&[u32], &mut [f32]),
    ) {
        let width = self.width;
        let kept = |token: u32| self.rows[token as usize].get();
        missing.clear();
        missing.extend(tokens.iter().copied().filter(|&token| kept(token).is_none()));
        let computed = &mut out[..missing.len() * width];
        if !missing.is_empty() {
            compute(missing, computed);
        }
        // From the last on, each row is where it was computed or further on.
        let mut left = missing.len();
        for (row, &token) in tokens.iter().enumerate().rev() {
            let at = row * width;
            // Another thread may have kept the row since it was missing.
            if left > 0 && missing[left - 1] == token {
                left -= 1;
                out.copy_within(left * width..(left + 1) * width, at);
                self.keep(token, &out[at..at + width]);
            } else if let Some(kept) = kept(token) {
                out[at..at + width].copy_from_slice(kept);
            }
        }
    }

    fn keep(&self, token: u32, row: &[f32]) {
        let cell = &self.rows[token as usize];
        // Threads that look at once may keep a few rows more than there is room for.
        let room = self.kept.load(Ordering::Relaxed) < MOST / self.width;
        if room && cell.get().is_none() && cell.set(row.into()).is_ok() {
            self.kept.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: usize = 3;

    /// A row that tells of its token.
    fn row(token: u32) -> [f32; WIDTH] {
        [token as f32, token as f32 + 0.25, -(token as f32)]
    }

    /// Projects tokens, and tells which rows were computed.
    fn project(layer: &FirstLayer, tokens: &[u32]) -> Vec<u32> {
        let mut out = vec![f32::NAN; tokens.len() * WIDTH];
        let mut computed = Vec::new();
        layer.project(tokens, &mut Vec::new(), &mut out, |missing, out| {
            computed.extend_from_slice(missing);
            for (out, &token) in out.chunks_exact_mut(WIDTH).zip(missing) {
                out.copy_from_slice(&row(token));
            }
        });
        let expected: Vec<f32> = tokens.iter().flat_map(|&token| row(token)).collect();
        assert_eq!(out, expected, "{tokens:?}");
        computed
    }

    proptest! {
        #[test]
        fn each_token_is_computed_in_one_call_only(
            calls in prop::collection::vec(prop::collection::vec(0u32..20, 0..12), 1..8),
        ) {
            let layer = FirstLayer::new(20, WIDTH);
            let mut seen = std::collections::HashSet::new();
            for tokens in calls {
                let missing: Vec<u32> =
                    tokens.iter().copied().filter(|token| !seen.contains(token)).collect();
                prop_assert_eq!(project(&layer, &tokens), missing);
                seen.extend(tokens);
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_computed_each_time() {
        let wide = MOST / 2;
        let layer = FirstLayer::new(3, wide);
        let mut out = vec![0.0; 3 * wide];
        for expected in [3, 1, 1] {
            let mut computed = 0;
            layer.project(&[0, 1, 2], &mut Vec::new(), &mut out, |missing, out| {
                computed = missing.len();
                for (out, &token) in out.chunks_exact_mut(wide).zip(missing) {
                    out.fill(token as f32);
                }
            });
            assert_eq!(computed, expected);
            for (token, row) in out.chunks_exact(wide).enumerate() {
                assert!(row.iter().all(|&v| v == token as f32));
            }
        }
    }

    #[test]
    fn threads_that_share_a_layer_get_their_own_rows() {
        let layer = FirstLayer::new(50, WIDTH);
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let layer = &layer;
                scope.spawn(move || {
                    for call in 0..200 {
                        let token = |i: u32| (i * (thread + 3) + call) % 50;
                        project(layer, &(0..30).map(token).collect::<Vec<_>>());
                    }
                });
            }
        });
        assert_eq!(layer.kept.load(Ordering::Relaxed), 50);
    }
}
