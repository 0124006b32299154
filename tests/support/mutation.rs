//! Changes of a file: of the kinds that happen, and of those that somebody makes.

use tigret_infer::testing::Random;

/// Values that lie at the edge of what a format can say.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fc0_0000, // NaN in f32
    0x7f80_0000, // infinity in f32
    0xffff_ffff_ffff_ffff,
];

const WORDS: [&str; 14] = [
    "-1",
    "99999999999999999999",
    "1e999",
    "NaN",
    "null",
    "[",
    "{\"a\":",
    "\"",
    "\\u0000",
    "\u{feff}",
    "\r\n",
    ",,,,",
    "4294967296",
    "🐯",
];

/// A file with a few changes of the kinds that happen, and of those that somebody makes.
pub fn changed(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..1 + random.below(3) {
        let length = bytes.len().max(1);
        let at = random.below(length);
        let piece = at..(at + 1 + random.below(64)).min(bytes.len()).max(at);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                let width = [1, 2, 4, 8][random.below(4)];
                let value = EDGES[random.below(EDGES.len())].to_le_bytes();
                for (byte, new) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                    *byte = *new;
                }
            }
            3 => {
                bytes.drain(piece);
            }
            4 => {
                let copy = bytes[piece.clone()].to_vec();
                bytes.splice(piece.start..piece.start, copy);
            }
            5 => {
                let noise: Vec<u8> =
                    (0..1 + random.below(16)).map(|_| random.below(256) as u8).collect();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), noise);
            }
            // A number, or a piece of text, becomes something else.
            6 => {
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let start = bytes.iter().skip(at).position(is_digit).map(|skip| at + skip);
                if let Some(start) = start {
                    let digits = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                    let word = WORDS[random.below(WORDS.len())];
                    bytes.splice(start..start + digits, word.bytes());
                }
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), word.bytes());
            }
        }
    }
    bytes
}
