//! The embedded default: a catalogue of public-domain classics.
//!
//! `classics.csv` holds facts only: title, author, the year of first publication (or staging),
//! subjects from a short controlled list, and the place in a series. All were published by 1929.

use serde_json::{Map, Value, json};

use super::Item;
use super::items::sentences;

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
        Item { id: self.id.clone(), text: sentences(&TEXT_FIELDS, &fields), fields }
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
