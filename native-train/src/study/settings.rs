//! What all studies share: data sets, seeds, and options of the steps that hold for every variant.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Study;
use crate::error::{Result, TrainError};
use crate::pipeline::config::overlay;
use crate::pipeline::{Config, Step};

/// Options with which a study takes a minute: its figures are of no use, its code is the same.
const SMOKE: &str = r#"
    users = 100
    [prepare]
    readers = 200
    [tokenize]
    epochs = 40
    codebook-size = 32
    collision-size = 512
    [train]
    preset = "tiny"
    epochs = 2
    max-minutes = 0.1
    batch = 64
    validation-users = 50
    [evaluate]
    beams = 20
    sasrec-epochs = 1
    sasrec-max-minutes = 0.1
"#;

/// A data set of a study.
#[derive(Debug, Clone)]
pub struct Data {
    /// Its name in reports, and the key to the paper's figures.
    pub name: String,
    /// Options of steps that hold for this data set, those of `prepare` among them.
    pub options: Table,
}

/// The settings of a study.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where runs and reports go.
    pub out: PathBuf,
    /// The data sets.
    pub data: Vec<Data>,
    /// A run of each variant for each.
    pub seeds: Vec<u64>,
    /// Most users of a measurement beside the protocol's figures; all if `None`.
    pub users: Option<usize>,
    /// Options of steps that hold for all variants.
    pub base: Table,
    /// Where relative paths in options count from.
    pub folder: PathBuf,
    /// Whether figures are of no use, since everything is small.
    pub smoke: bool,
}

