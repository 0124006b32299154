//! What a page remembers a bundle by.

/// Tells bundles apart; not for adversaries. Eight bytes at a time, since a page runs this before its
/// loops are optimised.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let add = |hash: u64, word: u64| {
        let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The high bits of a product know all of the word, the low ones little.
        product ^ (product >> 32)
    };
    let start = add(0xcbf2_9ce4_8422_2325, bytes.len() as u64);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().fold(start, |rest, &byte| add(rest, byte.into()));
    words.fold(rest, |hash, word| {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        add(hash, u64::from_le_bytes(eight))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::fingerprint;

    #[test]
    fn bundles_that_differ_in_a_bit_or_in_length_have_other_fingerprints() {
        let mut all = HashSet::new();
        for length in 0..40 {
            let mut bytes = vec![0u8; length];
            assert!(all.insert(fingerprint(&bytes)), "{length} zeros");
            for bit in 0..8 * length {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(all.insert(fingerprint(&bytes)), "{length} bytes, bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
