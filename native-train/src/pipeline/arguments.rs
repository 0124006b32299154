//! From a table of options to the command line of a verb, checked by the verb's own parser: the
//! options are defined once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::ValueHint;
use clap::{Arg, ArgMatches, Command, ValueEnum};
use toml::{Table, Value};

use super::step::Step;
use crate::baselines::Method;
use crate::destination::check_place;
use crate::embed::sentence::hub;
use crate::error::{Result, TrainError};
use crate::run_dir::RunDir;
use crate::usage;

/// A step of a pipeline with its options.
#[derive(Debug, Clone)]
pub struct Call {
    /// The step.
    pub step: Step,
    /// What stands behind `tigret`.
    pub arguments: Vec<OsString>,
    /// Every option and its values, defaults included. Of files only the name is here: they count
    /// by their content.
    pub options: BTreeMap<String, Vec<String>>,
    /// Those options that have the value which they have where nobody gives them.
    pub defaults: BTreeSet<String>,
    /// The files and folders that are read, by the option that names them.
    pub files: BTreeMap<String, PathBuf>,
    /// The file that is written beside those of the run directory.
    pub out: Option<PathBuf>,
}

/// A word of a command line as a shell reads it.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', "'\\''")).into()
}

impl Call {
    /// What one would type.
    pub fn line(&self) -> String {
        let mut line = "tigret".to_owned();
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(&word(&argument.to_string_lossy()));
        }
        line
    }

    /// Refuses files that are not there: none of them is made by another step.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn check_files(&self) -> Result<()> {
        if let Some(out) = &self.out {
            check_place(out)?;
        }
        match self.files.iter().find(|(_, path)| path.try_exists().is_ok_and(|there| !there)) {
            None => Ok(()),
            Some((option, path)) => {
                let reason = format!("not found; correct `{option}`, which names it");
                Err(TrainError::file(path, reason))
            }
        }
    }
}

/// The call of a step with the options of a table.
///
/// # Errors
/// A sentence without the table's name: the verb's parser refuses the options, or one is not for
/// a pipeline.
pub(super) fn call(
    command: &Command,
    step: Step,
    table: &Table,
    run: &RunDir,
    folder: &Path,
) -> Result<Call, String> {
    let mut command = command.clone();
    // Without this, options that are inherited from the command are not among the verb's own.
    command.build();
    let verb = command
        .find_subcommand(step.verb())
        .ok_or_else(|| format!("`tigret` has no verb {step}"))?
        .clone();
    let mut arguments: Vec<OsString> = vec![step.verb().into()];
    arguments.push(match step {
        Step::Inspect => run.root().into(),
        _ => option("run", run.root()),
    });
    for (key, value) in table {
        // A key may be written as a Rust name is.
        let name = key.replace('_', "-");
        if step.reserved().contains(&name.as_str()) {
            return Err(format!("`{key}` is not for a pipeline, which does that itself"));
        }
        let known = verb.get_arguments().find(|arg| arg.get_long() == Some(name.as_str()));
        arguments.extend(of_value(&name, value, known, folder)?);
    }
    if let Some((name, file)) = step.out()
        && !table.contains_key(name)
    {
        arguments.push(option(name, &run.root().join(file)));
    }
    let matches = parsed(&mut command, &arguments).map_err(|e| refusal(&e))?;
    let mut call = understood(step, arguments, &verb, &matches, run);
    call.defaults = defaults(&call, &mut command, &verb, run);
    Ok(call)
}

