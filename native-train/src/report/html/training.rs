//! How the tokenizer was trained: its losses, what its log notes, its settings.

use std::fmt::Write;

use super::chart::curve;
use super::markup::escape;
use crate::report::format::{short, thousands};
use crate::report::training::Training;

/// Notes of the log that are listed.
const LISTED_NOTES: usize = 20;

pub(super) fn section(training: &Training) -> String {
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
