//! WGSL as short as it can be sent: it is part of what a page downloads.
//!
//! Comments and spaces go, and the names that the kernels declare become two letters, the same in
//! all of them, so that kernels still share their parts.

use std::collections::{BTreeMap, BTreeSet};

/// Shorter names for those that some sources declare.
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Of all that sources declare, but for the entry point, for what else means something in WGSL,
    /// and for what is short already.
    pub(crate) fn new<'a>(sources: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut declared, mut taken) = (BTreeMap::<&str, usize>::new(), BTreeSet::new());
        let mut kept = BTreeSet::from(["main", "read", "read_write"]);
        for source in sources {
            let tokens: Vec<&str> = tokens(source).collect();
            taken.extend(tokens.iter().copied());
            for (at, &token) in tokens.iter().enumerate() {
                let before = |n: usize| at.checked_sub(n).map_or("", |at| tokens[at]);
                let after = tokens.get(at + 1).copied().unwrap_or("");
                let is_declared =
                    matches!(before(1), "fn" | "let" | "var" | "const" | "struct" | "alias")
                        || after == ":" && token != "default";
                let is_name = token.starts_with(|c: char| c.is_alphabetic());
                if before(1) == "(" && before(2) == "builtin" {
                    kept.insert(token);
                } else if is_name && token.len() > 2 && is_declared {
                    declared.entry(token).or_default();
                }
                if let Some(uses) = declared.get_mut(token) {
                    *uses += 1;
                }
            }
        }
        declared.retain(|name, _| !kept.contains(name));
        let mut by_use: Vec<(&str, usize)> = declared.into_iter().collect();
        by_use.sort_by_key(|&(name, uses)| (std::cmp::Reverse(uses), name));
        // No word of the language is an upper-case letter and one more character.
        let second = || ('a'..='z').chain('0'..='9');
        let short = ('A'..='Z').flat_map(|first| second().map(move |s| format!("{first}{s}")));
        let free = short.filter(|name| !taken.contains(name.as_str()));
        Self(by_use.into_iter().map(|(name, _)| name.to_owned()).zip(free).collect())
    }

    /// A source with these names, without comments and spaces.
    pub(crate) fn compact(&self, source: &str) -> String {
        let mut compact = String::new();
        let mut last = "";
        for token in tokens(source) {
            // Words, and signs that stood apart, stay apart: joined they would be another token.
            let glue = is_word(last) && is_word(token) || is_operator(last) && is_operator(token);
            if glue && last.as_bytes().as_ptr_range().end != token.as_ptr() {
                compact.push(' ');
            }
            let name = self.0.get(token).filter(|_| last != "@");
            compact += name.map_or(token, String::as_str);
            last = token;
        }
        compact
    }
}

/// Words, numbers and single signs, without comments.
fn tokens(source: &str) -> impl Iterator<Item = &str> {
    source.lines().flat_map(|line| {
        let mut rest = line.split("//").next().unwrap_or_default();
        std::iter::from_fn(move || {
            rest = rest.trim_start();
            let first = rest.chars().next()?;
            let end = if is_part_of_word(first) {
                rest.find(|c| !is_part_of_word(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let token;
            (token, rest) = rest.split_at(end);
            Some(token)
        })
    })
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_part_of_word)
}

fn is_operator(token: &str) -> bool {
    matches!(token, "+" | "-" | "*" | "/" | "%" | "<" | ">" | "=" | "!" | "&" | "|" | "^" | "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(source: &str) -> String {
        Names::new([source]).compact(source)
    }

    #[test]
    fn comments_and_spaces_go() {
        assert_eq!(compact("// all\nx = a  + 1u; // one\n\n  y = x;\n"), "x=a+1u;y=x;");
        assert_eq!(compact("return a;"), "return a;");
    }

    #[test]
    fn signs_that_stand_apart_do_not_become_another() {
        assert_eq!(compact("a = b - -c;"), "a=b- -c;");
        assert_eq!(compact("a -= b; a << 2u; f(&a)"), "a-=b;a<<2u;f(&a)");
        assert_eq!(compact("var a: array<u32> = b;"), "var a:array<u32> =b;");
    }

    #[test]
    fn declared_names_are_shortened_everywhere_and_others_are_not() {
        let source = "struct Params { width: u32 }\n\
                      var<uniform> params: Params;\n\
                      fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>) {\n\
                      let Aa = max(params.width, workgroup_id.x);\n\
                      switch Aa { default: { } } }\n";
        assert_eq!(
            compact(source),
            "struct Ab{Ad:u32}var<uniform>Ac:Ab;fn main(@builtin(workgroup_id)workgroup_id:\
             vec3<u32>){let Aa=max(Ac.Ad,workgroup_id.x);switch Aa{default:{}}}"
        );
    }
}
