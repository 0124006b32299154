//! The token layout (`tokens.json`): how items and users become tokens.

use std::iter;

use serde::{Deserialize, Serialize};

use crate::error::BundleError;

/// Most levels that a semantic ID can have.
pub const MAX_LEVELS: usize = 8;
/// Fewest levels that a semantic ID can have.
pub(crate) const MIN_LEVELS: usize = 2;
/// Most codes of one level.
pub const MAX_LEVEL_SIZE: usize = 65_536;
/// Most items of a history that a layout may keep.
pub const MAX_HISTORY: usize = 512;

/// The tokens of one level: code `c` is token `offset + c`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Token of code 0.
    pub offset: u32,
    /// Number of codes.
    pub size: u32,
}

impl Level {
    /// The token of a code.
    pub fn token(self, code: u16) -> u32 {
        self.offset + u32::from(code)
    }
}

/// The user tokens: a user is token `offset + hash(id) % count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// First user token.
    pub offset: u32,
    /// Number of user tokens.
    pub count: u32,
}

/// How a history becomes the encoder's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLayout {
    /// Padding token.
    pub pad: u32,
    /// End-of-sequence token.
    pub eos: u32,
    /// First token of the decoder.
    pub decoder_start: u32,
    /// Whether the encoder's input ends with `eos`.
    pub append_eos: bool,
    /// A longer history keeps its last `max_items` items.
    pub max_items: usize,
    /// The levels of a semantic ID, coarse to fine.
    pub levels: Vec<Level>,
    /// User tokens, if the model has any.
    #[serde(default)]
    pub users: Option<Users>,
}

impl TokenLayout {
    /// Reads a `tokens.json` and checks it, without a vocabulary to hold it against.
    ///
    /// # Errors
    /// [`BundleError::Metadata`] or [`BundleError::Tokens`].
    pub fn parse(json: &str) -> Result<Self, BundleError> {
        let layout: Self =
            serde_json::from_str(json).map_err(|e| BundleError::metadata("tokens", e))?;
        layout.validate(layout.vocab_size())?;
        Ok(layout)
    }

    /// The layout of our own models: `pad` 0, `eos` 1, then the levels, then the users.
    pub fn contiguous(level_sizes: &[u32], users: u32, max_items: usize) -> Self {
        let mut next = 2;
        let levels = level_sizes
            .iter()
            .map(|&size| {
                let level = Level { offset: next, size };
                next += size;
                level
            })
            .collect();
        let users = (users > 0).then_some(Users { offset: next, count: users });
        Self { pad: 0, eos: 1, decoder_start: 0, append_eos: true, max_items, levels, users }
    }

    /// One more than the largest token.
    pub fn vocab_size(&self) -> usize {
        let specials = self.pad.max(self.eos).max(self.decoder_start) as u64 + 1;
        let levels = self.levels.iter().map(|l| u64::from(l.offset) + u64::from(l.size));
        let users = self.users.iter().map(|u| u64::from(u.offset) + u64::from(u.count));
        levels.chain(users).fold(specials, u64::max) as usize
    }

