//! `scaling`: layers and widths, quality against the size of the file and the time of a
//! recommendation on the CPU engine.

use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tigret_infer::cpu::CpuEngine;
use tigret_infer::{Bundle, T5Config, TokenLayout, WeightFormat};

use super::comparison::{BEAMS, figure_cell, of_ranking, of_seeds, of_users};
use super::lab::{Lab, Trained, Variant};
use super::main_table::tiger;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::settings::Data;
use super::table::{Cell, Figure, Table};
use crate::data::{Dataset, Sequence};
use crate::error::{Result, TrainError};
use crate::evaluate::{self, Split, query_of};
use crate::export::bundle_of_run;
use crate::model::presets::Preset;
use crate::pipeline::Step;

const LAYERS: [i64; 4] = [1, 2, 4, 8];
/// Multiples of the configured width, in quarters.
const WIDTHS: [i64; 4] = [1, 2, 4, 8];
/// Recommendations whose median is taken.
const TIMED: usize = 21;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cost {
    weights: usize,
    /// Bytes of its bundle in q8.
    bytes: usize,
    /// Milliseconds of a recommendation, the median.
    milliseconds: f64,
}

struct Size {
    sweep: &'static str,
    layers: i64,
    width: i64,
    variant: Variant,
}

struct Sized {
    data: String,
    sweep: &'static str,
    layers: i64,
    width: i64,
    runs: Vec<(Trained, Cost)>,
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let mut models: Vec<Sized> = Vec::new();
    for data in &lab.settings.data {
        for Size { sweep, layers, width, variant } in sweeps(lab, data)? {
            let mut runs = Vec::new();
            for &seed in &lab.settings.seeds {
                let trained = lab.train(data, &variant, seed)?;
                let cost = lab.measure(&trained, 2, BEAMS, || cost(&trained))?;
                runs.push((trained, cost));
            }
            models.push(Sized { data: data.name.clone(), sweep, layers, width, runs });
        }
    }
    let users = models.iter().map(|model| (model.data.as_str(), model.runs[0].0.users));
    Ok(Report {
        name: "scaling",
        title: "Size, quality and speed",
        about: format!(
            "Layers of encoder and decoder at the configured width, and widths at the configured \
             number of layers (the feed-forward width grows with the width, the heads stay). Bytes are \
             those of the bundle in q8; the time is the median of {TIMED} recommendations with \
             {BEAMS} beams on one thread of the CPU engine, for the longest histories of the test. \
             Recall and NDCG are those of the model in f32. {} {}{}",
            of_seeds(lab),
            of_users(users),
            of_ranking(lab, &tiger())?
        ),
        tables: vec![table(&models)],
        plots: ["bytes", "ms"].map(|cost| plot(&models, cost)).into(),
    })
}

pub(super) fn variants(lab: &Lab<'_>, data: &Data) -> Result<Vec<Variant>> {
    Ok(sweeps(lab, data)?.into_iter().map(|size| size.variant).collect())
}

/// The models of a data set, by layers and then by width.
fn sweeps(lab: &Lab<'_>, data: &Data) -> Result<Vec<Size>> {
    let base = sizes(lab, data)?;
    let (layers, width) = (base.num_layers as i64, base.d_model as i64);
    let size = |sweep, layers, width| {
        let feed_forward = base.d_ff as i64 * width / base.d_model as i64;
        let variant = Variant::new(format!("size-{layers}x{width}"))
            .with(Step::Train, "layers", layers)
            .with(Step::Train, "width", width)
            .with(Step::Train, "d-ff", feed_forward);
        Size { sweep, layers, width, variant }
    };
    let by_layers = LAYERS.map(|layers| size("layers", layers, width));
    let by_width = WIDTHS.map(|quarters| size("width", layers, width * quarters / 4));
    Ok(by_layers.into_iter().chain(by_width).collect())
}

/// The configured sizes of the model.
fn sizes(lab: &Lab<'_>, data: &Data) -> Result<T5Config> {
    let of = |key| {
        let found = lab.option(data, &tiger(), Step::Train, key, str::parse::<usize>)?;
        Ok::<_, TrainError>(found.first().copied())
    };
    let named = |name: &str| Preset::from_str(name, false);
    let preset = lab.option(data, &tiger(), Step::Train, "preset", named)?;
    let preset = preset.first().copied().unwrap_or(Preset::Small);
    // Only the sizes are read, and they do not depend on the layout.
    let mut config = preset.config(&TokenLayout::contiguous(&[2, 2], 0, 1));
    for (key, size) in [
        ("layers", &mut config.num_layers),
        ("width", &mut config.d_model),
        ("d-ff", &mut config.d_ff),
    ] {
        *size = of(key)?.unwrap_or(*size);
    }
    Ok(config)
}

