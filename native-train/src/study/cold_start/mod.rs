//! `cold-start`: items that nobody has interacted with, reached by the codes that they share with
//! others (paper, section 4.3).

mod data;
mod lists;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tigret_infer::search::{EngineQuery, ItemFilter};

use super::comparison::{figure_cell, of_seeds};
use super::lab::{Lab, Loaded, Trained, Variant};
use super::main_table::tiger;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::settings::Data;
use super::table::{Figure, Table};
use crate::baselines::{self, SemanticKnn, semantic_knn};
use crate::data::{Dataset, Summary};
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::evaluate::search::beam_search;
use crate::evaluate::{Protocol, Settings, Split, in_batches};
use crate::model::TrainedModel;
use crate::model::params::Views;
use crate::pipeline::Step;
use crate::run_dir::RunDir;
use data::{UNSEEN, assign_unseen, draw, rows, without};
use lists::{Curve, MOST, candidates, curve, cut, recall, unseen_by_prefix};

/// The share of unseen items in the curves over the length of the list.
const EPSILON: f64 = 0.1;
/// The shares of the curve at [`AT`].
const EPSILONS: [f64; 8] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0];
/// The length of the list at which shares are compared.
const AT: usize = 10;
const BEAMS: usize = 50;

/// The figures of a group of test users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Group {
    users: usize,
    /// Of TIGER, at most [`EPSILON`] of a list unseen.
    tiger: Curve,
    /// Of Semantic_KNN.
    knn: Curve,
    /// Of TIGER at [`AT`], for each of [`EPSILONS`].
    by_epsilon: Vec<f64>,
    /// Largest share of unseen items in a list of [`AT`] at each of [`EPSILONS`].
    unseen_share: Vec<f64>,
}

/// The figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    unseen_items: usize,
    all: Group,
    /// Users whose test item is unseen.
    cold: Group,
}

/// The whole data set, of which only the vectors are made, and the one that is trained.
pub(super) fn variants() -> Vec<Variant> {
    vec![tiger(), without_unseen()]
}

