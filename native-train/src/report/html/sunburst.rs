//! The tree of semantic IDs as rings.

use std::f64::consts::TAU;
use std::fmt::Write;

use super::codes_text;
use super::markup::escape;
use super::tree::class_of;
use crate::report::format::{clip, count, percent, thousands};
use crate::report::tree::{Cell, tree};
use crate::report::{Material, title};

/// Half the width of the drawing.
const RADIUS: f64 = 300.0;

/// Radius of the hole, which holds the number of items.
const HOLE: f64 = 70.0;

/// Width along the rim below which arcs are merged.
const SMALLEST: f64 = 1.8;

/// Width along the inner edge below which an arc is drawn without an outline.
const NARROW: f64 = 4.0;

/// Characters of a title in a hint.
const LONGEST: usize = 60;

pub(super) fn sunburst(material: &Material) -> String {
    let items = material.items.len();
    let smallest = SMALLEST / (TAU * RADIUS) * items as f64;
    let cells = tree(&material.codes, material.levels, material.categories.as_ref(), smallest);
    let size = 2.0 * RADIUS + 4.0;
    let edge = -size / 2.0;
    let mut svg = format!(
        "<svg viewBox=\"{edge} {edge} {size} {size}\" role=\"img\" aria-label=\"The tree of \
         semantic IDs: {} under {} first codes; the table below lists them\">",
        count(items, "item"),
        cells.iter().filter(|cell| cell.depth == 0).map(|cell| cell.prefixes).sum::<usize>(),
    );
    let ring = (RADIUS - HOLE) / material.levels as f64;
    for cell in &cells {
        let inner = HOLE + ring * cell.depth as f64;
        let hint: Vec<String> = hint(cell, material).iter().map(|line| escape(line)).collect();
        let path = arc(cell, items, inner, inner + ring);
        // Of a mixed prefix the paper shows through.
        let purity = cell.of_category as f64 / cell.items as f64;
        let opacity = if cell.category.is_some() { 0.3 + 0.7 * purity } else { 1.0 };
        // An edge would hide what is narrower than a few of it.
        let narrow = cell.items as f64 / items as f64 * TAU * inner < NARROW;
        let _ = write!(
            svg,
            "<path class=\"{}{}\" fill-opacity=\"{opacity:.2}\" d=\"{path}\"><title>{}</title></path>",
            class_of(cell.category, material.categories.as_ref()),
            if narrow { " narrow" } else { "" },
            hint.join("\n")
        );
    }
    let _ =
        write!(svg, "<text y=\"-4\">{}</text><text y=\"22\">items</text></svg>", thousands(items));
    svg
}

/// What an arc is, line by line.
fn hint(cell: &Cell, material: &Material) -> Vec<String> {
    let prefix = codes_text(&cell.prefix);
    let items = count(cell.items, "item");
    let mut lines = vec![match cell.prefixes {
        1 => format!("{prefix}: {items}"),
        several => {
            let others = thousands(several - 1);
            format!("{prefix} and {others} beside it that are too small to draw: {items}")
        }
    }];
    if let (Some(category), Some(categories)) = (cell.category, &material.categories) {
        let share = percent(cell.of_category as f64 / cell.items as f64);
        lines.push(format!("{share} {}", categories.names[category as usize]));
    }
    let titles = cell.examples.iter().map(|&item| title(&material.items[item as usize]));
    lines.extend(titles.map(|title| format!("“{}”", clip(title, LONGEST))));
    lines
}

/// The outline of an arc, clockwise from the top.
fn arc(cell: &Cell, items: usize, inner: f64, outer: f64) -> String {
    let angle = |at: usize| at as f64 / items as f64 * TAU;
    let (from, to) = (angle(cell.start), angle(cell.start + cell.items));
    let point = |radius: f64, angle: f64| {
        format!("{:.1} {:.1}", radius * angle.sin(), -radius * angle.cos())
    };
    if cell.items == items {
        // An arc whose ends meet would be drawn as nothing: two rings, the inner one cut out.
        let half = |radius: f64, to: f64, sweep: u8| {
            format!("A{radius:.1} {radius:.1} 0 1 {sweep} {}", point(radius, to))
        };
        return format!(
            "M{}{}{}ZM{}{}{}Z",
            point(outer, 0.0),
            half(outer, TAU / 2.0, 1),
            half(outer, 0.0, 1),
            point(inner, 0.0),
            half(inner, TAU / 2.0, 0),
            half(inner, 0.0, 0)
        );
    }
    let large = u8::from(to - from > TAU / 2.0);
    format!(
        "M{}A{outer:.1} {outer:.1} 0 {large} 1 {}L{}A{inner:.1} {inner:.1} 0 {large} 0 {}Z",
        point(outer, from),
        point(outer, to),
        point(inner, to),
        point(inner, from)
    )
}
