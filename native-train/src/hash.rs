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

/// Tells lists of byte strings apart: each counts with its length, so that no two lists are the same
/// because they join to the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of all parts at once.
    pub(crate) fn of(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
        let mut fingerprint = Self::default();
        parts.into_iter().for_each(|part| fingerprint.add(part));
        fingerprint.end()
    }

    /// Adds the next part.
    pub(crate) fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// The fingerprint, [`short_hex`].
    pub(crate) fn end(self) -> String {
        short_hex(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_join_to_the_same_bytes_are_told_apart() {
        let lists = [&["a", "b"][..], &["ab"], &["b", "a"], &["a", "b", ""], &["a\nb"], &[]];
        let all: std::collections::BTreeSet<_> = lists.map(Fingerprint::of).into();
        assert_eq!(all.len(), lists.len());
        assert!(all.iter().all(|fingerprint| fingerprint.len() == 32));
    }
}
