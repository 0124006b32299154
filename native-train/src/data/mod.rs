//! From raw files to a data set: items with text, and users' sequences of items in time order.
//!
//! Sources: a [generic log](log), [Amazon's reviews](amazon) and [MovieLens](movielens) as
//! downloaded, the [research format](research), and the embedded [classics] with
//! [simulated readers](simulation). All end in a [`Dataset`], which every
//! later step loads from the run directory.

pub mod amazon;
pub mod classics;
pub mod events;
pub mod interactions;
pub mod items;
pub mod k_core;
pub(crate) mod lines;
pub mod log;
mod markup;
pub mod moment;
pub mod movielens;
pub mod new_items;
pub mod oracle;
mod parquet;
pub mod prepare;
mod python_json;
mod python_literal;
mod records;
pub mod research;
pub mod simulation;
pub mod summary;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
mod text_file;
mod values;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use summary::Summary;

use crate::error::{Result, TrainError};
use crate::files::{Together, pretty, remove_if_there, unfinished, write_line};
use crate::metrics::Metrics;
use crate::run_dir::RunDir;

/// Fewest items of a sequence: leave-one-out takes two, and one must remain as a history.
pub const MIN_SEQUENCE: usize = 3;

/// Most items of a data set: sequences index them with `u32`.
pub const MAX_ITEMS: usize = u32::MAX as usize;

/// One thing that can be recommended; as JSON a line of `items.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// The id of the source, a string whatever the source had.
    pub id: String,
    /// What the encoder reads; empty where the source has no text.
    pub text: String,
    /// The fields of the source, for display; none is called `id` or `text`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// One user's items, oldest first; at least [`MIN_SEQUENCE`].
///
/// Leave-one-out (Kang and McAuley 2018; the protocol of the TIGER paper) is by position: the
/// last item is the test target, the one before it the validation target, the rest is for
/// training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The user's id.
    pub user: String,
    /// Indices into [`Dataset::items`].
    pub items: Vec<u32>,
}

impl Sequence {
    /// The items to train on.
    pub fn train(&self) -> &[u32] {
        &self.items[..self.items.len() - 2]
    }

    /// History and target of validation.
    pub fn validation(&self) -> (&[u32], u32) {
        let target = self.items.len() - 2;
        (&self.items[..target], self.items[target])
    }

    /// History and target of the test; the history includes the validation target.
    pub fn test(&self) -> (&[u32], u32) {
        let target = self.items.len() - 1;
        (&self.items[..target], self.items[target])
    }
}

/// Items and sequences, as the artefacts `items.jsonl` and `sequences.jsonl` hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Items; their order is the row order of every later artefact.
    pub items: Vec<Item>,
    /// Sequences, a user each.
    pub sequences: Vec<Sequence>,
}

/// A line of `sequences.jsonl`.
#[derive(Serialize, Deserialize)]
struct SequenceLine<I> {
    user: String,
    items: Vec<I>,
}

impl Dataset {
    /// So many sequences, or all where there are fewer, evenly spread over all.
    pub fn spread(&self, wanted: usize) -> Vec<&Sequence> {
        let all = &self.sequences;
        let wanted = wanted.min(all.len());
        (0..wanted).map(|at| &all[at * all.len() / wanted]).collect()
    }

    /// Whether users come back to items that they had before: at least one training interaction in
    /// a hundred does.
    pub fn has_repeats(&self) -> bool {
        let (mut repeated, mut all) = (0usize, 0usize);
        let mut seen = HashSet::new();
        for sequence in &self.sequences {
            seen.clear();
            all += sequence.train().len();
            repeated += sequence.train().iter().filter(|&&item| !seen.insert(item)).count();
        }
        repeated * 100 >= all.max(1)
    }

    /// Reads the artefacts of a run.
    ///
    /// # Errors
    /// [`TrainError::File`] when one is missing, [`TrainError::Line`] when a line is wrong: not
    /// JSON, an id twice, an unknown item, fewer than [`MIN_SEQUENCE`] items.
    pub fn load(run: &RunDir) -> Result<Self> {
        let items = Self::load_items(run)?;
        let index: HashMap<&str, u32> =
            items.iter().zip(0..).map(|(item, at)| (item.id.as_str(), at)).collect();
        let mut sequences = Vec::new();
        let path = run.sequences();
        lines::for_each_line(&path, PREPARE_HINT, |number, line| {
            let wrong = |reason: String| TrainError::line(&path, number, reason);
            let line: SequenceLine<String> = lines::object(line).map_err(wrong)?;
            if line.items.len() < MIN_SEQUENCE {
                let count = line.items.len();
                return Err(wrong(format!(
                    "has {count} items, at least {MIN_SEQUENCE} are needed"
                )));
            }
            let items = line
                .items
                .iter()
                .map(|id| {
                    index
                        .get(id.as_str())
                        .copied()
                        .ok_or_else(|| wrong(format!("item \"{id}\" is not in items.jsonl")))
                })
                .collect::<Result<_>>()?;
            sequences.push(Sequence { user: line.user, items });
            Ok(())
        })?;
        Ok(Self { items, sequences })
    }

