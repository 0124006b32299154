//! The face that JavaScript sees: one class, requests as JSON, plain objects out, errors with a `code`.
//!
//! Codes: `bad-bundle`, `bad-request`, `no-tokenizer`, `no-gpu`, `device-lost`. A panic is reported through
//! `reportError`, since after it the module cannot run any more and no promise would settle.

use std::sync::Arc;

use js_sys::{Error, JsString, Reflect};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::bundle::Bundle;
use crate::bundle::fingerprint::fingerprint;
use crate::error::InferError;
use crate::gpu::GpuOptions;
use crate::quantizer::NewItem;
use crate::recommender::{Backend, Recommender, Request};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = reportError)]
    fn report_error(error: &Error);
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| {
        let message = format!("tigret has a bug and stopped: {panic}");
        report_error(&Error::new(&message));
    }));
}

/// What a page may want to know of a model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    /// Changes when any byte of the bundle does; names the model in caches.
    fingerprint: &'a str,
    version: &'static str,
    items: usize,
    /// Codes of each level.
    levels: Vec<u32>,
    /// User tokens, 0 if the model has none.
    users: u32,
    max_items: usize,
    /// Numbers of a new item's embedding; 0 where its codes are drawn from its id; null where the
    /// bundle holds no tokenizer and no item can be added.
    embedding: Option<usize>,
    weight_format: &'static str,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    heads: usize,
    encoder_layers: usize,
    decoder_layers: usize,
    tied: bool,
    parameters: usize,
}

/// A bundle on an engine.
#[wasm_bindgen]
pub struct Session {
    fingerprint: String,
    recommender: Recommender,
}

#[wasm_bindgen]
impl Session {
    /// Reads a bundle and puts it on the GPU or on the CPU. The others are the fields of `GpuOptions`.
    ///
    /// # Errors
    /// An `Error` with code `bad-bundle`, `no-gpu` or, where the GPU fails at once and may do better
    /// with options that ask for less, `device-lost`.
    pub async fn load(
        bytes: Vec<u8>,
        on_gpu: bool,
        halves: Option<bool>,
        packed_products: Option<bool>,
        subgroups: Option<bool>,
    ) -> Result<Session, Error> {
        let backend = backend_of(on_gpu, GpuOptions { halves, packed_products, subgroups });
        let bundle = Arc::new(Bundle::from_bytes(&bytes).map_err(|e| to_js(&e.into()))?);
        let fingerprint = format!("{:016x}", fingerprint(&bytes));
        drop(bytes);
        let recommender = Recommender::new(bundle, backend).await.map_err(|e| to_js(&e))?;
        Ok(Self { fingerprint, recommender })
    }

    /// Puts the bundle on another engine, or on a new one of the same kind after a device was
    /// lost; the options are those of [`Session::load`]. On an error the engine stays what it was.
    ///
    /// # Errors
    /// As [`Session::load`].
    #[wasm_bindgen(js_name = useBackend)]
    pub async fn use_backend(
        &mut self,
        on_gpu: bool,
        halves: Option<bool>,
        packed_products: Option<bool>,
        subgroups: Option<bool>,
    ) -> Result<(), Error> {
        let backend = backend_of(on_gpu, GpuOptions { halves, packed_products, subgroups });
        self.recommender = self.recommender.on(backend).await.map_err(|e| to_js(&e))?;
        Ok(())
    }

    /// Answers a request (the JSON of a `Request`) with `{ items, unknown }`: on the engine in use, or on
    /// a CPU engine beside the GPU, which stays.
    ///
    /// # Errors
    /// An `Error` with code `bad-request`, `bad-bundle` where a score on the CPU is no number, `device-lost`
    /// or, where the search exceeds the GPU's limits, `no-gpu`, after which the CPU can be asked.
    pub async fn recommend(&mut self, request: String, on_cpu: bool) -> Result<JsValue, Error> {
        let request = parse_request(&request)?;
        let answer = match on_cpu {
            true => self.recommender.recommend_on_cpu(&request),
            false => self.recommender.recommend(&request).await,
        };
        to_value(&answer.map_err(|e| to_js(&e))?)
    }

