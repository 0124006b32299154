//! Values of JSON, as ids and as text.

use std::borrow::Cow;

use serde_json::Value;

/// Values without blanks around them, a sentence each; empty ones are left out.
pub(super) fn sentences(values: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for value in values.filter(|value| !value.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&value);
        if !value.ends_with(['.', '!', '?']) {
            text.push('.');
        }
    }
    text
}

/// A value as plain text; the parts of a list separated by commas, lists in it by semicolons, and
/// empty parts left out.
pub(super) fn flat(value: &Value) -> String {
    fn joined<'a>(parts: impl Iterator<Item = &'a Value>, separator: &str) -> String {
        let parts: Vec<String> = parts.map(flat).filter(|part| !part.is_empty()).collect();
        parts.join(separator)
    }
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let separator = if parts.iter().any(Value::is_array) { "; " } else { ", " };
            joined(parts.iter(), separator)
        }
        Value::Object(parts) => joined(parts.values(), ", "),
        other => other.to_string(),
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(parts) => parts.is_empty(),
        _ => false,
    }
}

/// A string or a number as the string that ids are compared by: a whole number without a fraction,
/// also where a table with gaps holds it as 17.0.
pub(super) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if float.fract() == 0.0 && float.abs() < WHOLE => {
                (float as i64).to_string().into()
            }
            _ => number.to_string().into(),
        }),
        _ => None,
    }
}

/// Below it a double holds every whole number.
const WHOLE: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

/// Why a number is no id.
pub(super) const INEXACT: &str =
    "is a number of more digits than a computer keeps of it; write it as text";

/// Whether a value of JSON is what was written: numbers beyond 64 bits and long fractions lose digits,
/// and so may be the same for two ids.
pub(super) fn is_exact(value: &Value) -> bool {
    let Value::Number(number) = value else { return true };
    match number.as_f64().filter(|_| number.is_f64()) {
        None => true,
        Some(float) if float.fract() == 0.0 => float.abs() < WHOLE,
        // Of a fraction that has more digits than any double keeps, some may be lost already.
        Some(float) => {
            let digits = format!("{:e}", float.abs());
            let digits = digits.split('e').next().unwrap_or_default();
            digits.bytes().filter(u8::is_ascii_digit).count() <= f64::DIGITS as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_the_same_id_however_it_is_kept() {
        for (value, id) in [
            (json!("17.0"), Some("17.0")),
            (json!(17), Some("17")),
            (json!(17.0), Some("17")),
            (json!(-3.0), Some("-3")),
            (json!(0.5), Some("0.5")),
            (json!(18_446_744_073_709_551_615u64), Some("18446744073709551615")),
            (json!([1]), None),
        ] {
            assert_eq!(scalar(&value).as_deref(), id, "{value}");
        }
    }
}
