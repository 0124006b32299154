//! `main`: TIGER and the baselines on every data set (paper, table 1).

use std::collections::BTreeMap;

use super::comparison::{Row, of_paper, of_rows, plots, seeds, table};
use super::lab::{Lab, Variant};
use super::paper;
use super::report::Report;
use super::settings::Data;
use crate::baselines::Method;
use crate::error::{Result, TrainError};
use crate::metrics::Metrics;
use crate::pipeline::Step;

/// Baselines in the order of the table; popularity is always among them.
const BASELINES: [Method; 4] =
    [Method::Popularity, Method::ItemKnn, Method::SemanticKnn, Method::SasRec];

/// The whole of the method as it is configured, which other studies share.
pub(super) fn tiger() -> Variant {
    Variant::new("tiger")
}

pub(super) fn variants(lab: &Lab<'_>) -> Vec<Variant> {
    vec![all_baselines(lab.settings.seeds[0]), tiger()]
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let mut rows: Vec<Row> = Vec::new();
    let mut ahead = String::new();
    for data in &lab.settings.data {
        let published = paper::methods(&data.name);
        let of_table = |name: &str| {
            let found = published.iter().find(|(method, _)| *method == name);
            found.map(|&(_, figures)| paper::metrics(figures))
        };
        let mut baselines = baselines(lab, data)?;
        let trained = seeds(lab, data, &tiger())?;
        let of_tiger: Vec<Metrics> = trained.iter().map(|run| run.metrics).collect();
        for method in BASELINES {
            let runs = baselines.remove(&method).unwrap_or_default();
            if mean_ndcg(&runs) > mean_ndcg(&of_tiger) {
                ahead += &format!(
                    " On {}, {} is ahead of TIGER by {:.4} NDCG@10.",
                    data.name,
                    method.title(),
                    mean_ndcg(&runs) - mean_ndcg(&of_tiger)
                );
            }
            let (data, name) = (data.name.clone(), method.title());
            rows.push(Row { data, name: name.into(), runs, users: None, paper: of_table(name) });
        }
        for &(name, figures) in published {
            if !["SASRec", "TIGER"].contains(&name) {
                rows.push(of_paper(data, name, paper::metrics(figures)));
            }
        }
        rows.push(Row::new(data, "TIGER".into(), &trained, paper::tiger(&data.name)));
    }
    Ok(Report {
        name: "main",
        title: "TIGER and the baselines",
        about: format!(
            "Every user's last item is to be found in the catalogue (table 1 of the paper); the \
             baselines follow the same protocol. SASRec is trained with cross-entropy over all \
             items, the paper's with one sampled negative.{ahead} {}",
            of_rows(lab, &tiger(), &rows)?
        ),
        plots: plots("Test users", &rows),
        tables: vec![table("method", &rows)],
    })
}

fn all_baselines(seed: u64) -> Variant {
    baselines_only("baselines", "all", seed)
}

/// Baselines, by their names, without a model.
pub(super) fn baselines_only(name: impl Into<String>, baselines: &str, seed: u64) -> Variant {
    let variant = Variant::new(name)
        .without(Step::Tokenize)
        .without(Step::Train)
        .with(Step::Evaluate, "baselines", baselines)
        .with(Step::Evaluate, "baselines-only", true);
    let variant = match baselines.split(',').any(|name| ["all", "sasrec"].contains(&name)) {
        true => variant.with(Step::Evaluate, "sasrec-seed", seed as i64),
        false => variant,
    };
    // Options of the search have no place where there is no model.
    ["beams", "batch", "no-user"]
        .iter()
        .fold(variant, |variant, option| variant.with(Step::Evaluate, option, false))
}

/// The figures of the baselines with every seed; those that draw nothing have one.
fn baselines(lab: &Lab<'_>, data: &Data) -> Result<BTreeMap<Method, Vec<Metrics>>> {
    let mut found: BTreeMap<Method, Vec<Metrics>> = BTreeMap::new();
    for &seed in &lab.settings.seeds {
        let evaluation = lab.evaluate(data, &all_baselines(seed), seed)?;
        for method in BASELINES {
            let metrics = evaluation.of(method).ok_or_else(|| {
                let (data, method) = (&data.name, method.title());
                TrainError::usage(format!("{data}: no figures of {method}"))
            })?;
            let runs = found.entry(method).or_default();
            if runs.is_empty() || method == Method::SasRec {
                runs.push(metrics);
            }
        }
    }
    Ok(found)
}

fn mean_ndcg(runs: &[Metrics]) -> f64 {
    runs.iter().map(|run| run.ndcg_10).sum::<f64>() / runs.len().max(1) as f64
}
