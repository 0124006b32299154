//! The embedded default: a catalogue of public-domain classics.
//!
//! `classics.csv` holds facts only: title, author, the year of first publication (or staging),
//! subjects from a short controlled list, and the place in a series. All were published by 1929.

use serde_json::{Map, Value, json};

use super::Item;
use super::template::TextRecipe;

/// One book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// Readable id, such as `austen-emma`.
    pub id: String,
    /// Title, in English.
    pub title: String,
    /// Author.
    pub author: String,
    /// Year of first publication or staging.
    pub year: u16,
    /// Subjects, the main one first.
    pub subjects: Vec<String>,
    /// Name of the series and the place in it, from 1.
    pub series: Option<(String, u16)>,
}

/// Fields of a classic that make its text.
const TEXT_FIELDS: [&str; 4] = ["title", "author", "series", "subjects"];

/// What makes the texts of the classics.
pub fn text_recipe() -> TextRecipe {
    TextRecipe::columns(&TEXT_FIELDS)
}

impl Book {
    /// The book as an item: text from title, author, series and subjects.
    pub fn item(&self) -> Item {
        let mut fields = Map::new();
        fields.insert("title".into(), json!(self.title));
        fields.insert("author".into(), json!(self.author));
        fields.insert("year".into(), json!(self.year));
        fields.insert("subjects".into(), json!(self.subjects));
        if let Some((series, number)) = &self.series {
            fields.insert("series".into(), json!(series));
            fields.insert("series_number".into(), Value::from(*number));
        }
        Item { id: self.id.clone(), text: text_recipe().text(&self.id, &fields), fields }
    }
}

/// The catalogue, in the order of the file: by author, a series in its order.
///
/// # Panics
/// Never: the file is compiled in and a test reads it.
pub fn books() -> Vec<Book> {
    const FILE: &str = include_str!("classics.csv");
    type Row = (String, String, String, u16, String, Option<String>, Option<u16>);
    csv::Reader::from_reader(FILE.as_bytes())
        .deserialize()
        .map(|row: Result<Row, _>| {
            let (id, title, author, year, subjects, series, number) =
                row.expect("the embedded catalogue is read by a test");
            Book {
                id,
                title,
                author,
                year,
                subjects: subjects.split(';').map(str::to_owned).collect(),
                series: series.zip(number),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const SUBJECTS: [&str; 27] = [
        "adventure",
        "animals",
        "children's",
        "coming of age",
        "crime",
        "detective",
        "domestic life",
        "drama",
        "fantasy",
        "frontier",
        "ghost stories",
        "gothic",
        "historical",
        "humour",
        "philosophy",
        "poetry",
        "politics",
        "psychological",
        "romance",
        "satire",
        "science fiction",
        "sea",
        "social criticism",
        "spies",
        "tragedy",
        "travel",
        "war",
    ];

    #[test]
    fn the_catalogue_keeps_its_rules() {
        let books = books();
        assert!(books.len() >= 400);
        let mut ids = HashSet::new();
        for book in &books {
            let id = &book.id;
            assert!(ids.insert(id), "{id} stands twice");
            assert!(
                id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{id}"
            );
            assert!((1500..=1929).contains(&book.year), "{id} is of {}", book.year);
            assert!((2..=4).contains(&book.subjects.len()), "{id} has {:?}", book.subjects);
            for subject in &book.subjects {
                assert!(SUBJECTS.contains(&subject.as_str()), "{id} has {subject}");
            }
            assert!(!book.title.is_empty() && !book.author.is_empty());
        }
    }

    #[test]
    fn series_count_from_one_without_a_gap_and_have_one_author() {
        let mut series: HashMap<String, Vec<Book>> = HashMap::new();
        for book in books() {
            if let Some((name, _)) = &book.series {
                series.entry(name.clone()).or_default().push(book);
            }
        }
        for (name, books) in series {
            assert!(books.len() > 1, "{name} has one book");
            for (at, book) in books.iter().enumerate() {
                assert_eq!(book.series, Some((name.clone(), at as u16 + 1)));
                assert_eq!(book.author, books[0].author, "{name}");
            }
            assert!(books.is_sorted_by_key(|book| book.year), "{name} is not in its order");
        }
    }

    #[test]
    fn the_text_has_what_tells_books_apart() {
        let books = books();
        let item = books.iter().find(|book| book.id == "doyle-valley-of-fear").unwrap().item();
        assert_eq!(
            item.text,
            "The Valley of Fear. Arthur Conan Doyle. Sherlock Holmes. detective, crime."
        );
        assert_eq!(item.fields["year"], 1915);
        assert_eq!(item.fields["series_number"], 7);
    }
}
