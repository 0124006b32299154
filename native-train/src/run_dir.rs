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

    /// Whether a run that `tigret run` made lies there.
    pub(crate) fn is_at(path: &Path) -> bool {
        path.join(OWN).is_dir()
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `baselines/NAME/`: the training of a baseline, for those that are trained.
    pub fn baseline(&self, name: &str) -> PathBuf {
        self.baselines().join(name)
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

    /// Whether a path names the directory itself; neither need be there.
    pub(crate) fn is(&self, path: &Path) -> bool {
        lies_in(path, &self.root) && lies_in(&self.root, path)
    }

    /// `.tigret/lock`: held by the command that writes into the run.
    pub fn lock(&self) -> PathBuf {
        self.root.join(OWN).join("lock")
    }

    /// `.tigret/hashes.json`: hashes of files that `tigret run` has read.
    pub fn hashes(&self) -> PathBuf {
        self.root.join(OWN).join("hashes.json")
    }

    /// `.tigret/VERB.json`: with what a step of `tigret run` last finished.
    pub fn stamp(&self, verb: &str) -> PathBuf {
        self.root.join(OWN).join(format!("{verb}.json"))
    }
}

/// Defines the path of each artefact in a run directory, and the list of all.
macro_rules! artefacts {
    ($($(#[$doc:meta])* $name:ident: $place:literal,)*) => {
        impl RunDir {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf {
                self.root.join($place)
            })*

            /// Whether a path is that of an artefact, there or not, or lies in one.
            pub fn is_artefact(&self, path: &Path) -> bool {
                let places = [$($place,)* OWN];
                places.iter().any(|place| lies_in(path, &self.root.join(place)))
            }
        }
    };
}

artefacts! {
    /// `dataset.json`: counts and settings of `prepare`.
    dataset: "dataset.json",
    /// `items.jsonl`: an item a line, `id`, `text` and the fields it was made from.
    items: "items.jsonl",
    /// `sequences.jsonl`: `{"user": "…", "items": ["…", …]}` a line, oldest first.
    sequences: "sequences.jsonl",
    /// `oracle.json`: for simulated data, what the best possible recommender reaches.
    oracle: "oracle.json",
    /// `vectors.safetensors`: tensor `vectors` `[items, dimensions]`, rows as in `items.jsonl`.
    vectors: "vectors.safetensors",
    /// `encoding.partial.safetensors`: unfinished work of a sentence encoder.
    encoding_state: "encoding.partial.safetensors",
    /// `encoder.safetensors`: what made the vectors, so that new texts can be encoded alike.
    encoder: "encoder.safetensors",
    /// `tokenizer.safetensors`: the quantiser, as `tigret_infer::Quantizer` reads it.
    tokenizer: "tokenizer.safetensors",
    /// `tokenizer.json`: settings and statistics of `tokenize`.
    tokenizer_report: "tokenizer.json",
    /// `tokenizer.jsonl`: the log of its training, a line an epoch or fewer.
    tokenizer_log: "tokenizer.jsonl",
    /// `tokenizer.partial.safetensors`: unfinished training of an autoencoder.
    tokenizer_state: "tokenizer.partial.safetensors",
    /// `tokens.json`: the token layout.
    tokens: "tokens.json",
    /// `catalog.json`: ids and semantic IDs.
    catalog: "catalog.json",
    /// `model/`: `config.json`, `model.safetensors` (the best model), `last.safetensors` (what
    /// training goes on from); the latter two in several files where they are large.
    model: "model",
    /// `train.jsonl`: a line a log step.
    train_log: "train.jsonl",
    /// `tensorboard/`: the same for TensorBoard, an event file for each time training was started.
    tensorboard: "tensorboard",
    /// `evaluation.json`: the figures of `evaluate`.
    evaluation: "evaluation.json",
    /// `baselines/`: the training of each baseline that is trained.
    baselines: "baselines",
}

/// What `tigret run` keeps for itself.
const OWN: &str = ".tigret";

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
