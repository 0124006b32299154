//! The TOML file of a pipeline: `run`, and a table a step, whose keys are the step's options.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use toml::{Table, Value};

use super::arguments::{Call, call};
use super::step::Step;
use crate::error::{Result, TrainError};
use crate::files::read_text;
use crate::run_dir::RunDir;
use crate::usage::one_line;

/// An example with all that a pipeline may hold, explained.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A TOML file with the settings of the command line laid over it.
#[derive(Debug, Clone)]
pub struct Config {
    /// How messages call it.
    name: String,
    /// Where relative paths count from.
    folder: PathBuf,
    table: Table,
}

impl Config {
    /// Reads a file and lays `settings` over it ([`Config::set`]).
    ///
    /// # Errors
    /// [`TrainError::File`] for a file that is missing or no TOML, [`TrainError::Usage`] for a
    /// setting that is none.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self> {
        let text = read_text(path, "name the TOML file; `tigret run --example` prints one")?;
        let table = text.parse::<Table>().map_err(|e| match e.span() {
            Some(span) => {
                let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                TrainError::line(path, line, one_line(e.message()))
            }
            None => TrainError::file(path, one_line(e.message())),
        })?;
        let folder = std::path::absolute(path).map_err(|e| TrainError::file(path, e))?;
        let folder = folder.parent().map(Path::to_owned).unwrap_or_default();
        let mut config = Self { name: path.display().to_string(), folder, table };
        for setting in settings {
            config.set(setting)?;
        }
        Ok(config)
    }

    /// A table that stands in no file; `name` is what messages call it.
    pub fn of_table(name: impl Into<String>, folder: impl Into<PathBuf>, table: Table) -> Self {
        Self { name: name.into(), folder: folder.into(), table }
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where relative paths count from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All of it.
    pub fn into_table(self) -> Table {
        self.table
    }

    /// Lays a table over it; tables in both are joined.
    pub fn overlay(&mut self, over: &Table) {
        overlay(&mut self.table, over);
    }

    /// Takes an option of a step out, in whichever spelling.
    pub fn remove(&mut self, step: Step, option: &str) {
        if let Some(Value::Table(options)) = self.table.get_mut(step.verb()) {
            options.remove(&spelled(options, option));
        }
    }

    /// Lays a setting over it, `KEY=VALUE` with a dotted key; the value is in TOML or, where it is
    /// none, a text.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for a setting that is none.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        let wrong = |why: &str| TrainError::usage(format!("--set {setting}: {why}"));
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| wrong("is not KEY=VALUE, such as train.preset=paper"))?;
        // What is not TOML is a text without its quotation marks.
        let value = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| (table.len() == 1).then(|| table.remove("value")).flatten())
            .unwrap_or_else(|| Value::String(value.to_owned()));
        let mut parts = key.trim().split('.').collect::<Vec<_>>();
        let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| wrong("no key"))?;
        let mut table = &mut self.table;
        for part in parts {
            let inner =
                table.entry(spelled(table, part)).or_insert_with(|| Value::Table(Table::new()));
            if matches!(inner, Value::Boolean(_)) {
                // A setting of a step that the file leaves out: it is wanted after all.
                *inner = Value::Table(Table::new());
            }
            table = inner
                .as_table_mut()
                .ok_or_else(|| wrong(&format!("\"{part}\" is a value, not a table")))?;
        }
        table.insert(spelled(table, last), value);
        Ok(())
    }

    /// The run directory, and the calls of the steps in their order.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for what a pipeline does not have, and for options that the verb
    /// refuses, naming the file and the table.
    pub fn pipeline(&self, command: &clap::Command) -> Result<(RunDir, Vec<Call>)> {
        let wrong = |what: String| TrainError::usage(format!("{}: {what}", self.name));
        for key in self.table.keys() {
            if key != "run" && Step::from_str(key, false).is_err() {
                let steps: Vec<&str> = Step::value_variants().iter().map(|s| s.verb()).collect();
                let steps = steps.join(", ");
                return Err(wrong(format!("\"{key}\" is neither `run` nor a step ({steps})")));
            }
        }
        let run = match self.table.get("run") {
            Some(Value::String(run)) if !run.is_empty() => self.folder.join(run),
            Some(_) => return Err(wrong("`run` is not the name of a folder".into())),
            None => return Err(wrong("`run` is missing: the folder of the run".into())),
        };
        let run = RunDir::named(run);
        let mut calls = Vec::new();
        for &step in Step::value_variants() {
            let options = match self.table.get(step.verb()) {
                Some(Value::Table(options)) => options,
                // The report is for people who ask for it.
                None if step == Step::Inspect => continue,
                None => &Table::new(),
                Some(Value::Boolean(true)) => &Table::new(),
                Some(Value::Boolean(false)) => continue,
                Some(_) => {
                    return Err(wrong(format!("`{step}` is neither a table nor true or false")));
                }
            };
            let built = call(command, step, options, &run, &self.folder)
                .map_err(|e| wrong(format!("[{step}] {e}")))?;
            calls.push(built);
        }
        Ok((run, calls))
    }
}

/// A key as a table has it already, in whichever spelling.
fn spelled(table: &Table, key: &str) -> String {
    let is_same = |known: &&String| known.replace('_', "-") == key.replace('_', "-");
    table.keys().find(is_same).map_or_else(|| key.to_owned(), String::clone)
}

/// An option of a table, in whichever spelling.
pub fn option<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    table.get(&spelled(table, key))
}

/// Lays a table over another; tables in both are joined. `a-key` and `a_key` are the same.
pub fn overlay(under: &mut Table, over: &Table) {
    for (key, value) in over {
        let key = spelled(under, key);
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            _ => {
                under.insert(key, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_in_either_of_its_spellings() {
        let table = |text: &str| text.parse::<Table>().unwrap_or_else(|e| panic!("{text}: {e}"));
        let mut under = table("out = 1\n[train]\nlearning-rate = 1\nbatch_size = 2");
        overlay(&mut under, &table("[train]\nlearning_rate = 3\nbatch-size = 4\nd_ff = 5"));
        let expected = "out = 1\n[train]\nlearning-rate = 3\nbatch_size = 4\nd_ff = 5";
        assert_eq!(under, table(expected));
        for key in ["d-ff", "d_ff"] {
            let found = under["train"].as_table().and_then(|train| option(train, key));
            assert_eq!(found.and_then(Value::as_integer), Some(5));
        }

        let mut config = Config::of_table("test", "", under);
        for setting in ["train.learning_rate=6", "train.batch-size=7", "train.d_ff=8"] {
            config.set(setting).unwrap_or_else(|e| panic!("{setting}: {e}"));
        }
        let expected = "out = 1\n[train]\nlearning-rate = 6\nbatch_size = 7\nd_ff = 8";
        assert_eq!(config.table, table(expected));
    }
}
