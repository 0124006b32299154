//! The errors of this crate: each says what is wrong, where, and where possible how to mend it.

use thiserror::Error;

/// Why a bundle, catalogue or token layout was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes are not a safetensors file.
    #[error("the bundle is not a valid safetensors file: {0}")]
    NotSafetensors(String),
    /// A metadata field is missing or wrong.
    #[error("metadata field `{field}`: {reason}")]
    Metadata {
        /// The field's name.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is missing or wrong.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The catalogue is wrong.
    #[error("catalogue: {0}")]
    Catalog(String),
    /// The token layout is wrong.
    #[error("token layout: {0}")]
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
    #[error("{0}")]
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
