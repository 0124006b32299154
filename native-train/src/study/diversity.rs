//! `diversity`: sampling at several temperatures, and the entropy of the categories of what comes
//! out (paper, section 4.3).

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tigret_infer::sampling::{MAX_SEED, Sampling};
use tigret_infer::search::{EngineQuery, Hit, ItemFilter};

use super::comparison::{Measured, figure_cell, measure, of_measured};
use super::lab::{Lab, Loaded, Trained};
use super::paper;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::table::{Cell, Figure, Table};
use crate::error::{Result, TrainError};
use crate::evaluate::search::beam_search;
use crate::evaluate::{Settings, Split, in_batches};
use crate::metrics::Metrics;
use crate::model::TrainedModel;
use crate::model::params::Views;
use crate::report::category::categories;
use crate::tokenizer::stats;

const TEMPERATURES: [f64; 3] = [1.0, 1.5, 2.0];
/// The lengths of the lists that are looked at; the last is the number of items drawn.
const LENGTHS: [usize; 3] = [10, 20, 50];

/// What a search returned at one temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    /// `None`: the best, without sampling.
    temperature: Option<f64>,
    metrics: Metrics,
    /// For each depth of the categories, coarse to fine, the mean entropy of lists of [`LENGTHS`].
    entropies: Vec<[f64; 3]>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    /// How many categories there are at each depth.
    categories: Vec<usize>,
    points: Vec<Point>,
    /// For each depth the same entropies of lists that are drawn evenly from the catalogue, which is
    /// about the most that a recommender has.
    even: Vec<[f64; 3]>,
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let measured = measure(lab, |trained, seed| measured(lab, trained, seed))?;
    Ok(Report {
        name: "diversity",
        title: "Temperature and diversity",
        about: format!(
            "{} items are drawn for each test user without replacement (stochastic beam search), at \
             one temperature for all levels. The entropy (natural logarithm) is that of the \
             categories among the first 10, 20 and 50 drawn, in the mean over users; items without a \
             category do not count. Rows of more categories are finer steps of the same paths. The \
             paper does not say which categories it counts: its figures stand beside the fewest that \
             can have them, since the entropy of n categories is at most ln(n). Lists drawn evenly \
             from the catalogue show what there is to reach. {}",
            LENGTHS[2],
            of_measured(lab, &measured)
        ),
        tables: vec![table(&measured)],
        plots: measured.iter().map(|of_data| plot(of_data, measured.len() > 1)).collect(),
    })
}