fn cost(trained: &Trained) -> Result<Cost> {
    let run = &trained.run;
    let dataset = Dataset::load(run)?;
    let bundle = bundle_of_run(run, WeightFormat::Q8)?;
    let weights = bundle.config.weights();
    let bytes = bundle.to_bytes()?.len();
    Ok(Cost { weights, bytes, milliseconds: median_milliseconds(bundle, &dataset)? })
}

/// The median time of a recommendation for the longest histories.
fn median_milliseconds(bundle: Bundle, dataset: &Dataset) -> Result<f64> {
    let bundle = Arc::new(bundle);
    let engine = CpuEngine::new(Arc::clone(&bundle));
    let mut users: Vec<&Sequence> = dataset.sequences.iter().collect();
    users.sort_by_key(|sequence| std::cmp::Reverse(sequence.items.len()));
    let settings = evaluate::Settings::of(Split::Test, BEAMS);
    let time = |at: usize| {
        let (query, _) = query_of(&bundle, dataset, users[at % users.len()], settings);
        let begin = Instant::now();
        engine.search(&query);
        begin.elapsed().as_secs_f64() * 1e3
    };
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|e| TrainError::usage(format!("no thread to time a recommendation on: {e}")))?;
    // The first two bring code and weights into the caches.
    let mut times: Vec<f64> = one_thread.install(|| (0..TIMED + 2).map(time).skip(2).collect());
    times.sort_by(f64::total_cmp);
    Ok(times[TIMED / 2])
}

fn values(model: &Sized, of: impl Fn(&(Trained, Cost)) -> f64) -> Vec<f64> {
    model.runs.iter().map(of).collect()
}

fn table(models: &[Sized]) -> Table {
    let mut table = Table::new(
        "",
        &["data", "layers", "width", "weights", "bytes", "ms", "Recall@10", "NDCG@10"],
    );
    let mut rows: Vec<&Sized> = Vec::new();
    for model in models {
        // The configured model is in both sweeps.
        let same = |other: &&Sized| {
            (&other.data, other.layers, other.width) == (&model.data, model.layers, model.width)
        };
        if !rows.iter().any(same) {
            rows.push(model);
        }
    }
    for model in rows {
        let cell = |of: fn(&Cost) -> f64, decimals| -> Cell {
            figure_cell(&values(model, |run| of(&run.1)), decimals)
        };
        table.rows.push(vec![
            model.data.as_str().into(),
            model.layers.to_string().into(),
            model.width.to_string().into(),
            cell(|cost| cost.weights as f64, 0),
            cell(|cost| cost.bytes as f64, 0),
            cell(|cost| cost.milliseconds, 2),
            figure_cell(&values(model, |run| run.0.metrics.recall_10), 4),
            figure_cell(&values(model, |run| run.0.metrics.ndcg_10), 4),
        ]);
    }
    table
}

fn plot(models: &[Sized], of: &'static str) -> Plot {
    let cost = |run: &(Trained, Cost)| match of {
        "bytes" => run.1.bytes as f64,
        _ => run.1.milliseconds,
    };
    let label = if of == "bytes" { "bytes of the bundle in q8" } else { "ms a recommendation" };
    let lines = models
        .chunk_by(|a, b| (&a.data, a.sweep) == (&b.data, b.sweep))
        .map(|sweep| {
            let points = sweep.iter().filter_map(|model| {
                let x = Figure::of(&values(model, cost))?.mean;
                let y = Figure::of(&values(model, |run| run.0.metrics.recall_10))?;
                Some((x, y))
            });
            Line::new(format!("{}, by {}", sweep[0].data, sweep[0].sweep), points.collect())
        })
        .collect();
    Plot {
        name: of.into(),
        title: format!("Recall@10 by {label}"),
        body: Body::Lines { x: Axis::logarithmic(label), y: Axis::from_zero("Recall@10"), lines },
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab::testing::ask;
    use super::*;

    #[test]
    fn sizes_are_those_that_the_training_understands() {
        let sizes = |settings: &[&str]| {
            let config = ask("scaling", settings, false, |lab, data| sizes(lab, data).unwrap());
            (config.num_layers, config.d_model, config.d_ff)
        };
        assert_eq!(sizes(&[]), (2, 128, 512), "the default preset");
        let given = ["train.preset=tiny", "train.layers=\"3\"", "train.d_ff=96"];
        let tiny = sizes(&given[..1]);
        assert_eq!(sizes(&given), (3, tiny.1, 96));
        assert_eq!(sizes(&["study.scaling.train.width=64", "train.layers=false"]), (2, 64, 512));
    }
}