    /// Reads the items of a run, without the sequences.
    ///
    /// # Errors
    /// [`TrainError::File`] when `items.jsonl` is missing or [`Dataset::save`] was stopped in the
    /// middle, [`TrainError::Line`] when a line is
    /// wrong: not JSON, without an id or a text, an id twice.
    pub fn load_items(run: &RunDir) -> Result<Vec<Item>> {
        let (path, summary) = (run.items(), run.dataset());
        if path.exists() && !summary.exists() && unfinished(&summary).exists() {
            return Err(TrainError::file(
                run.root(),
                "has items and sequences that may be of two data sets, since `tigret prepare` was \
                 stopped; run it again",
            ));
        }
        let mut items = Vec::new();
        let mut seen = HashMap::new();
        lines::for_each_line(&path, PREPARE_HINT, |number, line| {
            let wrong = |reason: String| TrainError::line(&path, number, reason);
            let mut fields: Map<String, Value> = lines::object(line).map_err(wrong)?;
            let mut take = |name: &str| match fields.remove(name) {
                Some(Value::String(value)) => Ok(value),
                _ => Err(wrong(format!("has no string \"{name}\""))),
            };
            let (id, text) = (take("id")?, take("text")?);
            if let Some(first) = seen.insert(id.clone(), number) {
                return Err(wrong(format!("item \"{id}\" stands already on line {first}")));
            }
            items.push(Item { id, text, fields });
            Ok(())
        })?;
        Ok(items)
    }

    /// Writes the artefacts into a run, and `optimum` where there is one: all of them or, where one
    /// cannot be written, none. Figures of other data go. `dataset.json` is put last: where it is
    /// still unfinished, so is the run ([`Dataset::load`]).
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir, summary: &Summary, optimum: Option<&Metrics>) -> Result<()> {
        let mut files = Together::default();
        files.write(&run.items(), |file| {
            self.items.iter().try_for_each(|item| write_line(file, item))
        })?;
        files.write(&run.sequences(), |file| {
            for sequence in &self.sequences {
                let items =
                    sequence.items.iter().map(|&at| self.items[at as usize].id.as_str()).collect();
                let line: SequenceLine<&str> = SequenceLine { user: sequence.user.clone(), items };
                write_line(file, &line)?;
            }
            Ok(())
        })?;
        let is_other = !files.are_there();
        if let Some(optimum) = optimum {
            files.write(&run.oracle(), |file| pretty(file, optimum))?;
        }
        files.write(&run.dataset(), |file| pretty(file, summary))?;
        remove_if_there(&run.dataset())?;
        remove_if_there(&run.oracle())?;
        if is_other {
            remove_if_there(&run.evaluation())?;
        }
        files.put()
    }

    /// Interactions of all sequences.
    pub fn interactions(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.items.len()).sum()
    }
}