/// What the command line says beside the file.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// Data sets: `classics`, `NAME=FOLDER` or `FOLDER`.
    pub data: Vec<String>,
    /// Where runs and reports go.
    pub out: Option<PathBuf>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Settings `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Everything small.
    pub smoke: bool,
}

impl Settings {
    /// Joins a file (an empty one if there is none) and the command line, which prevails.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for keys that a study does not have, for values of the wrong kind,
    /// without data or without a folder to write to.
    pub fn new(mut config: Config, line: &CommandLine) -> Result<Self> {
        if line.smoke {
            let small: Table = SMOKE.parse().map_err(|e| TrainError::usage(format!("{e}")))?;
            // It names the epochs of the tokenizer, and both are refused.
            config.remove(Step::Tokenize, "max-epochs");
            config.overlay(&small);
        }
        for setting in &line.settings {
            config.set(setting)?;
        }
        let name = config.name().to_owned();
        let folder = config.folder().to_owned();
        let wrong = |what: &str| TrainError::usage(format!("{name}: {what}"));
        let mut base = config.into_table();
        let out = match (&line.out, base.remove("out")) {
            (Some(out), _) => std::path::absolute(out).map_err(|e| TrainError::file(out, e))?,
            (None, Some(Value::String(out))) => folder.join(out),
            (None, Some(_)) => return Err(wrong("`out` is not the name of a folder")),
            (None, None) => {
                return Err(TrainError::usage("say where runs and reports go: --out DIR"));
            }
        };
        let seeds = match (line.seeds.is_empty(), base.remove("seeds")) {
            (false, _) => line.seeds.clone(),
            (true, Some(Value::Array(seeds))) if !seeds.is_empty() => seeds
                .iter()
                .map(|seed| seed.as_integer().and_then(|seed| u64::try_from(seed).ok()))
                .collect::<Option<Vec<u64>>>()
                .ok_or_else(|| wrong("`seeds` holds something else than whole numbers"))?,
            (true, None) => vec![0],
            (true, Some(_)) => return Err(wrong("`seeds` is not a list of whole numbers")),
        };
        if let Some(seed) = seeds.iter().find(|seed| i64::try_from(**seed).is_err()) {
            return Err(TrainError::usage(format!("seed {seed} is beyond {}", i64::MAX)));
        }
        // A run that is counted twice makes the deviation of several too small.
        if let Some((_, seed)) =
            seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed))
        {
            return Err(TrainError::usage(format!(
                "seed {seed} is named twice, and its runs are the same; name each seed once"
            )));
        }
        let users = match base.remove("users") {
            None => None,
            Some(Value::Integer(users)) if users > 0 => Some(users as usize),
            Some(_) => return Err(wrong("`users` is not a number of users")),
        };
        let mut data = Vec::new();
        match base.remove("data") {
            None => {}
            Some(Value::Table(sets)) => {
                for (set, options) in sets {
                    let Value::Table(options) = options else {
                        return Err(wrong(&format!("`data.{set}` is not a table")));
                    };
                    data.push(data_of_table(set, options, &wrong)?);
                }
            }
            Some(_) => return Err(wrong("`data` is not a table of data sets")),
        }
        if !line.data.is_empty() {
            data = line.data.iter().map(|text| data_of_text(text)).collect::<Result<_>>()?;
        }
        if data.is_empty() {
            return Err(TrainError::usage(
                "say on what data: --data NAME=FOLDER with sequences.txt and items.jsonl in the \
                 folder, or --data classics",
            ));
        }
        if let Some((at, set)) = data
            .iter()
            .enumerate()
            .find(|(at, set)| data[..*at].iter().any(|earlier| earlier.name == set.name))
        {
            return Err(wrong(&format!("data set {} is named {}, too", at + 1, set.name)));
        }
        if let Some(own) = base.get("study") {
            let own = own.as_table().ok_or_else(|| wrong("`study` is not a table of studies"))?;
            let known = |key: &String| Study::ALL.iter().any(|study| study.name() == key);
            if let Some(key) = own.keys().find(|key| !known(key)) {
                let names = Study::ALL.map(Study::name).join(", ");
                return Err(wrong(&format!("`study.{key}` is none of the studies {names}")));
            }
        }
        for key in base.keys().filter(|key| *key != "study") {
            match key.parse::<Step>() {
                Ok(Step::Export | Step::Inspect) => {
                    return Err(wrong(&format!("[{key}] is not for a study: remove it")));
                }
                Ok(_) => {}
                Err(()) => {
                    return Err(wrong(&format!(
                        "\"{key}\" is none of out, seeds, users, data, study, or a step"
                    )));
                }
            }
        }
        let smoke = line.smoke;
        Ok(Self { out, data, seeds, users, base, folder, smoke })
    }

    /// The options of all steps for a data set in a study: those of all, then of the data set,
    /// then of the study.
    pub fn options(&self, data: &Data, study: &str) -> Table {
        let mut options = self.base.clone();
        let of_study = options.remove("study");
        let is_classics = data
            .options
            .get("prepare")
            .is_some_and(|prepare| prepare.get("classics").and_then(Value::as_bool) == Some(true));
        if !is_classics && let Some(prepare) = options.get_mut("prepare") {
            // The number of simulated readers is of no concern to real ones.
            prepare.as_table_mut().map(|prepare| prepare.remove("readers"));
        }
        overlay(&mut options, &data.options);
        if let Some(own) = of_study.as_ref().and_then(|all| all.get(study)?.as_table()) {
            overlay(&mut options, own);
        }
        options
    }
}

/// A data set of a file: options of `prepare`, and tables of other steps.
fn data_of_table(name: String, options: Table, wrong: &dyn Fn(&str) -> TrainError) -> Result<Data> {
    let (steps, prepare): (Table, Table) =
        options.into_iter().partition(|(_, value)| value.is_table());
    if let Some(step) = steps.keys().find(|step| step.parse::<Step>().is_err()) {
        return Err(wrong(&format!("`data.{name}.{step}` is no step")));
    }
    // Runs and plots are called so.
    if Path::new(&name).file_name() != Some(name.as_ref()) {
        return Err(wrong(&format!("data set \"{name}\": its name is no name of a folder")));
    }
    let mut options = steps;
    let mut all = Table::new();
    all.insert("prepare".into(), Value::Table(prepare));
    overlay(&mut options, &all);
    Ok(Data { name: name.to_lowercase(), options })
}

/// A data set of the command line.
fn data_of_text(text: &str) -> Result<Data> {
    let (name, folder) = match text.split_once('=') {
        Some((name, folder)) => (name, folder),
        None => (text, text),
    };
    let mut prepare = Table::new();
    if folder == "classics" {
        prepare.insert("classics".into(), Value::Boolean(true));
    } else {
        let folder = std::path::absolute(folder).map_err(|e| TrainError::file(folder, e))?;
        for (option, file) in [("sequences", "sequences.txt"), ("items", "items.jsonl")] {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(TrainError::usage(format!(
                    "--data {text}: there is no {}; other sources go into a file for --config",
                    path.display()
                )));
            }
            prepare.insert(option.into(), Value::String(path.to_string_lossy().into_owned()));
        }
    }
    let name = match Path::new(name).file_name() {
        Some(name) if !name.is_empty() => name.to_string_lossy().to_lowercase(),
        _ => return Err(TrainError::usage(format!("--data {text} has no name"))),
    };
    let mut options = Table::new();
    options.insert("prepare".into(), Value::Table(prepare));
    Ok(Data { name, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_in_small_has_its_own_epochs_whichever_way_the_file_says_them() {
        for own in ["epochs = 900", "max-epochs = 900", "max_epochs = 900"] {
            let file =
                format!("out = \"out\"\n[data.classics]\nclassics = true\n[tokenize]\n{own}");
            let config = Config::of_table("a.toml", "/", file.parse().unwrap());
            let line = CommandLine { smoke: true, ..CommandLine::default() };
            let tokenize = Settings::new(config, &line).unwrap().base.remove("tokenize").unwrap();
            let named: Vec<&String> =
                tokenize.as_table().unwrap().keys().filter(|key| key.contains("epochs")).collect();
            assert_eq!(named, ["epochs"], "{own}");
            assert_eq!(tokenize["epochs"].as_integer(), Some(40), "{own}");
        }
    }

    fn settings_of(file: &str, seeds: &[u64]) -> Result<Settings> {
        let config = Config::of_table("a.toml", "/", file.parse().unwrap());
        Settings::new(config, &CommandLine { seeds: seeds.to_vec(), ..CommandLine::default() })
    }

    #[test]
    fn a_data_set_of_a_file_is_named_as_one_of_the_command_line() {
        let file = |name: &str| format!("out = \"out\"\n[data.{name}]\nclassics = true");
        let settings = settings_of(&file("Beauty"), &[]).unwrap();
        assert_eq!(settings.data[0].name, "beauty", "the key to the paper's figures");
        for name in ["\"a/b\"", "\"..\"", "\"\"", "\"/tmp/x\""] {
            let error = settings_of(&file(name), &[]).unwrap_err().to_string();
            assert!(error.contains("its name is no name of a folder"), "{error}");
        }
        // TOML has no larger whole numbers.
        let error = settings_of(&file("a"), &[1, u64::MAX]).unwrap_err().to_string();
        assert!(
            error.contains("seed 18446744073709551615 is beyond 9223372036854775807"),
            "{error}"
        );
    }

    #[test]
    fn a_seed_is_one_run() {
        let file = |seeds: &str| format!("out = \"out\"\n{seeds}\n[data.a]\nclassics = true");
        for (in_file, of_line) in [("", &[3, 0, 3][..]), ("seeds = [3, 0, 3]", &[])] {
            let error = settings_of(&file(in_file), of_line).unwrap_err().to_string();
            assert!(error.contains("seed 3 is named twice"), "{error}");
        }
        assert_eq!(settings_of(&file("seeds = [1, 1]"), &[1, 2]).unwrap().seeds, [1, 2]);
    }
}
