//! Simulated readers of the classics: a generator that is known exactly, so that the best
//! possible recommender is known too (see [`oracle`](super::oracle)).
//!
//! # The model
//!
//! A reader has a hidden *taste* (s, a): a favourite subject s and a favourite author a who has
//! written on it. Only authors with at least [`FAVOURITE_BOOKS`] books can be favourites.
//!
//! - Every book has a *popularity*, drawn once as exp(σ z) with z standard normal. It is not a
//!   fact about the book.
//! - The first taste is drawn from π(s, a), in proportion to the popularity of a's books on s.
//! - Before every later book, with probability [`NEW_AUTHOR`] the author is drawn anew from
//!   π(a | s); with probability [`NEW_TASTE`] both are drawn anew from π; else the taste stays.
//! - A book is *open* to a reader if they have not read it and have read the book before it in
//!   its series: series are read in order.
//! - The next book is drawn from a mixture: the next of the series of the last book read
//!   ([`Mixture::series`]); an open book of a ([`Mixture::author`]); an open book on s
//!   ([`Mixture::subject`]); any open book ([`Mixture::any`]); the last three in proportion to
//!   popularity. A part that has no open book gives its weight to the others in proportion.
//! - The number of books is the smaller of two draws from [`LENGTHS`].

use std::collections::HashMap;
use std::ops::RangeInclusive;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::classics::Book;
use super::{Dataset, Sequence};

/// Fewest books of an author who can be a favourite.
pub const FAVOURITE_BOOKS: usize = 3;

/// Number of books a reader reads.
pub const LENGTHS: RangeInclusive<usize> = 6..=30;

/// Weights of the next book's mixture where every part has an open book.
pub const MIXTURE: Mixture = Mixture { series: 0.45, author: 0.40, subject: 0.10, any: 0.05 };

/// Probability of another author on the same subject before a book.
pub const NEW_AUTHOR: f64 = 0.08;

/// Probability of another subject and author before a book.
pub const NEW_TASTE: f64 = 0.03;

/// σ of the logarithm of popularity.
const POPULARITY_SPREAD: f64 = 0.8;

/// Weights of the parts of the next book's mixture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixture {
    /// The next book of the series of the last book read.
    pub series: f64,
    /// An open book of the favourite author.
    pub author: f64,
    /// An open book on the favourite subject.
    pub subject: f64,
    /// Any open book.
    pub any: f64,
}

/// A hidden state: indices of subject and author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taste {
    /// Favourite subject.
    pub subject: usize,
    /// Favourite author.
    pub author: usize,
}

/// The catalogue as the model sees it, with popularity drawn.
#[derive(Debug, Clone)]
pub struct World {
    /// Popularity of each book.
    pub popularity: Vec<f64>,
    /// Author of each book.
    pub author_of: Vec<usize>,
    /// Subjects of each book.
    pub subjects_of: Vec<Vec<usize>>,
    /// The next book in the series of each book.
    pub next_of: Vec<Option<usize>>,
    /// Whether a book is the first of its series or in none, and so open from the start.
    pub open_at_first: Vec<bool>,
    /// Books of each author.
    pub books_by: Vec<Vec<usize>>,
    /// Books on each subject.
    pub books_on: Vec<Vec<usize>>,
    /// All tastes, those of a subject side by side.
    pub tastes: Vec<Taste>,
    /// π of each taste; sums to 1.
    pub prior: Vec<f64>,
    /// Tastes of each subject, as a range of `tastes`.
    pub tastes_on: Vec<std::ops::Range<usize>>,
    /// π(a | s) of each taste.
    pub prior_in_subject: Vec<f64>,
}

/// Numbers names in the order of their first appearance.
#[derive(Default)]
struct Numbering<'a> {
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Numbering<'a> {
    fn of(&mut self, name: &'a str) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(name).or_insert(next)
    }
}

