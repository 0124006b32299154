//! The known optimum of simulated readers: a recommender that knows the generator, filters the
//! hidden taste through the history exactly, and ranks books by P(next | history).
//!
//! This is the forward algorithm of a hidden Markov model (Rabiner 1989, section III.A) whose
//! emissions depend on the books already read; those are observed, so the filter stays exact. No
//! recommender that sees only the history can have a higher expected Recall@k: the expected
//! recall of a list is the sum of the probabilities of its books.

use serde::{Deserialize, Serialize};

use super::Sequence;
use super::readers::{Shelf, World};

/// Figures of the optimum over the test targets: the content of `oracle.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Optimum {
    /// Share of the targets among the best five.
    #[serde(rename = "recall@5")]
    pub recall_at_5: f64,
    /// Share of the targets among the best ten.
    #[serde(rename = "recall@10")]
    pub recall_at_10: f64,
    /// Mean of `1 / log2(1 + rank)` over targets, 0 beyond rank 5.
    #[serde(rename = "ndcg@5")]
    pub ndcg_at_5: f64,
    /// Mean of `1 / log2(1 + rank)` over targets, 0 beyond rank 10.
    #[serde(rename = "ndcg@10")]
    pub ndcg_at_10: f64,
}

impl Optimum {
    /// Figures from the ranks of the targets, from 1.
    fn of_ranks(ranks: &[usize]) -> Self {
        let mean = |value: &dyn Fn(usize) -> f64| {
            ranks.iter().map(|&rank| value(rank)).sum::<f64>() / ranks.len().max(1) as f64
        };
        let recall = |k: usize| mean(&|rank| f64::from(u8::from(rank <= k)));
        let ndcg =
            |k: usize| mean(&|rank| if rank <= k { 1.0 / (1.0 + rank as f64).log2() } else { 0.0 });
        Self {
            recall_at_5: recall(5),
            recall_at_10: recall(10),
            ndcg_at_5: ndcg(5),
            ndcg_at_10: ndcg(10),
        }
    }
}

/// P(taste, next book's drift | history) as the history grows.
#[derive(Debug)]
pub struct Filter<'a> {
    world: &'a World,
    shelf: Shelf<'a>,
    /// P(taste at the next book | history); sums to 1.
    belief: Vec<f64>,
}

impl<'a> Filter<'a> {
    /// Before the first book.
    pub fn new(world: &'a World) -> Self {
        Self { world, shelf: Shelf::new(world), belief: world.prior.clone() }
    }

    /// Conditions on a book and lets taste drift to the next one.
    ///
    /// # Panics
    /// In debug builds, when the generator cannot have produced the book here.
    pub fn read(&mut self, book: usize) {
        let world = self.world;
        let author = world.author_of[book];
        let popularity = world.popularity[book];
        let open = self.shelf.open[book];
        let share = |of: f64| if open && of > 0.0 { popularity / of } else { 0.0 };
        let (by_author, by_any) = (share(self.shelf.of_author[author]), share(self.shelf.of_all));
        let mut by_subject = vec![0.0; world.books_on.len()];
        for &subject in &world.subjects_of[book] {
            by_subject[subject] = share(self.shelf.of_subject[subject]);
        }
        let is_next = f64::from(u8::from(self.shelf.next == Some(book)));
        let mut sum = 0.0;
        for (belief, &taste) in self.belief.iter_mut().zip(&world.tastes) {
            // A taste that the history has ruled out stays ruled out until the drift.
            if *belief == 0.0 {
                continue;
            }
            let parts = self.shelf.mixture(taste);
            let of_author = if taste.author == author { by_author } else { 0.0 };
            *belief *= parts.series * is_next
                + parts.author * of_author
                + parts.subject * by_subject[taste.subject]
                + parts.any * by_any;
            sum += *belief;
        }
        debug_assert!(sum > 0.0, "the generator cannot have produced book {book} here");
        self.shelf.read(book);
        let drift = world.behaviour.drift;
        for on in &world.tastes_on {
            let belief = &mut self.belief[on.clone()];
            let in_subject: f64 = belief.iter().map(|b| b / sum).sum();
            for (at, belief) in on.clone().zip(belief) {
                *belief = (1.0 - drift.author - drift.taste) * *belief / sum
                    + drift.author * in_subject * world.prior_in_subject[at]
                    + drift.taste * world.prior[at];
            }
        }
    }

    /// P(next book | history) of every book; sums to 1 while any book is open.
    pub fn predict(&self) -> Vec<f64> {
        let (world, shelf) = (self.world, &self.shelf);
        let mut by_author = vec![0.0; world.books_by.len()];
        let mut by_subject = vec![0.0; world.books_on.len()];
        let (mut by_any, mut by_series) = (0.0, 0.0);
        for (&belief, &taste) in self.belief.iter().zip(&world.tastes) {
            let parts = shelf.mixture(taste);
            by_author[taste.author] += belief * parts.author;
            by_subject[taste.subject] += belief * parts.subject;
            by_any += belief * parts.any;
            by_series += belief * parts.series;
        }
        let rate = |weight: &f64, of: &f64| if *of > 0.0 { weight / of } else { 0.0 };
        let rates = |weights: &[f64], of: &[f64]| -> Vec<f64> {
            weights.iter().zip(of).map(|(weight, of)| rate(weight, of)).collect()
        };
        let by_author = rates(&by_author, &shelf.of_author);
        let by_subject = rates(&by_subject, &shelf.of_subject);
        let by_any = rate(&by_any, &shelf.of_all);
        let mut next: Vec<f64> = (0..world.len())
            .map(|book| {
                if !shelf.open[book] {
                    return 0.0;
                }
                let on: f64 = world.subjects_of[book].iter().map(|&s| by_subject[s]).sum();
                world.popularity[book] * (by_author[world.author_of[book]] + on + by_any)
            })
            .collect();
        if let Some(book) = shelf.next {
            next[book] += by_series;
        }
        next
    }
}

/// The optimum over the test targets; `each` is called after every reader.
///
/// Ties in probability go to the earlier book of the catalogue.
pub fn optimum(world: &World, sequences: &[Sequence], each: impl Fn()) -> Optimum {
    let ranks: Vec<usize> = sequences
        .iter()
        .map(|sequence| {
            let (history, target) = sequence.test();
            let mut filter = Filter::new(world);
            history.iter().for_each(|&book| filter.read(book as usize));
            let next = filter.predict();
            let target = target as usize;
            let ahead = |(book, &p): (usize, &f64)| {
                p > next[target] || (p == next[target] && book < target)
            };
            each();
            1 + next.iter().enumerate().filter(|&entry| ahead(entry)).count()
        })
        .collect();
    Optimum::of_ranks(&ranks)
}
