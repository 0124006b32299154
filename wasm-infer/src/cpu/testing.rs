//! What only tests ask of a model.

use super::decoder::Decoder;
use super::model::Model;
use crate::tokens::Level;

impl Model {
    /// Logits `[decoder_tokens, vocab_size]` of one sequence with the decoder's input given.
    ///
    /// # Panics
    /// For an empty `input`, a token beyond the vocabulary, and more tokens than there are levels.
    pub fn forced_logits(&self, input: &[u32], decoder_tokens: &[u32]) -> Vec<f32> {
        let mut decoder = Decoder::default();
        decoder.begin(self, input);
        let mut logits = Vec::new();
        let all = Level { offset: 0, size: self.config().vocab_size as u32 };
        for &token in decoder_tokens {
            decoder.step(self, &[token], &[0], all);
            logits.extend_from_slice(decoder.logits());
        }
        logits
    }
}