/// The options of a call that have the value which they have where nobody gives them: that may
/// depend on others, so the parser is asked.
fn defaults(call: &Call, command: &mut Command, verb: &Command, run: &RunDir) -> BTreeSet<String> {
    let mut is_default = |name: &&String| {
        let is_its = |argument: &&OsString| {
            let text = argument.to_string_lossy();
            let rest = text.strip_prefix("--").and_then(|text| text.strip_prefix(name.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let without: Vec<OsString> =
            call.arguments.iter().filter(|argument| !is_its(argument)).cloned().collect();
        if without.len() == call.arguments.len() {
            return true;
        }
        parsed(command, &without).is_ok_and(|matches| {
            let without = understood(call.step, without, verb, &matches, run);
            without.options.get(*name) == call.options.get(*name)
        })
    };
    call.options.keys().filter(|name| is_default(name)).cloned().collect()
}

/// What the verb's parser makes of the arguments behind `tigret`.
fn parsed(command: &mut Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let line = std::iter::once(OsString::from("tigret")).chain(arguments.iter().cloned());
    let matches = command.try_get_matches_from_mut(line)?;
    Ok(matches.subcommand().map(|(_, matches)| matches.clone()).unwrap_or_default())
}

/// The options as the verb's parser understood them.
fn understood(
    step: Step,
    arguments: Vec<OsString>,
    verb: &Command,
    matches: &ArgMatches,
    run: &RunDir,
) -> Call {
    let mut call = Call {
        step,
        arguments,
        options: BTreeMap::new(),
        defaults: BTreeSet::new(),
        files: BTreeMap::new(),
        out: None,
    };
    for arg in verb.get_arguments() {
        let id = arg.get_id().as_str();
        // How results are printed, and where, changes nothing of them.
        if ["run", "path", "json", "help", "version"].contains(&id) {
            continue;
        }
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<PathBuf> = values.map(PathBuf::from).collect();
        let name = arg.get_long().unwrap_or(id).to_owned();
        if step.out().is_some_and(|(out, _)| out == id) {
            call.out = values.into_iter().next();
            let text = call.out.iter().map(|path| {
                path.strip_prefix(run.root()).unwrap_or(path).to_string_lossy().into_owned()
            });
            call.options.insert(name, text.collect());
            continue;
        }
        let mut texts = Vec::new();
        for value in values {
            let text = value.to_string_lossy().into_owned();
            if is_path(arg, &text) {
                texts.push(value.file_name().unwrap_or_default().to_string_lossy().into_owned());
                call.files.insert(name.clone(), value);
            } else {
                texts.push(text);
            }
        }
        call.options.insert(name, texts);
    }
    if step == Step::Evaluate {
        // Options of a baseline that is not named change nothing.
        let named = call.options.get("baselines").cloned().unwrap_or_default();
        let is_named = |method: &Method| named.iter().any(|n| n == "all" || n == method.name());
        call.options.retain(|option, _| {
            let of = |method: &&Method| option.starts_with(&format!("{}-", method.name()));
            Method::value_variants().iter().find(of).is_none_or(is_named)
        });
    }
    call
}

/// The arguments of one key.
fn of_value(
    name: &str,
    value: &Value,
    arg: Option<&Arg>,
    folder: &Path,
) -> Result<Vec<OsString>, String> {
    // An option that the verb does not have goes to its parser, whatever its value.
    if let (Value::Boolean(false), Some(_)) = (value, arg) {
        return Ok(vec![]);
    }
    let takes_value = arg.is_some_and(|arg| arg.get_action().takes_values());
    if matches!(value, Value::Boolean(_)) && !takes_value {
        return Ok(vec![format!("--{name}").into()]);
    }
    let one = |value: &Value| -> Result<OsString, String> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::Datetime(time) => time.to_string(),
            Value::Array(_) | Value::Table(_) => {
                return Err(format!("`{name}` holds something else than values"));
            }
        };
        Ok(match arg {
            Some(arg) if is_path(arg, &text) => folder.join(text).into(),
            _ => text.into(),
        })
    };
    let values = match value {
        Value::Array(values) => values.iter().map(one).collect::<Result<Vec<_>, _>>()?,
        value => vec![one(value)?],
    };
    // An empty list names nothing, as if the option were not there.
    if values.is_empty() {
        return Ok(Vec::new());
    }
    match arg.and_then(Arg::get_value_delimiter) {
        Some(delimiter) => {
            let joined = values.join(OsString::from(delimiter.to_string()).as_os_str());
            Ok(vec![option(name, Path::new(&joined))])
        }
        None => Ok(values.iter().map(|value| option(name, Path::new(value))).collect()),
    }
}

/// Whether a value names a file or folder; what begins like a name on the hub does not.
fn is_path(arg: &Arg, value: &str) -> bool {
    let hints = [ValueHint::AnyPath, ValueHint::FilePath, ValueHint::DirPath];
    hints.contains(&arg.get_value_hint()) && !value.starts_with(hub::PREFIX)
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

/// What the parser says of the options of a table.
fn refusal(error: &clap::Error) -> String {
    if usage::is_help(error) {
        return "`help` and `version` are not for a pipeline".into();
    }
    usage::refusal(error)
}
