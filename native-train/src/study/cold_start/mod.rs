//! `cold-start`: items that nobody has interacted with, reached by the codes that they share with
//! others (paper, section 4.3).

mod data;
mod lists;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tigret_infer::search::{EngineQuery, ItemFilter};

use super::comparison::{BEAMS, Measured, figure_cell, of_seeds};
use super::lab::{Lab, Loaded, Trained, Variant};
use super::main_table::tiger;
use super::plot::{Axis, Body, Line, Plot};
use super::report::Report;
use super::settings::Data;
use super::table::{Cell, Figure, Table};
use crate::baselines::{self, SemanticKnn, semantic_knn};
use crate::data::{Dataset, Summary};
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::evaluate::search::beam_search;
use crate::evaluate::{Settings, Split, in_batches};
use crate::model::TrainedModel;
use crate::model::params::Views;
use crate::pipeline::Step;
use crate::pipeline::file_hashes::FileHashes;
use crate::run_dir::RunDir;
use data::{UNSEEN, assign_unseen, draw, rows, without};
use lists::{Curve, MOST, candidates, curve, cut, recall, unseen_by_prefix};

/// The share of unseen items in the curves over the length of the list.
const EPSILON: f64 = 0.1;
/// The shares of the curve at [`AT`].
const EPSILONS: [f64; 8] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0];
/// The length of the list at which shares are compared.
const AT: usize = 10;

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
    let seeds = &lab.settings.seeds;
    let mut measured = Vec::new();
    let mut groups = String::new();
    for data in &lab.settings.data {
        let runs = seeds.iter().map(|&seed| figures(lab, data, seed));
        let runs: Vec<Figures> = runs.collect::<Result<_>>()?;
        let of_all = |run: &Figures| format!("{} of {}", run.cold.users, run.all.users);
        let users: Vec<String> = runs.iter().map(of_all).collect();
        groups += &format!(
            " On {}, {} items are unseen, and the test item of {} users is one of them{}; \
             Semantic_KNN has a decay of {}.",
            data.name,
            runs[0].unseen_items,
            users.join(", "),
            if runs.len() > 1 { " (seed by seed, which draws them, too)" } else { "" },
            knn_settings(lab, data)?.decay
        );
        measured.push(Measured { data: &data.name, users: runs[0].all.users, runs });
    }
    Ok(Report {
        name: "cold-start",
        title: "Unseen items",
        about: format!(
            "{} % of the test items are removed from training, with all their interactions. The \
             trained tokenizer gives them IDs; at retrieval ({BEAMS} beams) they join the results \
             that share their codes but the last, at most a share epsilon of TIGER's list (rounded \
             down, so lists shorter than 1 / epsilon have none). Lists of Semantic_KNN have no such \
             bound, and it ranks the history last where users do not return to items.{groups} {}",
            100.0 * UNSEEN,
            of_seeds(lab)
        ),
        tables: vec![by_length(&measured), by_epsilon(&measured)],
        plots: plots(&measured),
    })
}

/// A figure of each seed whose test has users with an unseen item: of no user there is no figure.
fn of_cold(of_data: &Measured<'_, Figures>, value: impl Fn(&Group) -> f64) -> Vec<f64> {
    let runs = of_data.runs.iter().filter(|run| run.cold.users > 0);
    runs.map(|run| value(&run.cold)).collect()
}

/// The cells of a row: TIGER's figure and that of Semantic_KNN, of all users and of those whose test
/// item is unseen.
fn cells(
    of_data: &Measured<'_, Figures>,
    tiger: impl Fn(&Group) -> f64,
    knn: impl Fn(&Group) -> f64,
) -> [Cell; 4] {
    [
        of_data.figures(|run| tiger(&run.all)),
        of_data.figures(|run| knn(&run.all)),
        of_cold(of_data, tiger),
        of_cold(of_data, knn),
    ]
    .map(|figures| figure_cell(&figures, 4))
}

