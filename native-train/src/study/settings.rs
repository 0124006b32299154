//! What all studies share: data sets, seeds, and options of the steps that hold for every variant.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use toml::{Table, Value};

use super::Study;
use crate::error::{Result, TrainError};
use crate::pipeline::config::{option, overlay};
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
    warmup = 10
    max-minutes = 0.1
    batch = 64
    validation-users = 50
    [evaluate]
    beams = 20
    sasrec-epochs = 1
    sasrec-max-minutes = 0.1
"#;

#[derive(Debug, Clone)]
pub(crate) struct Data {
    /// Its name in reports, and the key to the paper's figures.
    pub(crate) name: String,
    /// Options of steps that hold for this data set, those of `prepare` among them.
    pub(crate) options: Table,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where runs and reports go.
    pub(crate) out: PathBuf,
    pub(crate) data: Vec<Data>,
    /// A run of each variant for each.
    pub(crate) seeds: Vec<u64>,
    /// Most users of a measurement beside the protocol's figures; all if `None`.
    pub(crate) users: Option<usize>,
    /// Options of steps that hold for all variants.
    pub(crate) base: Table,
    /// Where relative paths in options count from.
    pub(crate) folder: PathBuf,
    /// Whether figures are of no use, since everything is small.
    pub(crate) smoke: bool,
}

/// What the command line says beside the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandLine {
    /// Data sets: `classics`, `NAME=FOLDER` or `FOLDER`.
    pub(crate) data: Vec<String>,
    /// Where runs and reports go.
    pub(crate) out: Option<PathBuf>,
    pub(crate) seeds: Vec<u64>,
    /// Settings `KEY=VALUE`.
    pub(crate) settings: Vec<String>,
    /// Everything small.
    pub(crate) smoke: bool,
}

impl Settings {
    /// Joins a file (an empty one if there is none) and the command line, which prevails.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for keys that a study does not have, for values of the wrong kind,
    /// without data or without a folder to write to.
    pub(crate) fn new(mut config: Config, line: &CommandLine) -> Result<Self> {
        let name = config.name().to_owned();
        let folder = config.folder().to_owned();
        let wrong = |what: &str| TrainError::usage(format!("{name}: {what}"));
        // Tables that are laid over it would hide what is none.
        let file = config.clone().into_table();
        check_steps(&file, &wrong)?;
        if line.smoke {
            let mut small: Table = SMOKE.parse().map_err(|e| TrainError::usage(format!("{e}")))?;
            keep_small_codebooks(&mut small, &file);
            // It names the epochs of the tokenizer, and both are refused.
            config.remove(Step::Tokenize, "max-epochs");
            config.overlay(&small);
        }
        for setting in &line.settings {
            config.set(setting)?;
        }
        let mut base = config.into_table();
        let out = out(line, base.remove("out"), &folder, &wrong)?;
        let seeds = seeds(line, base.remove("seeds"), &wrong)?;
        let users = match base.remove("users") {
            None => None,
            Some(Value::Integer(users)) if users > 0 => Some(users as usize),
            Some(_) => return Err(wrong("`users` is not a number of users")),
        };
        let data = data(line, base.remove("data"), &wrong)?;
        check_steps(&base, &wrong)?;
        let smoke = line.smoke;
        Ok(Self { out, data, seeds, users, base, folder, smoke })
    }

