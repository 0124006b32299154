//! Shared helpers of the cross-crate tests.

pub mod attacks;
pub mod mutation;
pub mod readers;

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
