//! Evaluation: full-catalogue ranking of every user's held-out item.

pub mod figures;
pub mod free_search;
pub mod search;

use std::sync::Arc;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::Device;
use tigret_infer::Bundle;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{EngineQuery, Hit, ItemFilter};

use crate::data::{Dataset, Sequence};
use crate::metrics::Metrics;
use crate::model::T5;
use crate::model::params::Views;
use crate::tokenizer::SemanticIds;
use crate::workers;

pub use figures::Evaluation;

/// Which held-out item of a sequence is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The last but one.
    Validation,
    /// The last.
    Test,
}

impl Split {
    /// The history that may be seen, and the item to find.
    pub fn of(self, sequence: &Sequence) -> (&[u32], u32) {
        match self {
            Self::Validation => sequence.validation(),
            Self::Test => sequence.test(),
        }
    }
}

/// What is asked of a ranking, whoever makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Which item is held out.
    pub split: Split,
    /// Whether items of the user's history are left out of the ranking, the held-out item among
    /// them should the user have had it before. The paper's protocol ranks all items.
    pub exclude_history: bool,
}

impl Protocol {
    /// All items are ranked.
    pub fn of(split: Split) -> Self {
        Self { split, exclude_history: false }
    }
}

/// How to evaluate a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is asked.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Beams of the search.
    pub beams: usize,
    /// Users searched together, at most.
    pub batch: usize,
    /// Whether the user token is given.
    pub user_token: bool,
}

impl Settings {
    /// All items are ranked, with all that is known of a user.
    pub fn of(split: Split, beams: usize) -> Self {
        Self { protocol: Protocol::of(split), beams, batch: 128, user_token: true }
    }
}

/// What a model returned for each of many users.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The 0-based rank of each user's held-out item, `None` beyond the beams.
    pub ranks: Vec<Option<usize>>,
    /// Share of all users' first [`FIRST`] items that were in the user's own history.
    pub share_of_history: f64,
}

/// How many of the first items [`Ranking::share_of_history`] looks at.
pub const FIRST: usize = 10;

impl Ranking {
    /// Of all users' answers, in their order.
    fn of(users: impl IntoIterator<Item = Answer>) -> Self {
        let (mut ranks, mut returned, mut of_history) = (Vec::new(), 0, 0);
        for answer in users {
            ranks.push(answer.rank);
            returned += answer.first;
            of_history += answer.first_of_history;
        }
        Self { ranks, share_of_history: of_history as f64 / returned.max(1) as f64 }
    }

    /// Recall and NDCG of the held-out items.
    pub fn metrics(&self) -> Metrics {
        Metrics::from_ranks(&self.ranks)
    }
}

/// What a search returned for one user.
#[derive(Debug, Clone, Copy)]
struct Answer {
    rank: Option<usize>,
    /// How many of the first [`FIRST`] items there are, and how many of them are in the history.
    first: usize,
    first_of_history: usize,
}

impl Answer {
    /// From hits, best first; `history` and `target` are ranks in the catalogue.
    fn of(hits: &[Hit], history: &[u32], target: Option<u32>) -> Self {
        let first = &hits[..FIRST.min(hits.len())];
        Self {
            rank: target.and_then(|target| hits.iter().position(|hit| hit.rank == target)),
            first: first.len(),
            first_of_history: first.iter().filter(|hit| history.contains(&hit.rank)).count(),
        }
    }
}

/// Most users that a thread of a CPU searches for together: more are not faster, and take memory on
/// every thread.
const USERS_OF_A_THREAD: usize = 16;

/// Batches that are handed out together: each has handles of all weights, some ten kilobytes, which
/// millions of users would have by the gigabyte.
const BATCHES_AT_A_TIME: usize = 1024;

/// Where the model ranks each sequence's held-out item.
pub fn rank_targets(
    model: &T5,
    weights: &Views,
    ids: &SemanticIds,
    sequences: &[&Sequence],
    settings: Settings,
    progress: &ProgressBar,
) -> Ranking {
    let Protocol { split, exclude_history } = settings.protocol;
    let rank_of = |&item: &u32| ids.rank_of_item[item as usize];
    let search = |weights: &Views, users: &[usize], inputs: Vec<Vec<u32>>| {
        let of_user = |&user: &usize| split.of(sequences[user]);
        let histories: Vec<Vec<u32>> =
            users.iter().map(|user| of_user(user).0.iter().map(rank_of).collect()).collect();
        let query = |(input, history): (Vec<u32>, &Vec<u32>)| EngineQuery {
            input,
            beams: settings.beams,
            filter: filter(history, exclude_history, ids.catalog.len()),
            sampling: None,
        };
        let queries: Vec<EngineQuery> = inputs.into_iter().zip(&histories).map(query).collect();
        let found = search::beam_search(model, weights, ids, &queries);
        let answer = |((user, history), hits): ((&usize, &Vec<u32>), Vec<Hit>)| {
            Answer::of(&hits, history, Some(rank_of(&of_user(user).1)))
        };
        users.iter().zip(&histories).zip(found).map(answer).collect()
    };
    Ranking::of(in_batches(weights, ids, sequences, settings, progress, search))
}

