//! MovieLens as downloaded: `ratings.dat` and `movies.dat` (1M, 10M), or `ratings.csv` and
//! `movies.csv` (later releases).

use std::borrow::Cow;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::Dataset;
use super::events::{Events, Ids, Rules, Tally, parse_rating};
use super::moment::{Moment, TimeStyle};
use super::records::Delimited;
use super::source;
use super::template::Template;
use crate::error::{Result, TrainError};

/// Text of a movie.
pub const TEMPLATE: &str = "[{title}][ ({year})]. [Genres: {genres}.]";

/// Reads a release's folder: the data set, and what the rules left out.
///
/// Movies are in the order of their first rating, users likewise, a user's movies in time order. A
/// movie that the movies file does not have is without fields.
///
/// # Errors
/// [`TrainError::File`] or [`TrainError::Line`] naming what cannot be read.
pub fn read(
    folder: &Path,
    rules: Rules,
    template: &Template,
    progress: &ProgressBar,
) -> Result<(Dataset, Tally)> {
    let (ratings, movies, csv) =
        match ["dat", "csv"].map(|e| folder.join("ratings").with_extension(e)) {
            [dat, _] if dat.exists() => (dat, folder.join("movies.dat"), false),
            [_, csv] if csv.exists() => (csv, folder.join("movies.csv"), true),
            _ => {
                return Err(TrainError::file(
                    folder,
                    "has neither ratings.dat nor ratings.csv; unpack a MovieLens release there",
                ));
            }
        };
    let mut events = Events::new(rules);
    let mut ids = Ids::default();
    for_each_row(&ratings, csv, progress, |number, row| {
        let wrong = |reason: String| TrainError::line(&ratings, number, reason);
        let [user, movie, rating, time] = row else {
            return Err(wrong("does not have four columns: user, movie, rating, time".into()));
        };
        let rating =
            parse_rating(rating).map_err(|_| wrong("has a rating that is no number".into()))?;
        let time =
            time.trim().parse().map_err(|_| wrong("has a time that is no whole number".into()))?;
        let moment = Moment::whole(time);
        if events.counts(Some(rating), moment, TimeStyle::Epoch { a_second: 1 })? {
            let movie = ids.number(movie).map_err(wrong)?;
            events.push(user, movie, moment).map_err(wrong)?;
        }
        Ok(())
    })?;
    let (sequences, tally) = events.into_sequences()?;
    let mut items = ids.into_items();
    let mut places: std::collections::HashMap<String, usize> =
        items.iter().enumerate().map(|(at, item)| (item.id.clone(), at)).collect();
    for_each_row(&movies, csv, progress, |number, row| {
        let [id, title, genres] = row else {
            let reason = "does not have three columns: movie, title, genres";
            return Err(TrainError::line(&movies, number, reason));
        };
        if let Some(at) = places.remove(*id) {
            items[at].fields = fields(title, genres);
            items[at].text = template.fill(&items[at].fields);
        }
        Ok(())
    })?;
    Ok((Dataset { items, sequences }, tally))
}

/// Title, year and genres; the year stands in brackets at the end of the title.
fn fields(title: &str, genres: &str) -> Map<String, Value> {
    let title = title.trim();
    let year = title.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    let year = year.and_then(|(name, year)| Some((name.trim(), year.parse::<u16>().ok()?)));
    let mut fields = Map::new();
    fields.insert("title".into(), year.map_or(title, |(name, _)| name).into());
    if let Some((_, year)) = year {
        fields.insert("year".into(), year.into());
    }
    let genres: Vec<Value> = genres
        .split('|')
        .filter(|g| !g.starts_with('(') && !g.is_empty())
        .map(Value::from)
        .collect();
    fields.insert("genres".into(), genres.into());
    fields
}

/// Calls `each` with the line number and the columns of every row.
fn for_each_row(
    path: &Path,
    csv: bool,
    progress: &ProgressBar,
    mut each: impl FnMut(usize, &[&str]) -> Result<()>,
) -> Result<()> {
    let hint = "a MovieLens release has it beside the other file";
    if csv {
        let mut table = Delimited::open(path, b',', hint, progress)?;
        let mut record = csv::StringRecord::new();
        while let Some(line) = table.read(&mut record)? {
            each(line, &record.iter().collect::<Vec<_>>())?;
        }
        return Ok(());
    }
    let text = source::open(path, hint, progress)?;
    source::for_each_line_of_bytes(path, text, |number, bytes| {
        // 1M is in Latin-1, whose bytes are code points, and 10M in UTF-8.
        let line = match std::str::from_utf8(bytes) {
            Ok(line) => Cow::Borrowed(line),
            Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
        };
        each(number, &line.split("::").collect::<Vec<_>>())
    })
}
