//! What a sentence-transformers folder says of itself: its modules, in their order.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tokens::TokenizerConfig;
use crate::error::{Result, TrainError};
use crate::files;

/// Longest input, in tokens, where neither the folder nor the architecture sets one.
const DEFAULT_MAX_LENGTH: usize = 512;

/// How token vectors become one vector; several are put one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pooling {
    /// The first token's vector.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum over the square root of the number of tokens.
    MeanSqrtLength,
}

impl Pooling {
    /// By the field of `1_Pooling/config.json`, in the order in which sentence-transformers joins
    /// them.
    const FIELDS: [(&str, &str, Self); 4] = [
        ("pooling_mode_cls_token", "cls", Self::Cls),
        ("pooling_mode_max_tokens", "max", Self::Max),
        ("pooling_mode_mean_tokens", "mean", Self::Mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Self::MeanSqrtLength),
    ];
}

/// What follows pooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A linear layer with an activation, in this folder.
    Dense(PathBuf),
    /// Scaling to length 1.
    Normalise,
}

/// The folder's modules and settings.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The transformer's own folder: `config.json`, `tokenizer.json`, weights.
    pub(super) transformer: PathBuf,
    pub(super) poolings: Vec<Pooling>,
    pub(super) steps: Vec<Step>,
    /// Longest input in tokens, special tokens included, as far as the folder sets one for its
    /// model; the tokenizer may have one too.
    pub(super) max_length: Option<usize>,
    pub(super) tokenizer: TokenizerConfig,
    pub(super) lower_case: bool,
    /// Put before every text.
    pub(super) prompt: String,
    /// What a user should know of choices that the folder leaves open.
    pub(super) notes: Vec<String>,
}

/// The file that lists the modules.
pub(super) const MODULES: &str = "modules.json";

/// Modules of a folder: each may have weights, and several may have the same.
const MOST_MODULES: usize = 64;

/// A line of that list.
#[derive(Debug, Deserialize)]
pub(super) struct Module {
    /// The module's folder, in the model's own.
    #[serde(default)]
    pub(super) path: String,
    #[serde(rename = "type")]
    class: String,
}

impl Module {
    /// The last part of the path of its Python class.
    pub(super) fn kind(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }
}

/// Which of a text's features a module after pooling reads and writes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Features {
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

