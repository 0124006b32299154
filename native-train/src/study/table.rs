//! Tables of figures, for people (Markdown) and for machines (CSV).

use std::path::Path;

use crate::error::{Result, TrainError};
use crate::files::write_atomically;
use crate::metrics::Metrics;

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) mean: f64,
    /// The standard deviation of a sample (n - 1); `None` for fewer than two runs.
    pub(crate) deviation: Option<f64>,
}

impl Figure {
    /// Of the values of the runs; `None` where there is none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { mean, deviation })
    }
}

impl From<f64> for Figure {
    fn from(mean: f64) -> Self {
        Self { mean, deviation: None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    /// A figure, shown with so many decimals.
    Figure(Figure, usize),
    /// Nothing is known.
    Missing,
}

impl Cell {
    /// A figure, or nothing.
    pub(crate) fn figure(figure: Option<impl Into<Figure>>, decimals: usize) -> Self {
        figure.map_or(Self::Missing, |figure| Self::Figure(figure.into(), decimals))
    }

    fn markdown(&self) -> String {
        match self {
            Self::Text(text) => text.replace('|', "\\|"),
            Self::Figure(Figure { mean, deviation: None }, decimals) => short(*mean, *decimals),
            Self::Figure(Figure { mean, deviation: Some(deviation) }, decimals) => {
                format!("{} ± {}", short(*mean, *decimals), short(*deviation, *decimals))
            }
            Self::Missing => "–".into(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A number as the field writes metrics: without the zero before the point where there are four
/// decimals.
pub(super) fn short(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match decimals {
        4 if text.starts_with("0.") => text[1..].to_owned(),
        _ => text,
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// What it is called in the name of its file; empty for the only one of a study.
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<String>,
    /// The rows, a cell a column.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(name: &'static str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { name, columns, rows: Vec::new() }
    }

    /// In Markdown; columns of nothing are left out.
    pub(crate) fn markdown(&self) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&at| self.rows.iter().any(|row| row[at] != Cell::Missing))
            .collect();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(shown.iter().map(|&at| self.columns[at].clone()).collect());
        let first = self.rows.first();
        let is_text = |&at: &usize| first.is_some_and(|row| matches!(row[at], Cell::Text(_)));
        let rules = shown.iter().map(|at| if is_text(at) { "---" } else { "---:" });
        text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
        for row in &self.rows {
            text += &line(shown.iter().map(|&at| row[at].markdown()).collect());
        }
        text
    }

    /// Writes it as CSV, whole: a column of figures with deviations has one for these beside it.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn write_csv(&self, path: &Path) -> Result<()> {
        let has_deviation: Vec<bool> = (0..self.columns.len())
            .map(|at| {
                let deviates = |row: &Vec<Cell>| {
                    matches!(row[at], Cell::Figure(Figure { deviation: Some(_), .. }, _))
                };
                self.rows.iter().any(deviates)
            })
            .collect();
        let mut csv = csv::Writer::from_writer(Vec::new());
        let failed = |e: csv::Error| TrainError::file(path, e);
        let mut head = Vec::new();
        for (column, deviates) in self.columns.iter().zip(&has_deviation) {
            head.push(column.clone());
            if *deviates {
                head.push(format!("{column} deviation"));
            }
        }
        csv.write_record(&head).map_err(failed)?;
        for row in &self.rows {
            let mut record = Vec::new();
            for (cell, deviates) in row.iter().zip(&has_deviation) {
                let (value, deviation) = match cell {
                    Cell::Text(text) => (text.clone(), None),
                    Cell::Figure(figure, _) => (figure.mean.to_string(), figure.deviation),
                    Cell::Missing => (String::new(), None),
                };
                record.push(value);
                if *deviates {
                    record.push(deviation.map_or(String::new(), |deviation| deviation.to_string()));
                }
            }
            csv.write_record(&record).map_err(failed)?;
        }
        let bytes = csv.into_inner().map_err(|e| TrainError::file(path, e.error()))?;
        write_atomically(path, |file| file.write_all(&bytes))
    }
}

/// The heads of the cells of [`metric_cells`].
pub(crate) const METRICS: [&str; 4] = ["Recall@5", "NDCG@5", "Recall@10", "NDCG@10"];

/// The four metrics over runs.
pub(crate) fn metric_cells(runs: &[Metrics]) -> [Cell; 4] {
    metric_values(runs).map(|values| Cell::figure(Figure::of(&values), 4))
}

/// Recall@5, NDCG@5, Recall@10 and NDCG@10 of each run.
fn metric_values(runs: &[Metrics]) -> [Vec<f64>; 4] {
    [
        |m: &Metrics| m.recall_5,
        |m: &Metrics| m.ndcg_5,
        |m: &Metrics| m.recall_10,
        |m: &Metrics| m.ndcg_10,
    ]
    .map(|of| runs.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_deviation_of_a_sample() {
        let figure = Figure::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((figure.mean - 2.5).abs() < 1e-12);
        assert!((figure.deviation.unwrap() - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Figure::of(&[7.0]), Some(Figure { mean: 7.0, deviation: None }));
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn a_table_is_readable_and_its_csv_has_all_digits() {
        let mut table = Table::new("", &["ids", "Recall@10", "paper", "bytes"]);
        let figure = Figure { mean: 0.06481, deviation: Some(0.00123) };
        table.rows.push(vec![
            "a|b, c".into(),
            Cell::Figure(figure, 4),
            Cell::Missing,
            Cell::Missing,
        ]);
        table.rows.push(vec![
            "d".into(),
            Cell::figure(Some(0.5), 4),
            Cell::Missing,
            Cell::figure(Some(12.0), 0),
        ]);
        assert_eq!(
            table.markdown(),
            "| ids | Recall@10 | bytes |\n|---|---:|---:|\n| a\\|b, c | .0648 ± .0012 | – |\n\
             | d | .5000 | 12 |\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        table.write_csv(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "ids,Recall@10,Recall@10 deviation,paper,bytes\n\"a|b, c\",0.06481,0.00123,,\n\
             d,0.5,,,12\n"
        );
    }

    #[test]
    fn metrics_stand_in_the_order_of_their_heads() {
        let run = Metrics { recall_5: 0.1, ndcg_5: 0.2, recall_10: 0.3, ndcg_10: 0.4 };
        let cells = metric_cells(&[run]).map(|cell| cell.markdown());
        assert_eq!(cells, [".1000", ".2000", ".3000", ".4000"]);
        assert_eq!(METRICS[2], "Recall@10");
    }
}
