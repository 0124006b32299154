//! MovieLens as downloaded: `ratings.dat` and `movies.dat` (1M, 10M), `ratings.csv` and `movies.csv`
//! (later releases), or `u.data`, `u.item` and `u.genre` (100K).

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::Dataset;
use super::events::{Events, Ids, Rules, Tally, parse_rating};
use super::moment::{Moment, TimeStyle};
use super::records::Delimited;
use super::template::TextRecipe;
use super::text_file::{self, Text};
use crate::error::{Result, TrainError};

/// Text of a movie.
pub const TEMPLATE: &str = "[{title}][ ({year})]. [Genres: {genres}.]";

/// A file of a release.
struct File {
    name: &'static str,
    /// What stands between columns; nothing in CSV, which has a header too.
    separator: Option<&'static str>,
}

/// The files of a release.
struct Release {
    ratings: File,
    movies: File,
    /// The names of the genres, where a movie has a column for each.
    genres: Option<File>,
}

impl File {
    const fn new(name: &'static str, separator: Option<&'static str>) -> Self {
        Self { name, separator }
    }

    /// Where the file is in a folder, plain or `.gz`.
    fn path(&self, folder: &Path) -> PathBuf {
        let plain = folder.join(self.name);
        let packed = folder.join(format!("{}.gz", self.name));
        if !plain.exists() && packed.exists() { packed } else { plain }
    }
}

const RELEASES: [Release; 3] = [
    Release {
        ratings: File::new("ratings.dat", Some("::")),
        movies: File::new("movies.dat", Some("::")),
        genres: None,
    },
    Release {
        ratings: File::new("ratings.csv", None),
        movies: File::new("movies.csv", None),
        genres: None,
    },
    Release {
        ratings: File::new("u.data", Some("\t")),
        movies: File::new("u.item", Some("|")),
        genres: Some(File::new("u.genre", Some("|"))),
    },
];

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
    recipe: &TextRecipe,
    progress: &ProgressBar,
) -> Result<(Dataset, Tally)> {
    let release = release(folder)?;
    let (ratings, movies) = (release.ratings.path(folder), release.movies.path(folder));
    // All are opened before one is read, so that a missing one is told of at once.
    let rating_rows = Rows::open(&ratings, release.ratings.separator, progress)?;
    let movie_rows = Rows::open(&movies, release.movies.separator, progress)?;
    let genre_names = release.genres.map(|genres| genre_names(folder, &genres)).transpose()?;
    let mut events = Events::new(rules);
    let mut ids = Ids::default();
    rating_rows.for_each(|number, row| {
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
    let mut places: HashMap<String, usize> =
        items.iter().enumerate().map(|(at, item)| (item.id.clone(), at)).collect();
    movie_rows.for_each(|number, row| {
        let wrong = |reason: String| TrainError::line(&movies, number, reason);
        let (id, title, genres) = match (&genre_names, row) {
            (None, [id, title, genres]) => (id, title, genres.split('|').collect()),
            (None, _) => {
                return Err(wrong("does not have three columns: movie, title, genres".into()));
            }
            (Some(names), [id, title, _, _, _, has @ ..]) if has.len() == names.len() => {
                let of_movie = names.iter().zip(has).filter(|(_, has)| has.trim() == "1");
                (id, title, of_movie.map(|(name, _)| name.as_str()).collect())
            }
            (Some(names), _) => {
                return Err(wrong(format!(
                    "does not have {} columns: movie, title, two dates, address, and one for each of \
                     the {} genres in u.genre",
                    5 + names.len(),
                    names.len()
                )));
            }
        };
        if let Some(at) = places.remove(*id) {
            let item = &mut items[at];
            item.fields = fields(title, genres);
            item.text = recipe.text(&item.id, &item.fields);
        }
        Ok(())
    })?;
    Ok((Dataset { items, sequences }, tally))
}

/// The release whose files a folder has.
fn release(folder: &Path) -> Result<Release> {
    let mut there: Vec<Release> = RELEASES.into();
    there.retain(|release| release.ratings.path(folder).exists());
    match there.as_slice() {
        [] => Err(TrainError::file(
            folder,
            "has neither ratings.dat nor ratings.csv nor u.data; unpack a MovieLens release there",
        )),
        [one, another, ..] => Err(TrainError::file(
            folder,
            format!(
                "has {} and {}; leave the files of one release there",
                one.ratings.name, another.ratings.name
            ),
        )),
        [_] => Ok(there.remove(0)),
    }
}

/// The names of genres in the order of their columns.
fn genre_names(folder: &Path, file: &File) -> Result<Vec<String>> {
    let path = file.path(folder);
    let mut names = Vec::new();
    Rows::open(&path, file.separator, &ProgressBar::hidden())?.for_each(|number, row| {
        match row {
            [name, place] if place.trim().parse() == Ok(names.len()) => names.push((*name).into()),
            _ => {
                let reason = "does not have a genre and its number, which go up from 0";
                return Err(TrainError::line(&path, number, reason));
            }
        }
        Ok(())
    })?;
    Ok(names)
}

/// Title, year and genres; the year stands in brackets at the end of the title.
fn fields(title: &str, genres: Vec<&str>) -> Map<String, Value> {
    let title = title.trim();
    let year = title.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    let year = year.and_then(|(name, year)| Some((name.trim(), year.parse::<u16>().ok()?)));
    let mut fields = Map::new();
    fields.insert("title".into(), year.map_or(title, |(name, _)| name).into());
    if let Some((_, year)) = year {
        fields.insert("year".into(), year.into());
    }
    // Later releases write "(no genres listed)", and 100K has a genre "unknown".
    let is_genre = |name: &&str| !name.is_empty() && !name.starts_with('(') && *name != "unknown";
    let genres: Vec<Value> = genres.into_iter().filter(is_genre).map(Value::from).collect();
    fields.insert("genres".into(), genres.into());
    fields
}

/// The rows of an open file.
enum Rows<'a> {
    Csv(Delimited<'a>),
    Separated { path: &'a Path, text: Text, separator: &'static str },
}

impl<'a> Rows<'a> {
    fn open(
        path: &'a Path,
        separator: Option<&'static str>,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let hint = "a MovieLens release has it beside its other files";
        Ok(match separator {
            None => Self::Csv(Delimited::open(path, b',', hint, progress)?),
            Some(separator) => {
                Self::Separated { path, text: text_file::open(path, hint, progress)?, separator }
            }
        })
    }

    /// Calls `each` with the line number and the columns of every row.
    fn for_each(self, mut each: impl FnMut(usize, &[&str]) -> Result<()>) -> Result<()> {
        match self {
            Self::Csv(mut table) => {
                let mut record = csv::StringRecord::new();
                while let Some(line) = table.read(&mut record)? {
                    each(line, &record.iter().collect::<Vec<_>>())?;
                }
                Ok(())
            }
            Self::Separated { path, text, separator } => {
                text_file::for_each_line_of_bytes(path, text, |number, bytes| {
                    // 100K and 1M are in Latin-1, whose bytes are code points, and 10M in UTF-8.
                    let line = match std::str::from_utf8(bytes) {
                        Ok(line) => Cow::Borrowed(line),
                        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
                    };
                    each(number, &line.split(separator).collect::<Vec<_>>())
                })
            }
        }
    }
}
