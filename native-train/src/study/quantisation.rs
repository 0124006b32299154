//! `quantisation`: weight formats, quality against the size of the file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tigret_infer::WeightFormat;

use super::comparison::{figure_cell, of_seeds, of_users, seeds};
use super::lab::{Lab, Trained};
use super::main_table::tiger;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::table::{Figure, METRICS, Table, metric_cells};
use crate::data::Dataset;
use crate::error::Result;
use crate::evaluate::{Protocol, Settings, Split, rank_targets_of_bundle};
use crate::export::bundle_of_run;
use crate::metrics::Metrics;

const FORMATS: [WeightFormat; 4] =
    [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

/// A bundle in one format.
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
    let mut users = Vec::new();
    for data in &lab.settings.data {
        let mut runs = Vec::new();
        let trained = seeds(lab, data, &tiger())?;
        for trained in &trained {
            runs.push(measured(lab, trained, beams)?);
        }
        users.push((data.name.as_str(), lab.measured_users(trained[0].users)));
        let mut points = Vec::new();
        for (at, format) in FORMATS.iter().enumerate() {
            let of: Vec<&Point> = runs.iter().map(|points: &Vec<Point>| &points[at]).collect();
            let metrics: Vec<Metrics> = of.iter().map(|point| point.metrics).collect();
            let bytes: Vec<f64> = of.iter().map(|point| point.bytes as f64).collect();
            let mut row =
                vec![data.name.as_str().into(), format.name().into(), figure_cell(&bytes, 0)];
            row.extend(metric_cells(&metrics));
            table.rows.push(row);
            let recalls: Vec<f64> = metrics.iter().map(|metrics| metrics.recall_10).collect();
            points.extend(Figure::of(&bytes).zip(Figure::of(&recalls)).map(|(x, y)| (x.mean, y)));
        }
        let labels = FORMATS.map(|format| format.name().to_owned()).into();
        lines.push(Line { labels, ..Line::new(data.name.as_str(), points) });
    }
    Ok(Report {
        name: "quantisation",
        title: "Weight formats",
        about: format!(
            "The same model exported in each format and decoded by the CPU engine with {beams} \
             beams, as a page would; the bytes are those of the bundle. {} {}",
            of_seeds(lab),
            of_users(users)
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
    let formats = FORMATS.map(WeightFormat::name);
    lab.measure(trained, 3, json!([formats, beams, lab.settings.users]), || {
        let run = &trained.run;
        let mut dataset = Dataset::load(run)?;
        dataset.sequences = lab.users(&dataset).into_iter().cloned().collect();
        let settings =
            Settings { protocol: Protocol::of(Split::Test), beams, batch: 1, user_token: true };
        let point = |format: WeightFormat| {
            let bundle = bundle_of_run(run, format)?;
            let bytes = bundle.to_bytes()?.len();
            let progress = lab.progress(dataset.sequences.len(), format.name());
            let ranking = rank_targets_of_bundle(&Arc::new(bundle), &dataset, settings, &progress);
            let metrics = ranking.metrics();
            Ok(Point { format: format.name().into(), bytes, metrics })
        };
        FORMATS.into_iter().map(point).collect()
    })
}
