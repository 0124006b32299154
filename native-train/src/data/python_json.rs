//! JSON as Python's `json` writes and reads it, a little wider than JSON: `NaN` and `Infinity` for
//! numbers that are none, and halves of surrogate pairs in strings.

use serde::de::DeserializeOwned;

const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Reads a line; what is no number is null, and half a pair the character U+FFFD.
///
/// # Errors
/// What is wrong with the line as JSON.
pub(super) fn from_json<T: DeserializeOwned>(line: &str) -> serde_json::Result<T> {
    serde_json::from_str(line)
        .or_else(|error| mended(line).and_then(|l| serde_json::from_str(&l).ok()).ok_or(error))
}

/// The line as JSON has it; nothing if that is the line itself.
fn mended(line: &str) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let (mut rest, mut in_string, mut differs) = (line, false, false);
    while let Some(c) = rest.chars().next() {
        let (length, other) = match c {
            '\\' if in_string => escape(rest),
            'N' | 'I' | '-' if !in_string => {
                let word = NO_NUMBERS.iter().find(|word| rest.starts_with(**word));
                word.map_or((1, None), |word| (word.len(), Some("null")))
            }
            _ => (c.len_utf8(), None),
        };
        in_string ^= c == '"';
        differs |= other.is_some();
        text.push_str(other.unwrap_or(&rest[..length]));
        rest = &rest[length..];
    }
    differs.then_some(text)
}

/// The length of the escape, or pair of them, that a text begins with, and what stands in its place.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
        _ => (1 + text.chars().nth(1).map_or(0, char::len_utf8), None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        let line = r#"{"a": NaN, "b": [-Infinity, Infinity, -1], "NaN": "NaN \" -Infinity",
            "c": "\ud83d\ude00 \ud83d \ude00 \ud83d\u0041 \\ud83d \\\u00e9 \ud83dé"}"#;
        let expected = json!({"a": null, "b": [null, null, -1], "NaN": "NaN \" -Infinity",
            "c": "😀 \u{fffd} \u{fffd} \u{fffd}A \\ud83d \\é \u{fffd}é"});
        assert_eq!(from_json::<Value>(line).unwrap(), expected);
        assert_eq!(mended(r#"{"a": "\ud83d\ude00 NaN", "b": -1}"#), None);
    }

    #[test]
    fn what_is_no_json_is_refused_as_it_stands() {
        for (line, reason) in [
            ("{\"a\": NaN", "expected value"),
            ("{\"a\": Nan}", "expected value"),
            ("{\"a\": \"\\ud83d\\", "EOF while parsing a string"),
            ("\"\\", "EOF while parsing a string"),
        ] {
            let error = from_json::<Value>(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