/// How the files of `prepare` are made.
pub(crate) const PREPARE_HINT: &str = "make it with `tigret prepare`";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        (folder, run)
    }

    fn dataset() -> Dataset {
        let item = |id: &str| Item {
            id: id.into(),
            text: format!("Text of \"{id}\"."),
            fields: Map::from_iter([("title".to_owned(), json!(["x", 1, null]))]),
        };
        Dataset {
            items: vec![item("a"), item("ü/β"), item("c")],
            sequences: vec![
                Sequence { user: "u 1".into(), items: vec![2, 0, 1, 1] },
                Sequence { user: "u2".into(), items: vec![0, 1, 2] },
            ],
        }
    }

    #[test]
    fn leave_one_out_is_by_position() {
        let sequence = Sequence { user: "u".into(), items: vec![5, 6, 7, 8] };
        assert_eq!(sequence.train(), [5, 6]);
        assert_eq!(sequence.validation(), (&[5, 6][..], 7));
        assert_eq!(sequence.test(), (&[5, 6, 7][..], 8));
    }

    #[test]
    fn a_saved_data_set_loads_the_same() {
        let (_folder, run) = run();
        let dataset = dataset();
        let summary = Summary::new(&dataset, "log", 5);
        dataset.save(&run, &summary, None).unwrap();
        assert_eq!(Dataset::load(&run).unwrap(), dataset);
        let read: Summary = crate::files::read_json(&run.dataset(), "").unwrap();
        assert_eq!(read, summary);
    }

    #[test]
    fn a_data_set_that_cannot_be_written_whole_leaves_the_one_before() {
        let (_folder, run) = run();
        let dataset = dataset();
        let summary = Summary::new(&dataset, "log", 5);
        dataset.save(&run, &summary, None).unwrap();
        crate::files::write_json(&run.evaluation(), &1).unwrap();
        let mut other = dataset.clone();
        other.items[0].text = "another".into();
        // The last of the files finds no place.
        let in_the_way = unfinished(&run.dataset());
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(other.save(&run, &summary, None).is_err());
        assert_eq!(Dataset::load(&run).unwrap(), dataset);
        assert!(run.evaluation().exists() && !unfinished(&run.items()).exists());
        std::fs::remove_dir(&in_the_way).unwrap();
        // Figures stay with the data that they are of.
        dataset.save(&run, &summary, None).unwrap();
        assert!(run.evaluation().exists());
        other.save(&run, &summary, None).unwrap();
        assert!(!run.evaluation().exists());
        assert_eq!(Dataset::load(&run).unwrap(), other);
    }

    #[test]
    fn a_data_set_of_which_a_part_took_its_place_is_refused() {
        let (_folder, run) = run();
        dataset().save(&run, &Summary::new(&dataset(), "log", 5), None).unwrap();
        std::fs::rename(run.dataset(), unfinished(&run.dataset())).unwrap();
        let error = Dataset::load(&run).unwrap_err().to_string();
        assert!(error.contains("since `tigret prepare` was stopped; run it again"), "{error}");
        // Files of the user's own need no summary.
        std::fs::remove_file(unfinished(&run.dataset())).unwrap();
        assert_eq!(Dataset::load(&run).unwrap(), dataset());
    }

    #[test]
    fn the_summary_counts() {
        let summary = Summary::new(&dataset(), "log", 5);
        assert_eq!((summary.users, summary.items, summary.interactions), (2, 3, 7));
        assert_eq!((summary.mean_length, summary.median_length), (3.5, 3.5));
        // An item that a user had twice is one pair of the six.
        assert!((summary.density - 1.0).abs() < 1e-12);
        assert!(!summary.simulated && summary.clone().simulated(4).simulated);
    }

    #[test]
    fn a_wrong_artefact_is_refused_by_line() {
        let items = "{\"id\": \"a\", \"text\": \"\"}\n{\"id\": \"b\", \"text\": \"\"}\n";
        let sequences = "{\"user\": \"u\", \"items\": [\"a\", \"b\", \"a\"]}\n";
        for (items, sequences, expected) in [
            ("{\"id\": \"a\"}\n", sequences, "items.jsonl:1: has no string \"text\""),
            ("\n{\"id\": 1, \"text\": \"\"}\n", sequences, "items.jsonl:2: has no string \"id\""),
            (&items.replace("\"b\"", "\"a\""), sequences, "items.jsonl:2: item \"a\" stands"),
            (items, "{\"user\": \"u\"}\n", "sequences.jsonl:1: missing field `items`"),
            (items, &sequences.replace("\"b\"", "\"x\""), "sequences.jsonl:1: item \"x\" is not"),
            (items, &sequences.replace("\"b\", ", ""), "sequences.jsonl:1: has 2 items"),
        ] {
            let (_folder, run) = run();
            std::fs::write(run.items(), items).unwrap();
            std::fs::write(run.sequences(), sequences).unwrap();
            let error = Dataset::load(&run).unwrap_err().to_string();
            assert!(error.contains(expected), "\"{error}\" does not say \"{expected}\"");
        }
    }

    #[test]
    fn a_missing_artefact_says_how_to_make_it() {
        let (_folder, run) = run();
        let error = Dataset::load(&run).unwrap_err().to_string();
        assert!(error.contains("items.jsonl: not found; make it with `tigret prepare`"), "{error}");
    }

    #[test]
    fn users_that_stand_for_all_are_spread_over_all() {
        let dataset = testing::dataset(1, &[&[0, 0, 0][..]; 7]);
        let of = |wanted| {
            let at = |user: &Sequence| dataset.sequences.iter().position(|it| it == user).unwrap();
            dataset.spread(wanted).into_iter().map(at).collect::<Vec<_>>()
        };
        assert_eq!(of(3), [0, 2, 4]);
        assert_eq!(of(9), [0, 1, 2, 3, 4, 5, 6]);
        assert!(of(0).is_empty());
    }
}
