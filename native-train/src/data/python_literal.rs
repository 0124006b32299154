//! Python literals: the lines of Amazon's 2014 metadata are printed dictionaries, not JSON.
//!
//! Grammar: <https://docs.python.org/3/library/ast.html#ast.literal_eval>, as far as printed data
//! have it: dictionaries, lists, tuples, strings, numbers, `True`, `False` and `None`.

use serde_json::{Map, Number, Value};

/// Deepest nesting that is read.
const DEEPEST: usize = 64;

/// Reads a dictionary.
///
/// # Errors
/// What is wrong, and at which byte.
pub(super) fn parse_dictionary(text: &str) -> Result<Map<String, Value>, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.blanks();
    match value {
        Value::Object(map) if parser.at == text.len() => Ok(map),
        Value::Object(_) => Err(parser.wrong("the end")),
        _ => Err("is not a dictionary".to_owned()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, expected: &str) -> String {
        format!("is no Python literal: expected {expected} at byte {}", self.at)
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Passes over `token`, if it comes next.
    fn passes(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST}"));
        }
        self.blanks();
        if self.passes("{") {
            return self.dictionary(depth);
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.passes(open) {
                return self.list(close, depth);
            }
        }
        for (word, value) in
            [("None", Value::Null), ("True", Value::Bool(true)), ("False", Value::Bool(false))]
        {
            if self.passes(word) {
                return Ok(value);
            }
        }
        match self.rest().bytes().next() {
            Some(b'u' | b'U') if matches!(self.rest().as_bytes().get(1), Some(b'\'' | b'"')) => {
                self.at += 1;
                self.string().map(Value::String)
            }
            Some(b'\'' | b'"') => self.string().map(Value::String),
            Some(b'+' | b'-' | b'.' | b'0'..=b'9') => self.number(),
            _ => Err(self.wrong("a value")),
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        loop {
            if self.passes("}") {
                return Ok(Value::Object(map));
            }
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            if !self.passes(":") {
                return Err(self.wrong("\":\""));
            }
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            if !self.passes(",") && !self.rest().starts_with('}') {
                return Err(self.wrong("\",\" or \"}\""));
            }
        }
    }

    fn list(&mut self, close: &str, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        loop {
            if self.passes(close) {
                return Ok(Value::Array(values));
            }
            values.push(self.value(depth + 1)?);
            if !self.passes(",") && !self.rest().starts_with(close) {
                return Err(self.wrong(&format!("\",\" or \"{close}\"")));
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut characters = self.rest().char_indices();
        let Some((_, quote)) = characters.next() else { return Err(self.wrong("a string")) };
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let escaped = characters.next().map(|(_, c)| c);
            let digits = match escaped {
                Some('n') => {
                    text.push('\n');
                    continue;
                }
                Some('r') => {
                    text.push('\r');
                    continue;
                }
                Some('t') => {
                    text.push('\t');
                    continue;
                }
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some(plain @ ('\\' | '\'' | '"')) => {
                    text.push(plain);
                    continue;
                }
                // Python keeps the backslash of an escape that it does not know.
                Some(other) => {
                    text.push('\\');
                    text.push(other);
                    continue;
                }
                None => break,
            };
            let code: String = characters.by_ref().take(digits).map(|(_, c)| c).collect();
            let code = u32::from_str_radix(&code, 16).map_err(|_| {
                format!("is no Python literal: wrong escape in the string at byte {}", self.at)
            })?;
            // Halves of surrogate pairs stand for nothing by themselves.
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Err(format!("is no Python literal: the string at byte {} has no end", self.at))
    }

    fn number(&mut self) -> Result<Value, String> {
        let length = self
            .rest()
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')))
            .unwrap_or(self.rest().len());
        let word = self.rest()[..length].trim_end_matches(['L', 'l']);
        let number = word
            .parse::<i64>()
            .map(Number::from)
            .ok()
            .or_else(|| word.parse::<f64>().ok().and_then(Number::from_f64))
            .ok_or_else(|| self.wrong("a number"))?;
        self.at += length;
        Ok(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn printed_dictionaries_are_read() {
        let text = r#"{'asin': '0000', u'title': "Nan's \"best\" kettle", 'price': 12.5, 'rank': {'Home': 7L},
            'none': None, 'yes': True, 'categories': [['Home', 'Kitchen & Dining'], ('a', 'b',)],
            'e': '\xe9\u00e9\U0001F600\n\'\\ \d', 'empty': [], 'minus': -3}"#;
        let found = parse_dictionary(text).unwrap();
        let expected = json!({
            "asin": "0000", "title": "Nan's \"best\" kettle", "price": 12.5, "rank": {"Home": 7},
            "none": null, "yes": true, "categories": [["Home", "Kitchen & Dining"], ["a", "b"]],
            "e": "éé😀\n'\\ \\d", "empty": [], "minus": -3
        });
        assert_eq!(Value::Object(found), expected);
    }

    #[test]
    fn what_is_no_literal_is_refused_with_its_place() {
        let deep = format!("{{'a': {}", "[".repeat(10_000));
        for (text, reason) in [
            ("", "expected a value at byte 0"),
            ("[1]", "not a dictionary"),
            ("{'a': 1} x", "expected the end at byte 9"),
            ("{'a' 1}", "expected \":\" at byte 5"),
            ("{'a': }", "expected a value"),
            ("{'a': 'b", "the string at byte 6 has no end"),
            ("{'a': '\\xg0'}", "wrong escape"),
            ("{'a': [1 2]}", "expected \",\" or \"]\""),
            ("{'a': __import__('os')}", "expected a value"),
            ("{'a': 1e}", "expected a number"),
            (deep.as_str(), "nested deeper"),
        ] {
            let error = parse_dictionary(text).unwrap_err();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }
}
