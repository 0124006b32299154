//! Text encoders in sentence-transformers folders: BERT and MiniLM, MPNet, Sentence-T5.
//!
//! A folder holds `config.json`, `tokenizer.json`, weights in safetensors, and files that say how
//! token vectors become one vector (<https://sbert.net>). A batch holds texts of one length in
//! tokens only, so there is no padding, and a text's vector does not depend on its neighbours.

mod backbone;
mod folder;
mod head;
pub mod hub;
pub mod job;
mod mpnet;
mod tokens;
mod weights;

use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::device::DeviceChoice;
use crate::error::{Result, TrainError};
use crate::hash::hex;
use crate::panics::caught_on_all_threads;
use backbone::Backbone;
use folder::Recipe;
use head::Head;
use weights::first_line;

/// Texts tokenized in one call.
const TOKENIZE_AT_ONCE: usize = 1024;

/// A loaded encoder.
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    backbone: Backbone,
    head: Head,
    device: Device,
    lower_case: bool,
    prompt: String,
    fingerprint: String,
    notes: Vec<String>,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentenceEncoder")
            .field("dimensions", &self.dimensions())
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl SentenceEncoder {
    /// Loads a folder, or a model of the hub (`hub:NAME`); `before_file` is told of each file that
    /// is downloaded.
    ///
    /// # Errors
    /// Those of [`hub::folder`] and [`SentenceEncoder::load`].
    pub fn open(source: &str, choice: DeviceChoice, before_file: impl Fn(&str)) -> Result<Self> {
        match source.strip_prefix(hub::PREFIX) {
            Some(name) => {
                let before_file = |file: &str| before_file(&format!("downloading {file}"));
                Self::load(&hub::folder(name, before_file)?, choice)
            }
            None => Self::load(Path::new(source), choice),
        }
    }

    /// Loads a folder.
    ///
    /// # Errors
    /// [`TrainError::File`] naming the file that is missing, wrong, contradicts another, or asks
    /// for an architecture or module that is not known; [`TrainError::Usage`] without the device.
    pub fn load(folder: &Path, choice: DeviceChoice) -> Result<Self> {
        let mut recipe = Recipe::read(folder)?;
        let device = device(choice)?;
        let mut hash = Sha256::new();
        let backbone = Backbone::load(&recipe, &device, &mut hash)?;
        let head = Head::load(&recipe, backbone.width, &device, &mut hash)?;
        let limit = recipe.limit(backbone.positions)?;
        let tokenizer = tokens::tokenizer(&recipe, limit, backbone.vocabulary, &mut hash)?;
        hash.update(format!("{limit} {} {}", recipe.lower_case, recipe.prompt));
        let fingerprint = hex(hash);
        Ok(Self {
            tokenizer,
            backbone,
            head,
            device,
            lower_case: recipe.lower_case,
            prompt: recipe.prompt,
            fingerprint,
            notes: recipe.notes,
        })
    }

    /// Length of a vector.
    pub fn dimensions(&self) -> usize {
        self.head.dimensions
    }

    /// SHA-256, in hexadecimal, of all that the vectors depend on besides the texts.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What the folder leaves open and was decided here, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Name of the device, for messages.
    pub fn device_name(&self) -> &'static str {
        if self.device.is_cuda() { "cuda" } else { "cpu" }
    }

    /// Token ids of every text, cut to the longest input.
    ///
    /// # Errors
    /// [`TrainError::Usage`] where the tokenizer cannot read a text.
    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let mut ids = Vec::with_capacity(texts.len());
        for part in texts.chunks(TOKENIZE_AT_ONCE) {
            let prepare = |text: &&str| {
                let text = format!("{}{text}", self.prompt);
                if self.lower_case { text.to_lowercase() } else { text }
            };
            let inputs: Vec<String> = part.iter().map(prepare).collect();
            let encode = || {
                let encodings = self.tokenizer.encode_batch_fast(inputs, true);
                encodings.map_err(|e| format!("cannot read a text: {e}"))
            };
            let encodings = caught_on_all_threads(|_| true, encode)
                .unwrap_or_else(|_| Err(tokens::DAMAGED.into()))
                .map_err(|reason| TrainError::usage(format!("tokenizer.json {reason}")))?;
            ids.extend(encodings.into_iter().map(|encoding| encoding.get_ids().to_vec()));
        }
        Ok(ids)
    }

    /// Vectors, row-major `[texts, dimensions]`, of texts of `length` tokens each.
    ///
    /// # Errors
    /// [`TrainError::Usage`] with candle's message, such as too little memory on the device.
    fn encode(&self, tokens: &[u32], length: usize) -> Result<Vec<f32>> {
        let attempt = || -> candle_core::Result<Vec<f32>> {
            let tokens = Tensor::from_slice(tokens, (tokens.len() / length, length), &self.device)?;
            self.head.forward(&self.backbone.forward(&tokens)?)?.flatten_all()?.to_vec1()
        };
        attempt().map_err(|e| TrainError::usage(format!("the encoder failed: {}", first_line(&e))))
    }
}

fn device(choice: DeviceChoice) -> Result<Device> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    if !cfg!(feature = "cuda") {
        return match choice {
            DeviceChoice::Cuda => Err(TrainError::usage(
                "this tigret was built without CUDA for encoders; build it with `--features cuda` \
                 (which needs CUDA's nvcc) or give --device cpu",
            )),
            _ => Ok(Device::Cpu),
        };
    }
    match (Device::new_cuda(0), choice) {
        (Ok(device), _) => Ok(device),
        (Err(_), DeviceChoice::Auto) => Ok(Device::Cpu),
        (Err(error), _) => {
            let reason = first_line(&error);
            Err(TrainError::usage(format!("no CUDA device ({reason}); give --device cpu")))
        }
    }
}
