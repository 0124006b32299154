//! A run in a few lines: what is there, its figures, and the remarks on them.

use serde_json::{Map, Value, json};

use super::Report;
use super::format::{count, percent, score, short, thousands};
use super::remarks::remarks;

/// A line of the summary: what it is about, and the sentence.
pub(super) type Fact = (String, String);

/// The summary for a terminal. `name` is what the run is called, `report` is there once it has
/// semantic IDs, `missing` is what could not be looked at, and why.
pub(crate) fn summary(
    name: &str,
    artefacts: &Map<String, Value>,
    report: Option<&Report>,
    missing: &[String],
) -> String {
    let mut facts = before(artefacts, report.map(|report| report.material.items.len()));
    if let Some(report) = report {
        facts.extend(of_ids(report));
    }
    facts.extend(after(artefacts));
    let remarks = report.map(remarks).unwrap_or_default();
    facts.extend(remarks.into_iter().map(|remark| ("look at".to_owned(), remark)));
    facts.extend(missing.iter().map(|reason| ("not there".to_owned(), reason.clone())));
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
    let mut facts = before(artefacts, Some(report.material.items.len()));
    facts.extend(vectors(report.dimensions, report.encoder.as_deref()));
    facts.extend(tokenizer(report));
    facts.extend(after(artefacts));
    facts
}

/// What came before the semantic IDs; `items` are those that there are now, if known: new ones may have
/// come since the data were prepared.
fn before(artefacts: &Map<String, Value>, items: Option<usize>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(data) = artefacts.get("dataset") {
        let number = |name: &str| {
            let now = items.filter(|_| name == "items");
            now.or_else(|| data[name].as_u64().map(|n| n as usize))
        };
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
    if let Some(found) = artefacts.get("vectors") {
        let dimensions = found["dimensions"].as_u64().map(|dimensions| dimensions as usize);
        facts.extend(vectors(dimensions, found["encoder"].as_str()));
    }
    facts
}

fn vectors(dimensions: Option<usize>, encoder: Option<&str>) -> Option<Fact> {
    let encoder = encoder.unwrap_or("an unnamed encoder");
    Some(("vectors".to_owned(), format!("{} dimensions, {encoder}", dimensions?)))
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
    facts.extend(vectors(report.dimensions, report.encoder.as_deref()));
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
        // What keeps the figures from being compared with others.
        let notes: String = [
            (settings["exclude_history"] == json!(true), ", histories left out"),
            (settings["user_token"] == json!(false), ", user tokens left out"),
            (
                evaluation["trained_on_other_sequences"] == json!(true),
                ", trained on other sequences: may be too high",
            ),
        ]
        .into_iter()
        .filter_map(|(holds, note)| holds.then_some(note))
        .collect();
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
                (Some(users), "model") => format!(" ({split}, {users}{notes})"),
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
        let text = summary("runs/x", artefacts.as_object().unwrap(), None, &[]);
        assert_eq!(
            text,
            "runs/x\ndata  1,234 items, 1 user, 9 interactions, median 9 a user, from log"
        );
    }

    #[test]
    fn figures_of_the_evaluation_stand_under_one_label() {
        let artefacts = json!({"evaluation": {"users": 20, "settings": {"split": "test"},
            "model": {"recall@10": 0.5, "ndcg@10": 0.25}, "popularity": {"recall@10": 0.1}}});
        let text = summary("r", artefacts.as_object().unwrap(), None, &[]);
        assert_eq!(
            text,
            "r\nranking  this model: Recall@10 0.5000, NDCG@10 0.2500 (test, 20 users)\
             \n         popularity: Recall@10 0.1000"
        );
        let artefacts = json!({"evaluation": {"users": 20, "model": {"recall@10": 0.5},
            "settings": {"split": "test", "exclude_history": true}}});
        let text = summary("r", artefacts.as_object().unwrap(), None, &[]);
        assert!(text.ends_with("(test, 20 users, histories left out)"), "{text}");
        let artefacts = json!({"evaluation": {"users": 20, "model": {"recall@10": 0.5},
            "settings": {"split": "test", "user_token": false},
            "trained_on_other_sequences": true}});
        let text = summary("r", artefacts.as_object().unwrap(), None, &[]);
        let notes = "user tokens left out, trained on other sequences: may be too high)";
        assert!(text.ends_with(notes), "{text}");
    }
}
