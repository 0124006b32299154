//! The projections of a stack's first layer. Its input is the embedding of a token and nothing else,
//! so each token's queries, keys and values are computed once and kept.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most numbers that a stack keeps: 8 MiB.
const MOST: usize = 2 << 20;

/// Rows of queries, keys and values.
#[derive(Debug)]
pub(super) struct FirstLayer {
    /// Numbers of a row.
    width: usize,
    /// By token.
    rows: Vec<OnceLock<Box<[f32]>>>,
    /// How many are kept.
    count: AtomicUsize,
}

impl FirstLayer {
    /// Of a vocabulary, with rows of `width` numbers.
    pub(super) fn new(vocabulary: usize, width: usize) -> Self {
        let rows = std::iter::repeat_with(OnceLock::new).take(vocabulary).collect();
        Self { width, rows, count: AtomicUsize::new(0) }
    }

    /// Which of `tokens` are not kept yet, as ascending places, to `missing`.
    pub(super) fn missing(&self, tokens: &[u32], missing: &mut Vec<usize>) {
        missing.clear();
        let places = tokens.iter().enumerate();
        missing.extend(places.filter(|(_, token)| self.kept(**token).is_none()).map(|(at, _)| at));
    }

    /// Fills `out` with the rows of `tokens`. Those of the places in `missing` are at its start, one
    /// after the other; they are kept from now on, if there is room.
    pub(super) fn fill(&self, tokens: &[u32], missing: &[usize], out: &mut [f32]) {
        let width = self.width;
        // Rows move to the right only, so from the last one backwards none is overwritten.
        for (row, &place) in missing.iter().enumerate().rev() {
            out.copy_within(row * width..(row + 1) * width, place * width);
            self.keep(tokens[place], &out[place * width..][..width]);
        }
        for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(width)) {
            if let Some(kept) = self.kept(token) {
                out.copy_from_slice(kept);
            }
        }
    }

    fn kept(&self, token: u32) -> Option<&[f32]> {
        self.rows[token as usize].get().map(|row| &**row)
    }

    fn keep(&self, token: u32, row: &[f32]) {
        let cell = &self.rows[token as usize];
        // Threads that look at the same time may keep a few rows more than there is room for.
        let room = self.count.load(Ordering::Relaxed) < MOST / self.width;
        if room && cell.get().is_none() && cell.set(row.into()).is_ok() {
            self.count.fetch_add(1, Ordering::Relaxed);
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
        let mut missing = vec![7];
        layer.missing(tokens, &mut missing);
        let computed: Vec<u32> = missing.iter().map(|&place| tokens[place]).collect();
        for (out, &token) in out.chunks_exact_mut(WIDTH).zip(&computed) {
            out.copy_from_slice(&row(token));
        }
        layer.fill(tokens, &missing, &mut out);
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
        let (mut missing, mut out) = (Vec::new(), vec![0.0; 3 * wide]);
        for expected in [3, 1, 1] {
            layer.missing(&[0, 1, 2], &mut missing);
            assert_eq!(missing.len(), expected);
            for (out, &token) in out.chunks_exact_mut(wide).zip(&missing) {
                out.fill(token as f32);
            }
            layer.fill(&[0, 1, 2], &missing, &mut out);
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
        assert_eq!(layer.count.load(Ordering::Relaxed), 50);
    }
}