impl World {
    /// Draws the popularity of the books and lays out the tastes.
    pub fn new(books: &[Book], rng: &mut ChaCha8Rng) -> Self {
        let (mut authors, mut subjects) = (Numbering::default(), Numbering::default());
        let author_of: Vec<usize> = books.iter().map(|book| authors.of(&book.author)).collect();
        let subjects_of: Vec<Vec<usize>> = books
            .iter()
            .map(|book| book.subjects.iter().map(|subject| subjects.of(subject)).collect())
            .collect();
        let mut books_by = vec![Vec::new(); authors.numbers.len()];
        let mut books_on = vec![Vec::new(); subjects.numbers.len()];
        for (book, (&author, on)) in author_of.iter().zip(&subjects_of).enumerate() {
            books_by[author].push(book);
            on.iter().for_each(|&subject| books_on[subject].push(book));
        }
        let place: HashMap<(&str, u16), usize> = books
            .iter()
            .enumerate()
            .filter_map(|(at, book)| {
                book.series.as_ref().map(|(series, number)| ((series.as_str(), *number), at))
            })
            .collect();
        let in_series = |book: &Book, step: u16| {
            let (series, number) = book.series.as_ref()?;
            place.get(&(series.as_str(), number + step)).copied()
        };
        let next_of: Vec<Option<usize>> = books.iter().map(|book| in_series(book, 1)).collect();
        let mut open_at_first = vec![true; books.len()];
        next_of.iter().flatten().for_each(|&next| open_at_first[next] = false);
        let popularity: Vec<f64> =
            books.iter().map(|_| (POPULARITY_SPREAD * standard_normal(rng)).exp()).collect();

        let (mut tastes, mut prior) = (Vec::new(), Vec::new());
        let (mut tastes_on, mut prior_in_subject) = (Vec::new(), Vec::new());
        for (subject, on) in books_on.iter().enumerate() {
            let start = tastes.len();
            for (author, by) in books_by.iter().enumerate() {
                let weight: f64 = on
                    .iter()
                    .filter(|&&book| author_of[book] == author)
                    .map(|&book| popularity[book])
                    .sum();
                if weight > 0.0 && by.len() >= FAVOURITE_BOOKS {
                    tastes.push(Taste { subject, author });
                    prior.push(weight);
                }
            }
            let sum: f64 = prior[start..].iter().sum();
            prior_in_subject.extend(prior[start..].iter().map(|weight| weight / sum));
            tastes_on.push(start..tastes.len());
        }
        let sum: f64 = prior.iter().sum();
        prior.iter_mut().for_each(|weight| *weight /= sum);
        Self {
            popularity,
            author_of,
            subjects_of,
            next_of,
            open_at_first,
            books_by,
            books_on,
            tastes,
            prior,
            tastes_on,
            prior_in_subject,
        }
    }

    /// Number of books.
    pub fn books(&self) -> usize {
        self.popularity.len()
    }
}

/// Box and Muller's transform of two uniform draws.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius: f64 = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// Which books are open to a reader, and the popularity of the open books of each author, of
/// each subject, and of all.
#[derive(Debug, Clone)]
pub struct Shelf<'a> {
    world: &'a World,
    /// Whether each book is open.
    pub open: Vec<bool>,
    /// Popularity of the open books of each author.
    pub of_author: Vec<f64>,
    /// Popularity of the open books of each subject.
    pub of_subject: Vec<f64>,
    /// Popularity of all open books.
    pub of_all: f64,
    /// The next of the series of the last book read.
    pub next: Option<usize>,
}

impl<'a> Shelf<'a> {
    /// The shelf of a reader who has read nothing.
    pub fn new(world: &'a World) -> Self {
        let mut shelf = Self {
            world,
            open: world.open_at_first.clone(),
            of_author: vec![0.0; world.books_by.len()],
            of_subject: vec![0.0; world.books_on.len()],
            of_all: 0.0,
            next: None,
        };
        (0..world.books_by.len()).for_each(|author| shelf.recount_author(author));
        (0..world.books_on.len()).for_each(|subject| shelf.recount_subject(subject));
        shelf.of_all = shelf.open_popularity(0..world.books());
        shelf
    }

    /// Takes a book off the shelf and puts the next of its series on it.
    pub fn read(&mut self, book: usize) {
        let world = self.world;
        self.open[book] = false;
        self.next = world.next_of[book];
        if let Some(next) = self.next {
            self.open[next] = true;
        }
        // Sums are taken anew, not updated: a difference would leave a trace of rounding where
        // nothing is open.
        for changed in [Some(book), self.next].into_iter().flatten() {
            self.recount_author(world.author_of[changed]);
            world.subjects_of[changed].iter().for_each(|&subject| self.recount_subject(subject));
        }
        self.of_all = self.open_popularity(0..world.books());
    }

    fn recount_author(&mut self, author: usize) {
        self.of_author[author] = self.open_popularity(self.world.books_by[author].iter().copied());
    }

    fn recount_subject(&mut self, subject: usize) {
        self.of_subject[subject] =
            self.open_popularity(self.world.books_on[subject].iter().copied());
    }

    fn open_popularity(&self, books: impl Iterator<Item = usize>) -> f64 {
        books.filter(|&book| self.open[book]).map(|book| self.world.popularity[book]).sum()
    }

    /// The mixture of a taste on this shelf: weights of the parts that have an open book, which
    /// sum to 1.
    pub fn mixture(&self, taste: Taste) -> Mixture {
        let kept = |weight: f64, there: bool| if there { weight } else { 0.0 };
        let series = kept(MIXTURE.series, self.next.is_some());
        let author = kept(MIXTURE.author, self.of_author[taste.author] > 0.0);
        let subject = kept(MIXTURE.subject, self.of_subject[taste.subject] > 0.0);
        let any = kept(MIXTURE.any, self.of_all > 0.0);
        let sum = series + author + subject + any;
        let share = |weight: f64| if sum > 0.0 { weight / sum } else { 0.0 };
        Mixture {
            series: share(series),
            author: share(author),
            subject: share(subject),
            any: share(any),
        }
    }
}

