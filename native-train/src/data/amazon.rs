//! Amazon's review data as downloaded: the releases of 2014, 2018 and 2023.
//!
//! Reviews are JSON lines. Metadata are Python literals (2014) or JSON lines. The layout is told
//! by the fields of the first review.

use std::collections::HashMap;
use std::path::Path;

use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Dataset;
use super::events::{Events, Ids, Rules, Tally};
use super::lines::{for_each_line_with, json_reason};
use super::moment::{Moment, TimeStyle};
use super::python_json::from_json;
use super::python_literal::parse_dictionary;
use super::template::TextRecipe;
use super::values::is_empty;
use crate::error::{Result, TrainError};

/// A review of any release; what is not needed is passed over.
#[derive(Deserialize)]
struct Review {
    #[serde(rename = "reviewerID", alias = "user_id")]
    user: String,
    #[serde(rename = "parent_asin")]
    parent: Option<String>,
    asin: Option<String>,
    #[serde(rename = "overall", alias = "rating")]
    rating: Option<f64>,
    #[serde(rename = "unixReviewTime", alias = "timestamp")]
    time: i64,
}

/// Reads reviews: the data set, what the rules left out, and the layout, which is `amazon-2014/2018`
/// or `amazon-2023`.
///
/// Items are in the order of their first review, users likewise, a user's items in time order. Items
/// have no text yet: [`describe`] gives it, to those that are left after filtering.
///
/// # Errors
/// [`TrainError::File`] or [`TrainError::Line`] naming what cannot be read.
pub fn read(
    reviews: &Path,
    rules: Rules,
    progress: &ProgressBar,
) -> Result<(Dataset, Tally, &'static str)> {
    let mut events = Events::new(rules);
    let mut ids = Ids::default();
    let mut layout = None;
    for_each_line_with(reviews, "check the path", progress, |number, line| {
        let wrong = |reason: String| TrainError::line(reviews, number, reason);
        let review: Review = from_json(line).map_err(|e| {
            let reason = json_reason(&e);
            wrong(format!("is no review of Amazon's releases of 2014, 2018 or 2023: {reason}"))
        })?;
        let (_, a_second) = *layout.get_or_insert(match review.parent {
            Some(_) => ("amazon-2023", 1_000),
            None => ("amazon-2014/2018", 1),
        });
        // Variants of a product share a parent, and metadata know only that.
        let item = review.parent.or(review.asin).filter(|id| !id.is_empty());
        let item = item.ok_or_else(|| wrong("has neither \"asin\" nor \"parent_asin\"".into()))?;
        let moment = Moment::whole(review.time);
        if events.counts(review.rating, moment, TimeStyle::Epoch { a_second })? {
            let item = ids.number(&item).map_err(wrong)?;
            events.push(&review.user, item, moment).map_err(wrong)?;
        }
        Ok(())
    })?;
    let (layout, _) =
        layout.ok_or_else(|| TrainError::file(reviews, "has no reviews; check the path"))?;
    let (sequences, tally) = events.into_sequences()?;
    Ok((Dataset { items: ids.into_items(), sequences }, tally, layout))
}

/// Gives the items of a data set fields and text out of a metadata file. Returns how many the
/// file does not have; they keep an empty text.
///
/// # Errors
/// [`TrainError::Line`] for a line that is neither JSON nor a Python literal.
pub fn describe(
    dataset: &mut Dataset,
    metadata: &Path,
    recipe: &TextRecipe,
    progress: &ProgressBar,
) -> Result<usize> {
    let index: HashMap<String, usize> =
        dataset.items.iter().enumerate().map(|(at, item)| (item.id.clone(), at)).collect();
    let mut found = vec![false; dataset.items.len()];
    for_each_line_with(metadata, "check the path", progress, |number, line| {
        let fields = from_json(line)
            .or_else(|json| {
                parse_dictionary(line).map_err(|literal| {
                    format!(
                        "is neither JSON ({}) nor a dictionary as Python prints it: {literal}",
                        json_reason(&json)
                    )
                })
            })
            .map_err(|reason| TrainError::line(metadata, number, reason))?;
        let id = ["parent_asin", "asin"].iter().find_map(|name| Map::get(&fields, *name)?.as_str());
        let Some(&at) = id.and_then(|id| index.get(id)) else { return Ok(()) };
        found[at] = true;
        let fields = with_names_of_2014(fields);
        let (text, item) = (recipe.text(&fields), &mut dataset.items[at]);
        // Of several lines the last counts, but for one that says nothing.
        if item.text.is_empty() || !text.is_empty() {
            item.text = text;
            item.fields = shown(fields, &recipe.fields());
        }
        Ok(())
    })?;
    Ok(found.iter().filter(|found| !**found).count())
}

/// The fields that say something, under the names of 2014 too.
fn with_names_of_2014(mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|name, value| !is_empty(value) && (name != "price" || is_price(value)));
    for (name, as_name) in [("store", "brand"), ("category", "categories")] {
        if let (Some(value), false) = (fields.get(name).cloned(), fields.contains_key(as_name)) {
            fields.insert(as_name.to_owned(), value);
        }
    }
    fields
}

/// Whether a price is one: that of 2023 may be a dash or `None`, that of 2018 a piece of the page's
/// styles.
fn is_price(value: &Value) -> bool {
    value.as_str().is_none_or(|text| {
        text.contains(|c: char| c.is_ascii_digit()) && !text.contains(['{', '<'])
    })
}

/// The fields worth keeping, and those that made the text: pictures, rankings and what was also bought
/// would make the artefact many times larger.
fn shown(mut fields: Map<String, Value>, of_text: &[&str]) -> Map<String, Value> {
    const SHOWN: [&str; 4] = ["title", "price", "brand", "categories"];
    // The artefact's own `id` and `text` take the place of fields of those names.
    let is_own = |name: &str| ["id", "text"].contains(&name);
    fields.retain(|name, _| {
        let name = name.as_str();
        (SHOWN.contains(&name) || of_text.contains(&name)) && !is_own(name)
    });
    fields
}
