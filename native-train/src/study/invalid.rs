//! `invalid`: how many generated IDs name no item, by beam width, and what the constraint changes
//! (paper, section 4.5).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::comparison::{Measured, figure_cell, measure, of_measured};
use super::lab::{Lab, Loaded, Trained};
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::table::{Figure, Table};
use crate::error::Result;
use crate::evaluate::free_search::{Generated, free_beam_search};
use crate::evaluate::{Settings, Split, in_batches, rank_targets};
use crate::metrics::Metrics;
use crate::model::TrainedModel;
use crate::model::params::Views;

/// What is looked at of the results of a user.
const TOP: usize = 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    beams: usize,
    /// Share of the first ten that name no item, without the constraint.
    invalid_top: f64,
    /// The same of all beams.
    invalid_all: f64,
    /// Without the constraint; what names no item keeps its place in the ranking.
    free: Metrics,
    /// Without the constraint; what names no item is taken out afterwards.
    filtered: Metrics,
    /// With the constraint.
    constrained: Metrics,
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let widths: &[usize] = if lab.settings.smoke { &[10, 20] } else { &[10, 20, 50, 100, 200] };
    let measured = measure(lab, |trained, _| measured(lab, trained, widths))?;
    Ok(Report {
        name: "invalid",
        title: "Invalid IDs and the constraint",
        about: format!(
            "Without the trie the search may generate any token of the vocabulary, as \
             `transformers` does; an ID that names no item is invalid. `unconstrained` leaves invalid \
             IDs in the ranking, `filtered` takes them out afterwards, `constrained` is the search \
             of this project, whose results are items by construction. The paper reports 0.1 to \
             1.6 % of the first 10 as invalid (section 4.5). {}",
            of_measured(lab, &measured)
        ),
        tables: vec![table(widths, &measured)],
        plots: plots(widths, &measured),
    })
}

/// A row for each data set and beam width.
fn table(widths: &[usize], measured: &[Measured<'_, Vec<Point>>]) -> Table {
    let mut table = Table::new(
        "",
        &[
            "data",
            "beams",
            "invalid of the first 10, %",
            "invalid of all beams, %",
            "Recall@10 unconstrained",
            "NDCG@10 unconstrained",
            "Recall@10 filtered",
            "NDCG@10 filtered",
            "Recall@10 constrained",
            "NDCG@10 constrained",
        ],
    );
    for of_data in measured {
        for (at, beams) in widths.iter().enumerate() {
            let cell = |of: fn(&Point) -> f64, decimals| {
                figure_cell(&of_data.figures(|points| of(&points[at])), decimals)
            };
            table.rows.push(vec![
                of_data.data.into(),
                beams.to_string().into(),
                cell(|p| 100.0 * p.invalid_top, 2),
                cell(|p| 100.0 * p.invalid_all, 2),
                cell(|p| p.free.recall_10, 4),
                cell(|p| p.free.ndcg_10, 4),
                cell(|p| p.filtered.recall_10, 4),
                cell(|p| p.filtered.ndcg_10, 4),
                cell(|p| p.constrained.recall_10, 4),
                cell(|p| p.constrained.ndcg_10, 4),
            ]);
        }
    }
    table
}

/// What is invalid, and what is found, by beam width.
fn plots(widths: &[usize], measured: &[Measured<'_, Vec<Point>>]) -> Vec<Plot> {
    let line = |of_data: &Measured<'_, Vec<Point>>, name: &str, of: fn(&Point) -> f64| {
        let point = |(at, &beams): (usize, &usize)| {
            Some((beams as f64, Figure::of(&of_data.figures(|points| of(&points[at])))?))
        };
        let points = widths.iter().enumerate().filter_map(point).collect();
        Line::new(format!("{}, {name}", of_data.data), points)
    };
    let (mut shares, mut recalls) = (Vec::new(), Vec::new());
    for of_data in measured {
        shares.push(line(of_data, "first 10", |p| 100.0 * p.invalid_top));
        shares.push(line(of_data, "all beams", |p| 100.0 * p.invalid_all));
        recalls.push(line(of_data, "constrained", |p| p.constrained.recall_10));
        recalls.push(line(of_data, "filtered", |p| p.filtered.recall_10));
        recalls.push(line(of_data, "unconstrained", |p| p.free.recall_10));
    }
    let plot = |name: &str, title: &str, y: &str, lines| Plot {
        name: name.into(),
        title: title.into(),
        body: Body::Lines { x: Axis::logarithmic("beams"), y: Axis::from_zero(y), lines },
    };
    vec![
        plot("share", "Invalid IDs without the constraint", "invalid, %", shares),
        plot("recall", "What the constraint changes", "Recall@10", recalls),
    ]
}

fn measured(lab: &Lab<'_>, trained: &Trained, widths: &[usize]) -> Result<Vec<Point>> {
    lab.measure(trained, 1, json!([widths, lab.settings.users]), || {
        let loaded = Loaded::new(trained)?;
        Ok(widths.iter().map(|&beams| point(lab, &loaded, beams)).collect())
    })
}

/// Both searches at one beam width.
fn point(lab: &Lab<'_>, loaded: &Loaded, beams: usize) -> Point {
    let Loaded { dataset, ids, trained: TrainedModel { model, weights } } = loaded;
    let users = lab.users(dataset);
    // The scores of all tokens after all beams are in memory at once.
    let batch = (128 * 50 / beams).clamp(8, 128);
    let settings = Settings { batch, ..Settings::of(Split::Test, beams) };
    let progress = lab.progress(2 * users.len(), &format!("{beams} beams"));
    let free = |weights: &Views, _: &[usize], inputs: Vec<Vec<u32>>| {
        free_beam_search(model, weights, ids, &inputs, beams)
    };
    let generated = in_batches(weights, ids, &users, settings, &progress, free);
    let constrained = rank_targets(model, weights, ids, &users, settings, &progress);
    let target = |user: usize| Some(ids.rank_of_item[Split::Test.of(users[user]).1 as usize]);
    let ranks = |is_kept: fn(&&Generated) -> bool| -> Vec<Option<usize>> {
        let rank = |(user, found): (usize, &Vec<Generated>)| {
            found.iter().filter(is_kept).position(|one| one.rank == target(user))
        };
        generated.iter().enumerate().map(rank).collect()
    };
    Point {
        beams,
        invalid_top: invalid_share(&generated, TOP),
        invalid_all: invalid_share(&generated, beams),
        free: Metrics::from_ranks(&ranks(|_| true)),
        filtered: Metrics::from_ranks(&ranks(|one| one.rank.is_some())),
        constrained: constrained.metrics(),
    }
}

/// Share of the first `top` of each user that name no item.
fn invalid_share(generated: &[Vec<Generated>], top: usize) -> f64 {
    let looked_at = || generated.iter().flat_map(|found| &found[..top.min(found.len())]);
    looked_at().filter(|one| one.rank.is_none()).count() as f64 / looked_at().count().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_first_of_each_user() {
        let of = |ranks: &[Option<u32>]| -> Vec<Generated> {
            ranks.iter().map(|&rank| Generated { rank, score: 0.0 }).collect()
        };
        let generated = [of(&[Some(1), None, None]), of(&[None, Some(2), Some(3)]), of(&[Some(4)])];
        assert_eq!(invalid_share(&generated, 1), 1.0 / 3.0);
        assert_eq!(invalid_share(&generated, 2), 2.0 / 5.0);
        assert_eq!(invalid_share(&generated, 9), 3.0 / 7.0);
        assert_eq!(invalid_share(&[], 9), 0.0);
    }
}
