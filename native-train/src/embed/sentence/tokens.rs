//! The tokenizer of a folder: `tokenizer.json`, and what `tokenizer_config.json` sets in its place.

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use base64::engine::{DecodePaddingMode, Engine};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{NormalizerWrapper, PostProcessor, Tokenizer, TruncationParams};

use super::folder::Recipe;
use crate::error::{Result, TrainError};
use crate::panics::caught;

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
    let mut tokenizer = parse(&text).map_err(wrong)?;
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
    // The library takes them off the limit without a look.
    let own = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if own > limit {
        return Err(wrong(format!(
            "adds {own} tokens to each text, but the folder allows {limit} in all"
        )));
    }
    tokenizer.with_padding(None);
    let cut = TruncationParams { max_length: limit, direction, ..Default::default() };
    tokenizer.with_truncation(Some(cut)).map_err(|e| wrong(e.to_string()))?;
    Ok(tokenizer)
}

/// Reads a `tokenizer.json`.
fn parse(text: &str) -> Result<Tokenizer, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if has_endless_table(&json) {
        return Err("has a precompiled_charsmap that is longer than it is".into());
    }
    drop(json);
    caught(|_| true, || text.parse::<Tokenizer>().map_err(|e| e.to_string()))
        .unwrap_or_else(|_| Err(DAMAGED.into()))
}

/// What is said where the library gives up with a panic.
pub(super) const DAMAGED: &str = "is damaged";

/// Whether a table of SentencePiece, wherever it stands, says that it is longer than its text: the
/// library takes that much memory before it looks.
fn has_endless_table(json: &Value) -> bool {
    match json {
        Value::Array(parts) => parts.iter().any(has_endless_table),
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(table) if name == "precompiled_charsmap" => {
                announced_length(table).is_some_and(|length| length > table.len())
            }
            value => has_endless_table(value),
        }),
        _ => false,
    }
}

/// The length that such a table, in base 64, begins with; `None` where it is none.
fn announced_length(table: &str) -> Option<usize> {
    // The library wants no padding.
    let padding = DecodePaddingMode::Indifferent;
    let lenient = PAD.with_decode_padding_mode(padding).with_decode_allow_trailing_bits(true);
    let digits = &table.as_bytes()[..table.len().min(8)];
    let bytes = GeneralPurpose::new(&STANDARD, lenient).decode(digits).ok()?;
    let length = bytes.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::announced_length;

    #[test]
    fn a_table_begins_with_its_length() {
        // The bytes 4, 2, 1, 0.
        assert_eq!(announced_length("BAIBAA=="), Some(0x0001_0204));
        for largest in ["/////w==", "/////w=", "/////w", "/////wA", "/////wAA", "/////wAAAAAA"] {
            assert_eq!(announced_length(largest), Some(u32::MAX as usize), "{largest}");
        }
        assert_eq!(announced_length("BAIBAAA"), Some(0x0001_0204));
        for none in ["", "BAIB", "BAIBA", "no table", "é___"] {
            assert_eq!(announced_length(none), None, "{none}");
        }
    }
}
