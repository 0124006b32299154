//! The front door: ids in, ids out, on an engine of choice.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::catalog::Catalog;
use crate::cpu::CpuEngine;
use crate::error::{BundleError, InferError};
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
use crate::gpu::Floor;
use crate::gpu::{GpuEngine, GpuOptions};
use crate::quantizer::{NewItem, assign};
use crate::sampling::Sampling;
use crate::search::{EngineQuery, Hit, ItemFilter, MAX_BEAMS};
use crate::tokens::TokenLayout;

/// Which engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust, the oracle.
    Cpu,
    /// WGSL kernels over WebGPU.
    Gpu(GpuOptions),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "snake_case", deny_unknown_fields)]
pub struct Request {
    /// Item ids, oldest first. Unknown ids are skipped and reported.
    pub history: Vec<String>,
    /// User id, hashed into a user token.
    pub user: Option<String>,
    /// A raw user token index in `0..users.count`, instead of `user`.
    pub user_token: Option<u32>,
    /// Results wanted, `1..=beams`.
    pub top: usize,
    /// Beams, `1..=512`.
    pub beams: usize,
    /// Ids never returned. Unknown ids are ignored.
    pub exclude: Vec<String>,
    /// Never return an item of the history.
    pub exclude_history: bool,
    /// Only these ids. Unknown ids are ignored; an empty list gives an empty answer.
    pub allow: Option<Vec<String>>,
    /// Samples items without replacement instead of searching for the best: one temperature for
    /// all levels, or one a level, each above 0.
    pub temperature: Option<Vec<f32>>,
    /// The sample is the same for the same seed, `0..=`[`MAX_SEED`](crate::sampling::MAX_SEED).
    pub seed: u64,
}

/// Beams of a request that names none.
pub(crate) const DEFAULT_BEAMS: usize = 50;

impl Default for Request {
    fn default() -> Self {
        Self {
            history: Vec::new(),
            user: None,
            user_token: None,
            top: 20,
            beams: DEFAULT_BEAMS,
            exclude: Vec::new(),
            exclude_history: false,
            allow: None,
            temperature: None,
            seed: 0,
        }
    }
}

/// One recommended item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// The item.
    pub id: String,
    /// Sum of the model's log-probabilities of its semantic ID.
    pub score: f32,
    /// Its semantic ID.
    pub codes: Vec<u16>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Best first; a sample in the order in which it was drawn.
    pub items: Vec<Pick>,
    /// Ids of the history that the catalogue does not have, in order.
    pub unknown: Vec<String>,
}

enum Engine {
    Cpu(Box<CpuEngine>),
    Gpu(Box<GpuEngine>),
}

/// A bundle on an engine.
pub struct Recommender {
    bundle: Arc<Bundle>,
    /// The bundle's, or that with the items added since.
    catalog: Arc<Catalog>,
    engine: Engine,
    /// What explains answers of the GPU, and answers what is too much for it, once that is asked for.
    beside_gpu: Option<Box<CpuEngine>>,
}

/// A new item's semantic ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The item.
    pub id: String,
    /// Its semantic ID.
    pub codes: Vec<u16>,
}

impl Recommender {
    /// Puts a bundle on an engine.
    ///
    /// # Errors
    /// Where the GPU is asked for, [`InferError::NoGpu`] if there is none that can run the model, and
    /// [`InferError::DeviceLost`] if it fails at once.
    pub async fn new(bundle: Arc<Bundle>, backend: Backend) -> Result<Self, InferError> {
        let engine = match backend {
            Backend::Cpu => Engine::Cpu(Box::new(CpuEngine::new(Arc::clone(&bundle)))),
            Backend::Gpu(options) => {
                Engine::Gpu(Box::new(GpuEngine::new(Arc::clone(&bundle), options).await?))
            }
        };
        let catalog = Arc::clone(&bundle.catalog);
        Ok(Self { bundle, catalog, engine, beside_gpu: None })
    }

