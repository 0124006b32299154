//! Evaluation: full-catalogue ranking of every user's held-out item.

pub mod free_search;
pub mod metrics;
pub mod search;

use std::sync::Arc;
use std::thread;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::Device;
use tigret_infer::Bundle;
use tigret_infer::cpu::CpuEngine;
use tigret_infer::search::{EngineQuery, Hit, ItemFilter};

use crate::data::{Dataset, Sequence};
use crate::model::T5;
use crate::model::params::Views;
use crate::tokenizer::SemanticIds;
use crate::workers;
pub use metrics::Metrics;

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

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// Which item is held out.
    pub split: Split,
    /// Beams of the search.
    pub beams: usize,
    /// Users searched together, at most.
    pub batch: usize,
    /// Whether the user token is given.
    pub user_token: bool,
}

/// Most users that a thread of a CPU searches for together: more are not faster, and take memory on
/// every thread.
const USERS_OF_A_THREAD: usize = 16;

/// The rank of each sequence's held-out item under the model, `None` beyond the beams.
pub fn rank_targets(
    model: &T5,
    weights: &Views,
    ids: &SemanticIds,
    sequences: &[&Sequence],
    settings: Settings,
    progress: &ProgressBar,
) -> Vec<Option<usize>> {
    in_batches(weights, ids, sequences, settings, progress, |weights, users, inputs| {
        let filters = vec![ItemFilter::everything(); users.len()];
        let found = search::beam_search(model, weights, ids, inputs, &filters, settings.beams);
        let rank = |(&user, hits): (&usize, Vec<Hit>)| {
            let (_, target) = settings.split.of(sequences[user]);
            let target = ids.rank_of_item[target as usize];
            hits.iter().position(|hit| hit.rank == target)
        };
        users.iter().zip(found).map(rank).collect()
    })
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
    search: impl Fn(&Views, &[usize], &[Vec<u32>]) -> Vec<R> + Sync,
) -> Vec<R> {
    let layout = &ids.layout;
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    // Histories of equal length together: nothing is padded.
    order.sort_by_key(|&i| settings.split.of(sequences[i]).0.len().min(layout.max_items));
    let input = |&i: &usize| {
        let sequence = sequences[i];
        let user = settings.user_token.then(|| layout.user_token(&sequence.user)).flatten();
        let (history, _) = settings.split.of(sequence);
        layout.encoder_input(user, history.iter().map(|&item| ids.codes(item)))
    };
    let device = weights.device();
    let most = if device == Device::Cpu { USERS_OF_A_THREAD } else { usize::MAX };
    let jobs = order
        .chunks(settings.batch.min(most))
        .map(|users| (users, weights.shallow_clone()))
        .collect();
    let answers = workers::map(device, jobs, |(users, weights): (&[usize], Views)| {
        let inputs: Vec<Vec<u32>> = users.iter().map(input).collect();
        let answers = search(&weights, users, &inputs);
        progress.inc(users.len() as u64);
        answers
    });
    let mut answers: Vec<(usize, R)> =
        order.into_iter().zip(answers.into_iter().flatten()).collect();
    answers.sort_unstable_by_key(|&(sequence, _)| sequence);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The metrics of [`rank_targets`] over all sequences of a data set.
pub fn evaluate(
    model: &T5,
    weights: &Views,
    ids: &SemanticIds,
    dataset: &Dataset,
    settings: Settings,
    progress: &ProgressBar,
) -> Metrics {
    let sequences: Vec<&Sequence> = dataset.sequences.iter().collect();
    Metrics::from_ranks(&rank_targets(model, weights, ids, &sequences, settings, progress))
}

/// [`rank_targets`] with an exported bundle on the CPU engine instead of the model in training:
/// what the page will find, quantisation and all. Items are matched by id.
pub fn rank_targets_of_bundle(
    bundle: &Arc<Bundle>,
    dataset: &Dataset,
    settings: Settings,
    progress: &ProgressBar,
) -> Vec<Option<usize>> {
    let engine = CpuEngine::new(Arc::clone(bundle));
    let rank_of = |item: u32| bundle.catalog.rank_of(&dataset.items[item as usize].id);
    let rank_target = |sequence: &Sequence| {
        let (history, target) = settings.split.of(sequence);
        let user = settings.user_token.then(|| bundle.tokens.user_token(&sequence.user)).flatten();
        let known: Vec<u32> = history.iter().filter_map(|&item| rank_of(item)).collect();
        let codes = known.iter().map(|&rank| bundle.catalog.codes_of(rank));
        let query = EngineQuery {
            input: bundle.tokens.encoder_input(user, codes),
            beams: settings.beams,
            filter: ItemFilter::everything(),
            sampling: None,
        };
        progress.inc(1);
        let hits = engine.search(&query);
        rank_of(target).and_then(|target| hits.iter().position(|hit| hit.rank == target))
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = dataset.sequences.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = dataset
            .sequences
            .chunks(share)
            .map(|chunk| scope.spawn(|| chunk.iter().map(rank_target).collect::<Vec<_>>()))
            .collect();
        let joined = workers
            .into_iter()
            // A share of the users that is missing would pass for figures of all.
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}
