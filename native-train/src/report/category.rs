//! Which category an item belongs to, from whatever field its source has.

use std::collections::HashMap;

use serde_json::Value;

use crate::data::Item;

/// Fields that hold categories, the first that enough items have is taken.
const FIELDS: [&str; 7] =
    ["categories", "category", "genres", "genre", "subjects", "subject", "main_category"];

/// The commonest value of a depth may cover at most this share of the items; `Beauty` as the root
/// of every path says nothing.
const MOST_IN_ONE: f64 = 0.9;

/// At least this share of the items must have a category at all.
const FEWEST_COVERED: f64 = 0.5;

/// Steps of a path that are looked at, from the first that tells items apart.
const MOST_STEPS: usize = 3;

/// A category for the items that have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Categories {
    /// The field they come from.
    pub(crate) field: &'static str,
    /// Which step of the field's path, from 0; 0 also for a plain value or the first of a list.
    pub(crate) depth: usize,
    /// Names, the commonest first, equally common ones by name.
    pub(crate) names: Vec<String>,
    /// Items of each name.
    pub(crate) counts: Vec<usize>,
    /// Index into `names` of each item.
    pub(crate) of_item: Vec<Option<u32>>,
}

/// The categories of the first field that tells items apart, from coarse to fine: where the field
/// holds paths, up to three of their steps, from the shallowest that is not the same for nearly
/// all. Nothing where there is no such field.
pub(crate) fn categories(items: &[Item]) -> Vec<Categories> {
    FIELDS.iter().map(|field| of_field(items, field)).find(|f| !f.is_empty()).unwrap_or_default()
}

fn of_field(items: &[Item], field: &'static str) -> Vec<Categories> {
    let values = || items.iter().map(|item| item.fields.get(field));
    let paths: Vec<Vec<&str>> = values().map(|value| value.map(path).unwrap_or_default()).collect();
    let deepest = paths.iter().map(Vec::len).max().unwrap_or(0);
    let Some(first) = (0..deepest).find(|&depth| at_depth(field, &paths, depth, depth).is_some())
    else {
        return vec![];
    };
    // A list whose very first value differs is one of tags, unless it says that it is a path: its
    // second is no finer than its first.
    let are_tags = first == 0 && !values().flatten().any(is_path);
    let end = if are_tags { 1 } else { deepest.min(first + MOST_STEPS) };
    (first..end).map_while(|depth| at_depth(field, &paths, first, depth)).collect()
}

