//! `invalid`: how many generated IDs name no item, by beam width, and what the constraint changes
//! (paper, section 4.5).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::comparison::{figure_cell, of_seeds, of_users, seeds};
use super::lab::{Lab, Loaded, Trained};
use super::main_table::tiger;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::table::{Figure, Table};
use crate::error::Result;
use crate::evaluate::free_search::{Generated, free_beam_search};
use crate::evaluate::{Protocol, Settings, Split, in_batches, rank_targets};
use crate::metrics::Metrics;
use crate::model::TrainedModel;
use crate::model::params::Views;

/// What is looked at of the results of a user.
const TOP: usize = 10;

/// The search at one beam width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    /// Beams.
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
    let mut lines = Vec::new();
    let mut recalls = Vec::new();
    let mut users = Vec::new();
    for data in &lab.settings.data {
        let mut runs = Vec::new();
        let trained = seeds(lab, data, &tiger())?;
        for trained in &trained {
            runs.push(measured(lab, trained, widths)?);
        }
        users.push((data.name.as_str(), lab.measured_users(trained[0].users)));
        let over_runs = |at: usize, of: fn(&Point) -> f64| -> Vec<f64> {
            runs.iter().map(|points| of(&points[at])).collect()
        };
        let line = |name: String, of: fn(&Point) -> f64| {
            let points = widths.iter().enumerate();
            let points = points
                .filter_map(|(at, &beams)| Some((beams as f64, Figure::of(&over_runs(at, of))?)));
            Line::new(name, points.collect())
        };
        for (at, beams) in widths.iter().enumerate() {
            let cell = |of: fn(&Point) -> f64, decimals| figure_cell(&over_runs(at, of), decimals);
            table.rows.push(vec![
                data.name.as_str().into(),
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
        lines.push(line(format!("{}, first 10", data.name), |p| 100.0 * p.invalid_top));
        lines.push(line(format!("{}, all beams", data.name), |p| 100.0 * p.invalid_all));
        recalls.push(line(format!("{}, constrained", data.name), |p| p.constrained.recall_10));
        recalls.push(line(format!("{}, filtered", data.name), |p| p.filtered.recall_10));
        recalls.push(line(format!("{}, unconstrained", data.name), |p| p.free.recall_10));
    }
    Ok(Report {
        name: "invalid",
        title: "Invalid IDs and the constraint",
        about: format!(
            "Without the trie the search may generate any token of the vocabulary, as \
             `transformers` does; an ID that names no item is invalid. `unconstrained` leaves invalid \
             IDs in the ranking, `filtered` takes them out afterwards, `constrained` is the search \
             of this project, whose results are items by construction. The paper reports 0.1 to \
             1.6 % of the first 10 as invalid (section 4.5). {} {}",
            of_seeds(lab),
            of_users(users)
        ),
        tables: vec![table],
        plots: vec![
            Plot {
                name: "share".into(),
                title: "Invalid IDs without the constraint".into(),
                body: Body::Lines {
                    x: Axis::logarithmic("beams"),
                    y: Axis::from_zero("invalid, %"),
                    lines,
                },
            },
            Plot {
                name: "recall".into(),
                title: "What the constraint changes".into(),
                body: Body::Lines {
                    x: Axis::logarithmic("beams"),
                    y: Axis::from_zero("Recall@10"),
                    lines: recalls,
                },
            },
        ],
    })
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
    let settings = Settings { protocol: Protocol::of(Split::Test), beams, batch, user_token: true };
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
