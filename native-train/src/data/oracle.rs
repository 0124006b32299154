//! The known optimum of simulated readers: a recommender that knows the generator, filters the
//! hidden taste through the history exactly, and ranks books by P(next | history).
//!
//! This is the forward algorithm of a hidden Markov model (Rabiner 1989, section III.A) whose
//! emissions depend on the books already read; those are observed, so the filter stays exact. No
//! recommender that sees only the history can have a higher expected Recall@k: the expected
//! recall of a list is the sum of the probabilities of its books.

use super::Sequence;
use super::simulation::{NEW_AUTHOR, NEW_TASTE, Shelf, World};
use crate::metrics::Metrics;

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
        for on in &world.tastes_on {
            let belief = &mut self.belief[on.clone()];
            let in_subject: f64 = belief.iter().map(|b| b / sum).sum();
            for (at, belief) in on.clone().zip(belief) {
                *belief = (1.0 - NEW_AUTHOR - NEW_TASTE) * *belief / sum
                    + NEW_AUTHOR * in_subject * world.prior_in_subject[at]
                    + NEW_TASTE * world.prior[at];
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
        let mut next: Vec<f64> = (0..world.books())
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

/// The figures of the optimum over the test targets, the content of `oracle.json`; `each` is called
/// after every reader.
///
/// Ties in probability go to the earlier book of the catalogue.
pub fn optimum(world: &World, sequences: &[Sequence], each: impl Fn()) -> Metrics {
    let ranks: Vec<Option<usize>> = sequences
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
            Some(next.iter().enumerate().filter(|&entry| ahead(entry)).count())
        })
        .collect();
    Metrics::from_ranks(&ranks)
}

#[cfg(test)]
mod tests {
    use rand::prelude::*;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::data::classics::{Book, books};
    use crate::data::simulation::{MIXTURE, Taste, simulate};

    fn book(author: &str, at: u16, subjects: &[&str], series: Option<u16>) -> Book {
        Book {
            id: format!("{author}-{at}"),
            title: format!("{author} {at}"),
            author: author.into(),
            year: 1900,
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            series: series.map(|number| (format!("{author}'s series"), number)),
        }
    }

    fn tiny_world() -> World {
        let books = [
            book("a", 0, &["sea"], Some(1)),
            book("a", 1, &["sea", "war"], Some(2)),
            book("a", 2, &["war"], Some(3)),
            book("b", 0, &["sea"], None),
            book("b", 1, &["war"], Some(1)),
            book("b", 2, &["war"], Some(2)),
            book("c", 0, &["sea"], None),
        ];
        World::new(&books, &mut ChaCha8Rng::seed_from_u64(3))
    }

    /// P(book | taste, history) straight from the words of the model.
    fn emission(world: &World, history: &[usize], taste: Taste, book: usize) -> f64 {
        let open = |b: usize| {
            let before = (0..world.books()).find(|&other| world.next_of[other] == Some(b));
            !history.contains(&b) && before.is_none_or(|other| history.contains(&other))
        };
        let next = history.last().and_then(|&last| world.next_of[last]).filter(|&b| open(b));
        let all: Vec<usize> = (0..world.books()).filter(|&b| open(b)).collect();
        let by: Vec<usize> =
            all.iter().copied().filter(|&b| world.author_of[b] == taste.author).collect();
        let on: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&b| world.subjects_of[b].contains(&taste.subject))
            .collect();
        let (mut probability, mut weights) = (0.0, 0.0);
        for (weight, among) in [
            (MIXTURE.series, next.into_iter().collect()),
            (MIXTURE.author, by),
            (MIXTURE.subject, on),
            (MIXTURE.any, all),
        ] {
            if among.is_empty() {
                continue;
            }
            weights += weight;
            if among.contains(&book) {
                let sum: f64 = among.iter().map(|&b| world.popularity[b]).sum();
                probability += weight * world.popularity[book] / sum;
            }
        }
        probability / weights
    }

    fn transition(world: &World, from: usize, to: usize) -> f64 {
        let same_subject = world.tastes[from].subject == world.tastes[to].subject;
        let stay = f64::from(u8::from(from == to)) * (1.0 - NEW_AUTHOR - NEW_TASTE);
        let author = if same_subject { NEW_AUTHOR * world.prior_in_subject[to] } else { 0.0 };
        stay + author + NEW_TASTE * world.prior[to]
    }

    /// P(history, taste now, next book) summed over every path of tastes.
    fn brute_force(world: &World, history: &[usize], next: usize) -> f64 {
        fn walk(world: &World, books: &[usize], read: usize, taste: usize, p: f64) -> f64 {
            let p = p * emission(world, &books[..read], world.tastes[taste], books[read]);
            if read + 1 == books.len() {
                return p;
            }
            let onward = |to| walk(world, books, read + 1, to, p * transition(world, taste, to));
            (0..world.tastes.len()).map(onward).sum()
        }
        let books: Vec<usize> = history.iter().copied().chain([next]).collect();
        (0..world.tastes.len()).map(|taste| walk(world, &books, 0, taste, world.prior[taste])).sum()
    }

    #[test]
    fn the_filter_equals_the_sum_over_all_paths() {
        let world = tiny_world();
        assert!(world.tastes.len() >= 4, "the test needs several tastes");
        for history in [&[][..], &[3], &[0, 1], &[0, 3, 1], &[6, 4, 5, 0], &[3, 4, 5, 6, 0, 1]] {
            let mut filter = Filter::new(&world);
            history.iter().for_each(|&book| filter.read(book));
            let next = filter.predict();
            let joint: Vec<f64> = (0..world.books())
                .map(|book| {
                    let read = history.contains(&book);
                    if read { 0.0 } else { brute_force(&world, history, book) }
                })
                .collect();
            let evidence: f64 = joint.iter().sum();
            for (book, (&p, &joint)) in next.iter().zip(&joint).enumerate() {
                let expected = joint / evidence;
                assert!(
                    (p - expected).abs() < 1e-12,
                    "after {history:?}, book {book}: {p} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn the_optimum_hits_as_often_as_it_expects_to() {
        // A filter that did not match the generator would be too sure or not sure enough.
        let (world, dataset) = simulate(&books(), 1500, 7);
        let mut expected = 0.0;
        for sequence in &dataset.sequences {
            let mut filter = Filter::new(&world);
            sequence.test().0.iter().for_each(|&book| filter.read(book as usize));
            let mut next = filter.predict();
            assert!((next.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            next.sort_by(|a, b| b.total_cmp(a));
            expected += next[..10].iter().sum::<f64>() / dataset.sequences.len() as f64;
        }
        let found = optimum(&world, &dataset.sequences, || ()).recall_10;
        // Four standard deviations of a share of 1500 readers.
        assert!((found - expected).abs() < 0.05, "expected {expected}, found {found}");
        assert!(
            (0.5..0.7).contains(&found),
            "taste is meant to be strong but not certain: {found}"
        );
    }

    #[test]
    fn popularity_is_far_from_the_optimum() {
        let (world, dataset) = simulate(&books(), 1500, 7);
        let mut counts = vec![0; world.books()];
        for &book in dataset.sequences.iter().flat_map(Sequence::train) {
            counts[book as usize] += 1;
        }
        let mut order: Vec<u32> = (0..world.books() as u32).collect();
        order.sort_by_key(|&book| std::cmp::Reverse(counts[book as usize]));
        let hits = dataset.sequences.iter().filter(|s| order[..10].contains(&s.test().1)).count();
        let recall = hits as f64 / dataset.sequences.len() as f64;
        assert!(recall < 0.12, "popularity reaches {recall}");
    }
}