    /// The same model and the same items on another engine, or on a new one of the same kind.
    ///
    /// # Errors
    /// As [`Recommender::new`].
    pub async fn on(&self, backend: Backend) -> Result<Self, InferError> {
        let mut other = Self::new(Arc::clone(&self.bundle), backend).await?;
        if !Arc::ptr_eq(&self.catalog, &other.catalog) {
            other.set_catalog(Arc::clone(&self.catalog))?;
        }
        Ok(other)
    }

    /// A CPU engine: the one in use, or one beside the GPU.
    pub(crate) fn cpu(&mut self) -> &CpuEngine {
        match &self.engine {
            Engine::Cpu(cpu) => cpu,
            Engine::Gpu(_) => self.beside_gpu.get_or_insert_with(|| {
                let mut cpu = CpuEngine::new(Arc::clone(&self.bundle));
                cpu.set_catalog(Arc::clone(&self.catalog));
                Box::new(cpu)
            }),
        }
    }

    /// The items, those added included.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Gives new items semantic IDs by the bundle's tokenizer and adds them to the catalogue, all
    /// or none: from the next call on they can be recommended, excluded, allowed and part of a
    /// history. IDs that exist do not change. A call goes through the whole catalogue, so many items
    /// are best added in one.
    ///
    /// # Errors
    /// [`InferError::NoTokenizer`] for a bundle without one, [`InferError::Request`] naming the
    /// item that is wrong or finds no free ID, [`InferError::Bundle`] for more items or longer ids
    /// than a catalogue can hold, [`InferError::NoGpu`] where the catalogue exceeds the adapter's
    /// limits.
    pub fn add_items(&mut self, items: &[NewItem]) -> Result<Vec<Added>, InferError> {
        let quantizer = self.bundle.quantizer().ok_or(InferError::NoTokenizer)?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let codes = assign(quantizer, &self.bundle.tokens, &self.catalog, items)?;
        let rows: Vec<_> =
            items.iter().zip(&codes).map(|(item, codes)| (&codes[..], &item.id[..])).collect();
        self.set_catalog(Arc::new(self.catalog.with_added(&rows)?))?;
        let added = items.iter().zip(codes);
        Ok(added.map(|(item, codes)| Added { id: item.id.clone(), codes }).collect())
    }

    fn set_catalog(&mut self, catalog: Arc<Catalog>) -> Result<(), InferError> {
        match &mut self.engine {
            Engine::Cpu(cpu) => cpu.set_catalog(Arc::clone(&catalog)),
            Engine::Gpu(gpu) => gpu.set_catalog(Arc::clone(&catalog))?,
        }
        if let Some(cpu) = &mut self.beside_gpu {
            cpu.set_catalog(Arc::clone(&catalog));
        }
        self.catalog = catalog;
        Ok(())
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The engine in words: `cpu`, or the GPU adapter's name.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn engine_name(&self) -> String {
        match &self.engine {
            Engine::Cpu(_) => "cpu".into(),
            Engine::Gpu(gpu) => gpu.adapter_name().into(),
        }
    }

    /// Checks a request's options and returns its user token and how it samples.
    pub(crate) fn check(
        layout: &TokenLayout,
        request: &Request,
    ) -> Result<(Option<u32>, Option<Sampling>), InferError> {
        let bad = |what: String| Err(InferError::Request(what));
        if !(1..=MAX_BEAMS).contains(&request.beams) {
            return bad(format!("beams is {}, outside 1..={MAX_BEAMS}", request.beams));
        }
        if !(1..=request.beams).contains(&request.top) {
            return bad(format!(
                "top is {}, outside 1..={} (a search returns at most one item a beam: raise beams)",
                request.top, request.beams
            ));
        }
        let user_token = match (&request.user, request.user_token) {
            (Some(_), Some(_)) => return bad("give user or user_token, not both".into()),
            (None, None) => None,
            (Some(user), None) if user.is_empty() => {
                return bad("user is an empty string; leave it out, or give null".into());
            }
            (Some(user), None) => layout.user_token(user),
            (None, Some(index)) => match layout.users {
                Some(users) if index < users.count => Some(users.offset + index),
                Some(users) => {
                    return bad(format!("user_token is {index}, outside 0..{}", users.count));
                }
                None => return bad("user_token is given, but the model has no user tokens".into()),
            },
        };
        let sampling = request.temperature.as_deref();
        let sampling = sampling
            .map(|temperatures| Sampling::new(temperatures, layout.levels.len(), request.seed))
            .transpose()?;
        Ok((user_token, sampling))
    }

