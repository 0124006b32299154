//! Models by name: downloaded from Hugging Face into the cache folder that its own tools use.
//!
//! The cache is `models--OWNER--NAME/`, with `refs/main` naming the revision and
//! `snapshots/REVISION/` holding its files. A model that is there already needs no network.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::folder::{MODULES, Module};
use super::weights::Weights;
use crate::error::{Result, TrainError};
use crate::files::{make_parent, read_json, write_atomically};

const ENDPOINT: &str = "https://huggingface.co";

/// Begins the name of a model on the hub where a folder could stand too.
pub const PREFIX: &str = "hub:";

/// Whose models are meant by a name without an owner, as in sentence-transformers.
const DEFAULT_OWNER: &str = "sentence-transformers";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What the hub says of a model.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The folder of a model, downloaded if it is not in the cache; `before_file` is told the name of
/// each file that is fetched.
///
/// `HF_HUB_CACHE`, `HF_HOME` and `HF_ENDPOINT` are read as Hugging Face's own tools read them.
///
/// # Errors
/// [`TrainError::Usage`] for a name that cannot be one, without network, and for a model that is
/// not there; [`TrainError::File`] where the cache cannot be written.
pub fn folder(name: &str, before_file: impl Fn(&str)) -> Result<PathBuf> {
    let name = match name.contains('/') {
        true => name.to_owned(),
        false => format!("{DEFAULT_OWNER}/{name}"),
    };
    if name.split('/').count() != 2 || !name.split('/').all(is_plain) {
        return Err(TrainError::usage(format!(
            "{PREFIX}{name} is no name of a model; it is OWNER/NAME, such as \
             {PREFIX}sentence-transformers/all-MiniLM-L6-v2"
        )));
    }
    let model = cache()?.join(format!("models--{}", name.replace('/', "--")));
    let reference = model.join("refs").join("main");
    if let Ok(revision) = fs::read_to_string(&reference) {
        let snapshot = model.join("snapshots").join(revision.trim());
        if is_complete(&snapshot, &absence(&model, revision.trim())) {
            return Ok(snapshot);
        }
    }
    let hub = Hub::new(name);
    let Listing { sha, mut siblings } = hub.listing()?;
    // Last, so that its presence says that the rest is there.
    siblings.sort_by_key(|file| file.rfilename == MODULES);
    let snapshot = model.join("snapshots").join(&sha);
    for Sibling { rfilename: file } in &siblings {
        let path = snapshot.join(file);
        if is_wanted(file) && !path.exists() {
            before_file(file);
            hub.download(&sha, file, &path)?;
        }
    }
    let mut notes = vec![(reference, sha.as_str())];
    if !siblings.iter().any(|file| file.rfilename == MODULES) {
        notes.push((absence(&model, &sha), ""));
    }
    for (path, text) in notes {
        make_parent(&path)?;
        write_atomically(&path, |out| out.write_all(text.as_bytes()))?;
    }
    Ok(snapshot)
}

/// The file that Hugging Face's tools leave, empty, where a revision of a model has no [`MODULES`].
fn absence(model: &Path, revision: &str) -> PathBuf {
    model.join(".no_exist").join(revision).join(MODULES)
}

/// Whether a part of a name or a revision is what a folder may be called after.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// A model on the hub.
struct Hub {
    endpoint: String,
    /// OWNER/NAME.
    name: String,
    agent: ureq::Agent,
}

