//! Weights of a folder, read through safetensors without mapping files into memory.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use sha2::{Digest, Sha256};

use crate::error::{Result, TrainError};
use crate::tensors::shards::Index;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors of a folder under their own names.
pub(super) struct Weights {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    /// Whether a folder has them, in one file or in all that its index names.
    pub(super) fn are_in(folder: &Path) -> bool {
        let parts = |index: Index| index.files().iter().all(|part| folder.join(part).exists());
        folder.join(WHOLE).exists() || Index::read(&folder.join(INDEX), "").is_ok_and(parts)
    }

    /// Reads `model.safetensors`, or the parts that `model.safetensors.index.json` names, and
    /// feeds their bytes to `hash`.
    ///
    /// # Errors
    /// [`TrainError::File`] when a file is missing or not a safetensors file.
    pub(super) fn read(folder: &Path, device: &Device, hash: &mut Sha256) -> Result<Self> {
        let whole = folder.join(WHOLE);
        let index = folder.join(INDEX);
        let (path, files) = if whole.exists() {
            (whole, BTreeSet::from([WHOLE.to_owned()]))
        } else if index.exists() {
            let files = Index::read(&index, "")?.files().into_iter().map(str::to_owned).collect();
            (index, files)
        } else {
            let hint = match folder.join("pytorch_model.bin").exists() {
                true => "; save pytorch_model.bin as safetensors with `save_pretrained` in Python",
                false => "; the folder is not complete",
            };
            return Err(TrainError::file(whole, format!("not found{hint}")));
        };
        let mut tensors = HashMap::new();
        for file in files {
            let file = folder.join(file);
            let bytes = std::fs::read(&file).map_err(|e| TrainError::file(&file, e))?;
            hash.update(&bytes);
            let part = candle_core::safetensors::load_buffer(&bytes, device).map_err(|e| {
                TrainError::file(&file, format!("cannot be read: {}", first_line(&e)))
            })?;
            tensors.extend(part);
        }
        Ok(Self { path, tensors })
    }

    /// Takes off a prefix that all names of a task model share with none of the bare one.
    pub(super) fn without_prefix(mut self, prefix: &str) -> Self {
        if self.tensors.keys().any(|name| name.starts_with(prefix)) {
            self.tensors = self
                .tensors
                .into_iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
                .collect();
        }
        self
    }

    /// Whether a tensor is there whose name begins so.
    pub(super) fn has(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Builds a part of the model, as f32.
    ///
    /// # Errors
    /// [`TrainError::File`] where a tensor is missing or of another shape than the configuration
    /// says.
    pub(super) fn build<T>(
        self,
        device: &Device,
        build: impl FnOnce(VarBuilder<'_>) -> candle_core::Result<T>,
    ) -> Result<T> {
        let builder = VarBuilder::from_tensors(self.tensors, DType::F32, device);
        build(builder).map_err(|e| {
            let reason = first_line(&e);
            TrainError::file(&self.path, format!("does not fit config.json: {reason}"))
        })
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The message of an error of candle without the trace that follows it where `RUST_BACKTRACE` is set:
/// that is not even made, which reads the symbols of the whole program.
pub(super) fn first_line(error: &candle_core::Error) -> String {
    let mut line = FirstLine(String::new());
    // Cut off, or whole.
    let _ = write!(line, "{error}");
    line.0
}

/// What is written up to the first line end, which ends the writing.
struct FirstLine(String);

impl fmt::Write for FirstLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (line, rest) = match text.split_once('\n') {
            Some((line, _)) => (line, Err(fmt::Error)),
            None => (text, Ok(())),
        };
        self.0 += line;
        rest
    }
}
