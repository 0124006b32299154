//! Models by name: downloaded from Hugging Face into its cache folder.

use std::path::PathBuf;

use crate::error::{Result, TrainError};

/// The folder.
///
/// # Errors
/// [`TrainError::Usage`]
pub fn folder(name: &str, _note: impl Fn(&str)) -> Result<PathBuf> {
    Err(TrainError::usage(format!("hub:{name} cannot be downloaded")))
}
