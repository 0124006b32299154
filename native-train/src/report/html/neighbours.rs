//! Neighbours by shared codes beside those by cosine.

use std::fmt::Write;

use super::chart::{Bar, bars};
use super::{codes_text, item_title, missing, opened};
use crate::report::format::{count, percent, score};
use crate::report::neighbours::{Neighbour, Neighbours};
use crate::report::{Material, Report, summary};

pub(super) fn section(report: &Report) -> String {
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

/// Codes with the leading ones that are shared set off.
fn shared_codes(codes: &[u16], shared: usize) -> String {
    let (same, other) = codes.split_at(shared);
    match (same, other) {
        ([], other) => codes_text(other),
        (same, []) => format!("<b class=\"shared\">{}</b>", codes_text(same)),
        _ => format!("<b class=\"shared\">{}</b> · {}", codes_text(same), codes_text(other)),
    }
}

fn codes_of(item: u32, material: &Material) -> &[u16] {
    &material.codes[item as usize * material.levels..][..material.levels]
}
