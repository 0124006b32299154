//! Amazon's review data as downloaded: the releases of 2014, 2018 and 2023.
//!
//! Reviews are JSON lines. Metadata are Python literals (2014) or JSON lines. The layout is told
//! by the fields of the first review.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Dataset;
use super::events::{Events, Ids, Rules, Tally};
use super::lines::{for_each_line_of, for_each_line_with, json_reason};
use super::markup::plain;
use super::moment::{Moment, TimeStyle};
use super::python_json::from_json;
use super::python_literal::parse_dictionary;
use super::template::{ID, TextRecipe};
use super::text_file::{self, Text};
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
/// have no text yet: [`Metadata::describe`] gives it, to those that are left after filtering.
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

/// A file of metadata, open before the reviews are read: that it is missing is told at once.
pub struct Metadata<'a> {
    path: &'a Path,
    text: Text,
}

/// What a file of metadata has of the items of a data set.
#[derive(Debug, Default)]
pub struct Described {
    /// Items that it does not have; they keep an empty text.
    pub missing: usize,
    /// The names of all fields that say something of an item.
    pub fields: BTreeSet<String>,
}

impl<'a> Metadata<'a> {
    /// Opens a file, plain or `.gz`.
    ///
    /// # Errors
    /// [`TrainError::File`] for one that cannot be read.
    pub fn open(path: &'a Path, progress: &ProgressBar) -> Result<Self> {
        Ok(Self { path, text: text_file::open(path, "check the path", progress)? })
    }

    /// Gives the items of a data set fields and text.
    ///
    /// # Errors
    /// [`TrainError::Line`] for a line that is neither JSON nor a Python literal, or is a review.
    pub fn describe(self, dataset: &mut Dataset, recipe: &TextRecipe) -> Result<Described> {
        let Self { path, text } = self;
        let index: HashMap<String, usize> =
            dataset.items.iter().enumerate().map(|(at, item)| (item.id.clone(), at)).collect();
        let mut found = vec![false; dataset.items.len()];
        let mut names = BTreeSet::new();
        for_each_line_of(path, text, |number, line| {
            let wrong = |reason: String| TrainError::line(path, number, reason);
            let fields = parse(line).map_err(wrong)?;
            if ["reviewerID", "user_id"].iter().any(|name| fields.contains_key(*name)) {
                let reason = "is a review; --items takes the metadata of the products";
                return Err(wrong(reason.to_owned()));
            }
            let names_of_id = ["parent_asin", "asin"].iter();
            let id = names_of_id.filter_map(|name| fields.get(*name)?.as_str()).next();
            let Some(&at) = id.and_then(|id| index.get(id)) else { return Ok(()) };
            found[at] = true;
            let fields = telling(fields);
            for name in fields.keys() {
                // Most are known, and need no copy.
                if !names.contains(name) {
                    names.insert(name.clone());
                }
            }
            let item = &mut dataset.items[at];
            let text = recipe.text(&item.id, &fields);
            // Of several lines the last of those counts that say most.
            let says = |text: &str, fields: &Map<String, Value>| {
                (!text.is_empty(), fields.contains_key(TITLE))
            };
            if says(&text, &fields) >= says(&item.text, &item.fields) {
                item.text = text;
                item.fields = shown(fields, &recipe.fields());
            }
            Ok(())
        })?;
        Ok(Described { missing: found.iter().filter(|found| !**found).count(), fields: names })
    }
}

/// A line of metadata. The error says what is wrong with it.
fn parse(line: &str) -> Result<Map<String, Value>, String> {
    from_json(line).or_else(|json| {
        parse_dictionary(line).map_err(|literal| {
            format!(
                "is neither JSON ({}) nor a dictionary as Python prints it: {literal}",
                json_reason(&json)
            )
        })
    })
}

const TITLE: &str = "title";

/// The fields that say something, as a reader of the product's page sees them, under the names of 2014
/// too.
fn telling(fields: Map<String, Value>) -> Map<String, Value> {
    let is_of_the_product = |name: &str, value: &Value| match name {
        TITLE => !is_script(value),
        "price" => is_price(value),
        _ => true,
    };
    let mut fields: Map<String, Value> = fields
        .into_iter()
        .filter(|(name, value)| is_of_the_product(name, value))
        .map(|(name, value)| (name, plain(value)))
        .filter(|(_, value)| !is_empty(value))
        .collect();
    for (name, as_name) in [("store", "brand"), ("category", "categories")] {
        if let (Some(value), false) = (fields.get(name).cloned(), fields.contains_key(as_name)) {
            fields.insert(as_name.to_owned(), value);
        }
    }
    fields
}

/// Whether a title is a script of the page, as some of 2014 and 2018 are: `var aPageStart = (new
/// Date()).getTime();` and more.
fn is_script(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains("getTime"))
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
    const SHOWN: [&str; 4] = [TITLE, "price", "brand", "categories"];
    fields.retain(|name, _| {
        let name = name.as_str();
        // The artefact's own `id` takes the place of a field of that name.
        (SHOWN.contains(&name) || of_text.contains(&name)) && name != ID
    });
    fields
}
