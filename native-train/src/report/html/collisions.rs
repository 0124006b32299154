//! Items that share all their codes: how many groups of which size, and the largest ones.

use std::fmt::Write;

use super::chart::{Bar, bars};
use super::markup::escape;
use super::{codes_text, item_title, opened};
use crate::report::format::{count, thousands};
use crate::report::{Group, GroupSize, Material, Report};

/// Items listed of a group.
const LISTED_ITEMS: usize = 40;

pub(super) fn section(report: &Report) -> String {
    let c = &report.collisions;
    let mut html = bars(
        &size_ranges(&report.group_sizes)
            .into_iter()
            .map(|(label, groups, items)| Bar {
                label,
                share: items as f64 / c.items.max(1) as f64,
                mark: None,
                figure: match groups == items {
                    true => count(items, "item"),
                    false => format!("{} in {}", count(items, "item"), count(groups, "group")),
                },
            })
            .collect::<Vec<_>>(),
    );
    if report.largest_groups.is_empty() {
        return html + "<p>No two items share all their codes.</p>";
    }
    if report.same_text > 0 {
        let _ = write!(
            html,
            "<p>Of the {} that are not alone, {} also have the very text of another in their group: \
             no tokenizer of texts can tell those apart.</p>",
            count(c.items - c.unique_items, "item"),
            thousands(report.same_text)
        );
    }
    html += "<h3>The largest groups</h3>";
    for (at, group) in report.largest_groups.iter().enumerate() {
        html += &collision_group(group, &report.material, at == 0);
    }
    html
}

fn collision_group(group: &Group, material: &Material, open: bool) -> String {
    let categories = material.categories.as_ref();
    let mut named: Vec<&str> = group
        .items
        .iter()
        .filter_map(|&item| categories?.of_item[item as usize])
        .filter_map(|category| Some(categories?.names[category as usize].as_str()))
        .collect();
    named.sort_unstable();
    let mostly = named.chunk_by(|a, b| a == b).find(|run| 2 * run.len() > group.items.len());
    let category = mostly.map(|run| format!(", mostly {}", run[0])).unwrap_or_default();
    let mut html = format!(
        "<details{}><summary>{} under <span class=\"codes\">{}</span>{}</summary><ol>",
        opened(open),
        count(group.items.len(), "item"),
        codes_text(&group.codes),
        escape(&category)
    );
    for &item in group.items.iter().take(LISTED_ITEMS) {
        let _ = write!(html, "<li>{}</li>", item_title(item, material));
    }
    html += "</ol>";
    if group.items.len() > LISTED_ITEMS {
        let _ = write!(html, "<p>and {} more</p>", thousands(group.items.len() - LISTED_ITEMS));
    }
    html + "</details>"
}

/// Label, groups and items of ranges of group sizes that are narrow where groups are many.
fn size_ranges(sizes: &[GroupSize]) -> Vec<(String, usize, usize)> {
    const FIRST: [usize; 9] = [1, 2, 3, 4, 5, 10, 20, 50, 100];
    let mut ranges = Vec::new();
    for (at, &first) in FIRST.iter().enumerate() {
        let end = FIRST.get(at + 1).copied().unwrap_or(usize::MAX);
        let within = sizes.iter().filter(|group| (first..end).contains(&group.size));
        let (groups, items) = within.fold((0, 0), |(groups, items), group| {
            (groups + group.groups, items + group.groups * group.size)
        });
        let label = match (first, end) {
            (1, _) => "alone".to_owned(),
            (first, usize::MAX) => format!("groups of {first} or more"),
            (first, end) if end == first + 1 => format!("groups of {first}"),
            (first, end) => format!("groups of {first} to {}", end - 1),
        };
        if groups > 0 {
            ranges.push((label, groups, items));
        }
    }
    ranges
}
