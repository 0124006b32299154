//! `quantisation`: weight formats, quality against the size of the file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tigret_infer::WeightFormat;

use super::comparison::{figure_cell, measure, of_measured};
use super::lab::{Lab, Trained};
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::table::{Figure, METRICS, Table, metric_cells};
use crate::data::Dataset;
use crate::error::Result;
use crate::evaluate::{Settings, Split, rank_targets_of_bundle};
use crate::export::bundle_of_run;
use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    format: String,
    bytes: usize,
    metrics: Metrics,
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let beams = if lab.settings.smoke { 10 } else { 50 };
    let mut table = Table::new("", &["data", "format", "bytes"]);
    table.columns.extend(METRICS.map(str::to_owned));
    let mut lines = Vec::new();
    let measured = measure(lab, |trained, _| measured(lab, trained, beams))?;
    for of_data in &measured {
        let mut points = Vec::new();
        for (at, format) in WeightFormat::ALL.iter().enumerate() {
            let metrics: Vec<Metrics> =
                of_data.runs.iter().map(|points| points[at].metrics).collect();
            let bytes = of_data.figures(|points| points[at].bytes as f64);
            let mut row = vec![of_data.data.into(), format.name().into(), figure_cell(&bytes, 0)];
            row.extend(metric_cells(&metrics));
            table.rows.push(row);
            let recalls: Vec<f64> = metrics.iter().map(|metrics| metrics.recall_10).collect();
            points.extend(Figure::of(&bytes).zip(Figure::of(&recalls)).map(|(x, y)| (x.mean, y)));
        }
        let labels = WeightFormat::ALL.map(|format| format.name().to_owned()).into();
        lines.push(Line { labels, ..Line::new(of_data.data, points) });
    }
    Ok(Report {
        name: "quantisation",
        title: "Weight formats",
        about: format!(
            "The same model exported in each format and decoded by the CPU engine with {beams} \
             beams, as a page would; the bytes are those of the bundle. {}",
            of_measured(lab, &measured)
        ),
        tables: vec![table],
        plots: vec![Plot {
            name: String::new(),
            title: "Recall@10 by bytes of the bundle".into(),
            body: Body::Lines {
                x: Axis::logarithmic("bytes of the bundle"),
                y: Axis::from_zero("Recall@10"),
                lines,
            },
        }],
    })
}

fn measured(lab: &Lab<'_>, trained: &Trained, beams: usize) -> Result<Vec<Point>> {
    let formats = WeightFormat::ALL.map(WeightFormat::name);
    lab.measure(trained, 3, json!([formats, beams, lab.settings.users]), || {
        let run = &trained.run;
        let mut dataset = Dataset::load(run)?;
        dataset.sequences = lab.users(&dataset).into_iter().cloned().collect();
        let settings = Settings { batch: 1, ..Settings::of(Split::Test, beams) };
        let point = |format: WeightFormat| {
            let bundle = bundle_of_run(run, format)?;
            let bytes = bundle.to_bytes()?.len();
            let progress = lab.progress(dataset.sequences.len(), format.name());
            let ranking = rank_targets_of_bundle(&Arc::new(bundle), &dataset, settings, &progress);
            let metrics = ranking.metrics();
            Ok(Point { format: format.name().into(), bytes, metrics })
        };
        WeightFormat::ALL.into_iter().map(point).collect()
    })
}
