//! The page: figures of a [`Report`] put into the template, a file for each of the larger sections.
//!
//! Every text that comes from the data goes through [`markup::escape`]; the page's own policy
//! forbids it to load anything and to run any script but the template's.

mod chart;
mod collisions;
mod information;
mod markup;
mod neighbours;
mod sunburst;
mod training;
mod tree;

use std::fmt::Write;
use std::fs::File;

use serde_json::{Map, Value};

use super::format::{clip, percent, short, thousands};
use super::{Material, Report, summary, title};
use crate::destination::start;
use chart::usage;
use markup::{escape, fill};

const TEMPLATE: &str = include_str!("template.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page's policy allows this script and no other: SHA-256 of `script.js` in base64.
const SCRIPT_HASH: &str = "sha256-3Vc+D6KopmQMIvTaFA4B8EYvstqpS/zaBEopl1a9Rf8=";

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
            ("collisions", &collisions::section(report)),
            ("tree", &tree::section(&report.material)),
            ("information", &information::section(report)),
            ("neighbours", &neighbours::section(report)),
            ("training", &training::section(&report.training)),
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
    let remarks = super::remarks::remarks(report);
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

/// The reason why a part is not there.
fn missing(report: &Report, part: &str) -> String {
    let reason = report.omitted.iter().find_map(|line| line.strip_prefix(part)?.strip_prefix(": "));
    format!("<p><b>Not measured:</b> {}.</p>", escape(reason.unwrap_or("there is no data for it")))
}

/// The first of several is open, so that a reader sees what they hold.
fn opened(open: bool) -> &'static str {
    if open { " open" } else { "" }
}

fn item_title(item: u32, material: &Material) -> String {
    format!("<bdi>{}</bdi>", escape(&clip(title(&material.items[item as usize]), LONGEST)))
}

fn codes_text(codes: &[u16]) -> String {
    codes.iter().map(u16::to_string).collect::<Vec<_>>().join(" · ")
}
