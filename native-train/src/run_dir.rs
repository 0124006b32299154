//! The run directory: where each step finds the artefacts of the step before.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, TrainError};
use crate::output::{check_place, unfinished};

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

    /// Opens a run directory that must be there.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is not.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if root.is_dir() {
            return Ok(Self { root });
        }
        Err(TrainError::file(&root, "is not a run directory; make one with `tigret prepare`"))
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

/// Writes a file whole: to a temporary name beside it, then renamed, so that a reader never sees
/// half of it. A link is replaced by the file: what a run shares with another stays the other's.
///
/// # Errors
/// [`TrainError::File`]; also where a folder, a device or a pipe lies.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut one = Together::default();
    one.write(path, write)?;
    one.put()
}

/// Files that are written under temporary names and then take their places one after the other:
/// where one of them cannot be written, all are as they were.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// Temporary names and places.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Together {
    /// Writes the next file.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub(crate) fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let temporary = unfinished(path);
        check_place(path)?;
        check_place(&temporary)?;
        self.files.push((temporary.clone(), path.to_owned()));
        let attempt = || -> std::io::Result<()> {
            let mut file = std::io::BufWriter::new(fs::File::create(&temporary)?);
            write(&mut file)?;
            file.flush()?;
            file.get_ref().sync_all()
        };
        attempt().map_err(|e| TrainError::file(path, e))
    }

    /// Whether the files so far are what lies in their places already.
    pub(crate) fn are_there(&self) -> bool {
        self.files.iter().all(|(temporary, place)| same_bytes(temporary, place).unwrap_or(false))
    }

    /// Puts the files in their places, in the order in which they were written. If a later rename
    /// fails, that file and the remaining ones keep their temporary names.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn put(mut self) -> Result<()> {
        let mut is_first = true;
        for (temporary, place) in &self.files {
            if let Err(e) = fs::rename(temporary, place) {
                let error = TrainError::file(place, e);
                if !is_first {
                    self.files.clear();
                }
                return Err(error);
            }
            is_first = false;
        }
        self.files.clear();
        Ok(())
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // Of no use; failing to remove it changes nothing.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut of_one, mut of_other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut of_one)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut of_other[..count])?;
        if of_one[..count] != of_other[..count] {
            return Ok(false);
        }
    }
}

/// Makes a folder and tries to write into it, so that long work does not end with a result that
/// finds no place.
///
/// # Errors
/// [`TrainError::File`].
pub fn check_writable(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    let probe = folder.join("writable.partial");
    write_atomically(&probe, |_| Ok(()))?;
    fs::remove_file(&probe).map_err(|e| TrainError::file(&probe, e))
}

/// Removes a file of an earlier run that would be wrong beside the new ones.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::file(path, e)),
        _ => Ok(()),
    }
}

/// Writes a value as pretty JSON, whole.
///
/// # Errors
/// [`TrainError::File`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |file| pretty(file, value))
}

/// A value as pretty JSON.
pub(crate) fn pretty(file: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, value)?;
    writeln!(file)
}

/// Reads a JSON file.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub fn read_json<T: DeserializeOwned>(path: &Path, hint: &str) -> Result<T> {
    let text = read_text(path, hint)?;
    serde_json::from_str(&text).map_err(|e| TrainError::file(path, e))
}

/// Reads a text file.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub fn read_text(path: &Path, hint: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| unread(path, hint, &e))
}

/// Reads a file of any bytes.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub fn read_bytes(path: &Path, hint: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| unread(path, hint, &e))
}

/// Opens a file to read it.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub fn open_file(path: &Path, hint: &str) -> Result<fs::File> {
    fs::File::open(path).map_err(|e| unread(path, hint, &e))
}

/// What is said of bytes that are not text.
pub(crate) const NOT_UTF8: &str = "is not UTF-8 text; save the file as UTF-8";

fn unread(path: &Path, hint: &str, error: &std::io::Error) -> TrainError {
    match error.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(path, format!("not found; {hint}")),
        std::io::ErrorKind::IsADirectory => {
            TrainError::file(path, format!("is a folder, not a file; {hint}"))
        }
        // Of `read_to_string` alone.
        std::io::ErrorKind::InvalidData => TrainError::file(path, NOT_UTF8),
        _ => TrainError::file(path, error),
    }
}