    /// Adds new items and returns their semantic IDs (`[{ id, codes }]`); the embeddings are row-major
    /// `[ids, width]`.
    ///
    /// # Errors
    /// An `Error` with code `bad-request`, `no-tokenizer` or `no-gpu`; nothing is added then.
    #[wasm_bindgen(js_name = addItems)]
    pub fn add_items(
        &mut self,
        ids: Vec<String>,
        embeddings: &[f32],
        width: usize,
    ) -> Result<JsValue, Error> {
        // What is not there is an embedding of the wrong length.
        let row = |at: usize| embeddings.get(at * width..(at + 1) * width).unwrap_or_default();
        let item = |(at, id)| NewItem { id, embedding: row(at).to_vec() };
        let items: Vec<NewItem> = ids.into_iter().enumerate().map(item).collect();
        let added = self.recommender.add_items(&items).map_err(|e| to_js(&e))?;
        to_value(&added)
    }

    /// Why an item has its score for a request: `{ id, codes, logProbs, score, history: [{ id,
    /// codes, shared, influence }] }`.
    ///
    /// # Errors
    /// An `Error` with code `bad-request`, or `bad-bundle` where a score is not a number.
    pub fn explain(&mut self, request: &str, id: &str) -> Result<JsValue, Error> {
        let request = parse_request(request)?;
        to_value(&self.recommender.explain(&request, id).map_err(|e| to_js(&e))?)
    }

    /// The prefixes that the search of a request keeps at each level: `[[{ codes, score, items }]]`.
    ///
    /// # Errors
    /// As [`Session::explain`].
    pub fn trace(&mut self, request: &str) -> Result<JsValue, Error> {
        to_value(&self.recommender.trace(&parse_request(request)?).map_err(|e| to_js(&e))?)
    }

    /// The ids of all items, in ascending order of semantic ID.
    pub fn ids(&self) -> Vec<JsString> {
        self.recommender.catalog().ids().iter().map(JsString::from).collect()
    }

    /// The semantic IDs of all items, row-major `[items, levels]`, in the order of `ids`.
    pub fn codes(&self) -> Vec<u16> {
        self.recommender.catalog().codes().to_vec()
    }

    /// Sizes of the model and its catalogue.
    ///
    /// # Errors
    /// Never for a bundle that was read.
    pub fn info(&self) -> Result<JsValue, Error> {
        let bundle = self.recommender.bundle();
        let Bundle { config, tokens, weight_format, .. } = bundle;
        to_value(&Info {
            fingerprint: &self.fingerprint,
            version: env!("CARGO_PKG_VERSION"),
            items: self.recommender.catalog().len(),
            levels: tokens.levels.iter().map(|level| level.size).collect(),
            users: tokens.users.map_or(0, |users| users.count),
            max_items: tokens.max_items,
            embedding: bundle.quantizer().map(|quantizer| quantizer.config().embedding()),
            weight_format: weight_format.name(),
            vocab_size: config.vocab_size,
            d_model: config.d_model,
            d_kv: config.d_kv,
            d_ff: config.d_ff,
            heads: config.num_heads,
            encoder_layers: config.num_layers,
            decoder_layers: config.decoder_layers(),
            tied: config.tie_word_embeddings,
            parameters: config.weights(),
        })
    }

    /// A full history spread over the catalogue, to time engines with.
    #[wasm_bindgen(js_name = sampleHistory)]
    pub fn sample_history(&self) -> Vec<JsString> {
        let Bundle { catalog, tokens, .. } = self.recommender.bundle();
        let count = tokens.max_items.min(catalog.len());
        // The product may have more than 32 bits.
        let rank = |i: usize| (i as u64 * catalog.len() as u64 / count as u64) as u32;
        (0..count).map(|i| JsString::from(catalog.id_of(rank(i)))).collect()
    }
}

fn parse_request(request: &str) -> Result<Request, Error> {
    serde_json::from_str(request)
        .map_err(|e| coded(&format!("the request cannot be read: {e}"), "bad-request"))
}

fn backend_of(on_gpu: bool, gpu: GpuOptions) -> Backend {
    if on_gpu { Backend::Gpu(gpu) } else { Backend::Cpu }
}

fn to_value(value: &impl Serialize) -> Result<JsValue, Error> {
    // JSON's null, which the types of the package promise, and not `undefined`.
    let serializer = serde_wasm_bindgen::Serializer::new().serialize_missing_as_null(true);
    value.serialize(&serializer).map_err(|e| coded(&e.to_string(), "bad-request"))
}

fn to_js(error: &InferError) -> Error {
    let code = match error {
        InferError::Request(_) => "bad-request",
        InferError::Bundle(_) => "bad-bundle",
        InferError::NoTokenizer => "no-tokenizer",
        InferError::NoGpu(_) => "no-gpu",
        InferError::DeviceLost(_) => "device-lost",
    };
    coded(&error.to_string(), code)
}

fn coded(message: &str, code: &str) -> Error {
    let error = Error::new(message);
    // Setting a property of a fresh object cannot fail.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error
}