/// Categories of the steps `first..=depth` together: `Cleansers` of the face are not those of the
/// body.
fn at_depth(
    field: &'static str,
    paths: &[Vec<&str>],
    first: usize,
    depth: usize,
) -> Option<Categories> {
    let mut counts: HashMap<&[&str], usize> = HashMap::new();
    for name in paths.iter().filter_map(|path| path.get(first..=depth)) {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<(&[&str], usize)> = counts.into_iter().collect();
    counts.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let covered: usize = counts.iter().map(|(_, count)| count).sum();
    // Names that are nearly as many as the items (a series, an author) are no categories.
    let tells_apart = counts.len() > 1 && counts.len() * 2 <= covered;
    let even = counts.first()?.1 as f64 <= MOST_IN_ONE * covered as f64;
    if !tells_apart || !even || (covered as f64) < FEWEST_COVERED * paths.len() as f64 {
        return None;
    }
    let index: HashMap<&[&str], u32> = counts.iter().map(|(name, _)| *name).zip(0..).collect();
    Some(Categories {
        field,
        depth,
        of_item: paths.iter().map(|path| path.get(first..=depth).map(|name| index[name])).collect(),
        names: counts.iter().map(|(name, _)| name.join(" > ")).collect(),
        counts: counts.into_iter().map(|(_, count)| count).collect(),
    })
}

/// A field's value as a path from coarse to fine: of a list of paths the first, of a string its
/// parts (`Children|Comedy`, `Beauty > Makeup`).
fn path(value: &Value) -> Vec<&str> {
    let parts: Vec<&str> = match value {
        Value::String(text) if text.contains('|') => text.split('|').collect(),
        Value::String(text) => text.split(" > ").collect(),
        Value::Array(parts) => match parts.first() {
            Some(first @ Value::Array(_)) => return path(first),
            _ => parts.iter().map_while(Value::as_str).collect(),
        },
        _ => vec![],
    };
    parts.into_iter().map(str::trim).take_while(|part| !part.is_empty()).collect()
}

/// Whether a value can be nothing but a path, or several: tags are neither nested nor ordered.
fn is_path(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains('|') && text.contains(" > "),
        Value::Array(parts) => parts.first().is_some_and(Value::is_array),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn items(field: &str, values: &[Value], times: usize) -> Vec<Item> {
        let item = |value: &Value| Item {
            id: String::new(),
            text: String::new(),
            fields: Map::from_iter([(field.to_owned(), value.clone())]),
        };
        values.iter().cycle().take(times * values.len()).map(item).collect()
    }

    #[test]
    fn the_root_that_all_items_share_is_skipped() {
        let values = [
            json!([["Beauty", "Hair", "Combs"]]),
            json!([["Beauty", "Skin"], ["Sports", "Sun"]]),
            json!([["Beauty", "Hair"]]),
            json!([["Beauty"]]),
        ];
        let found = categories(&items("categories", &values, 2));
        // The third step covers too few items.
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.field, found.depth), ("categories", 1));
        assert_eq!(found.names, ["Hair", "Skin"]);
        assert_eq!(found.counts, [4, 2]);
        assert_eq!(found.of_item[..4], [Some(0), Some(1), Some(0), None]);
    }

    #[test]
    fn a_root_that_nearly_all_share_is_skipped_too() {
        let mut items_of_two = items("category", &[json!(["All", "x"]), json!(["All", "y"])], 20);
        items_of_two.extend(items("category", &[json!(["Rest", "z"])], 1));
        let found = categories(&items_of_two);
        assert_eq!((found[0].depth, found[0].names.len()), (1, 3));
    }

    #[test]
    fn finer_steps_follow_with_their_whole_path() {
        let values = [
            json!(["All", "Face", "Cleansers", "x"]),
            json!(["All", "Body", "Cleansers", "y"]),
            json!(["All", "Body", "Oils"]),
        ];
        let found = categories(&items("category", &values, 3));
        let names: Vec<_> = found.iter().map(|f| (f.depth, f.names.join(", "))).collect();
        assert_eq!(
            names,
            [
                (1, "Body, Face".to_owned()),
                (2, "Body > Cleansers, Body > Oils, Face > Cleansers".to_owned()),
                (3, "Body > Cleansers > y, Face > Cleansers > x".to_owned()),
            ]
        );
    }

    #[test]
    fn paths_whose_roots_differ_are_followed_too() {
        let values = [
            json!([["Face", "Cleansers", "x"], ["Face"]]),
            json!([["Body", "Cleansers", "y"]]),
            json!("Body > Oils > z"),
        ];
        let found = categories(&items("category", &values, 3));
        let names: Vec<_> = found.iter().map(|f| (f.depth, f.names.join(", "))).collect();
        assert_eq!(
            names,
            [
                (0, "Body, Face".to_owned()),
                (1, "Body > Cleansers, Body > Oils, Face > Cleansers".to_owned()),
                (2, "Body > Cleansers > y, Body > Oils > z, Face > Cleansers > x".to_owned()),
            ]
        );
    }

    #[test]
    fn tags_and_separated_strings_give_their_first_value() {
        for (field, values) in [
            ("subjects", [json!(["sea", "war"]), json!(["war"])]),
            ("genres", [json!("sea|war"), json!("war")]),
            ("category", [json!("sea > deep"), json!("war")]),
        ] {
            let found = categories(&items(field, &values, 2));
            let [found] = &found[..] else { panic!("{found:?}") };
            assert_eq!((found.field, found.depth), (field, 0));
            assert_eq!(found.names, ["sea", "war"]);
        }
    }

    #[test]
    fn fields_that_tell_nothing_are_no_categories() {
        let unique: Vec<Value> = (0..9).map(|n| json!(n.to_string())).collect();
        assert_eq!(categories(&items("category", &unique, 1)), []);
        assert_eq!(categories(&items("category", &[json!("one")], 5)), []);
        assert_eq!(categories(&items("category", &[json!(7)], 5)), []);
        assert_eq!(categories(&items("brand", &[json!("a"), json!("b")], 3)), []);
        let mut rare = items("category", &[Value::Null], 20);
        rare.extend(items("category", &[json!("a"), json!("b")], 2));
        assert_eq!(categories(&rare), []);
        assert_eq!(categories(&[]), []);
    }
}