/// Trained on a data set that is made here.
fn without_unseen() -> Variant {
    Variant::new("cold-start").without(Step::Prepare).without(Step::Embed)
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let mut curves = Table::new(
        "",
        &[
            "data",
            "K",
            "Recall@K TIGER, all users",
            "Recall@K Semantic_KNN, all users",
            "Recall@K TIGER, unseen test item",
            "Recall@K Semantic_KNN, unseen test item",
        ],
    );
    let mut epsilons = Table::new(
        "epsilon",
        &[
            "data",
            "epsilon",
            "Recall@10 TIGER, all users",
            "Recall@10 Semantic_KNN, all users",
            "Recall@10 TIGER, unseen test item",
            "Recall@10 Semantic_KNN, unseen test item",
            "most unseen of 10, %",
        ],
    );
    let mut groups = String::new();
    let (mut by_k, mut by_k_cold, mut by_epsilon) = (Vec::new(), Vec::new(), Vec::new());
    for data in &lab.settings.data {
        let seeds = &lab.settings.seeds;
        let runs: Vec<Figures> =
            seeds.iter().map(|&seed| figures(lab, data, seed)).collect::<Result<_>>()?;
        let of = |value: &dyn Fn(&Figures) -> f64| -> Vec<f64> { runs.iter().map(value).collect() };
        // Of no user there is no figure.
        let of_cold = |value: &dyn Fn(&Figures) -> f64| -> Vec<f64> {
            runs.iter().filter(|run| run.cold.users > 0).map(value).collect()
        };
        for k in 1..=MOST {
            let cell = |value: &dyn Fn(&Figures) -> f64| figure_cell(&of(value), 4);
            let cold = |value: &dyn Fn(&Figures) -> f64| figure_cell(&of_cold(value), 4);
            curves.rows.push(vec![
                data.name.as_str().into(),
                k.to_string().into(),
                cell(&|f| f.all.tiger[k - 1]),
                cell(&|f| f.all.knn[k - 1]),
                cold(&|f| f.cold.tiger[k - 1]),
                cold(&|f| f.cold.knn[k - 1]),
            ]);
        }
        for (at, epsilon) in EPSILONS.iter().enumerate() {
            let cell = |value: &dyn Fn(&Figures) -> f64| figure_cell(&of(value), 4);
            let cold = |value: &dyn Fn(&Figures) -> f64| figure_cell(&of_cold(value), 4);
            let share = of(&|f: &Figures| 100.0 * f.all.unseen_share[at]);
            epsilons.rows.push(vec![
                data.name.as_str().into(),
                epsilon.to_string().into(),
                cell(&|f| f.all.by_epsilon[at]),
                cell(&|f| f.all.knn[AT - 1]),
                cold(&|f| f.cold.by_epsilon[at]),
                cold(&|f| f.cold.knn[AT - 1]),
                figure_cell(&share, 0),
            ]);
        }
        let first = &runs[0];
        groups += &format!(
            " On {}, {} items are unseen, and the test item of {} of {} users is one of them (seed \
             {}); Semantic_KNN has a decay of {}.",
            data.name,
            first.unseen_items,
            first.cold.users,
            first.all.users,
            seeds[0],
            knn_settings(lab, data)?.decay
        );
        let line = |name: &str, xs: &[f64], figures: &dyn Fn(usize) -> Vec<f64>| {
            let points = xs.iter().enumerate();
            let points = points.filter_map(|(at, &x)| Some((x, Figure::of(&figures(at))?)));
            Line::new(format!("{}, {name}", data.name), points.collect())
        };
        let ks: Vec<f64> = (1..=MOST).map(|k| k as f64).collect();
        by_k.push(line("TIGER", &ks, &|at| of(&|f| f.all.tiger[at])));
        by_k.push(line("Semantic_KNN", &ks, &|at| of(&|f| f.all.knn[at])));
        by_k_cold.push(line("TIGER", &ks, &|at| of_cold(&|f| f.cold.tiger[at])));
        by_k_cold.push(line("Semantic_KNN", &ks, &|at| of_cold(&|f| f.cold.knn[at])));
        by_epsilon.push(line("TIGER", &EPSILONS, &|at| of(&|f| f.all.by_epsilon[at])));
        by_epsilon.push(line("Semantic_KNN", &EPSILONS, &|_| of(&|f| f.all.knn[AT - 1])));
    }
    let plot = |name: &str, title: &str, x: &str, y: &str, lines| Plot {
        name: name.into(),
        title: title.into(),
        body: Body::Lines { x: Axis::linear(x), y: Axis::from_zero(y), lines },
    };
    let by_k_title = format!("Recall by length of the list, epsilon {EPSILON}");
    Ok(Report {
        name: "cold-start",
        title: "Unseen items",
        about: format!(
            "{} % of the test items are removed from training, with all their interactions. The \
             trained tokenizer gives them IDs; at retrieval they join the results that share their \
             codes but the last, at most a share epsilon of a list (rounded down, so lists shorter \
             than 1 / epsilon have none).{groups} {}",
            100.0 * UNSEEN,
            of_seeds(lab)
        ),
        tables: vec![curves, epsilons],
        plots: vec![
            plot("all", &by_k_title, "K", "Recall@K, all users", by_k),
            plot(
                "unseen",
                &by_k_title,
                "K",
                "Recall@K, users whose test item is unseen",
                by_k_cold,
            ),
            plot("epsilon", "Recall@10 by epsilon", "epsilon", "Recall@10, all users", by_epsilon),
        ],
    })
}

/// Trains without the unseen items and measures with them.
fn figures(lab: &Lab<'_>, data: &Data, seed: u64) -> Result<Figures> {
    let prepared = lab.steps(data, &tiger(), seed, Step::Embed)?;
    let whole = RunDir::named(lab.run_dir(data, &tiger(), seed));
    let dataset = Dataset::load(&whole)?;
    let vectors = Vectors::load(&whole, &dataset.items)?;
    let unseen = draw(&dataset, seed);
    let variant = without_unseen();
    let run = RunDir::create(lab.run_dir(data, &variant, seed))?;
    let (seen, seen_vectors) = without(&dataset, &vectors, &unseen);
    if seen.sequences.is_empty() {
        return Err(TrainError::usage(format!(
            "{}: nothing is left to train on without the unseen items; give more data",
            data.name
        )));
    }
    seen.save(&run, &Summary::new(&seen, "cold-start", 0), None)?;
    seen_vectors.save(&run, &seen.items, "as embedded with all items", false)?;
    let trained = lab.train(data, &variant, seed)?;
    let knn = knn_settings(lab, data)?;
    let prepared = &prepared[&Step::Prepare];
    let settings = json!([lab.settings.users, BEAMS, EPSILON, EPSILONS, prepared, knn]);
    lab.measure(&trained, 1, settings, || {
        measure(lab, &trained, &whole, &dataset, &vectors, &unseen, knn)
    })
}