    /// Checks the layout against a vocabulary: every range inside it, none overlapping.
    ///
    /// # Errors
    /// [`BundleError::Tokens`] naming the range.
    pub fn validate(&self, vocab_size: usize) -> Result<(), BundleError> {
        let bad = |what: String| Err(BundleError::Tokens(what));
        if !(MIN_LEVELS..=MAX_LEVELS).contains(&self.levels.len()) {
            return bad(format!(
                "{} levels, outside {MIN_LEVELS}..={MAX_LEVELS}",
                self.levels.len()
            ));
        }
        if !(1..=MAX_HISTORY).contains(&self.max_items) {
            return bad(format!("max_items is {}, outside 1..={MAX_HISTORY}", self.max_items));
        }
        let mut ranges: Vec<(u64, u64, String)> = Vec::new();
        for (i, level) in self.levels.iter().enumerate() {
            if level.size == 0 || level.size as usize > MAX_LEVEL_SIZE {
                return bad(format!(
                    "level {i} has {} codes, outside 1..={MAX_LEVEL_SIZE}",
                    level.size
                ));
            }
            ranges.push((level.offset.into(), level.size.into(), format!("level {i}")));
        }
        if let Some(users) = self.users {
            if users.count == 0 {
                return bad("users.count is 0; leave `users` null instead".into());
            }
            ranges.push((users.offset.into(), users.count.into(), "users".into()));
        }
        for (token, name) in
            [(self.pad, "pad"), (self.eos, "eos"), (self.decoder_start, "decoder_start")]
        {
            if token as usize >= vocab_size {
                return bad(format!("{name} is {token}, the vocabulary has {vocab_size} tokens"));
            }
        }
        for (offset, size, name) in &ranges {
            if offset + size > vocab_size as u64 {
                return bad(format!(
                    "{name} ends at token {}, the vocabulary has {vocab_size}",
                    offset + size
                ));
            }
            // A code that equals one of these could not be told apart. What is never an input may be
            // any token.
            let eos = self.append_eos.then_some((self.eos, "eos"));
            for (token, special) in iter::once((self.pad, "pad")).chain(eos) {
                if (*offset..offset + size).contains(&u64::from(token)) {
                    return bad(format!("{name} contains the {special} token {token}"));
                }
            }
        }
        for (index, (offset, size, name)) in ranges.iter().enumerate() {
            let overlaps = |(other, length, _): &&(u64, u64, String)| {
                offset < &(other + length) && *other < offset + size
            };
            if let Some((.., other)) = ranges[..index].iter().find(overlaps) {
                return bad(format!("{other} and {name} overlap"));
            }
        }
        Ok(())
    }

    /// The token of a user id, or `None` if the layout has no user tokens.
    pub fn user_token(&self, user: &str) -> Option<u32> {
        self.users.map(|u| u.offset + (fnv1a(user) % u64::from(u.count)) as u32)
    }

    /// Most tokens that the encoder's input can have.
    pub(crate) fn max_input(&self) -> usize {
        let specials = usize::from(self.users.is_some()) + usize::from(self.append_eos);
        (self.max_items * self.levels.len() + specials).max(1)
    }

    /// The token of each code of a semantic ID or of a prefix of one.
    pub fn tokens_of(&self, codes: &[u16]) -> impl Iterator<Item = u32> {
        self.levels.iter().zip(codes).map(|(level, &code)| level.token(code))
    }

    /// The encoder's input: the user token if given, the codes of the last `max_items` items,
    /// oldest first, then `eos` if the layout appends it.
    ///
    /// `history` holds one code slice (an entry a level) an item. An input that would have no
    /// token at all is a single `pad`, since attention needs a key.
    pub fn encoder_input<'a>(
        &self,
        user_token: Option<u32>,
        history: impl DoubleEndedIterator<Item = &'a [u16]> + ExactSizeIterator,
    ) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(self.max_input());
        tokens.extend(user_token);
        let skip = history.len().saturating_sub(self.max_items);
        for codes in history.skip(skip) {
            tokens.extend(self.tokens_of(codes));
        }
        if self.append_eos {
            tokens.push(self.eos);
        }
        if tokens.is_empty() {
            tokens.push(self.pad);
        }
        tokens
    }
}

