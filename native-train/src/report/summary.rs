//! A run in a few lines: what is there, its figures, and what to look at.

use serde_json::{Map, Value, json};

use super::Report;
use super::format::{count, percent, score, short, thousands};
use crate::tokenizer::stats::{Collisions, LevelUse, smaller_codebook};

/// Below this share of used codewords a level has collapsed (paper, appendix: at least 80 %).
const LEAST_USED: f64 = 0.8;

/// Below this share of unique items collisions are worth a look; RQ-VAEs of this field report
/// 90 %.
const LEAST_UNIQUE: f64 = 0.9;

/// Below this share of the category, beyond chance, the first code is as good as random.
const LEAST_TOLD: f64 = 0.05;

/// A line of the summary: what it is about, and the sentence.
pub(super) type Fact = (String, String);

/// The summary for a terminal. `name` is what the run is called, `report` is there once it has
/// semantic IDs.
pub fn summary(name: &str, artefacts: &Map<String, Value>, report: Option<&Report>) -> String {
    let mut facts = before(artefacts);
    if let Some(report) = report {
        facts.extend(of_ids(report));
    }
    facts.extend(after(artefacts));
    let remarks = report.map(remarks).unwrap_or_default();
    facts.extend(remarks.into_iter().map(|remark| ("look at".to_owned(), remark)));
    let omitted = report.map(|report| report.omitted.as_slice()).unwrap_or_default();
    facts.extend(omitted.iter().map(|reason| ("not there".to_owned(), reason.clone())));
    let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut text = name.to_owned();
    let mut last = "";
    for (label, sentence) in &facts {
        // A label that repeats stands once.
        let shown = if label == last { "" } else { label };
        text += &format!("\n{shown:width$}  {sentence}");
        last = label;
    }
    text
}

/// All but the semantic IDs themselves, for the head of the page.
pub(super) fn facts(report: &Report, artefacts: &Map<String, Value>) -> Vec<Fact> {
    let mut facts = before(artefacts);
    facts.extend(vectors(report));
    facts.extend(tokenizer(report));
    facts.extend(after(artefacts));
    facts
}

/// What an engineer should look at, most urgent first; nothing where all is well.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = remarks_on_codes(&report.levels, &report.collisions, report.collision_size);
    if let Some(shares) = report.categories.first().and_then(|category| category.prefixes.first())
        && shares.share_beyond_chance < LEAST_TOLD
    {
        remarks.push(format!(
            "the first code tells hardly more of the category ({}) than chance does ({})",
            percent(shares.share),
            percent(shares.share_by_chance)
        ));
    }
    remarks
}

/// What is worth a look and follows from the codes alone; `collision_size` is how many the collision
/// level holds.
pub fn remarks_on_codes(
    levels: &[LevelUse],
    collisions: &Collisions,
    collision_size: usize,
) -> Vec<String> {
    let mut remarks = Vec::new();
    for (level, used) in (1..).zip(levels) {
        let share = used.used as f64 / used.codewords as f64;
        if share < LEAST_USED && collisions.items >= used.codewords {
            remarks.push(format!(
                "level {level} uses only {} of its codewords: its codebook has collapsed, or is \
                 larger than these items need",
                percent(share)
            ));
        }
    }
    let c = collisions;
    let unique = c.unique_items as f64 / c.items.max(1) as f64;
    if unique < LEAST_UNIQUE {
        // Larger codebooks do not suit every catalogue.
        let room = levels
            .first()
            .is_some_and(|level| smaller_codebook(c.items, 2 * level.codewords).is_none());
        remarks.push(format!(
            "{} of the items share all their codes with another; only the order in the data set \
             tells them apart. More levels{} or longer training spread them",
            percent(1.0 - unique),
            if room { ", larger codebooks" } else { "" }
        ));
    }
    if c.largest_group * 4 > collision_size * 3 {
        remarks.push(format!(
            "the largest group of equal codes has {}, and the collision level holds {}: new items \
             may find no free code",
            count(c.largest_group, "item"),
            collision_size
        ));
    }
    remarks
}

fn before(artefacts: &Map<String, Value>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(data) = artefacts.get("dataset") {
        let number = |name: &str| data[name].as_u64().map(|n| n as usize);
        let mut parts = Vec::new();
        for (name, one) in [("items", "item"), ("users", "user"), ("interactions", "interaction")] {
            parts.extend(number(name).map(|n| count(n, one)));
        }
        parts.extend(data["median_length"].as_f64().map(|n| format!("median {} a user", short(n))));
        if let Some(source) = data["source"].as_str() {
            parts.push(format!("from {source}"));
        }
        if data["simulated"].as_bool() == Some(true) {
            parts.push("simulated users".into());
        }
        facts.push(("data".to_owned(), parts.join(", ")));
    }
    facts
}

fn vectors(report: &Report) -> Option<Fact> {
    let dimensions = report.dimensions?;
    let encoder = report.encoder.as_deref().unwrap_or("an unnamed encoder");
    Some(("vectors".to_owned(), format!("{dimensions} dimensions, {encoder}")))
}

fn tokenizer(report: &Report) -> Vec<Fact> {
    let training = &report.training;
    let mut parts = Vec::new();
    parts.extend(training.method.clone());
    let sizes: Vec<String> = report.levels.iter().map(|l| thousands(l.codewords)).collect();
    let sizes = match report.levels.split_first() {
        Some((first, rest)) if rest.iter().all(|level| level.codewords == first.codewords) => {
            format!("{} of {} codewords", count(report.levels.len(), "level"), sizes[0])
        }
        _ => format!("levels of {} codewords", sizes.join(", ")),
    };
    parts.push(sizes);
    parts.extend(training.epochs.map(|(epochs, converged)| match converged {
        true => format!("converged after {}", count(epochs as usize, "epoch")),
        false => count(epochs as usize, "epoch"),
    }));
    parts.extend(
        training.reconstruction.map(|lost| format!("reconstruction error {}", short(lost))),
    );
    parts.extend(training.seconds.map(|s| format!("made in {} s", short(s))));
    vec![("tokenizer".to_owned(), parts.join(", "))]
}