/// A row for each data set and length of the list.
fn by_length(measured: &[Measured<'_, Figures>]) -> Table {
    let mut table = Table::new(
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
    for of_data in measured {
        for at in 0..MOST {
            let mut row = vec![of_data.data.into(), (at + 1).to_string().into()];
            row.extend(cells(of_data, |group| group.tiger[at], |group| group.knn[at]));
            table.rows.push(row);
        }
    }
    table
}

/// A row for each data set and share of unseen items.
fn by_epsilon(measured: &[Measured<'_, Figures>]) -> Table {
    let mut table = Table::new(
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
    for of_data in measured {
        for (at, epsilon) in EPSILONS.iter().enumerate() {
            let mut row = vec![of_data.data.into(), epsilon.to_string().into()];
            row.extend(cells(of_data, |group| group.by_epsilon[at], |group| group.knn[AT - 1]));
            let share = of_data.figures(|run| 100.0 * run.all.unseen_share[at]);
            row.push(figure_cell(&share, 0));
            table.rows.push(row);
        }
    }
    table
}

/// Recall by the length of the list, of all users and of those whose test item is unseen, and by the
/// share of unseen items.
fn plots(measured: &[Measured<'_, Figures>]) -> Vec<Plot> {
    let line = |data: &str, name: &str, xs: &[f64], figures: &dyn Fn(usize) -> Vec<f64>| {
        let points = xs.iter().enumerate();
        let points = points.filter_map(|(at, &x)| Some((x, Figure::of(&figures(at))?)));
        Line::new(format!("{data}, {name}"), points.collect())
    };
    let ks: Vec<f64> = (1..=MOST).map(|k| k as f64).collect();
    let (mut all, mut cold, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for it in measured {
        let data = it.data;
        all.push(line(data, "TIGER", &ks, &|at| it.figures(|run| run.all.tiger[at])));
        all.push(line(data, "Semantic_KNN", &ks, &|at| it.figures(|run| run.all.knn[at])));
        cold.push(line(data, "TIGER", &ks, &|at| of_cold(it, |group| group.tiger[at])));
        cold.push(line(data, "Semantic_KNN", &ks, &|at| of_cold(it, |group| group.knn[at])));
        let of_share = |at: usize| it.figures(|run| run.all.by_epsilon[at]);
        shares.push(line(data, "TIGER", &EPSILONS, &of_share));
        let of_knn = |_| it.figures(|run| run.all.knn[AT - 1]);
        shares.push(line(data, "Semantic_KNN", &EPSILONS, &of_knn));
    }
    let plot = |name: &str, title: &str, x: &str, y: &str, lines| Plot {
        name: name.into(),
        title: title.into(),
        body: Body::Lines { x: Axis::linear(x), y: Axis::from_zero(y), lines },
    };
    let by_k = format!("Recall by length of the list, epsilon {EPSILON} for TIGER");
    let of_unseen = "Recall@K, users whose test item is unseen";
    vec![
        plot("all", &by_k, "K", "Recall@K, all users", all),
        plot("unseen", &by_k, "K", of_unseen, cold),
        plot(
            "epsilon",
            "Recall@10 by epsilon, which bounds TIGER's lists",
            "epsilon",
            "Recall@10, all users",
            shares,
        ),
    ]
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
    // The unseen items are in none of what the training follows from: their texts, their vectors, and
    // where they stand in the histories of the test.
    let mut hashes = FileHashes::open(whole.hashes());
    let with_unseen = [whole.items(), whole.sequences(), whole.vectors()]
        .iter()
        .map(|path| hashes.of(path))
        .collect::<Result<Vec<_>>>()?;
    let prepared = &prepared[&Step::Prepare];
    let settings =
        json!([lab.settings.users, BEAMS, EPSILON, EPSILONS, prepared, with_unseen, knn]);
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
    let settings = Settings::of(Split::Test, BEAMS);
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
