//! The common form of several studies: variants side by side in the protocol's figures.

use super::lab::{Lab, Trained, Variant};
use super::plot::{Axis, Bars, Body, Plot};
use super::settings::Data;
use super::table::{Cell, Figure, METRICS, Table, metric_cells};
use crate::error::Result;
use crate::evaluate::Metrics;

/// A variant and what the paper says of it.
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) variant: Variant,
    /// The paper's figures for a data set.
    pub(super) paper: Option<Metrics>,
}

/// A row of a comparison: a method on a data set.
pub(super) struct Row {
    pub(super) data: String,
    pub(super) name: String,
    /// The figures of each seed; none where only the paper has some.
    pub(super) runs: Vec<Metrics>,
    pub(super) paper: Option<Metrics>,
}

/// Trains the candidates of every data set with every seed.
pub(super) fn compare(
    lab: &Lab<'_>,
    candidates: impl Fn(&Lab<'_>, &Data) -> Vec<Candidate>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for data in &lab.settings.data {
        for Candidate { name, variant, paper } in candidates(lab, data) {
            let runs = seeds(lab, data, &variant)?.iter().map(|run| run.metrics).collect();
            rows.push(Row { data: data.name.clone(), name, runs, paper });
        }
    }
    Ok(rows)
}

/// A variant with every seed.
pub(super) fn seeds(lab: &Lab<'_>, data: &Data, variant: &Variant) -> Result<Vec<Trained>> {
    lab.settings.seeds.iter().map(|&seed| lab.train(data, variant, seed)).collect()
}

/// The rows as a table; `what` heads the names.
pub(super) fn table(what: &str, rows: &[Row]) -> Table {
    let mut table = Table::new("", &["data", what]);
    table.columns.extend(METRICS.map(str::to_owned));
    table.columns.extend(METRICS.map(|metric| format!("paper {metric}")));
    for row in rows {
        let mut cells = vec![row.data.as_str().into(), row.name.as_str().into()];
        cells.extend(metric_cells(&row.runs));
        cells.extend(metric_cells(row.paper.as_slice()));
        table.rows.push(cells);
    }
    table
}

/// The rows as bars of Recall@10 and NDCG@10, a plot a data set. Rows of the paper alone are left
/// to the table.
pub(super) fn plots(title: &str, rows: &[Row]) -> Vec<Plot> {
    let several = rows.iter().any(|row| row.data != rows[0].data);
    rows.chunk_by(|a, b| a.data == b.data)
        .map(|rows| {
            let data = &rows[0].data;
            let ours: Vec<&Row> = rows.iter().filter(|row| !row.runs.is_empty()).collect();
            let bars = |name: &str, of: fn(&Metrics) -> f64| Bars {
                name: name.into(),
                figures: ours
                    .iter()
                    .map(|row| Figure::of(&row.runs.iter().map(of).collect::<Vec<_>>()))
                    .collect(),
                paper: ours.iter().map(|row| row.paper.as_ref().map(of)).collect(),
            };
            Plot {
                name: if several { data.clone() } else { String::new() },
                title: format!("{title}, {data}"),
                body: Body::Bars {
                    x: Axis::from_zero(""),
                    groups: ours.iter().map(|row| row.name.clone()).collect(),
                    bars: vec![bars("Recall@10", |m| m.recall_10), bars("NDCG@10", |m| m.ndcg_10)],
                },
            }
        })
        .collect()
}

/// What stands before the account of a trial in small.
pub(super) fn of_trial(lab: &Lab<'_>) -> &'static str {
    match lab.settings.smoke {
        true => "**A trial in small (`--smoke`): the figures are of no use.** ",
        false => "",
    }
}

/// How many runs stand behind a figure, in words.
pub(super) fn of_seeds(lab: &Lab<'_>) -> String {
    let small = of_trial(lab);
    let seeds = &lab.settings.seeds;
    let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
    match seeds.len() {
        1 => format!("{small}One run a variant, seed {}.", list[0]),
        runs => format!(
            "{small}Mean and standard deviation of {runs} runs (seeds {}); the seed is that of the \
             tokenizer and of the training.",
            list.join(", ")
        ),
    }
}

/// A row of figures that only the paper has.
pub(super) fn of_paper(data: &Data, name: &str, paper: Metrics) -> Row {
    Row { data: data.name.clone(), name: name.into(), runs: vec![], paper: Some(paper) }
}

/// A missing or present figure of the runs.
pub(super) fn figure_cell(values: &[f64], decimals: usize) -> Cell {
    Cell::figure(Figure::of(values), decimals)
}
