//! A run in a few lines: what is there, its figures, and what to look at.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::Report;
use super::format::{count, percent, score, short, thousands};
use crate::tokenizer::Method;
use crate::tokenizer::stats::{Collisions, LevelUse, smaller_codebook};

/// Below this share of used codewords a level has collapsed (paper, appendix: at least 80 %).
const LEAST_USED: f64 = 0.8;

/// Below this share of unique items collisions are worth a look; RQ-VAEs of this field report
/// 90 %.
const LEAST_UNIQUE: f64 = 0.9;

/// Below this share of the category, beyond chance, the first code is as good as random.
const LEAST_TOLD: f64 = 0.05;

/// From this share of lost variance on the codes say next to nothing of the vectors.
const MOST_LOST: f64 = 0.9;

/// A line of the summary: what it is about, and the sentence.
pub(super) type Fact = (String, String);

/// The summary for a terminal. `name` is what the run is called, `report` is there once it has
/// semantic IDs, `missing` is what could not be looked at, and why.
pub fn summary(
    name: &str,
    artefacts: &Map<String, Value>,
    report: Option<&Report>,
    missing: &[String],
) -> String {
    let mut facts = before(artefacts);
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
    let mut facts = before(artefacts);
    facts.extend(vectors(report.dimensions, report.encoder.as_deref()));
    facts.extend(tokenizer(report));
    facts.extend(after(artefacts));
    facts
}

/// What an engineer should look at, most urgent first; nothing where all is well.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let training = &report.training;
    let method = training.method.as_deref().and_then(|name| Method::from_str(name, false).ok());
    let made = Made { method, lost: training.reconstruction, alike: training.same_vector };
    let mut remarks =
        remarks_on_codes(&report.levels, &report.collisions, report.collision_size, made);
    if let Some([none, first, ..]) = report.neighbours.as_ref().map(|n| n.by_shared.as_slice())
        && let (Some(apart), Some(together)) = (none.mean_cosine, first.mean_cosine)
        && together <= apart
    {
        remarks.push(format!(
            "items that share the first code are no more alike (mean cosine {}) than items that \
             share none ({}): it means nothing to the model's first decoding step",
            score(together),
            score(apart)
        ));
    }
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

/// How codes were made, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Made {
    /// The method; `None` for codes from elsewhere.
    pub method: Option<Method>,
    /// Share of the vectors' variance that the codes lose.
    pub lost: Option<f64>,
    /// Items that share all codes and have the vector of another.
    pub alike: usize,
}

