//! The errors of this crate: each says what is wrong, where, and where possible how to mend it.

use std::borrow::Cow;

use thiserror::Error;

/// Longest sentence that is printed whole, in bytes.
const LONGEST: usize = 1200;

/// A sentence of a length that a person reads: it may quote a name from a file, and a name in a
/// damaged file can be as long as the file. What is left out of its middle is counted.
pub fn brief(sentence: &str) -> Cow<'_, str> {
    if sentence.len() <= LONGEST {
        return sentence.into();
    }
    let start = sentence.floor_char_boundary(LONGEST * 2 / 3);
    let end = sentence.ceil_char_boundary(sentence.len() - LONGEST / 3);
    let left_out = end - start;
    format!("{} [{left_out} bytes] {}", &sentence[..start], &sentence[end..]).into()
}

/// Why a bundle, catalogue or token layout was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes are not a safetensors file.
    #[error("the bundle is not a valid safetensors file: {}", brief(.0))]
    NotSafetensors(String),
    /// A metadata field is missing or wrong.
    #[error("metadata field `{}`: {}", brief(field), brief(reason))]
    Metadata {
        /// The field's name.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is missing or wrong.
    #[error("tensor `{}`: {}", brief(name), brief(reason))]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The catalogue is wrong.
    #[error("catalogue: {}", brief(.0))]
    Catalog(String),
    /// The weights are numbers, but what they make of an input is none.
    #[error("a score is not a finite number: the weights are too large; train again")]
    Overflow,
    /// The token layout is wrong.
    #[error("token layout: {}", brief(.0))]
    Tokens(String),
}

impl BundleError {
    /// A [`BundleError::Metadata`].
    pub fn metadata(field: impl Into<String>, reason: impl ToString) -> Self {
        Self::Metadata { field: field.into(), reason: reason.to_string() }
    }

    /// A [`BundleError::Tensor`].
    pub fn tensor(name: impl Into<String>, reason: impl ToString) -> Self {
        Self::Tensor { name: name.into(), reason: reason.to_string() }
    }
}

/// Why a recommendation could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// The request is out of range.
    #[error("{}", brief(.0))]
    Request(String),
    /// The bundle was refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// New items are to be added, but the bundle cannot give them semantic IDs.
    #[error(
        "the bundle holds no tokenizer, so it cannot give new items semantic IDs; write it with \
         `tigret export --with-tokenizer`"
    )]
    NoTokenizer,
    /// No usable GPU, or one that lacks a limit the model needs.
    #[error("no usable GPU: {0}")]
    NoGpu(String),
    /// The GPU was lost or failed in a call.
    #[error("the GPU device failed: {0}")]
    DeviceLost(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_quotes_a_whole_file_is_shortened() {
        let name = "ü".repeat(100_000);
        let error = BundleError::tensor(&name, format!("is not {name} but twelve")).to_string();
        assert!(error.len() < 3 * LONGEST, "{} bytes", error.len());
        assert!(error.starts_with("tensor `ü") && error.ends_with("ü but twelve"), "{error}");
        assert_eq!(brief("short"), "short");
    }
}