/// What a search of a protocol may return after a history, given as ranks.
fn filter(history: &[u32], exclude_history: bool, items: usize) -> ItemFilter {
    ItemFilter::new(if exclude_history { history } else { &[] }, None, items)
}

/// What `search` finds for each sequence, in their order. It is called with batches of histories of
/// about the same length: the weights, the batch's indices in `sequences`, and the encoder inputs;
/// it returns as many answers. On a CPU there is a batch a thread.
pub fn in_batches<R: Send>(
    weights: &Views,
    ids: &SemanticIds,
    sequences: &[&Sequence],
    settings: Settings,
    progress: &ProgressBar,
    search: impl Fn(&Views, &[usize], Vec<Vec<u32>>) -> Vec<R> + Sync,
) -> Vec<R> {
    let layout = &ids.layout;
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    // Histories of equal length together: nothing is padded.
    let split = settings.protocol.split;
    order.sort_by_key(|&i| split.of(sequences[i]).0.len().min(layout.max_items));
    let input = |&i: &usize| {
        let sequence = sequences[i];
        let user = settings.user_token.then(|| layout.user_token(&sequence.user)).flatten();
        let (history, _) = split.of(sequence);
        layout.encoder_input(user, history.iter().map(|&item| ids.codes(item)))
    };
    let device = weights.device();
    let most = if device == Device::Cpu { USERS_OF_A_THREAD } else { usize::MAX };
    let batches: Vec<&[usize]> = order.chunks(settings.batch.min(most)).collect();
    let mut answers = Vec::with_capacity(order.len());
    for batches in batches.chunks(BATCHES_AT_A_TIME) {
        let jobs = batches.iter().map(|&users| (users, weights.shallow_clone())).collect();
        let found = workers::map(device, jobs, |(users, weights): (&[usize], Views)| {
            let answers = search(&weights, users, users.iter().map(input).collect());
            progress.inc(users.len() as u64);
            answers
        });
        answers.extend(found.into_iter().flatten());
    }
    let mut answers: Vec<(usize, R)> = order.into_iter().zip(answers).collect();
    answers.sort_unstable_by_key(|&(sequence, _)| sequence);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// [`rank_targets`] with an exported bundle on the CPU engine instead of the model in training:
/// what the page will find, quantisation and all. Items are matched by id.
pub fn rank_targets_of_bundle(
    bundle: &Arc<Bundle>,
    dataset: &Dataset,
    settings: Settings,
    progress: &ProgressBar,
) -> Ranking {
    let engine = CpuEngine::new(Arc::clone(bundle));
    let mut answers = Vec::with_capacity(dataset.sequences.len());
    for users in dataset.sequences.chunks(settings.batch) {
        let (queries, histories): (Vec<EngineQuery>, Vec<Vec<u32>>) =
            users.iter().map(|sequence| query_of(bundle, dataset, sequence, settings)).unzip();
        let found = engine.search_all(&queries);
        let of_users = users.iter().zip(&histories).zip(&found);
        answers.extend(of_users.map(|((sequence, history), hits)| {
            let (_, target) = settings.protocol.split.of(sequence);
            Answer::of(hits, history, rank_in(bundle, dataset, target))
        }));
        progress.inc(users.len() as u64);
    }
    Ranking::of(answers)
}

/// What a bundle is asked for a user, and the ranks of the history's items that it has.
pub(crate) fn query_of(
    bundle: &Bundle,
    dataset: &Dataset,
    sequence: &Sequence,
    settings: Settings,
) -> (EngineQuery, Vec<u32>) {
    let Protocol { split, exclude_history } = settings.protocol;
    let (history, _) = split.of(sequence);
    let known: Vec<u32> =
        history.iter().filter_map(|&item| rank_in(bundle, dataset, item)).collect();
    let user = settings.user_token.then(|| bundle.tokens.user_token(&sequence.user)).flatten();
    let codes = known.iter().map(|&rank| bundle.catalog.codes_of(rank));
    let query = EngineQuery {
        input: bundle.tokens.encoder_input(user, codes),
        beams: settings.beams,
        filter: filter(&known, exclude_history, bundle.catalog.len()),
        sampling: None,
    };
    (query, known)
}

/// The rank of an item of the data set in a bundle's catalogue.
fn rank_in(bundle: &Bundle, dataset: &Dataset, item: u32) -> Option<u32> {
    bundle.catalog.rank_of(&dataset.items[item as usize].id)
}

#[cfg(test)]
mod tests {
    use tigret_infer::WeightFormat;
    use tigret_infer::testing::{Shape, random_bundle};

    use super::*;
    use crate::data::testing;
    use crate::model::Params;
    use crate::model::params::{Init, Spec};

    /// A bundle, users of its items with histories whose lengths are in no order, and the semantic IDs
    /// of the items, which the data set has in another order.
    fn users() -> (Bundle, Dataset, SemanticIds) {
        let (levels, max_items) = (vec![5, 4, 2], 4);
        let shape = Shape { levels, items: 20, users: 6, max_items, ..Shape::default() };
        let bundle = random_bundle(&shape, WeightFormat::F32, 1);
        let sequences: Vec<Vec<u32>> = [7, 3, 5, 4, 8, 3, 6]
            .into_iter()
            .enumerate()
            .map(|(user, length)| (0..length).map(|i| (3 * i + user as u32) % 20).collect())
            .collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let mut dataset = testing::dataset(20, &sequences);
        for (item, id) in dataset.items.iter_mut().zip((0..20).rev()) {
            item.id = format!("item-{id}");
        }
        let codes: Vec<u16> =
            (0..20).flat_map(|item| codes_of(&bundle, &dataset, item).to_vec()).collect();
        let ids = SemanticIds::new(&dataset.items, bundle.tokens.clone(), &codes).unwrap();
        (bundle, dataset, ids)
    }

    fn codes_of<'a>(bundle: &'a Bundle, dataset: &Dataset, item: u32) -> &'a [u16] {
        bundle.catalog.codes_of(rank_in(bundle, dataset, item).unwrap())
    }

    /// What [`in_batches`] gives its search for all users, two at a time, each with the user's index.
    fn searched(
        dataset: &Dataset,
        ids: &SemanticIds,
        settings: Settings,
    ) -> Vec<(usize, Vec<u32>)> {
        let weight = Spec::new("weight".to_owned(), vec![1], Init::Constant(0.0));
        let weights = tch::no_grad(|| Params::new(vec![weight], 0, Device::Cpu).views());
        let sequences: Vec<&Sequence> = dataset.sequences.iter().collect();
        let settings = Settings { batch: 2, ..settings };
        let hidden = ProgressBar::hidden();
        in_batches(&weights, ids, &sequences, settings, &hidden, |_, users, inputs| {
            assert!(users.len() <= 2 && users.len() == inputs.len());
            users.iter().copied().zip(inputs).collect()
        })
    }

    #[test]
    fn a_split_has_an_item_to_find_and_the_history_before_it() {
        let sequence = Sequence { user: "u".to_owned(), items: vec![4, 7, 1, 9, 3] };
        assert_eq!(Split::Validation.of(&sequence), (&[4, 7, 1][..], 9));
        assert_eq!(Split::Test.of(&sequence), (&[4, 7, 1, 9][..], 3));
    }

    #[test]
    fn answers_stand_in_the_order_of_the_users_though_those_of_like_length_are_searched_together() {
        let (_, dataset, ids) = users();
        let searched = searched(&dataset, &ids, Settings::of(Split::Test, 10));
        let users: Vec<usize> = searched.into_iter().map(|(user, _)| user).collect();
        assert_eq!(users, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_model_and_a_bundle_are_given_the_history_of_the_split_and_the_user_unless_left_out() {
        let (bundle, dataset, ids) = users();
        let layout = &bundle.tokens;
        for (split, held_out) in [(Split::Validation, 2), (Split::Test, 1)] {
            for user_token in [true, false] {
                let settings = Settings { user_token, ..Settings::of(split, 10) };
                let searched = searched(&dataset, &ids, settings);
                for (sequence, (_, of_model)) in dataset.sequences.iter().zip(&searched) {
                    let history = &sequence.items[..sequence.items.len() - held_out];
                    let user = layout.user_token(&sequence.user).filter(|_| user_token);
                    let mut expected = Vec::from_iter(user);
                    for &item in &history[history.len().saturating_sub(layout.max_items)..] {
                        expected.extend(layout.tokens_of(codes_of(&bundle, &dataset, item)));
                    }
                    expected.push(layout.eos);
                    let at = format!("user {} in {settings:?}", sequence.user);
                    assert_eq!(of_model, &expected, "{at}");
                    let (of_bundle, ranks) = query_of(&bundle, &dataset, sequence, settings);
                    assert_eq!(of_bundle.input, expected, "{at}");
                    assert_eq!(ranks.len(), history.len(), "{at}");
                }
            }
        }
    }

    #[test]
    fn a_ranking_has_the_targets_places_and_the_share_of_the_first_that_were_in_the_history() {
        let hits = |ranks: &[u32]| -> Vec<Hit> {
            ranks.iter().map(|&rank| Hit::scored(rank, -1.0)).collect()
        };
        let twelve: Vec<u32> = (0..12).collect();
        let ranking = Ranking::of([
            // The eleventh item is not among the first ten.
            Answer::of(&hits(&twelve), &[1, 10, 99], Some(11)),
            Answer::of(&hits(&[5, 3]), &[3, 5, 3], Some(7)),
            Answer::of(&[], &[1], None),
        ]);
        assert_eq!(ranking.ranks, [Some(11), None, None]);
        assert_eq!(ranking.share_of_history, 3.0 / 12.0);
        assert_eq!(Ranking::of([]).share_of_history, 0.0);
    }

    #[test]
    fn a_protocol_leaves_out_the_history_or_nothing() {
        let left = |exclude| filter(&[1, 4, 1], exclude, 6).allowed_in(0..6);
        assert_eq!((left(false), left(true)), (6, 4));
    }
}