/// The hash of an id: 64-bit FNV-1a over its UTF-8 bytes.
pub(crate) fn fnv1a(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels from tokens 2 and 6 on, users from 11 to 13.
    fn layout() -> TokenLayout {
        TokenLayout::contiguous(&[4, 5], 3, 6)
    }

    #[test]
    fn the_widest_layouts_are_taken() {
        let widest = TokenLayout::contiguous(&[65_536; 8], 1, 512);
        assert_eq!(widest.vocab_size(), 2 + 8 * 65_536 + 1);
        assert!(widest.validate(widest.vocab_size()).is_ok());
        assert_eq!(layout().vocab_size(), 14);
        // Special tokens may lie behind everything else, and the start may be any token.
        let apart = TokenLayout { pad: 20, eos: 14, decoder_start: 3, ..layout() };
        assert_eq!(apart.vocab_size(), 21);
        assert!(apart.validate(21).is_ok());
        // Where none is appended, it may be a code as well.
        let endless = TokenLayout { eos: 10, append_eos: false, ..layout() };
        assert!(endless.validate(14).is_ok());
    }

    #[test]
    fn what_is_no_layout_is_refused_by_name() {
        type Change = fn(&mut TokenLayout);
        let cases: [(Change, &str); 15] = [
            (|l| l.levels.truncate(1), "1 levels, outside 2..=8"),
            (|l| l.levels = vec![Level { offset: 2, size: 1 }; 9], "9 levels, outside 2..=8"),
            (|l| l.max_items = 0, "max_items is 0, outside 1..=512"),
            (|l| l.max_items = 513, "max_items is 513, outside 1..=512"),
            (|l| l.levels[1].size = 0, "level 1 has 0 codes, outside 1..=65536"),
            (|l| l.levels[1].size = 65_537, "level 1 has 65537 codes, outside 1..=65536"),
            (|l| l.users = Some(Users { offset: 11, count: 0 }), "users.count is 0"),
            (|l| l.users = Some(Users { offset: 11, count: 4 }), "users ends at token 15"),
            (|l| l.pad = 14, "pad is 14, the vocabulary has 14 tokens"),
            (|l| l.decoder_start = 14, "decoder_start is 14, the vocabulary has 14 tokens"),
            (|l| l.pad = 2, "level 0 contains the pad token 2"),
            (|l| l.eos = 10, "level 1 contains the eos token 10"),
            (|l| l.levels[1].offset = 5, "level 0 and level 1 overlap"),
            (|l| l.levels[0].offset = 10, "level 0 and level 1 overlap"),
            (|l| l.users = Some(Users { offset: 10, count: 3 }), "level 1 and users overlap"),
        ];
        assert!(layout().validate(14).is_ok());
        for (change, said) in cases {
            let mut changed = layout();
            change(&mut changed);
            let refused = changed.validate(14).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}, not {said}");
        }
    }

    #[test]
    fn an_input_is_the_user_the_last_items_and_the_end() {
        let history: Vec<[u16; 2]> = (0..4).map(|code| [code, code + 1]).collect();
        let input = |layout: &TokenLayout, user, items: usize| {
            layout.encoder_input(user, history[..items].iter().map(|codes| &codes[..]))
        };
        let three = TokenLayout { max_items: 3, ..layout() };
        assert_eq!(input(&three, Some(12), 2), [12, 2, 7, 3, 8, 1]);
        assert_eq!(input(&three, None, 3), [2, 7, 3, 8, 4, 9, 1]);
        assert_eq!(input(&three, Some(13), 4), [13, 3, 8, 4, 9, 5, 10, 1]);
        assert_eq!(three.max_input(), 8);
        let endless = TokenLayout { append_eos: false, users: None, pad: 15, ..three };
        assert_eq!(input(&endless, None, 1), [2, 7]);
        assert_eq!(input(&endless, None, 0), [15]);
        assert_eq!(endless.max_input(), 6);
    }

    #[test]
    fn a_users_token_is_fixed_by_the_id() {
        // FNV-1a of "" is its offset basis, and that of "a" a known answer of its authors.
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        let hundred = TokenLayout { users: Some(Users { offset: 11, count: 100 }), ..layout() };
        assert_eq!(hundred.user_token("a"), Some(11 + (0xaf63_dc4c_8601_ec8c_u64 % 100) as u32));
        assert_eq!(TokenLayout { users: None, ..layout() }.user_token("a"), None);
    }
}