/// What is worth a look and follows from the codes and how they were made; `collision_size` is how
/// many the collision level holds.
pub fn remarks_on_codes(
    levels: &[LevelUse],
    collisions: &Collisions,
    collision_size: usize,
    made: Made,
) -> Vec<String> {
    let mut remarks = Vec::new();
    // Of codes from elsewhere it is not known.
    let trained = made.method.is_none_or(Method::has_autoencoder);
    if collisions.distinct == 1 && collisions.items > 1 {
        let reason = if trained { "the codebooks have collapsed, and " } else { "" };
        return vec![format!("all items have the same codes: {reason}{}", remedy(trained))];
    }
    if let Some(lost) = made.lost.filter(|&lost| lost >= MOST_LOST) {
        remarks.push(format!(
            "the codes lose {} of the vectors' variance: {}",
            percent(lost),
            remedy(trained)
        ));
    }
    for (level, used) in (1..).zip(levels) {
        let share = used.used as f64 / used.codewords as f64;
        if share < LEAST_USED && collisions.items >= used.codewords {
            remarks.push(format!(
                "level {level} uses only {} of its codewords: its codebook {}is larger than these \
                 items need",
                percent(share),
                if trained { "has collapsed, or " } else { "" }
            ));
        }
    }
    let c = collisions;
    let of_all = |items: usize| items as f64 / c.items.max(1) as f64;
    let shared = c.items - c.unique_items;
    let is_worth = |items: usize| 1.0 - of_all(items) < LEAST_UNIQUE;
    // A few of many are not what to look at.
    let alike = if 10 * made.alike >= shared { made.alike } else { 0 };
    if alike > 0 && is_worth(shared) {
        remarks.push(format!(
            "{} of the items have the same vector as another, as those of equal or empty texts do: \
             no tokenizer tells them apart, better texts or another encoder would; --collision-size \
             holds them",
            percent(of_all(alike))
        ));
    }
    // The others are the tokenizer's.
    let others = shared.saturating_sub(alike);
    if is_worth(others) || (is_worth(shared) && others > alike) {
        // Larger codebooks do not suit every catalogue.
        let room = levels
            .first()
            .is_some_and(|level| smaller_codebook(c.items, 2 * level.codewords).is_none());
        remarks.push(format!(
            "{} of the items share all their codes with another; only the order in the data set \
             tells them apart. {} spread them",
            percent(of_all(others)),
            match (room, trained) {
                (true, true) => "More levels, larger codebooks or longer training",
                (false, true) => "More levels or longer training",
                (true, false) => "More levels or larger codebooks",
                (false, false) => "More levels",
            }
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

/// What codes are that say nothing of the vectors, and what to do.
fn remedy(trained: bool) -> &'static str {
    match trained {
        true => {
            "they say next to nothing of the vectors; lower --learning-rate, compare with --method \
             rq-kmeans, or take smaller codebooks"
        }
        false => "they say next to nothing of the vectors; choose another --method",
    }
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
    fn remarks_fit_the_way_in_which_the_codes_were_made() {
        let level = LevelUse { used: 4, codewords: 8, perplexity: 4.0 };
        let collisions = Collisions { items: 90, unique_items: 9, distinct: 40, largest_group: 3 };
        let of = |method, lost| {
            remarks_on_codes(
                &[level],
                &collisions,
                90,
                Made { method: Some(method), lost, alike: 0 },
            )
            .join("\n")
        };
        let trained = of(Method::RqVae, Some(0.3));
        assert!(trained.contains("has collapsed") && trained.contains("longer training"));
        assert!(!trained.contains("variance"), "{trained}");
        for method in [Method::Lsh, Method::RqKmeans, Method::Opq, Method::Random] {
            let said = of(method, None);
            assert!(said.contains("is larger than these items need"), "{said}");
            assert!(!said.contains("collapsed") && !said.contains("training"), "{said}");
        }
        let lost = of(Method::RqVae, Some(0.99));
        assert!(
            lost.contains("lose 99.0 % of the vectors' variance")
                && lost.contains("--learning-rate")
        );

        let one = LevelUse { used: 1, codewords: 8, perplexity: 1.0 };
        let all = Collisions { items: 90, unique_items: 0, distinct: 1, largest_group: 90 };
        let made = Made { method: Some(Method::RqVae), lost: Some(1.0), alike: 0 };
        let said = remarks_on_codes(&[one, one], &all, 90, made);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("all items have the same codes: the codebooks have collapsed"));
        assert!(said[0].contains("--method rq-kmeans"), "{said:?}");
    }

    #[test]
    fn equal_vectors_are_told_from_codes_that_levels_would_spread() {
        let of = |unique_items, alike| {
            let collisions =
                Collisions { items: 100, unique_items, distinct: 90, largest_group: 9 };
            let made = Made { method: Some(Method::RqKmeans), lost: None, alike };
            remarks_on_codes(&[], &collisions, 90, made)
        };
        assert!(of(95, 5).is_empty());
        let said = of(60, 35);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("35.0 % of the items have the same vector"), "{said:?}");
        assert!(!said[0].contains("levels"), "{said:?}");
        let both = of(30, 35);
        assert!(both[1].starts_with("35.0 % of the items share all their codes"), "{both:?}");
        assert!(both[1].contains("More levels"), "{both:?}");
        assert_eq!(of(60, 0).len(), 1);
        // A few of many are not the reason, and do not take others below the limit.
        assert_eq!(of(60, 2), of(60, 0));
        assert!(of(89, 1)[0].starts_with("11.0 % of the items share all their codes"));
        let told = of(89, 3);
        assert!(told[1].starts_with("8.0 % of the items share all their codes"), "{told:?}");
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
