//! Items from a file of records: id, text for the encoder, fields for display.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::template::{ID, Template, TextRecipe};
use super::values::{INEXACT, is_empty, is_exact, scalar};
use super::{Item, MAX_ITEMS};
use crate::error::{Result, TrainError};

/// Columns of the text where the user names none: the content features of the TIGER paper
/// (section 4, "RQ-VAE implementation details"), the category under either name, and the keywords that
/// some public data have.
pub const TEXT_COLUMNS: [&str; 6] =
    ["title", "price", "brand", "categories", "category", "keywords"];

/// Which columns of an items file mean what.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct ItemColumns {
    /// Column of the items' ids.
    #[arg(long = "id-column", value_name = "NAME", default_value = "id",
          conflicts_with_all = ["amazon", "movielens", "classics"])]
    pub id: String,
    /// Columns that make an item's text, in order [default: those of
    /// title,price,brand,categories,category,keywords that it has]; with --amazon and --movielens a
    /// --text-template does that.
    // The default is `TEXT_COLUMNS`.
    #[arg(long = "text-columns", value_name = "NAMES", value_delimiter = ',',
          conflicts_with_all = ["amazon", "movielens", "classics"])]
    pub text: Option<Vec<String>>,

    /// Template of an item's text, such as "[{title}. ][Price: {price}. ]": what stands in
    /// brackets is left out where a field in it is missing [default: title, price, brand and
    /// category with --amazon, as in the paper; title, year and genres with --movielens].
    #[arg(long = "text-template", value_name = "TEMPLATE", conflicts_with_all = ["text", "classics"])]
    pub template: Option<Template>,
}

impl ItemColumns {
    /// What makes the items' texts.
    pub fn text_recipe(&self) -> TextRecipe {
        let recipe = match (&self.text, &self.template) {
            (Some(names), _) => TextRecipe::Columns(names.clone()),
            (None, Some(template)) => TextRecipe::Template(template.clone()),
            (None, None) => TextRecipe::columns(&TEXT_COLUMNS),
        };
        recipe.with_id_column(&self.id)
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
/// `key` is the column by which the interactions know items; without it, that is the id column. Null
/// and empty fields are left out.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read, without an id, or with an id that stands
/// on an earlier line; [`TrainError::File`] for a named text column that no item has.
pub(super) fn read_items(
    path: &Path,
    columns: &ItemColumns,
    key: Option<&str>,
) -> Result<Vec<KeyedItem>> {
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
                let cure = match key == Some(column) {
                    true => "the sequences name items by it, so that every item needs one",
                    false => "name the id column with --id-column",
                };
                wrong(format!("no \"{column}\" that is a string or a number; {cure}"))
            })
        };
        let key = key.unwrap_or(&columns.id);
        let (id, key_value) = (named(&columns.id)?, named(key)?);
        for (seen, what, value) in
            [(&mut lines_of_ids, columns.id.as_str(), &id), (&mut lines_of_keys, key, &key_value)]
        {
            if let Some(first) = seen.insert(value.clone(), number) {
                return Err(wrong(format!("{what} \"{value}\" stands already on line {first}")));
            }
        }
        for (seen, name) in text_seen.iter_mut().zip(columns.text.iter().flatten()) {
            *seen |= name == ID || fields.contains_key(name);
        }
        let text = recipe.text(&id, &fields);
        // The artefact's own `id` takes the place of fields of that name.
        for own in [columns.id.as_str(), ID] {
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