    /// The options of all steps for a data set in a study: those of all, then of the data set,
    /// then of the study.
    pub(crate) fn options(&self, data: &Data, study: &str) -> Table {
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

/// Where runs and reports go.
fn out(
    line: &CommandLine,
    of_file: Option<Value>,
    folder: &Path,
    wrong: Wrong<'_>,
) -> Result<PathBuf> {
    match (&line.out, of_file) {
        (Some(out), _) => std::path::absolute(out).map_err(|e| TrainError::file(out, e)),
        (None, Some(Value::String(out))) => Ok(folder.join(out)),
        (None, Some(_)) => Err(wrong("`out` is not the name of a folder")),
        (None, None) => Err(TrainError::usage("say where runs and reports go: --out DIR")),
    }
}

fn seeds(line: &CommandLine, of_file: Option<Value>, wrong: Wrong<'_>) -> Result<Vec<u64>> {
    let seeds = match (line.seeds.is_empty(), of_file) {
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
    let mut earlier = seeds.iter().enumerate();
    if let Some((_, seed)) = earlier.find(|(at, seed)| seeds[..*at].contains(seed)) {
        return Err(TrainError::usage(format!(
            "seed {seed} is named twice, and its runs are the same; name each seed once"
        )));
    }
    Ok(seeds)
}

fn data(line: &CommandLine, of_file: Option<Value>, wrong: Wrong<'_>) -> Result<Vec<Data>> {
    let in_file = match of_file {
        None => Table::new(),
        Some(Value::Table(sets)) => sets,
        Some(_) => return Err(wrong("`data` is not a table of data sets")),
    };
    let in_file = in_file.into_iter().map(|(set, options)| match options {
        Value::Table(options) => data_of_table(set, options, wrong),
        _ => Err(wrong(&format!("`data.{set}` is not a table"))),
    });
    // What is wrong in the file is said also where the command line prevails.
    let mut data = in_file.collect::<Result<Vec<_>>>()?;
    if !line.data.is_empty() {
        data = line.data.iter().map(|text| data_of_text(text)).collect::<Result<_>>()?;
    }
    if data.is_empty() {
        return Err(TrainError::usage(
            "say on what data: --data NAME=FOLDER with sequences.txt and items.jsonl in the \
             folder, or --data classics",
        ));
    }
    let named_before = |at: usize| data[..at].iter().any(|earlier| earlier.name == data[at].name);
    if let Some(at) = (0..data.len()).find(|&at| named_before(at)) {
        return Err(wrong(&format!("data set {} is named {}, too", at + 1, data[at].name)));
    }
    Ok(data)
}

/// Leaves the codebooks of a file that are as small as those of a trial: they suit its few items.
fn keep_small_codebooks(trial: &mut Table, file: &Table) {
    let (verb, key) = (Step::Tokenize.verb(), "codebook-size");
    let own = file.get(verb).and_then(|options| option(options.as_table()?, key));
    let own = match own {
        Some(Value::Array(sizes)) => sizes.as_slice(),
        own => own.map_or(&[][..], std::slice::from_ref),
    };
    if let Some(Value::Table(options)) = trial.get_mut(verb)
        && let Some(most) = options.get(key).and_then(Value::as_integer)
        && !own.is_empty()
        && own.iter().all(|size| size.as_integer().is_some_and(|size| size <= most))
    {
        options.remove(key);
    }
}

/// What calls a wrong setting so.
type Wrong<'a> = &'a dyn Fn(&str) -> TrainError;

/// Refuses what is no step of a study among the settings of all data sets and of single studies.
fn check_steps(base: &Table, wrong: Wrong<'_>) -> Result<()> {
    for (key, value) in base {
        match (key.as_str(), value) {
            ("out" | "seeds" | "users" | "data", _) => {}
            ("study", Value::Table(studies)) => {
                for (name, own) in studies {
                    let all = Study::value_variants();
                    let Some(study) = all.iter().find(|study| study.name() == name) else {
                        let names: Vec<&str> = all.iter().map(|study| study.name()).collect();
                        let names = names.join(", ");
                        return Err(wrong(&format!(
                            "`study.{name}` is none of the studies {names}"
                        )));
                    };
                    let Value::Table(own) = own else {
                        return Err(wrong(&format!("`study.{name}` is not a table of steps")));
                    };
                    let leaves_out = |step: &str, value: &Value| {
                        (*study, step, value.as_bool()) == (Study::Tuning, "train", Some(false))
                    };
                    for (step, value) in own.iter().filter(|(step, value)| !leaves_out(step, value))
                    {
                        check_step(&format!("study.{name}."), step, value, wrong)?;
                    }
                }
            }
            ("study", _) => return Err(wrong("`study` is not a table of studies")),
            (step, value) if Step::from_str(step, false).is_ok() => {
                check_step("", step, value, wrong)?
            }
            (key, _) => {
                return Err(wrong(&format!(
                    "\"{key}\" is none of out, seeds, users, data, study, or a step"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses what is no table of a step's options, and options that a study gives itself; `place`
/// stands before the step's name.
fn check_step(place: &str, step: &str, value: &Value, wrong: Wrong<'_>) -> Result<()> {
    let wrong = |what: &str| Err(wrong(what));
    match (Step::from_str(step, false), value) {
        (Err(_), _) => wrong(&format!("`{place}{step}` is no step")),
        (Ok(Step::Export | Step::Inspect), _) => {
            wrong(&format!("[{place}{step}] is not for a study: remove it"))
        }
        (Ok(Step::Evaluate), Value::Table(options)) => {
            match ["split", "baselines-only"].iter().find(|key| option(options, key).is_some()) {
                Some(key) => wrong(&format!(
                    "`{place}evaluate.{key}` is not for a study, which decides what it evaluates: \
                     remove it"
                )),
                None => Ok(()),
            }
        }
        (Ok(_), Value::Table(_)) => Ok(()),
        (Ok(_), _) => wrong(&format!(
            "`{place}{step}` is not a table of options, and a study needs each step (only \
             `study.tuning.train = false` leaves one out)"
        )),
    }
}

/// A data set of a file: options of `prepare`, and tables of other steps.
fn data_of_table(name: String, options: Table, wrong: Wrong<'_>) -> Result<Data> {
    let (steps, prepare): (Table, Table) =
        options.into_iter().partition(|(_, value)| value.is_table());
    for (step, value) in &steps {
        check_step(&format!("data.{name}."), step, value, wrong)?;
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
    if folder.is_empty() {
        return Err(TrainError::usage(format!(
            "--data \"{text}\" names no folder; give NAME=FOLDER, FOLDER or classics"
        )));
    }
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

    #[test]
    fn a_trial_in_small_keeps_codebooks_that_are_smaller_than_its_own() {
        for (own, expected) in [
            ("codebook-size = 16", "16"),
            ("codebook_size = [8, 16]", "[8, 16]"),
            ("codebook-size = [16, 64]", "32"),
            ("codebook-size = 256", "32"),
            ("levels = 2", "32"),
        ] {
            let file =
                format!("out = \"out\"\n[data.classics]\nclassics = true\n[tokenize]\n{own}");
            let config = Config::of_table("a.toml", "/", file.parse().unwrap());
            let line = CommandLine { smoke: true, ..CommandLine::default() };
            let base = Settings::new(config, &line).unwrap().base;
            let size = option(base["tokenize"].as_table().unwrap(), "codebook-size");
            assert_eq!(size.unwrap().to_string(), expected, "{own}");
        }
    }

    #[test]
    fn data_without_a_folder_is_named() {
        for text in ["", "=", "beauty="] {
            let error = data_of_text(text).unwrap_err().to_string();
            assert!(error.contains(&format!("--data \"{text}\" names no folder")), "{error}");
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

    #[test]
    fn a_step_is_a_table_of_options_in_every_place() {
        let set = |setting: &str, smoke: bool| {
            let file = "out = \"out\"\n[data.a]\nclassics = true\n[train]\nepochs = 3";
            let config = Config::of_table("a.toml", "/", file.parse().unwrap());
            let settings = vec![setting.to_owned()];
            let line = CommandLine { settings, smoke, ..CommandLine::default() };
            Settings::new(config, &line).map_err(|e| e.to_string())
        };
        for (setting, expected) in [
            ("train=false", "`train` is not a table of options"),
            ("train=3", "`train` is not a table of options"),
            ("tokenize=true", "`tokenize` is not a table of options"),
            ("evaluate=false", "`evaluate` is not a table of options"),
            ("study.main.train=nonsense", "`study.main.train` is not a table of options"),
            ("study.main.train=false", "`study.main.train` is not a table of options"),
            ("study.main.evaluate=false", "`study.main.evaluate` is not a table of options"),
            ("study.tuning.tokenize=false", "`study.tuning.tokenize` is not a table of options"),
            ("study.tuning.train=true", "`study.tuning.train` is not a table of options"),
            ("study.layers=1", "`study.layers` is not a table of steps"),
            ("study.layers.run=x", "`study.layers.run` is no step"),
            ("study.layers.seeds=[1]", "`study.layers.seeds` is no step"),
            ("study.layers.export.format=q8", "[study.layers.export] is not for a study"),
            ("data.a.inspect.html=x", "[data.a.inspect] is not for a study"),
            ("evaluate.split=validation", "`evaluate.split` is not for a study"),
            ("data.a.evaluate.split=test", "`data.a.evaluate.split` is not for a study"),
            ("study.main.evaluate.split=validation", "`study.main.evaluate.split` is not for"),
            ("evaluate.baselines_only=true", "`evaluate.baselines-only` is not for a study"),
        ] {
            for smoke in [false, true] {
                let error = set(setting, smoke).expect_err(setting);
                assert!(error.contains(expected), "{setting}: {error}");
            }
        }
        for setting in ["study.tuning.train=false", "study.main.train.epochs=1", "evaluate.beams=9"]
        {
            set(setting, false).unwrap_or_else(|e| panic!("{setting}: {e}"));
        }
        // Nor does a trial in small lay its own options over what is none.
        let file = "out = \"out\"\ntrain = false\n[data.a]\nclassics = true";
        let config = Config::of_table("a.toml", "/", file.parse().unwrap());
        let line = CommandLine { smoke: true, ..CommandLine::default() };
        let error = Settings::new(config, &line).unwrap_err().to_string();
        assert!(error.contains("`train` is not a table of options"), "{error}");
    }
}