/// Simulates readers. The items of the result are all the books; `readers` sequences.
///
/// The same books, number and seed give the same readers on every machine.
pub fn simulate(books: &[Book], readers: usize, seed: u64) -> (World, Dataset) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = World::new(books, &mut rng);
    let digits = readers.to_string().len();
    let sequences = (1..=readers)
        .map(|number| Sequence {
            user: format!("reader-{number:0digits$}"),
            items: simulate_reader(&world, &mut rng),
        })
        .collect();
    (world, Dataset { items: books.iter().map(Book::item).collect(), sequences })
}

fn simulate_reader(world: &World, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let length = rng.random_range(LENGTHS).min(rng.random_range(LENGTHS));
    let mut shelf = Shelf::new(world);
    let mut taste = draw(0..world.tastes.len(), |at| world.prior[at], rng);
    let mut read = Vec::with_capacity(length);
    while read.len() < length {
        if !read.is_empty() {
            let change: f64 = rng.random();
            if change < NEW_AUTHOR {
                let subject = world.tastes[taste].subject;
                let among = world.tastes_on[subject].clone();
                taste = draw(among, |at| world.prior_in_subject[at], rng);
            } else if change < NEW_AUTHOR + NEW_TASTE {
                taste = draw(0..world.tastes.len(), |at| world.prior[at], rng);
            }
        }
        let Taste { subject, author } = world.tastes[taste];
        let parts = shelf.mixture(world.tastes[taste]);
        let popularity = |at: usize| world.popularity[at];
        let open = |books: &[usize]| -> Vec<usize> {
            books.iter().copied().filter(|&book| shelf.open[book]).collect()
        };
        let part: f64 = rng.random();
        let book = match shelf.next {
            Some(next) if part < parts.series => next,
            _ => {
                let candidates = if part < parts.series + parts.author {
                    open(&world.books_by[author])
                } else if part < parts.series + parts.author + parts.subject {
                    open(&world.books_on[subject])
                } else {
                    (0..world.books()).filter(|&book| shelf.open[book]).collect()
                };
                if candidates.is_empty() {
                    break;
                }
                candidates[draw(0..candidates.len(), |at| popularity(candidates[at]), rng)]
            }
        };
        shelf.read(book);
        read.push(book as u32);
    }
    read
}

/// Draws an index in proportion to its weight.
fn draw(
    among: std::ops::Range<usize>,
    weight: impl Fn(usize) -> f64,
    rng: &mut ChaCha8Rng,
) -> usize {
    let mut left = rng.random::<f64>() * among.clone().map(&weight).sum::<f64>();
    for at in among.clone() {
        left -= weight(at);
        if left < 0.0 {
            return at;
        }
    }
    // Rounding can leave a crumb beyond the last weight.
    among.end - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::classics::books;

    #[test]
    fn a_seed_fixes_the_readers() {
        let readers = |seed| simulate(&books(), 40, seed).1.sequences;
        assert_eq!(readers(1), readers(1));
        assert_ne!(readers(1), readers(2));
    }

    #[test]
    fn the_readers_of_seed_0_are_the_same_everywhere() {
        // Published figures rest on these readers: a change of the generator must be meant.
        let books = books();
        let (_, dataset) = simulate(&books, 3, 0);
        let ids: Vec<&str> = dataset.sequences[0].items[..6]
            .iter()
            .map(|&item| books[item as usize].id.as_str())
            .collect();
        assert_eq!(
            ids,
            [
                "scott-bride-of-lammermoor",
                "eliot-daniel-deronda",
                "eliot-romola",
                "eliot-middlemarch",
                "eliot-silas-marner",
                "chekhov-seagull",
            ]
        );
    }

    #[test]
    fn readers_read_no_book_twice_and_series_in_order() {
        let books = books();
        let (world, dataset) = simulate(&books, 300, 5);
        for Sequence { user, items } in &dataset.sequences {
            assert!(LENGTHS.contains(&items.len()), "{user} reads {} books", items.len());
            for (at, &item) in items.iter().enumerate() {
                let before = &items[..at];
                assert!(!before.contains(&item), "{user} reads {item} twice");
                if let Some(first) = world.next_of.iter().position(|&n| n == Some(item as usize)) {
                    assert!(before.contains(&(first as u32)), "{user} skips {first}");
                }
            }
        }
    }

    #[test]
    fn tastes_are_a_distribution() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let world = World::new(&books(), &mut rng);
        assert!((world.prior.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for on in world.tastes_on.iter().filter(|on| !on.is_empty()) {
            let sum: f64 = world.prior_in_subject[on.clone()].iter().sum();
            assert!((sum - 1.0).abs() < 1e-9);
        }
        assert!(world.tastes.len() < 1000, "small enough to filter in no time");
    }

    #[test]
    fn parts_without_an_open_book_give_up_their_weight() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let world = World::new(&books(), &mut rng);
        let mut shelf = Shelf::new(&world);
        let taste = world.tastes[0];
        for &book in &world.books_by[taste.author] {
            shelf.read(book);
        }
        shelf.next = None;
        let parts = shelf.mixture(taste);
        assert_eq!((parts.series, parts.author), (0.0, 0.0));
        assert!((parts.subject + parts.any - 1.0).abs() < 1e-12);
    }
}
