//! The tokenizer of a folder: `tokenizer.json`, and what `tokenizer_config.json` sets in its place.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{NormalizerWrapper, Tokenizer, TruncationParams};

use super::folder::Recipe;
use crate::error::{Result, TrainError};

/// Tokenizers of `transformers` that make their normaliser of `tokenizer_config.json`; where no
/// class is named, a model of theirs gets one of them.
const OWN_NORMALIZER: [&str; 4] =
    ["BertTokenizer", "BertTokenizerFast", "MPNetTokenizer", "MPNetTokenizerFast"];

/// The fields of `tokenizer_config.json` that vectors depend on.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    /// A float of 1e30 where there is no limit.
    model_max_length: Option<f64>,
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    truncation_side: Option<Side>,
}

/// From which side a text is cut.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

impl TokenizerConfig {
    /// Longest input in tokens, if there is a limit.
    pub(super) fn limit(&self) -> Option<usize> {
        // Beyond any real input: "no limit".
        self.model_max_length.filter(|&length| length < 1e6).map(|length| length as usize)
    }

    /// The normaliser that the folder's class of tokenizer has in place of the file's.
    fn normalizer(&self, of_file: BertNormalizer) -> BertNormalizer {
        let class = self.tokenizer_class.as_deref();
        if class.is_some_and(|class| !OWN_NORMALIZER.contains(&class)) {
            return of_file;
        }
        BertNormalizer::new(
            of_file.clean_text,
            self.tokenize_chinese_chars.unwrap_or(true),
            self.strip_accents,
            self.do_lower_case.unwrap_or(true),
        )
    }

    /// The side from which the folder cuts texts.
    fn direction(&self, of_file: Option<&TruncationParams>) -> TruncationDirection {
        match self.truncation_side {
            Some(Side::Left) => TruncationDirection::Left,
            Some(Side::Right) => TruncationDirection::Right,
            None => of_file.map(|cut| cut.direction).unwrap_or_default(),
        }
    }
}

/// The folder's tokenizer, cutting at `limit` tokens and padding nothing; what it depends on goes
/// into `hash`.
///
/// # Errors
/// [`TrainError::File`] where `tokenizer.json` is missing, wrong, or has more tokens than the model.
pub(super) fn tokenizer(
    recipe: &Recipe,
    limit: usize,
    vocabulary: usize,
    hash: &mut Sha256,
) -> Result<Tokenizer> {
    let path = recipe.transformer.join("tokenizer.json");
    let text = crate::files::read_text(
        &path,
        "the folder is not complete; `save_pretrained` of a fast tokenizer writes it",
    )?;
    hash.update(&text);
    let wrong = |reason: String| TrainError::file(&path, reason);
    let mut tokenizer: Tokenizer =
        text.parse().map_err(|e: tokenizers::Error| wrong(e.to_string()))?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or_default() as usize;
    if largest >= vocabulary {
        return Err(wrong(format!(
            "has token {largest}, but config.json says that there are {vocabulary} (vocab_size)"
        )));
    }
    if let Some(&NormalizerWrapper::BertNormalizer(of_file)) = tokenizer.get_normalizer() {
        let normalizer = recipe.tokenizer.normalizer(of_file);
        // What agrees with the file leaves the hash as it is without the settings.
        let shown = format!("{normalizer:?}");
        if shown != format!("{of_file:?}") {
            hash.update(shown);
            tokenizer.with_normalizer(Some(normalizer)).map_err(|e| wrong(e.to_string()))?;
        }
    }
    let direction = recipe.tokenizer.direction(tokenizer.get_truncation());
    if direction == TruncationDirection::Left {
        hash.update(direction.as_ref());
    }
    tokenizer.with_padding(None);
    let cut = TruncationParams { max_length: limit, direction, ..Default::default() };
    tokenizer.with_truncation(Some(cut)).map_err(|e| wrong(e.to_string()))?;
    Ok(tokenizer)
}
