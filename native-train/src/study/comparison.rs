//! The common form of several studies: variants side by side in the protocol's figures.

use super::lab::{Lab, Trained, Variant};
use super::main_table::tiger;
use super::plot::{Axis, Bars, Body, Plot};
use super::settings::Data;
use super::table::{Cell, Figure, METRICS, Table, metric_cells};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::pipeline::Step;

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
    /// The users whose figures they are, where that is known.
    pub(super) users: Option<usize>,
    pub(super) paper: Option<Metrics>,
}

impl Row {
    pub(super) fn new(
        data: &Data,
        name: String,
        trained: &[Trained],
        paper: Option<Metrics>,
    ) -> Self {
        let runs = trained.iter().map(|run| run.metrics).collect();
        let users = trained.first().map(|run| run.users);
        Self { data: data.name.clone(), name, runs, users, paper }
    }
}

/// Trains the candidates of every data set with every seed.
pub(super) fn compare(
    lab: &Lab<'_>,
    candidates: impl Fn(&Lab<'_>, &Data) -> Result<Vec<Candidate>>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for data in &lab.settings.data {
        for Candidate { name, variant, paper } in candidates(lab, data)? {
            rows.push(Row::new(data, name, &seeds(lab, data, &variant)?, paper));
        }
    }
    Ok(rows)
}

/// A variant with every seed.
pub(super) fn seeds(lab: &Lab<'_>, data: &Data, variant: &Variant) -> Result<Vec<Trained>> {
    lab.settings.seeds.iter().map(|&seed| lab.train(data, variant, seed)).collect()
}

/// What a measurement found on a data set.
pub(super) struct Measured<'a, T> {
    pub(super) data: &'a str,
    /// How many test users it looked at.
    pub(super) users: usize,
    /// What it found with each seed.
    pub(super) runs: Vec<T>,
}

impl<T> Measured<'_, T> {
    pub(super) fn figures(&self, of: impl Fn(&T) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }
}

/// Trains TIGER on every data set with every seed, and measures it.
pub(super) fn measure<'a, T>(
    lab: &Lab<'a>,
    measure: impl Fn(&Trained, u64) -> Result<T>,
) -> Result<Vec<Measured<'a, T>>> {
    let of_data = |data: &'a Data| {
        let trained = seeds(lab, data, &tiger())?;
        let users = lab.measured_users(trained[0].users);
        let runs = trained.iter().zip(&lab.settings.seeds);
        let runs = runs.map(|(trained, &seed)| measure(trained, seed)).collect::<Result<_>>()?;
        Ok(Measured { data: &data.name, users, runs })
    };
    lab.settings.data.iter().map(of_data).collect()
}

/// What stands behind the figures of a measurement: runs and users.
pub(super) fn of_measured<T>(lab: &Lab<'_>, measured: &[Measured<'_, T>]) -> String {
    let users = measured.iter().map(|measured| (measured.data, measured.users));
    format!("{} {}", of_seeds(lab), of_users(users))
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

/// How many test users the figures are of, by data set; those of one data set follow each other.
pub(super) fn of_users<'a>(users: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let mut users: Vec<_> = users.into_iter().collect();
    users.dedup();
    let users: Vec<_> = users.iter().map(|(data, users)| format!("{users} ({data})")).collect();
    format!("Test users: {}.", users.join(", "))
}

/// Beams of an evaluation by default, and of what a study measures by itself.
pub(super) const BEAMS: usize = 50;

/// Where `evaluate` does not rank all items with all that is known of a user, which the paper does, or
/// searches with another number of beams.
///
/// # Errors
/// As [`Lab::option`].
pub(super) fn of_ranking(lab: &Lab<'_>, variant: &Variant) -> Result<String> {
    let mut text = String::new();
    for (option, said) in [
        (
            "exclude-history",
            "every user's history is left out of the ranking; the paper's figures are of all items",
        ),
        ("no-user", "the user token is withheld at test"),
    ] {
        let mut on = Vec::new();
        for data in &lab.settings.data {
            if lab.option(data, variant, Step::Evaluate, option, str::parse)?.contains(&true) {
                on.push(data.name.as_str());
            }
        }
        if !on.is_empty() {
            text += &format!(" On {}, {said}.", on.join(", "));
        }
    }
    for data in &lab.settings.data {
        let beams = lab.option(data, variant, Step::Evaluate, "beams", str::parse::<usize>)?;
        if let Some(beams) = beams.iter().find(|&&beams| beams != BEAMS) {
            text += &format!(" On {}, lists are those of {beams} beams.", data.name);
        }
    }
    Ok(text)
}

/// What stands behind the figures of a comparison: runs, users, and how `evaluate` ranks for
/// `variant`.
///
/// # Errors
/// As [`Lab::option`].
pub(super) fn of_rows(lab: &Lab<'_>, variant: &Variant, rows: &[Row]) -> Result<String> {
    let users = rows.iter().filter_map(|row| Some((row.data.as_str(), row.users?)));
    Ok(format!("{} {}{}", of_seeds(lab), of_users(users), of_ranking(lab, variant)?))
}

/// A row of figures that only the paper has.
pub(super) fn of_paper(data: &Data, name: &str, paper: Metrics) -> Row {
    let (data, name) = (data.name.clone(), name.into());
    Row { data, name, runs: vec![], users: None, paper: Some(paper) }
}

/// A missing or present figure of the runs.
pub(super) fn figure_cell(values: &[f64], decimals: usize) -> Cell {
    Cell::figure(Figure::of(values), decimals)
}

#[cfg(test)]
mod tests {
    use super::super::lab::testing::ask;
    use super::*;

    #[test]
    fn a_report_says_where_the_ranking_is_not_the_papers() {
        let said = |study: &'static str, settings: &[&str]| {
            ask(study, settings, false, |lab, _| of_ranking(lab, &tiger()).unwrap())
        };
        assert_eq!(said("layers", &[]), "");
        assert_eq!(said("layers", &["evaluate.exclude-history=false"]), "");
        let excluded = "every user's history is left out of the ranking; the paper's figures are \
                        of all items.";
        let both = ["evaluate.exclude_history=true"];
        assert_eq!(said("layers", &both), format!(" On a, b, {excluded}"));
        let one = ["data.b.evaluate.exclude-history=true", "study.main.evaluate.no-user=true"];
        assert_eq!(said("scaling", &one), format!(" On b, {excluded}"));
        let expected = format!(" On b, {excluded} On a, b, the user token is withheld at test.");
        assert_eq!(said("main", &one), expected);
        let narrow = ["data.b.evaluate.beams=20"];
        assert_eq!(said("main", &narrow), " On b, lists are those of 20 beams.");
    }

    #[test]
    fn users_are_counted_once_a_data_set() {
        let row = |data: &str, users| Row {
            data: data.into(),
            name: String::new(),
            runs: vec![],
            users,
            paper: None,
        };
        let rows = [row("a", Some(20)), row("a", None), row("a", Some(20)), row("b", Some(7))];
        let said = ask("layers", &[], false, |lab, _| of_rows(lab, &tiger(), &rows).unwrap());
        assert_eq!(said, "One run a variant, seed 0. Test users: 20 (a), 7 (b).");
    }
}