impl Features {
    /// Refuses any but the text's vector; where a name is missing, sentence-transformers means it
    /// too.
    pub(super) fn check(&self) -> Result<(), String> {
        const VECTOR: &str = "sentence_embedding";
        let names = [&self.module_input_name, &self.module_output_name].into_iter().flatten();
        match names.into_iter().find(|name| *name != VECTOR) {
            Some(other) => {
                Err(format!("reads or writes \"{other}\"; {VECTOR} is known, the text's vector"))
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: std::collections::HashMap<String, String>,
    default_prompt_name: Option<String>,
}

impl Recipe {
    /// Reads the folder's JSON files.
    ///
    /// # Errors
    /// [`TrainError::File`] naming the file that is missing, wrong, or asks for something that is
    /// not known here.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(TrainError::file(
                folder,
                "is not a folder; give the folder of a sentence-transformers model, or hub:NAME",
            ));
        }
        let list = folder.join(MODULES);
        if !list.exists() {
            let mut recipe = Self::of_transformer(folder, folder.to_owned())?;
            recipe.poolings = vec![Pooling::Mean];
            recipe.notes.push(format!(
                "{} has no {MODULES}: the mean of the token vectors is taken, not normalised",
                folder.display()
            ));
            return Ok(recipe);
        }
        let wrong = |reason: String| TrainError::file(&list, reason);
        let modules: Vec<Module> = files::read_json(&list, "")?;
        if modules.len() > MOST_MODULES {
            let count = modules.len();
            return Err(wrong(format!("lists {count} modules; at most {MOST_MODULES} are read")));
        }
        let mut modules = modules.into_iter();
        let mut recipe = match modules.next() {
            Some(first) if first.kind() == "Transformer" => {
                Self::of_transformer(folder, folder.join(first.path))?
            }
            Some(first) => {
                return Err(wrong(format!(
                    "begins with \"{}\"; only a Transformer can come first",
                    first.kind()
                )));
            }
            None => return Err(wrong("lists no module".into())),
        };
        for listed in modules {
            let module = folder.join(&listed.path);
            match (listed.kind(), recipe.poolings.is_empty()) {
                ("Pooling", true) => recipe.poolings = poolings(&module, &recipe.prompt)?,
                ("Dense", false) => recipe.steps.push(Step::Dense(module)),
                ("Normalize", false) => {
                    let config = module.join("config.json");
                    let features: Features = optional(&config)?;
                    features.check().map_err(|reason| TrainError::file(&config, reason))?;
                    recipe.steps.push(Step::Normalise);
                }
                // It does nothing outside training.
                ("Dropout", _) => {}
                (misplaced @ ("Pooling" | "Dense" | "Normalize"), _) => {
                    return Err(wrong(format!(
                        "has \"{misplaced}\" where it cannot stand; Pooling comes once, before \
                         Dense and Normalize"
                    )));
                }
                (other, _) => {
                    return Err(wrong(format!(
                        "asks for the module \"{other}\"; Transformer, Pooling, Dense and \
                         Normalize are known"
                    )));
                }
            }
        }
        if recipe.poolings.is_empty() {
            return Err(wrong("has no Pooling, so there is no vector per text".into()));
        }
        Ok(recipe)
    }

    fn of_transformer(folder: &Path, transformer: PathBuf) -> Result<Self> {
        let sentence: SentenceConfig = optional(&transformer.join("sentence_bert_config.json"))?;
        let tokenizer: TokenizerConfig = optional(&transformer.join("tokenizer_config.json"))?;
        let prompts: Prompts = optional(&folder.join("config_sentence_transformers.json"))?;
        let prompt = prompts.default_prompt_name.and_then(|name| prompts.prompts.get(&name));
        Ok(Self {
            transformer,
            poolings: vec![],
            steps: vec![],
            max_length: sentence.max_seq_length,
            tokenizer,
            lower_case: sentence.do_lower_case,
            prompt: prompt.cloned().unwrap_or_default(),
            notes: vec![],
        })
    }

    /// Longest input of an architecture with `positions` positions (`None`: any number).
    ///
    /// # Errors
    /// [`TrainError::File`] where the folder allows more tokens than there are positions.
    pub(super) fn limit(&mut self, positions: Option<usize>) -> Result<usize> {
        let limit = match (self.max_length, positions) {
            (Some(length), Some(positions)) if length > positions => {
                return Err(TrainError::file(
                    self.transformer.join("sentence_bert_config.json"),
                    format!(
                        "allows {length} tokens (max_seq_length), but config.json has {positions} \
                         positions"
                    ),
                ));
            }
            (Some(length), _) => length,
            // A tokenizer's own limit means no more than the smaller of the two: MPNet's counts
            // the two positions that no token has.
            (None, positions) => {
                self.tokenizer.limit().into_iter().chain(positions).min().unwrap_or_else(|| {
                    self.notes.push(format!(
                        "the folder sets no longest input; texts are cut after \
                         {DEFAULT_MAX_LENGTH} tokens"
                    ));
                    DEFAULT_MAX_LENGTH
                })
            }
        };
        if limit < 2 {
            let set_by = match self.max_length {
                Some(_) => "max_seq_length",
                None => "model_max_length",
            };
            return Err(TrainError::file(
                &self.transformer,
                format!("allows {limit} tokens ({set_by}), too few for any text"),
            ));
        }
        Ok(limit)
    }
}

fn optional<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    if path.exists() { files::read_json(path, "") } else { Ok(T::default()) }
}

/// Reads a module's `config.json`, older (`pooling_mode_*`) or newer (`pooling_mode`); one that
/// chooses nothing takes the mean, as in sentence-transformers.
fn poolings(module: &Path, prompt: &str) -> Result<Vec<Pooling>> {
    let path = module.join("config.json");
    let wrong = |reason: String| TrainError::file(&path, reason);
    let config: serde_json::Map<String, Value> =
        files::read_json(&path, "the folder is not complete")?;
    if config.get("include_prompt") == Some(&Value::Bool(false)) && !prompt.is_empty() {
        return Err(wrong("leaves the prompt out of pooling, which is not known here".into()));
    }
    let known = || Pooling::FIELDS.map(|(_, name, _)| name).join(", ");
    let names: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => config
            .iter()
            .filter(|(field, on)| field.starts_with("pooling_mode_") && **on == Value::Bool(true))
            .map(|(field, _)| field.as_str())
            .collect(),
    };
    let mut found = Vec::new();
    for name in names {
        let pooling = Pooling::FIELDS.iter().find(|(field, new, _)| name == *field || name == *new);
        let (.., pooling) =
            pooling.ok_or_else(|| wrong(format!("asks for \"{name}\"; {} are known", known())))?;
        if found.contains(pooling) {
            return Err(wrong(format!("asks for \"{name}\" twice")));
        }
        found.push(*pooling);
    }
    if config.get("pooling_mode").is_none() {
        found.sort_unstable();
        if found.is_empty() {
            found.push(Pooling::Mean);
        }
    }
    match found.is_empty() {
        true => Err(wrong(format!("chooses no pooling; {} are known", known()))),
        false => Ok(found),
    }
}