/// Semantic_KNN as it is configured for `evaluate`.
fn knn_settings(lab: &Lab<'_>, data: &Data) -> Result<semantic_knn::Settings> {
    let step = Step::Evaluate;
    // Options of a baseline are understood where it is named.
    let named = tiger().with(step, "baselines", "semantic-knn");
    let decay = lab.option(data, &named, step, "semantic-knn-decay", str::parse)?;
    let decay = decay.first().copied().unwrap_or(semantic_knn::Settings::DEFAULT.decay);
    Ok(semantic_knn::Settings { decay })
}

fn measure(
    lab: &Lab<'_>,
    trained: &Trained,
    whole: &RunDir,
    dataset: &Dataset,
    vectors: &Vectors,
    unseen: &HashSet<u32>,
    knn: semantic_knn::Settings,
) -> Result<Figures> {
    let with_all = assign_unseen(&trained.run, whole, dataset, vectors, unseen)?;
    let Loaded { dataset: joined, ids, trained: TrainedModel { model, weights } } =
        &Loaded::with_model_of(&with_all, trained)?;
    let at: HashMap<&str, u32> =
        dataset.items.iter().map(|item| item.id.as_str()).zip(0..).collect();
    let order: Vec<u32> = joined.items.iter().map(|item| at[item.id.as_str()]).collect();
    let is_unseen: Vec<bool> = order.iter().map(|item| unseen.contains(item)).collect();
    let by_prefix = unseen_by_prefix(ids, &is_unseen);

    let users = lab.users(joined);
    let settings = Settings {
        protocol: Protocol::of(Split::Test),
        beams: BEAMS,
        batch: 128,
        user_token: true,
    };
    let progress = lab.progress(2 * users.len(), "cold start");
    let search = |weights: &Views, _: &[usize], inputs: Vec<Vec<u32>>| {
        let query = |input| EngineQuery {
            input,
            beams: BEAMS,
            filter: ItemFilter::everything(),
            sampling: None,
        };
        let queries: Vec<EngineQuery> = inputs.into_iter().map(query).collect();
        let found = beam_search(model, weights, ids, &queries);
        found.iter().map(|hits| candidates(ids, hits, &is_unseen, &by_prefix)).collect()
    };
    let lists: Vec<Vec<u32>> = in_batches(weights, ids, &users, settings, &progress, search);
    let knn = SemanticKnn::new(joined, rows(vectors, &order), knn)?;
    let histories: Vec<&[u32]> = users.iter().map(|user| user.test().0).collect();
    let nearest = baselines::recommend(&knn, &histories, MOST, &progress);
    let nearest: Vec<Vec<u32>> =
        nearest.iter().map(|list| list.iter().map(|scored| scored.item).collect()).collect();

    let group = |of: &[usize]| Group {
        users: of.len(),
        tiger: curve(of, &users, |user, k| cut(&lists[user], &is_unseen, k, EPSILON)),
        knn: curve(of, &users, |user, k| nearest[user].iter().copied().take(k).collect()),
        by_epsilon: EPSILONS
            .iter()
            .map(|&epsilon| recall(of, &users, |user| cut(&lists[user], &is_unseen, AT, epsilon)))
            .collect(),
        unseen_share: EPSILONS
            .iter()
            .map(|&epsilon| {
                let unseen = |&user: &usize| {
                    let list = cut(&lists[user], &is_unseen, AT, epsilon);
                    list.iter().filter(|&&item| is_unseen[item as usize]).count()
                };
                of.iter().map(unseen).max().unwrap_or(0) as f64 / AT as f64
            })
            .collect(),
    };
    let all: Vec<usize> = (0..users.len()).collect();
    let is_cold = |&user: &usize| is_unseen[users[user].test().1 as usize];
    let cold: Vec<usize> = all.iter().copied().filter(is_cold).collect();
    Ok(Figures { unseen_items: unseen.len(), all: group(&all), cold: group(&cold) })
}

#[cfg(test)]
mod tests {
    use super::super::lab::testing::ask;
    use super::*;

    #[test]
    fn the_knn_is_that_of_the_evaluation() {
        for (setting, decay) in [
            ("evaluate.beams=10", semantic_knn::Settings::DEFAULT.decay),
            ("evaluate.semantic-knn-decay=false", semantic_knn::Settings::DEFAULT.decay),
            ("evaluate.semantic_knn_decay=\"0.25\"", 0.25),
            ("study.cold-start.evaluate.semantic-knn-decay=0", 0.0),
        ] {
            let of_lab = |lab: &Lab<'_>, data: &Data| knn_settings(lab, data).unwrap().decay;
            assert_eq!(ask("cold-start", &[setting], false, of_lab), decay, "{setting}");
        }
    }
}