/// A row for each data set, depth of the categories and temperature.
fn table(measured: &[Measured<'_, Figures>]) -> Table {
    let lengths = LENGTHS.map(|length| format!("entropy@{length}"));
    let mut table = Table::new("", &["data", "categories", "temperature"]);
    table.columns.extend(lengths.clone());
    table.columns.extend(lengths.map(|length| format!("paper {length}")));
    table.columns.extend(["Recall@10", "NDCG@10"].map(str::to_owned));
    for of_data in measured {
        let first = &of_data.runs[0];
        let compared = comparable(&first.categories, of_data.data);
        for (depth, names) in first.categories.iter().enumerate() {
            let begin = |shown: String| {
                vec![of_data.data.into(), Cell::figure(Some(*names as f64), 0), shown.into()]
            };
            for (at, point) in first.points.iter().enumerate() {
                let cell = |of: &dyn Fn(&Point) -> f64, decimals| {
                    figure_cell(&of_data.figures(|run| of(&run.points[at])), decimals)
                };
                let mut row =
                    begin(point.temperature.map_or("none, the best".into(), |t| format!("{t:.1}")));
                row.extend((0..3).map(|length| cell(&|p| p.entropies[depth][length], 2)));
                let published = point.temperature.filter(|_| compared == Some(depth));
                let published = published.and_then(|t| paper::entropy(of_data.data, t));
                row.extend((0..3).map(|at| Cell::figure(published.map(|figures| figures[at]), 2)));
                row.push(cell(&|p| p.metrics.recall_10, 4));
                row.push(cell(&|p| p.metrics.ndcg_10, 4));
                table.rows.push(row);
            }
            let mut row = begin("drawn evenly".into());
            row.extend(first.even[depth].map(|entropy| Cell::figure(Some(entropy), 2)));
            row.resize(table.columns.len(), Cell::figure(None::<f64>, 2));
            table.rows.push(row);
        }
    }
    table
}

/// The entropies of the categories that the paper's stand beside, or of the coarsest, by temperature;
/// `several` data sets are told apart by the names of their plots.
fn plot(of_data: &Measured<'_, Figures>, several: bool) -> Plot {
    let (data, first) = (of_data.data, &of_data.runs[0]);
    let compared = comparable(&first.categories, data);
    let depth = compared.unwrap_or(0);
    let mut lines = Vec::new();
    for (at, length) in LENGTHS.iter().enumerate() {
        let ours = first.points.iter().enumerate().filter_map(|(point, p)| {
            let values = of_data.figures(|run| run.points[point].entropies[depth][at]);
            Some((p.temperature?, Figure::of(&values)?))
        });
        lines.push(Line::new(format!("first {length}"), ours.collect()));
        let published = TEMPERATURES
            .iter()
            .filter(|_| compared.is_some())
            .filter_map(|&t| Some((t, Figure::from(paper::entropy(data, t)?[at]))));
        let published: Vec<_> = published.collect();
        if !published.is_empty() {
            lines.push(Line::of_paper(format!("paper, first {length}"), published));
        }
    }
    Plot {
        name: if several { data.into() } else { String::new() },
        title: format!("Entropy of {} categories, {data}", first.categories[depth]),
        body: Body::Lines {
            x: Axis::linear("temperature"),
            y: Axis::from_zero("entropy, nats"),
            lines,
        },
    }
}

fn measured(lab: &Lab<'_>, trained: &Trained, seed: u64) -> Result<Figures> {
    lab.measure(trained, 3, json!([TEMPERATURES, LENGTHS, lab.settings.users, seed]), || {
        let loaded = Loaded::new(trained)?;
        let depths = categories(&loaded.dataset.items);
        if depths.is_empty() {
            return Err(TrainError::file(
                trained.run.items(),
                "the items have no field of categories that tells them apart",
            ));
        }
        let of_items: Vec<&[Option<u32>]> =
            depths.iter().map(|depth| depth.of_item.as_slice()).collect();
        let temperatures = [None].into_iter().chain(TEMPERATURES.map(Some));
        let points =
            temperatures.map(|temperature| point(lab, &loaded, &of_items, temperature, seed));
        Ok(Figures {
            categories: depths.iter().map(|depth| depth.names.len()).collect(),
            points: points.collect::<Result<_>>()?,
            even: even(&of_items, loaded.dataset.items.len()),
        })
    })
}

fn point(
    lab: &Lab<'_>,
    loaded: &Loaded,
    categories: &[&[Option<u32>]],
    temperature: Option<f64>,
    seed: u64,
) -> Result<Point> {
    let Loaded { dataset, ids, trained: TrainedModel { model, weights } } = loaded;
    let users = lab.users(dataset);
    let beams = LENGTHS[2];
    let settings = Settings::of(Split::Test, beams);
    let samplings = temperature
        .map(|temperature| {
            let levels = ids.layout.levels.len();
            let sampling = |seed| Sampling::new(&[temperature as f32], levels, seed);
            noise(seed, users.len()).map(sampling).collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    let shown = temperature.map_or("the best".to_owned(), |t| format!("temperature {t}"));
    let progress = lab.progress(users.len(), &shown);
    let search = |weights: &Views, users: &[usize], inputs: Vec<Vec<u32>>| {
        let query = |(input, &user): (Vec<u32>, &usize)| EngineQuery {
            input,
            beams,
            filter: ItemFilter::everything(),
            sampling: samplings.as_ref().map(|all| all[user].clone()),
        };
        let queries: Vec<EngineQuery> = inputs.into_iter().zip(users).map(query).collect();
        let found = beam_search(model, weights, ids, &queries);
        let item = |hit: &Hit| ids.item_of_rank[hit.rank as usize];
        found.iter().map(|hits| hits.iter().map(item).collect()).collect()
    };
    let lists: Vec<Vec<u32>> = in_batches(weights, ids, &users, settings, &progress, search);
    let rank = |(user, list): (usize, &Vec<u32>)| {
        list.iter().position(|&item| item == users[user].test().1)
    };
    let ranks: Vec<Option<usize>> = lists.iter().enumerate().map(rank).collect();
    let entropies = mean_entropies(categories, &lists);
    Ok(Point { temperature, metrics: Metrics::from_ranks(&ranks), entropies })
}

/// The coarsest depth whose categories can have the entropies that the paper reports for a data set;
/// any, where it reports none.
fn comparable(categories: &[usize], data: &str) -> Option<usize> {
    let published = TEMPERATURES.iter().filter_map(|&t| paper::entropy(data, t)).flatten();
    let most = published.fold(0.0, f64::max);
    categories.iter().position(|&names| (names as f64).ln() >= most)
}

/// Mean entropies of lists that are drawn evenly and without replacement from so many items.
fn even(categories: &[&[Option<u32>]], items: usize) -> Vec<[f64; 3]> {
    const LISTS: usize = 2000;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut list = |_| -> Vec<u32> {
        let drawn = rand::seq::index::sample(&mut rng, items, LENGTHS[2].min(items));
        drawn.into_iter().map(|item| item as u32).collect()
    };
    mean_entropies(categories, &(0..LISTS).map(&mut list).collect::<Vec<_>>())
}

/// For each depth of the categories, the mean entropy of the first [`LENGTHS`] items of lists.
fn mean_entropies(categories: &[&[Option<u32>]], lists: &[Vec<u32>]) -> Vec<[f64; 3]> {
    let of_depth = |of_item: &&[Option<u32>]| {
        LENGTHS.map(|length| {
            let of_list = |list: &Vec<u32>| {
                let first = &list[..length.min(list.len())];
                entropy(first.iter().filter_map(|&item| of_item[item as usize]))
            };
            lists.iter().map(of_list).sum::<f64>() / lists.len().max(1) as f64
        })
    };
    categories.iter().map(of_depth).collect()
}

/// Seeds of so many users' noise, each another, which a resumed measurement draws again. Every bit of
/// the study's seed counts.
fn noise(seed: u64, users: usize) -> impl Iterator<Item = u64> {
    let first = ChaCha8Rng::seed_from_u64(seed).next_u64();
    (0..users as u64).map(move |user| first.wrapping_add(user) & MAX_SEED)
}

/// Entropy in nats of the distribution of values.
fn entropy(values: impl Iterator<Item = u32>) -> f64 {
    let mut values: Vec<u32> = values.collect();
    values.sort_unstable();
    stats::entropy(values.chunk_by(|a, b| a == b).map(|same| same.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_and_each_user_has_its_own_noise() {
        let seeds = [0, 1, 1 << 21, 1 << 53, i64::MAX as u64];
        let mut all: Vec<u64> = seeds.iter().flat_map(|&seed| noise(seed, 50)).collect();
        assert_eq!(all, seeds.iter().flat_map(|&seed| noise(seed, 50)).collect::<Vec<_>>());
        assert!(all.iter().all(|&seed| seed <= MAX_SEED));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 50 * seeds.len());
    }

    #[test]
    fn the_paper_stands_beside_categories_that_can_have_its_entropies() {
        // Of six categories no list has more than ln 6 = 1.79; the paper has 2.28.
        assert_eq!(comparable(&[6, 40, 157], "beauty"), Some(1));
        assert_eq!(comparable(&[6, 9], "beauty"), None);
        assert_eq!(comparable(&[2, 9], "shop"), Some(0));
    }

    #[test]
    fn lists_drawn_evenly_have_the_categories_of_the_catalogue() {
        let (halves, same): (Vec<_>, Vec<_>) = (0..400).map(|i| (Some(i % 2), Some(7))).unzip();
        let found = even(&[&halves, &same], 400);
        assert_eq!(found[1], [0.0; 3]);
        // The mean entropy of shares of n draws is short of ln 2 by about 1 / 2n.
        for (length, entropy) in LENGTHS.iter().zip(found[0]) {
            let expected = 2f64.ln() - 0.5 / *length as f64;
            assert!((entropy - expected).abs() < 0.01, "{length}: {entropy}");
        }
        assert_eq!(even(&[&[Some(0)]], 1), [[0.0; 3]], "a shorter list than was asked for");
    }

    #[test]
    fn entropy_is_that_of_the_shares() {
        assert_eq!(entropy([].into_iter()), 0.0);
        assert_eq!(entropy([3, 3, 3].into_iter()), 0.0);
        assert!((entropy([1, 2, 1, 2].into_iter()) - 2f64.ln()).abs() < 1e-12);
        let expected = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((entropy([5, 5, 0, 5].into_iter()) - expected).abs() < 1e-12);
    }
}
