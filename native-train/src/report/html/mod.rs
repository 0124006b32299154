//! The page: figures of a [`Report`] put into the template.
//!
//! Every text that comes from the data goes through [`markup::escape`]; the page's own policy
//! forbids it to load anything and to run any script but the template's.

mod chart;
mod markup;
mod sunburst;

use std::fmt::Write;
use std::fs::File;

use serde_json::{Map, Value};

use super::category::Categories;
use super::format::{clip, count, percent, score, short, thousands};
use super::neighbours::{Neighbour, Neighbours};
use super::training::Training;
use super::tree::tree;
use super::{CategoryInformation, Group, GroupSize, Material, Report, summary, title};
use crate::destination::start;
use chart::{Bar, bars, curve, usage};
use markup::{escape, fill};

const TEMPLATE: &str = include_str!("template.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page's policy allows this script and no other: SHA-256 of `script.js` in base64.
const SCRIPT_HASH: &str = "sha256-3Vc+D6KopmQMIvTaFA4B8EYvstqpS/zaBEopl1a9Rf8=";

/// Categories with a colour of their own; where there are more, the last colour is not given and
/// the rest are "other".
const COLOURS: usize = 12;

/// Items listed of a collision group, rows of the table of first codes, notes of the log.
const LISTED_ITEMS: usize = 40;
const LISTED_PREFIXES: usize = 300;
const LISTED_NOTES: usize = 20;

/// Characters of a title.
const LONGEST: usize = 120;

/// What a page is known by.
const TITLE: &str = "<title>Semantic IDs of ";

/// Within as many bytes of a page its title begins.
const HEAD: usize = 4096;

/// Whether a file is a page, of this version or another.
pub(super) fn is_page(mut file: File) -> bool {
    start(&mut file, HEAD).is_ok_and(|head| String::from_utf8_lossy(&head).contains(TITLE))
}

pub(super) fn page(report: &Report, name: &str, artefacts: &Map<String, Value>) -> String {
    let name = escape(name);
    let material = &report.material;
    fill(
        TEMPLATE,
        &[
            ("script-hash", SCRIPT_HASH),
            ("style", STYLE),
            ("script", SCRIPT),
            ("version", env!("CARGO_PKG_VERSION")),
            ("name", &name),
            ("facts", &facts(report, artefacts)),
            ("tiles", &tiles(report)),
            ("remarks", &remarks(report)),
            ("use", &level_charts(report)),
            ("collisions", &collisions(report)),
            ("tree", &tree_section(material)),
            ("information", &information(report)),
            ("neighbours", &neighbours(report)),
            ("training", &training(&report.training)),
        ],
    )
}

fn facts(report: &Report, artefacts: &Map<String, Value>) -> String {
    let mut last = String::new();
    let mut list = String::new();
    for (label, sentence) in summary::facts(report, artefacts) {
        if label != last {
            let _ = write!(list, "<dt>{}</dt>", escape(&label));
        }
        let _ = write!(list, "<dd>{}</dd>", escape(&sentence));
        last = label;
    }
    list
}

fn tiles(report: &Report) -> String {
    let mut tiles = Vec::new();
    let used = report.levels.iter().map(|level| level.used as f64 / level.codewords as f64);
    tiles.push((percent(used.fold(1.0, f64::min)), "of the codewords used, at the worst level"));
    let c = &report.collisions;
    tiles.push((
        percent(c.unique_items as f64 / c.items.max(1) as f64),
        "of the items alone with their codes",
    ));
    tiles.push((thousands(c.largest_group), "items in the largest group of equal codes"));
    if let Some(shares) = report.categories.first().and_then(|found| found.prefixes.first()) {
        tiles.push((percent(shares.share), "of the category told by the first code"));
    }
    if let Some(shared) = report.neighbours.as_ref().and_then(|found| found.by_shared.get(1)) {
        tiles.push((
            percent(shared.of_nearest),
            "of the nearest items by cosine share the first code",
        ));
    }
    let tile = |(figure, what): &(String, &str)| {
        format!("<li><b>{}</b><span>{}</span></li>", escape(figure), escape(what))
    };
    tiles.iter().map(tile).collect()
}

fn remarks(report: &Report) -> String {
    let remarks = summary::remarks(report);
    if remarks.is_empty() {
        return String::new();
    }
    let lines = remarks.iter().map(|remark| {
        let mut letters = remark.chars();
        let first = letters.next().map(|letter| letter.to_uppercase().to_string());
        format!("<li>{}{}.</li>", first.unwrap_or_default(), escape(letters.as_str()))
    });
    format!("<ul class=\"remarks\">{}</ul>", lines.collect::<String>())
}

fn level_charts(report: &Report) -> String {
    let charts = (1..).zip(report.levels.iter().zip(&report.material.counts));
    let charts = charts.map(|(level, (used, counts))| {
        let caption = format!(
            "{} of {} codewords used, perplexity {} ({})",
            thousands(used.used),
            thousands(used.codewords),
            short(used.perplexity),
            percent(used.perplexity / used.codewords as f64)
        );
        let svg = usage(counts, &format!("Items of each codeword of level {level}"));
        format!("<figure><figcaption><b>Level {level}</b> {caption}</figcaption>{svg}</figure>")
    });
    charts.collect()
}

fn collisions(report: &Report) -> String {
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

fn tree_section(material: &Material) -> String {
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

fn information(report: &Report) -> String {
    if report.categories.is_empty() {
        return missing(report, "category information");
    }
    let (mut charts, mut rows) = (String::new(), String::new());
    for category in &report.categories {
        let CategoryInformation { field, depth, categories, items, prefixes, levels } = category;
        let step = match depth {
            0 => String::new(),
            depth => format!(", step {} of its path", depth + 1),
        };
        let name = format!("{} values of “{field}”{step}", thousands(*categories));
        let leading = (1..).zip(prefixes).map(|(length, s)| (summary::leading(length), s));
        // The first code alone is the first prefix.
        let alone = (1..).zip(levels).skip(1).map(|(level, s)| (format!("code {level} alone"), s));
        let _ = write!(
            rows,
            "<tr><th scope=\"rowgroup\" colspan=\"7\">{}, known of {}</th></tr>",
            escape(&name),
            count(*items, "item")
        );
        let mut bars_of = Vec::new();
        for (label, shares) in leading.chain(alone) {
            let _ = write!(
                rows,
                "<tr><td class=\"text\">{label}</td><td>{}</td><td>{}</td><td><b>{}</b></td>\
                 <td>{}</td><td>{}</td><td>{}</td></tr>",
                percent(shares.share),
                percent(shares.share_by_chance),
                percent(shares.share_beyond_chance),
                score(shares.nmi),
                score(shares.nmi_by_chance),
                score(shares.ami)
            );
            bars_of.push(Bar {
                label,
                share: shares.share,
                mark: Some(shares.share_by_chance),
                figure: percent(shares.share),
            });
        }
        let _ = write!(charts, "<div><h3>{}</h3>{}</div>", escape(&name), bars(&bars_of));
    }
    format!(
        "<div class=\"charts\">{charts}</div><div class=\"wide\"><table class=\"figures\"><thead>\
         <tr><th scope=\"col\">codes</th><th scope=\"col\">explained</th>\
         <th scope=\"col\">by chance</th><th scope=\"col\">beyond chance</th>\
         <th scope=\"col\">NMI</th>\
         <th scope=\"col\">NMI by chance</th><th scope=\"col\">AMI</th></tr></thead>{rows}\
         </table></div>"
    )
}

fn neighbours(report: &Report) -> String {
    let Some(found) = &report.neighbours else { return missing(report, "neighbours") };
    let Neighbours { sampled, nearest, by_shared, examples } = found;
    let cosines: Vec<Bar> = by_shared
        .iter()
        .enumerate()
        .map(|(codes, shared)| Bar {
            label: match codes {
                0 => "no code".to_owned(),
                1 => "1 code".to_owned(),
                codes => format!("{codes} codes"),
            },
            share: shared.mean_cosine.unwrap_or(0.0),
            mark: None,
            figure: shared.mean_cosine.map_or("no pairs".into(), score),
        })
        .collect();
    let found: Vec<Bar> = by_shared
        .iter()
        .enumerate()
        .skip(1)
        .map(|(codes, shared)| Bar {
            label: summary::leading(codes),
            share: shared.of_nearest,
            mark: Some(shared.by_chance),
            figure: format!("{} ({})", percent(shared.of_nearest), percent(shared.by_chance)),
        })
        .collect();
    let mut html = format!(
        "<div class=\"charts\"><div><h3>Mean cosine, by the number of leading codes that two items share</h3>{}</div>\
         <div><h3>Share of the {nearest} nearest by cosine that share</h3>{}</div></div>\
         <p>Over {}, each against all others. The marks, and the figures in brackets, are what items \
         drawn by lot would share.</p>",
        bars(&cosines),
        bars(&found),
        match *sampled == report.material.items.len() {
            true => "all items".to_owned(),
            false => format!("a sample of {}", count(*sampled, "item")),
        }
    );
    if !examples.is_empty() {
        html += "<h3>Some items and their neighbours</h3>";
    }
    for (at, example) in examples.iter().enumerate() {
        let material = &report.material;
        let list = |name: &str, neighbours: &[Neighbour]| {
            let lines = neighbours.iter().map(|other| {
                let codes = codes_of(other.item, material);
                format!(
                    "<li>{}<br><span class=\"soft\">cosine {:.2}, <span class=\"codes\">{}</span></span></li>",
                    item_title(other.item, material),
                    // Adding zero makes a rounded -0 a 0.
                    (other.cosine * 100.0).round() / 100.0 + 0.0,
                    shared_codes(codes, other.shared)
                )
            });
            format!("<div><h3>{name}</h3><ol>{}</ol></div>", lines.collect::<String>())
        };
        let _ = write!(
            html,
            "<details{}><summary>{} <span class=\"codes\">{}</span></summary>\
             <div class=\"pair\">{}{}</div></details>",
            opened(at == 0),
            item_title(example.item, material),
            codes_text(codes_of(example.item, material)),
            list("Nearest by cosine", &example.by_cosine),
            list("Nearest by code", &example.by_codes)
        );
    }
    html
}

fn training(training: &Training) -> String {
    let mut html = String::new();
    if let Some(error) = training.reconstruction {
        let _ = write!(
            html,
            "<p>Reconstruction error: <b>{}</b>, the share of the vectors' variance that the codes lose.</p>",
            short(error)
        );
    }
    if let Some(revived) = training.revived {
        let _ = write!(
            html,
            "<p>Codewords that no item chose and that were moved to where items are: {} in all.</p>",
            thousands(revived as usize)
        );
    }
    if training.curves.is_empty() {
        html += "<p>There is no log of losses (tokenizer.jsonl): these codes were not trained step by step.</p>";
    } else {
        html += "<div class=\"charts\">";
        for named in &training.curves {
            let last = named.points.last().map_or(0.0, |point| point.1);
            let _ = write!(
                html,
                "<figure><figcaption><b>{}</b> ends at {}</figcaption>{}</figure>",
                escape(&named.name),
                short(last),
                curve(&named.points, &training.axis, &format!("{} over the log", named.name))
            );
        }
        html += "</div>";
    }
    if !training.notes.is_empty() {
        html += "<h3>Notes of the log</h3><ul>";
        for (at, note) in training.notes.iter().take(LISTED_NOTES) {
            let _ = write!(html, "<li>{} {}: {}</li>", training.axis, short(*at), escape(note));
        }
        html += "</ul>";
    }
    if !training.settings.is_empty() {
        html += "<details><summary>Settings</summary><div class=\"wide\"><table class=\"figures\">";
        for (name, value) in &training.settings {
            let _ = write!(
                html,
                "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>",
                escape(name),
                escape(value)
            );
        }
        html += "</table></div></details>";
    }
    html
}

/// The reason why a part is not there.
fn missing(report: &Report, part: &str) -> String {
    let reason = report.omitted.iter().find_map(|line| line.strip_prefix(part)?.strip_prefix(": "));
    format!("<p><b>Not measured:</b> {}.</p>", escape(reason.unwrap_or("there is no data for it")))
}

/// The first of several is open, so that a reader sees what they hold.
fn opened(open: bool) -> &'static str {
    if open { " open" } else { "" }
}

fn codes_of(item: u32, material: &Material) -> &[u16] {
    &material.codes[item as usize * material.levels..][..material.levels]
}

fn item_title(item: u32, material: &Material) -> String {
    format!("<bdi>{}</bdi>", escape(&clip(title(&material.items[item as usize]), LONGEST)))
}

fn codes_text(codes: &[u16]) -> String {
    codes.iter().map(u16::to_string).collect::<Vec<_>>().join(" · ")
}

/// Codes with the leading ones that are shared set off.
fn shared_codes(codes: &[u16], shared: usize) -> String {
    let (same, other) = codes.split_at(shared);
    match (same, other) {
        ([], other) => codes_text(other),
        (same, []) => format!("<b class=\"shared\">{}</b>", codes_text(same)),
        _ => format!("<b class=\"shared\">{}</b> · {}", codes_text(same), codes_text(other)),
    }
}

fn own_colours(categories: &Categories) -> usize {
    if categories.names.len() > COLOURS { COLOURS - 1 } else { categories.names.len() }
}

/// The class that gives a category its colour.
fn class_of(category: Option<u32>, categories: Option<&Categories>) -> String {
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
