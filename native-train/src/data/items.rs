//! Items from a file of records: id, text for the encoder, fields for display.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::template::{Template, TextRecipe};
use super::{Item, MAX_ITEMS};
use crate::error::{Result, TrainError};

/// Columns of the text where the user names none: the content features of the TIGER paper
/// (section 4, "RQ-VAE implementation details"), and the keywords that some public data have.
pub const TEXT_COLUMNS: [&str; 5] = ["title", "price", "brand", "categories", "keywords"];

/// Which columns of an items file mean what.
#[derive(Debug, Clone)]
pub struct ItemColumns {
    /// The id.
    pub id: String,
    /// The text, in this order; `None`: those of [`TEXT_COLUMNS`] that are there.
    pub text: Option<Vec<String>>,
    /// A template for the text, instead.
    pub template: Option<Template>,
}

impl ItemColumns {
    /// What makes the items' texts.
    pub fn text_recipe(&self) -> TextRecipe {
        match (&self.text, &self.template) {
            (Some(names), _) => TextRecipe::Columns(names.clone()),
            (None, Some(template)) => TextRecipe::Template(template.clone()),
            (None, None) => TextRecipe::columns(&TEXT_COLUMNS),
        }
    }
}

/// An item, and the key under which the interactions know it.
#[derive(Debug)]
pub(super) struct KeyedItem {
    pub(super) key: String,
    pub(super) item: Item,
}

/// Reads an items file, by its extension JSONL, CSV, TSV or Parquet.
///
/// `key` is the column whose value the interactions use. Null and empty fields are left out.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read, without an id, or with an id that stands
/// on an earlier line; [`TrainError::File`] for a named text column that no item has.
pub(super) fn read_items(path: &Path, columns: &ItemColumns, key: &str) -> Result<Vec<KeyedItem>> {
    let mut items: Vec<KeyedItem> = Vec::new();
    let mut lines_of_ids = HashMap::new();
    let mut lines_of_keys = HashMap::new();
    let recipe = columns.text_recipe();
    let mut text_seen = vec![false; columns.text.as_ref().map_or(0, Vec::len)];
    super::records::for_each_record(path, |number, mut fields| {
        let wrong = |reason: String| TrainError::line(path, number, reason);
        fields.retain(|_, value| !is_empty(value));
        let named = |column: &str| {
            let value = fields.get(column);
            if value.is_some_and(|value| !is_exact(value)) {
                return Err(wrong(format!("\"{column}\" {INEXACT}")));
            }
            value.and_then(scalar).map(Cow::into_owned).ok_or_else(|| {
                let cure = match column == columns.id {
                    true => "name the id column with --id-column",
                    false => "the sequences name items by it, whatever --id-column is",
                };
                wrong(format!("no \"{column}\" that is a string or a number; {cure}"))
            })
        };
        let (id, key_value) = (named(&columns.id)?, named(key)?);
        for (seen, what, value) in
            [(&mut lines_of_ids, columns.id.as_str(), &id), (&mut lines_of_keys, key, &key_value)]
        {
            if let Some(first) = seen.insert(value.clone(), number) {
                return Err(wrong(format!("{what} \"{value}\" stands already on line {first}")));
            }
        }
        for (seen, name) in text_seen.iter_mut().zip(columns.text.iter().flatten()) {
            *seen |= fields.contains_key(name);
        }
        let text = recipe.text(&fields);
        // The artefact's own `id` takes the place of fields of that name.
        for own in [columns.id.as_str(), "id"] {
            fields.remove(own);
        }
        if items.len() == MAX_ITEMS {
            return Err(wrong(format!("more than {MAX_ITEMS} items")));
        }
        items.push(KeyedItem { key: key_value, item: Item { id, text, fields } });
        Ok(())
    })?;
    if let Some(names) = &columns.text
        && let Some(at) = text_seen.iter().position(|&seen| !seen)
    {
        let name = &names[at];
        return Err(TrainError::file(
            path,
            format!("no item has the text column \"{name}\"; correct --text-columns"),
        ));
    }
    Ok(items)
}

/// The values of the named fields, a sentence each; fields that are not there are left out.
pub(super) fn sentences(names: &[impl AsRef<str>], fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    for value in names.iter().filter_map(|name| fields.get(name.as_ref())) {
        let value = flat(value);
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(value);
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

/// A string or a number as the string that ids are compared by.
pub(super) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// Why a number is no id.
pub(super) const INEXACT: &str =
    "is a number of more digits than a computer keeps of it; write it as text";

/// Whether a value of JSON is what was written: numbers beyond 64 bits and long fractions lose digits,
/// and so may be the same for two ids.
pub(super) fn is_exact(value: &Value) -> bool {
    const WHOLE: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
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
