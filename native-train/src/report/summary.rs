//! A run in a few lines: what is there, its figures, and the remarks on them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Report;
use super::format::{count, percent, score, short, thousands};
use super::remarks::remarks;
use crate::evaluate::{Evaluation, Protocol, Split};
use crate::metrics::Metrics;

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
    // Figures of another form are not ours to show.
    let evaluation = artefacts.get("evaluation").map(Evaluation::deserialize);
    if let Some(Ok(evaluation)) = evaluation {
        facts.extend(ranking(&evaluation).map(|figures| ("ranking".to_owned(), figures)));
    }
    facts
}

/// The model and what it is to be held against, with what keeps its figures from being compared with
/// others.
fn ranking(evaluation: &Evaluation) -> impl Iterator<Item = String> {
    let asked = evaluation.settings;
    let Protocol { split, exclude_history } = asked.protocol();
    let split = match split {
        Split::Validation => "validation",
        Split::Test => "test",
    };
    let mut of = format!(" ({split}, {}", count(evaluation.users, "user"));
    for (holds, note) in [
        (exclude_history, ", histories left out"),
        (asked.without_users(), ", user tokens left out"),
        (evaluation.trained_on_other_sequences, ", trained on other sequences: may be too high"),
    ] {
        of += if holds { note } else { "" };
    }
    of.push(')');
    let Evaluation { model, popularity, optimum, .. } = *evaluation;
    let shown = [
        ("this model", model, of),
        ("popularity", Some(popularity), String::new()),
        ("known optimum", optimum, String::new()),
    ];
    shown.into_iter().filter_map(|(label, figures, of)| {
        let Metrics { recall_10, ndcg_10, .. } = figures?;
        Some(format!("{label}: Recall@10 {recall_10:.4}, NDCG@10 {ndcg_10:.4}{of}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evaluate::Settings;
    use crate::evaluate::figures::Asked;
    use crate::evaluate::figures::testing::evaluation;

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
    fn figures_of_the_evaluation_stand_under_one_label_with_what_they_are_of() {
        let told = |evaluation: &Evaluation| {
            let artefacts = json!({"evaluation": evaluation});
            summary("r", artefacts.as_object().unwrap(), None, &[])
        };
        let mut evaluation = evaluation(Split::Test, 0.5, 0.1);
        assert_eq!(
            told(&evaluation),
            "r\nranking  this model: Recall@10 0.5000, NDCG@10 0.0000 (test, 10 users)\
             \n         popularity: Recall@10 0.1000, NDCG@10 0.0000"
        );
        let settings = Settings { user_token: false, ..Settings::of(Split::Validation, 10) };
        evaluation.settings = Asked::Model(settings);
        evaluation.trained_on_other_sequences = true;
        let notes = "(validation, 10 users, user tokens left out, trained on other sequences: may \
                     be too high)";
        assert!(told(&evaluation).contains(notes), "{}", told(&evaluation));
        let protocol = Protocol { exclude_history: true, ..Protocol::of(Split::Test) };
        evaluation.settings = Asked::Model(Settings { protocol, ..Settings::of(Split::Test, 10) });
        evaluation.trained_on_other_sequences = false;
        assert!(told(&evaluation).contains("(test, 10 users, histories left out)"));
        evaluation.settings = Asked::BaselinesAlone(protocol);
        evaluation.model = None;
        evaluation.optimum = Some(evaluation.popularity);
        assert_eq!(
            told(&evaluation),
            "r\nranking  popularity: Recall@10 0.1000, NDCG@10 0.0000\
             \n         known optimum: Recall@10 0.1000, NDCG@10 0.0000"
        );
    }
}