impl Hub {
    fn new(name: String) -> Self {
        let endpoint = env::var("HF_ENDPOINT").unwrap_or_else(|_| ENDPOINT.to_owned());
        let config = ureq::Agent::config_builder().timeout_connect(Some(CONNECT_TIMEOUT)).build();
        let agent = ureq::Agent::new_with_config(config);
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), name, agent }
    }

    fn failed(&self, error: ureq::Error) -> TrainError {
        let Self { endpoint, name, .. } = self;
        TrainError::usage(match error {
            ureq::Error::StatusCode(401 | 403 | 404) => format!(
                "{PREFIX}{name} is not a public model on {endpoint}; check the name, or give the \
                 folder of a downloaded model"
            ),
            other => format!(
                "{PREFIX}{name} cannot be downloaded from {endpoint} ({other}); give the folder of \
                 a downloaded model instead"
            ),
        })
    }

    /// The latest revision and its files.
    fn listing(&self) -> Result<Listing> {
        let Self { endpoint, name, agent } = self;
        let text = agent
            .get(format!("{endpoint}/api/models/{name}"))
            .call()
            .and_then(|mut response| response.body_mut().read_to_string())
            .map_err(|e| self.failed(e))?;
        let listing: Listing = serde_json::from_str(&text).map_err(|e| {
            TrainError::usage(format!("{endpoint} lists {PREFIX}{name} wrongly: {e}"))
        })?;
        if !is_plain(&listing.sha) {
            let reason = format!("{endpoint} names no revision of {PREFIX}{name}");
            return Err(TrainError::usage(reason));
        }
        Ok(listing)
    }

    /// Fetches a file of a revision to a path.
    fn download(&self, sha: &str, file: &str, path: &Path) -> Result<()> {
        let Self { endpoint, name, agent } = self;
        let url = format!("{endpoint}/{name}/resolve/{sha}/{file}");
        let response = agent.get(url).call().map_err(|e| self.failed(e))?;
        make_parent(path)?;
        let mut body = response.into_body().into_reader();
        let broken = |error: std::io::Error| {
            std::io::Error::other(TrainError::usage(format!(
                "the download of {file} of {PREFIX}{name} broke off ({error}); the same command \
                 fetches what is missing"
            )))
        };
        write_atomically(path, |out| copy(&mut body, out, broken))
    }
}

/// Copies a download; `broken` is the error of one that cannot be read to its end.
fn copy(
    body: &mut impl Read,
    out: &mut dyn Write,
    broken: impl Fn(std::io::Error) -> std::io::Error,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match body.read(&mut bytes).map_err(&broken)? {
            0 => return Ok(()),
            count => out.write_all(&bytes[..count])?,
        }
    }
}

/// Files of the encoder: JSON and safetensors, not copies for other runtimes.
fn is_wanted(file: &str) -> bool {
    let path = Path::new(file);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let for_others = ["onnx/", "openvino/", ".", "adapter", "data_config"];
    inside
        && !for_others.iter().any(|start| file.starts_with(start))
        && path.extension().is_some_and(|kind| kind == "json" || kind == "safetensors")
}

/// Whether all that the encoder cannot do without is in the cache. Tools that want less of a model
/// leave the rest out; `absence` tells a model without a list of modules from one whose list was left out.
fn is_complete(snapshot: &Path, absence: &Path) -> bool {
    let list = snapshot.join(MODULES);
    if !list.exists() {
        return absence.exists() && is_transformer(snapshot);
    }
    // What is wrong with a list is said where it is read.
    let modules: Vec<Module> = read_json(&list, "").unwrap_or_default();
    modules.iter().all(|module| {
        let folder = snapshot.join(&module.path);
        match module.kind() {
            "Transformer" => is_transformer(&folder),
            "Dense" => folder.join("config.json").exists() && Weights::are_in(&folder),
            "Pooling" => folder.join("config.json").exists(),
            _ => true,
        }
    })
}

fn is_transformer(folder: &Path) -> bool {
    let files = ["config.json", "tokenizer.json"];
    files.iter().all(|file| folder.join(file).exists()) && Weights::are_in(folder)
}

/// The cache folder of Hugging Face's tools.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("HF_HUB_CACHE") {
        return Ok(folder.into());
    }
    if let Some(home) = variable("HF_HOME") {
        return Ok(Path::new(&home).join("hub"));
    }
    let caches = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")));
    caches.map(|folder| folder.join("huggingface").join("hub")).ok_or_else(|| {
        TrainError::usage("there is no home folder for downloads; set HF_HOME to a folder")
    })
}
