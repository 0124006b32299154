//! Items that come after a run was made, from a JSONL file: `id`, any fields, and maybe `text`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::lines::{for_each_line, object};
use super::template::TextRecipe;
use super::values::{INEXACT, is_exact, scalar};
use super::{PREPARE_HINT, Summary};
use crate::error::{Result, TrainError};
use crate::files::read_json;
use crate::run_dir::RunDir;

/// One line of the file.
#[derive(Debug)]
pub struct NewItem<'a> {
    path: &'a Path,
    /// 1-based number of the line.
    pub line: usize,
    /// The item's id.
    pub id: String,
    /// All fields, `id` too.
    pub fields: Map<String, Value>,
}

impl NewItem<'_> {
    /// A [`TrainError::Line`] of this item's line.
    pub fn wrong(&self, reason: impl ToString) -> TrainError {
        TrainError::line(self.path, self.line, reason)
    }

    /// The field `text`, or what the recipe makes of the fields; that also where it names `text`,
    /// which then is a part of the text. Empty where there is neither.
    pub fn text(&self, recipe: Option<&TextRecipe>) -> String {
        let is_part = recipe.is_some_and(|recipe| recipe.fields().contains(&"text"));
        match self.fields.get("text") {
            Some(Value::String(text)) if !is_part => text.clone(),
            _ => recipe.map(|recipe| recipe.text(&self.id, &self.fields)).unwrap_or_default(),
        }
    }

    /// [`NewItem::text`] for an encoder, which needs one.
    ///
    /// # Errors
    /// [`TrainError::Line`] for an empty text, naming the fields that could have made one.
    pub fn text_to_encode(&self, recipe: Option<&TextRecipe>) -> Result<String> {
        let text = self.text(recipe);
        if !text.trim().is_empty() {
            return Ok(text);
        }
        let id = &self.id;
        Err(self.wrong(match recipe {
            Some(recipe) => format!(
                "item \"{id}\" has no text; give \"text\", or one of the fields {}",
                recipe.fields().join(", ")
            ),
            None => format!(
                "item \"{id}\" has no \"text\", and dataset.json does not say how to make it; run \
                 `tigret prepare` again or give \"text\""
            ),
        }))
    }

    /// The field `embedding`, if there is one: as many finite numbers as the tokenizer takes.
    ///
    /// # Errors
    /// [`TrainError::Line`] for anything else.
    pub fn embedding(&self, wanted: usize) -> Result<Option<Vec<f32>>> {
        let Some(embedding) = self.fields.get("embedding") else { return Ok(None) };
        let Some(numbers) = embedding.as_array() else {
            return Err(self.wrong("\"embedding\" is not a list of numbers"));
        };
        if numbers.len() != wanted {
            let found = numbers.len();
            return Err(self.wrong(format!(
                "\"embedding\" has {found} numbers, the tokenizer was trained on {wanted}"
            )));
        }
        let finite = |number: &Value| {
            let number = number.as_f64().map(|number| number as f32);
            number.filter(|number| number.is_finite())
        };
        let numbers: Option<Vec<f32>> = numbers.iter().map(finite).collect();
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(self.wrong("\"embedding\" holds something else than finite numbers")),
        }
    }
}

/// How the texts of a run's items were made; `None` where `dataset.json` does not say.
///
/// # Errors
/// [`TrainError::File`] when `dataset.json` is missing or wrong.
pub fn text_recipe(run: &RunDir) -> Result<Option<TextRecipe>> {
    let summary: Summary = read_json(&run.dataset(), PREPARE_HINT)?;
    Ok(summary.text)
}

/// Calls `each` with every item of the file, plain or `.gz`.
///
/// # Errors
/// [`TrainError::Line`] for a line that is not a JSON object, has no id, or an id that stands on
/// an earlier line; [`TrainError::File`] when the file cannot be read; whatever `each` returns.
pub fn for_each_new_item(
    path: &Path,
    mut each: impl FnMut(NewItem<'_>) -> Result<()>,
) -> Result<()> {
    let mut lines_of_ids: HashMap<String, usize> = HashMap::new();
    for_each_line(path, "name the new items' file", |line, text| {
        let fields: Map<String, Value> =
            object(text).map_err(|e| TrainError::line(path, line, e))?;
        let item = NewItem { path, line, id: id_of(path, line, &fields)?, fields };
        if let Some(first) = lines_of_ids.insert(item.id.clone(), line) {
            return Err(item.wrong(format!("item \"{}\" stands already on line {first}", item.id)));
        }
        each(item)
    })
}

/// The id of a line.
pub(crate) fn id_of(path: &Path, line: usize, fields: &Map<String, Value>) -> Result<String> {
    match fields.get("id") {
        Some(id) if !is_exact(id) => Err(TrainError::line(path, line, format!("\"id\" {INEXACT}"))),
        id => match id.and_then(scalar) {
            Some(id) if !id.is_empty() => Ok(id.into_owned()),
            _ => Err(TrainError::line(path, line, "has no \"id\" that is a text or a number")),
        },
    }
}
