//! The run directory: where each step finds the artefacts of the step before.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Result, TrainError};

/// Paths of a run's artefacts.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Opens a run directory, made if it is not there.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be made.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                TrainError::file(&root, "is a file; name a folder for the run")
            }
            _ => TrainError::file(&root, e),
        })?;
        Ok(Self { root })
    }

    /// Opens a run directory that must be there, with a data set, a catalogue or a model in it.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is not.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { root: root.into() };
        let own = [run.dataset(), run.items(), run.catalog(), run.model()];
        if own.iter().any(|path| path.exists()) {
            return Ok(run);
        }
        Err(TrainError::file(&run.root, "is not a run directory; make one with `tigret prepare`"))
    }

    /// Names a run directory that need not be there.
    pub fn named(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `dataset.json`: counts and settings of `prepare`.
    pub fn dataset(&self) -> PathBuf {
        self.root.join("dataset.json")
    }

    /// `items.jsonl`: an item a line, `id`, `text` and the fields it was made from.
    pub fn items(&self) -> PathBuf {
        self.root.join("items.jsonl")
    }

    /// `sequences.jsonl`: `{"user": "…", "items": ["…", …]}` a line, oldest first.
    pub fn sequences(&self) -> PathBuf {
        self.root.join("sequences.jsonl")
    }

    /// `oracle.json`: for simulated data, what the best possible recommender reaches.
    pub fn oracle(&self) -> PathBuf {
        self.root.join("oracle.json")
    }

    /// `vectors.safetensors`: tensor `vectors` `[items, dimensions]`, rows as in `items.jsonl`.
    pub fn vectors(&self) -> PathBuf {
        self.root.join("vectors.safetensors")
    }

    /// `encoding.partial.safetensors`: unfinished work of a sentence encoder.
    pub fn encoding_state(&self) -> PathBuf {
        self.root.join("encoding.partial.safetensors")
    }

    /// `encoder.safetensors`: what made the vectors, so that new texts can be encoded alike.
    pub fn encoder(&self) -> PathBuf {
        self.root.join("encoder.safetensors")
    }

    /// `tokenizer.safetensors`: the quantiser, as `tigret_infer::Quantizer` reads it.
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("tokenizer.safetensors")
    }

    /// `tokenizer.json`: settings and statistics of `tokenize`.
    pub fn tokenizer_report(&self) -> PathBuf {
        self.root.join("tokenizer.json")
    }

    /// `tokenizer.jsonl`: the log of its training, a line an epoch or fewer.
    pub fn tokenizer_log(&self) -> PathBuf {
        self.root.join("tokenizer.jsonl")
    }

    /// `tokenizer.partial.safetensors`: unfinished training of an autoencoder.
    pub fn tokenizer_state(&self) -> PathBuf {
        self.root.join("tokenizer.partial.safetensors")
    }

    /// `tokens.json`: the token layout.
    pub fn tokens(&self) -> PathBuf {
        self.root.join("tokens.json")
    }

    /// `catalog.json`: ids and semantic IDs.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.json")
    }

    /// `model/`: `config.json`, `model.safetensors` (the best model), `last.safetensors` (what
    /// training goes on from); the latter two in several files where they are large.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// `train.jsonl`: a line a log step.
    pub fn train_log(&self) -> PathBuf {
        self.root.join("train.jsonl")
    }

    /// `tensorboard/`: the same for TensorBoard, an event file for each time training was started.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// `baselines/NAME/`: the training of a baseline, for those that are trained.
    pub fn baseline(&self, name: &str) -> PathBuf {
        self.root.join("baselines").join(name)
    }

    /// `evaluation.json`: the figures of `evaluate`.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.json")
    }

    /// Whether a path is that of an artefact, there or not.
    pub fn is_artefact(&self, path: &Path) -> bool {
        let own = [
            self.dataset(),
            self.items(),
            self.sequences(),
            self.oracle(),
            self.vectors(),
            self.encoding_state(),
            self.encoder(),
            self.tokenizer(),
            self.tokenizer_report(),
            self.tokenizer_log(),
            self.tokenizer_state(),
            self.tokens(),
            self.catalog(),
            self.train_log(),
            self.evaluation(),
        ];
        let place = resolved(path);
        let is_own = |own: &PathBuf| resolved(own) == place;
        let folders = [
            self.model(),
            self.tensorboard(),
            self.root.join("baselines"),
            self.root.join(".tigret"),
        ];
        place.is_some()
            && (own.iter().any(is_own) || folders.iter().any(|folder| lies_in(path, folder)))
    }

    /// Refuses an output path that belongs to one of the run's artefacts.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn check_no_artefact(&self, path: &Path) -> Result<()> {
        if !self.is_artefact(path) {
            return Ok(());
        }
        let run = self.root.display();
        Err(TrainError::file(path, format!("is a file of the run {run}; choose another name")))
    }

    /// `.tigret/lock`: held by the command that writes into the run.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".tigret").join("lock")
    }

    /// `.tigret/hashes.json`: hashes of files that `tigret run` has read.
    pub fn hashes(&self) -> PathBuf {
        self.root.join(".tigret").join("hashes.json")
    }

    /// `.tigret/VERB.json`: with what a step of `tigret run` last finished.
    pub fn stamp(&self, verb: &str) -> PathBuf {
        self.root.join(".tigret").join(format!("{verb}.json"))
    }

    /// `.tigret/VERB.started.json`: with what a step of `tigret run` began and did not finish.
    pub fn started(&self, verb: &str) -> PathBuf {
        self.root.join(".tigret").join(format!("{verb}.started.json"))
    }
}

/// A path without links and detours, as far as it is there.
fn resolved(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute
        .ancestors()
        .find_map(|there| Some(there.canonicalize().ok()?.join(absolute.strip_prefix(there).ok()?)))
}

/// Whether a path lies in a folder or names it; neither need be there.
pub(crate) fn lies_in(path: &Path, folder: &Path) -> bool {
    match (resolved(path), resolved(folder)) {
        (Some(path), Some(folder)) => path.starts_with(folder),
        _ => false,
    }
}
