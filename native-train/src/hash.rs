//! How hashes are written.

use sha2::{Digest, Sha256};

/// The end of a hash in hexadecimal, 64 digits.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Its first 32 digits: 128 bits are enough against accidents.
pub(crate) fn short_hex(hash: Sha256) -> String {
    let mut digits = hex(hash);
    digits.truncate(32);
    digits
}