    /// Checks a request and turns it into tokens and ranks; also returns the unknown ids.
    ///
    /// # Errors
    /// [`InferError::Request`] naming the option.
    pub fn prepare(
        layout: &TokenLayout,
        catalog: &Catalog,
        request: &Request,
    ) -> Result<(EngineQuery, Vec<String>), InferError> {
        let (user_token, sampling) = Self::check(layout, request)?;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for id in &request.history {
            match catalog.rank_of(id) {
                Some(rank) => known.push(rank),
                None => unknown.push(id.clone()),
            }
        }
        let input =
            layout.encoder_input(user_token, known.iter().map(|&rank| catalog.codes_of(rank)));
        let ranks = |ids: &[String]| -> Vec<u32> {
            ids.iter().filter_map(|id| catalog.rank_of(id)).collect()
        };
        let mut exclude = ranks(&request.exclude);
        if request.exclude_history {
            exclude.extend(known);
        }
        let allow = request.allow.as_deref().map(ranks);
        let filter = ItemFilter::new(&exclude, allow.as_deref(), catalog.len());
        Ok((EngineQuery { input, beams: request.beams, filter, sampling }, unknown))
    }

    /// Answers a request.
    ///
    /// # Errors
    /// [`InferError::Request`] for an option out of range, [`BundleError::Overflow`] where a score
    /// is not a number, [`InferError::DeviceLost`] when the GPU fails.
    pub async fn recommend(&mut self, request: &Request) -> Result<Recommendation, InferError> {
        let (query, unknown) = self.query(request)?;
        let hits = self.search(&query).await?;
        self.answer(request, hits, unknown)
    }

    /// As [`Recommender::recommend`], but on the CPU, also where the GPU is the engine: for a search
    /// that exceeds its limits.
    ///
    /// # Errors
    /// As [`Recommender::recommend`], but for the GPU's.
    pub fn recommend_on_cpu(&mut self, request: &Request) -> Result<Recommendation, InferError> {
        let (query, unknown) = self.query(request)?;
        let hits = self.cpu().search(&query);
        self.answer(request, hits, unknown)
    }