fn of_ids(report: &Report) -> Vec<Fact> {
    let mut facts = Vec::new();
    facts.extend(vectors(report));
    facts.extend(tokenizer(report));
    for (level, used) in (1..).zip(&report.levels) {
        facts.push((
            format!("level {level}"),
            format!(
                "{} of {} codewords used, perplexity {:.1} ({} of all)",
                thousands(used.used),
                thousands(used.codewords),
                used.perplexity,
                percent(used.perplexity / used.codewords as f64)
            ),
        ));
    }
    let c = &report.collisions;
    facts.push((
        "unique".to_owned(),
        format!(
            "{} of {} ({}) after {}; the largest group has {}",
            thousands(c.unique_items),
            count(c.items, "item"),
            percent(c.unique_items as f64 / c.items.max(1) as f64),
            count(report.levels.len(), "level"),
            thousands(c.largest_group)
        ),
    ));
    // The page and the figures for machines have the finer categories too.
    if let Some(category) = report.categories.first() {
        let values = format!("{} values of \"{}\"", thousands(category.categories), category.field);
        for (length, shares) in (1..).zip(&category.prefixes) {
            facts.push((
                "category".to_owned(),
                format!(
                    "{} tell{} {} of {values} (by chance {}); NMI {}, AMI {}",
                    leading(length),
                    if length == 1 { "s" } else { "" },
                    percent(shares.share),
                    percent(shares.share_by_chance),
                    score(shares.nmi),
                    score(shares.ami)
                ),
            ));
        }
    }
    if let Some(neighbours) = &report.neighbours {
        for (codes, shared) in neighbours.by_shared.iter().enumerate().skip(1) {
            facts.push((
                "neighbours".to_owned(),
                format!(
                    "{} of the {} nearest by cosine share {} (by chance {})",
                    percent(shared.of_nearest),
                    neighbours.nearest,
                    leading(codes),
                    percent(shared.by_chance)
                ),
            ));
        }
    }
    facts
}

/// `the first code`, `the first 2 codes`.
pub(super) fn leading(codes: usize) -> String {
    if codes == 1 { "the first code".into() } else { format!("the first {codes} codes") }
}

fn after(artefacts: &Map<String, Value>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(model) = artefacts.get("model") {
        let number = |name: &str| model[name].as_u64();
        let mut parts = Vec::new();
        if let (Some(encoder), Some(decoder)) =
            (number("num_layers"), number("num_decoder_layers").or(number("num_layers")))
        {
            parts.push(format!("T5, {encoder} + {decoder} layers"));
        }
        for (name, what) in
            [("d_model", "width"), ("num_heads", "heads"), ("vocab_size", "vocabulary")]
        {
            parts.extend(number(name).map(|n| format!("{what} {}", thousands(n as usize))));
        }
        facts.push(("model".to_owned(), parts.join(", ")));
    }
    if let Some(evaluation) = artefacts.get("evaluation") {
        let users = evaluation["users"].as_u64().map(|users| count(users as usize, "user"));
        let settings = &evaluation["settings"];
        let split = settings["split"].as_str().unwrap_or("evaluation");
        let left_out = match settings["exclude_history"] == json!(true) {
            true => ", histories left out",
            false => "",
        };
        for (name, label) in
            [("model", "this model"), ("popularity", "popularity"), ("optimum", "known optimum")]
        {
            let figures =
                [("recall@10", "Recall@10"), ("ndcg@10", "NDCG@10")].into_iter().filter_map(
                    |(key, shown)| Some(format!("{shown} {:.4}", evaluation[name][key].as_f64()?)),
                );
            let figures: Vec<String> = figures.collect();
            if figures.is_empty() {
                continue;
            }
            let of = match (&users, name) {
                (Some(users), "model") => format!(" ({split}, {users}{left_out})"),
                _ => String::new(),
            };
            facts.push(("ranking".to_owned(), format!("{label}: {}{of}", figures.join(", "))));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_only_prepared_has_its_data_line() {
        let artefacts = json!({"dataset": {"items": 1234, "users": 1, "interactions": 9,
            "median_length": 9.0, "source": "log", "simulated": false}});
        let text = summary("runs/x", artefacts.as_object().unwrap(), None);
        assert_eq!(
            text,
            "runs/x\ndata  1,234 items, 1 user, 9 interactions, median 9 a user, from log"
        );
    }

    #[test]
    fn figures_of_the_evaluation_stand_under_one_label() {
        let artefacts = json!({"evaluation": {"users": 20, "settings": {"split": "test"},
            "model": {"recall@10": 0.5, "ndcg@10": 0.25}, "popularity": {"recall@10": 0.1}}});
        let text = summary("r", artefacts.as_object().unwrap(), None);
        assert_eq!(
            text,
            "r\nranking  this model: Recall@10 0.5000, NDCG@10 0.2500 (test, 20 users)\
             \n         popularity: Recall@10 0.1000"
        );
        let artefacts = json!({"evaluation": {"users": 20, "model": {"recall@10": 0.5},
            "settings": {"split": "test", "exclude_history": true}}});
        let text = summary("r", artefacts.as_object().unwrap(), None);
        assert!(text.ends_with("(test, 20 users, histories left out)"), "{text}");
    }
}
