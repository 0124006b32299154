//! The tree of semantic IDs coloured by category: the rings, their legend, the first codes as a
//! table.

use std::fmt::Write;

use super::markup::escape;
use super::{LONGEST, item_title, sunburst};
use crate::report::Material;
use crate::report::category::Categories;
use crate::report::format::{clip, percent, thousands};
use crate::report::tree::tree;

/// Categories with a colour of their own; where there are more, the last colour is not given and
/// the rest are "other".
const COLOURS: usize = 12;

/// Rows of the table of first codes.
const LISTED_PREFIXES: usize = 300;

pub(super) fn section(material: &Material) -> String {
    let legend = material.categories.as_ref().map(legend).unwrap_or_default();
    format!(
        "<div class=\"tree\">{}{legend}<output aria-live=\"off\"></output></div>{}",
        sunburst::sunburst(material),
        first_codes(material)
    )
}

fn legend(categories: &Categories) -> String {
    let mut entries = Vec::new();
    let shown = own_colours(categories);
    for (at, name) in categories.names.iter().enumerate().take(shown) {
        entries.push((format!("k{at}"), clip(name, LONGEST), categories.counts[at]));
    }
    if shown < categories.names.len() {
        let rest = &categories.counts[shown..];
        let name = format!("{} other categories", rest.len());
        entries.push(("other".to_owned(), name, rest.iter().sum()));
    }
    let without = categories.of_item.iter().filter(|category| category.is_none()).count();
    if without > 0 {
        entries.push(("none".to_owned(), "no category".to_owned(), without));
    }
    let entries = entries.iter().map(|(class, name, items)| {
        format!("<li class=\"{class}\"><i></i>{} ({})</li>", escape(name), thousands(*items))
    });
    format!("<ul class=\"legend\">{}</ul>", entries.collect::<String>())
}

/// The first ring as a table, for readers who cannot point.
fn first_codes(material: &Material) -> String {
    let mut cells = tree(&first_level(material), 1, material.categories.as_ref(), 0.0);
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.items));
    let mut rows = String::new();
    for cell in cells.iter().take(LISTED_PREFIXES) {
        let category = match (cell.category, &material.categories) {
            (Some(category), Some(categories)) => format!(
                "{} {}",
                percent(cell.of_category as f64 / cell.items as f64),
                escape(&categories.names[category as usize])
            ),
            _ => String::new(),
        };
        let example = cell.examples.first().map(|&item| item_title(item, material));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"text\">{category}</td>\
             <td class=\"text\">{}</td></tr>",
            cell.prefix[0],
            thousands(cell.items),
            example.unwrap_or_default()
        );
    }
    format!(
        "<details><summary>The first codes as a table</summary><div class=\"wide\">\
         <table class=\"figures\"><thead><tr><th scope=\"col\">code</th><th scope=\"col\">items</th>\
         <th scope=\"col\" class=\"text\">commonest category</th>\
         <th scope=\"col\" class=\"text\">for example</th></tr></thead>{rows}</table></div></details>"
    )
}

fn first_level(material: &Material) -> Vec<u16> {
    material.codes.chunks_exact(material.levels).map(|codes| codes[0]).collect()
}

fn own_colours(categories: &Categories) -> usize {
    if categories.names.len() > COLOURS { COLOURS - 1 } else { categories.names.len() }
}

/// The class that gives a category its colour.
pub(super) fn class_of(category: Option<u32>, categories: Option<&Categories>) -> String {
    match (category, categories) {
        (Some(category), Some(found)) if (category as usize) < own_colours(found) => {
            format!("k{category}")
        }
        (Some(_), _) => "other".into(),
        // Without any categories the tree is drawn in one colour.
        (None, None) => "k0".into(),
        (None, Some(_)) => "none".into(),
    }
}