    /// Answers requests of several users at once: the same answers as one by one, with less time
    /// for each.
    ///
    /// # Errors
    /// As [`Recommender::recommend`], before anything is computed where a request is at fault.
    pub async fn recommend_all(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Recommendation>, InferError> {
        let prepared = requests.iter().map(|request| self.query(request));
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let (queries, unknown): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let hits = match &mut self.engine {
            Engine::Cpu(cpu) => cpu.search_all(&queries),
            Engine::Gpu(gpu) => gpu.search_all(&queries).await?,
        };
        let answers = hits.into_iter().zip(requests).zip(unknown);
        answers.map(|((hits, request), unknown)| self.answer(request, hits, unknown)).collect()
    }

    /// What [`Recommender::prepare`] makes of a request to this model and its items.
    fn query(&self, request: &Request) -> Result<(EngineQuery, Vec<String>), InferError> {
        Self::prepare(&self.bundle.tokens, &self.catalog, request)
    }

    /// The answer to a request: the best of the hits by their ids.
    fn answer(
        &self,
        request: &Request,
        mut hits: Vec<Hit>,
        unknown: Vec<String>,
    ) -> Result<Recommendation, InferError> {
        check_scores(hits.iter().map(|hit| hit.score))?;
        hits.truncate(request.top);
        let catalog = &self.catalog;
        let pick = |hit: &Hit| Pick {
            id: catalog.id_of(hit.rank).to_owned(),
            score: hit.score,
            codes: catalog.codes_of(hit.rank).to_vec(),
        };
        let items: Vec<Pick> = hits.iter().map(pick).collect();
        let distinct = || items.iter().map(|pick| &pick.id).collect::<HashSet<_>>().len();
        debug_assert_eq!(distinct(), items.len(), "an item is returned once");
        Ok(Recommendation { items, unknown })
    }

    /// Runs a query on the engine: hits in the contract's order, at most `beams`.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] when the GPU fails.
    pub async fn search(&mut self, query: &EngineQuery) -> Result<Vec<Hit>, InferError> {
        match &mut self.engine {
            Engine::Cpu(cpu) => Ok(cpu.search(query)),
            Engine::Gpu(gpu) => gpu.search(query).await,
        }
    }
}

/// What only benchmarks ask for.
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
impl Recommender {
    /// Times each kernel of a request on the GPU, as [`GpuEngine::profile`].
    ///
    /// # Errors
    /// [`InferError::NoGpu`] on the CPU engine and without timestamps; else as
    /// [`Recommender::recommend`].
    pub async fn profile(
        &mut self,
        request: &Request,
    ) -> Result<Vec<(&'static str, f64)>, InferError> {
        let (query, _) = self.query(request)?;
        match &mut self.engine {
            Engine::Cpu(_) => Err(InferError::NoGpu("the CPU engine has no kernels".into())),
            Engine::Gpu(gpu) => gpu.profile(&query).await,
        }
    }

    /// What no call can be faster than on this GPU, as [`GpuEngine::floor`].
    ///
    /// # Errors
    /// [`InferError::NoGpu`] on the CPU engine; else as [`Recommender::recommend`].
    pub async fn floor(&mut self, request: &Request) -> Result<Floor, InferError> {
        let (query, _) = self.query(request)?;
        match &mut self.engine {
            Engine::Cpu(_) => Err(InferError::NoGpu("the CPU engine launches nothing".into())),
            Engine::Gpu(gpu) => gpu.floor(&query).await,
        }
    }
}

/// Refuses scores that are not finite.
pub(crate) fn check_scores(scores: impl IntoIterator<Item = f32>) -> Result<(), InferError> {
    let all = scores.into_iter().all(f32::is_finite);
    if all { Ok(()) } else { Err(BundleError::Overflow.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightFormat;
    use crate::testing::{Shape, random_bundle};
    use crate::tokens::fnv1a;

    #[test]
    fn a_user_is_the_first_token_that_the_model_reads() {
        let Bundle { tokens, catalog, .. } = random_bundle(&Shape::default(), WeightFormat::F32, 1);
        let input = |user: Option<&str>, user_token| {
            let (user, history) = (user.map(str::to_owned), vec!["item-7".to_owned()]);
            let request = Request { history, user, user_token, ..Request::default() };
            Recommender::prepare(&tokens, &catalog, &request).unwrap().0.input
        };
        let without = input(None, None);
        let with = |token| [&[token][..], &without].concat();
        let users = tokens.users.unwrap();
        assert_eq!(input(None, Some(3)), with(users.offset + 3));
        let ann = (fnv1a("ann") % u64::from(users.count)) as u32;
        assert_eq!(input(Some("ann"), None), with(users.offset + ann));
    }

    #[test]
    fn a_request_says_what_differs_from_the_default_and_nothing_unknown() {
        let read = |json| serde_json::from_str::<Request>(json);
        let least = read("{}").unwrap();
        assert_eq!(least, Request::default());
        assert_eq!((least.top, least.beams), (20, 50));
        assert!(read(r#"{"histroy": []}"#).unwrap_err().to_string().contains("histroy"));
    }
}
