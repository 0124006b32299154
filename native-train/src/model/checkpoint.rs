//! Checkpoints: `model.safetensors` and `config.json` with Hugging Face's names, in one file or in
//! several with an index.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tigret_infer::T5Config;

use super::Provenance;
use crate::error::{Result, TrainError};
use crate::files::{Together, pretty, read_text};
use crate::tensors::Notes;
pub use crate::tensors::shards::{HostWeights, files, read_notes, read_tensors, write_tensors};

/// The stem of a model's files.
pub const MODEL: &str = "model";

/// The key of `config.json` under which [`Provenance`] stands; `transformers` keeps it as it is.
const TRAINED_ON: &str = "tigret_trained_on";

/// What to do about a damaged [`Provenance`].
const MEND: &str = "train again, or remove it if the model goes with the semantic IDs";

/// Writes `model.safetensors` and `config.json` into a folder, as `transformers` reads them, and
/// `notes` of our own beside the configuration. Where the weights cannot be written, the configuration
/// stays that of the model that was there.
///
/// # Errors
/// [`TrainError::File`].
pub fn save(
    folder: &Path,
    config: &T5Config,
    weights: &HostWeights,
    trained_on: Option<&Provenance>,
    notes: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<()> {
    // Through a text: a value widens the epsilon of 32 bits, which is then no 0.000001 any more.
    let mut json: Value = serde_json::to_string(config)
        .and_then(|text| serde_json::from_str(&text))
        .map_err(|e| TrainError::file(folder, e))?;
    json["architectures"] = serde_json::json!(["T5ForConditionalGeneration"]);
    json["is_encoder_decoder"] = serde_json::json!(true);
    if let Some(trained_on) = trained_on {
        json[TRAINED_ON] = serde_json::json!(trained_on);
    }
    for (key, value) in notes {
        json[key] = value;
    }
    fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    // Ready before the weights take their place, so that only a rename is left to be done then.
    let mut about = Together::default();
    about.write(&folder.join("config.json"), |file| pretty(file, &json))?;
    write_tensors(folder, MODEL, weights, Notes::new())?;
    about.put()
}

/// A note of our own in the `config.json` of a folder; `None` where it has none, as with a checkpoint
/// from elsewhere.
///
/// # Errors
/// [`TrainError::File`] where the file cannot be read, with `hint` (how to make it) where it is
/// missing, and for a note that is damaged, with `mend`.
pub(crate) fn note<T: DeserializeOwned>(
    folder: &Path,
    key: &str,
    hint: &str,
    mend: &str,
) -> Result<Option<T>> {
    let path = folder.join("config.json");
    note_of(&path, &read_text(&path, hint)?, key, mend)
}

fn note_of<T: DeserializeOwned>(
    path: &Path,
    config: &str,
    key: &str,
    mend: &str,
) -> Result<Option<T>> {
    let mut config: Value = serde_json::from_str(config).map_err(|e| TrainError::file(path, e))?;
    let Some(note) = config.get_mut(key) else { return Ok(None) };
    serde_json::from_value(note.take())
        .map_err(|e| TrainError::file(path, format!("`{key}`: {e}; {mend}")))
}

/// How the model of a run is made, as a hint.
pub const TRAIN: &str = "make it with `tigret train`";

/// What the model in a folder was trained on; `None` where it does not say, as with a checkpoint
/// from elsewhere.
///
/// # Errors
/// [`TrainError::File`], with `hint` (how to make the file) where it is missing.
pub fn trained_on(folder: &Path, hint: &str) -> Result<Option<Provenance>> {
    note(folder, TRAINED_ON, hint, MEND)
}

/// A configuration of `transformers` with one number for each token: it writes null for a token that
/// a model does not have, and a list where several end a text. Which tokens count says `tokens.json`.
fn with_tokens(text: String) -> String {
    let Ok(Value::Object(mut config)) = serde_json::from_str(&text) else { return text };
    let mut changed = false;
    for token in ["pad_token_id", "eos_token_id", "decoder_start_token_id"] {
        let first = match config.get(token) {
            Some(Value::Null) => Value::Null,
            Some(Value::Array(several)) => several.first().cloned().unwrap_or(Value::Null),
            _ => continue,
        };
        changed = true;
        match first {
            Value::Null => config.remove(token),
            first => config.insert(token.to_owned(), first),
        };
    }
    if changed { Value::Object(config).to_string() } else { text }
}

/// Reads a folder that [`save`] or `transformers` wrote; also gives what [`trained_on`] does.
///
/// # Errors
/// [`TrainError::File`] naming the file and what is wrong in it, or `hint` where it is missing.
pub fn load(folder: &Path, hint: &str) -> Result<(T5Config, HostWeights, Option<Provenance>)> {
    let path = folder.join("config.json");
    let text = with_tokens(read_text(&path, hint)?);
    let mut config = T5Config::parse(&text).map_err(|e| TrainError::file(&path, e))?;
    let trained_on = note_of(&path, &text, TRAINED_ON, MEND)?;
    let (mut weights, _) = read_tensors(folder, MODEL, hint)?;
    // A tied embedding may be stored under any of its names.
    for copy in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        let Some(tensor) = weights.remove(copy) else { continue };
        if *weights.entry("shared.weight".into()).or_insert_with(|| tensor.clone()) != tensor {
            let reason = format!(
                "`{copy}` is not `shared.weight`; only models with one embedding for both are read"
            );
            return Err(TrainError::file(folder, reason));
        }
    }
    // Since version 5 `transformers` calls every T5 tied, and an output head that is stored and differs
    // is the model's own.
    if config.tie_word_embeddings && weights.contains_key(HEAD) {
        if weights.get(HEAD) == weights.get("shared.weight") {
            weights.remove(HEAD);
        } else {
            config.scale_decoder_outputs.get_or_insert(true);
            config.tie_word_embeddings = false;
        }
    }
    weights.remove(UNUSED);
    let known: BTreeSet<String> =
        config.weight_shapes().into_iter().map(|(name, _)| name).collect();
    // Where one is missing too, as if under another name, whoever uses the weights names that one.
    let is_whole = known.iter().all(|name| weights.contains_key(name));
    if let Some(other) = weights.keys().find(|name| is_whole && !known.contains(*name)) {
        let reason = format!(
            "has `{other}`, which is no weight of a T5 of these sizes; a model that uses more than \
             those would compute something else"
        );
        return Err(TrainError::file(folder, reason));
    }
    Ok((config, weights, trained_on))
}

/// Early T5 checkpoints store a bias of positions for the first cross-attention, which no version uses.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// The output head of a model that does not share it with the embedding.
const HEAD: &str = "lm_head.weight";

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration and weights of a small checkpoint of `transformers`, its output head tied.
    fn of_transformers() -> (Value, HostWeights) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tied");
        let config = fs::read_to_string(golden.join("config.json")).unwrap();
        let (mut weights, _) = read_tensors(&golden, MODEL, "").unwrap();
        weights.retain(|name, _| !name.contains("embed_tokens") && name != HEAD);
        (serde_json::from_str(&config).unwrap(), weights)
    }

    fn loaded(config: &Value, weights: &HostWeights) -> Result<(T5Config, HostWeights)> {
        let folder = tempfile::tempdir().unwrap();
        write_tensors(folder.path(), MODEL, weights, Notes::new()).unwrap();
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        load(folder.path(), "").map(|(config, weights, _)| (config, weights))
    }

    #[test]
    fn a_head_that_is_stored_and_differs_is_the_models_own_whatever_the_flag_says() {
        let (mut json, mut weights) = of_transformers();
        let shared = weights["shared.weight"].clone();
        weights.insert(HEAD.into(), shared.clone());
        let (config, read) = loaded(&json, &weights).unwrap();
        assert!(config.tie_word_embeddings && !read.contains_key(HEAD));

        weights.get_mut(HEAD).unwrap().1[0] += 1.0;
        for scaled in [true, false] {
            json["scale_decoder_outputs"] = scaled.into();
            let (config, read) = loaded(&json, &weights).unwrap();
            assert!(!config.tie_word_embeddings);
            assert_eq!(config.head_scale() != 1.0, scaled);
            assert_eq!(read[HEAD], weights[HEAD]);
        }
        json.as_object_mut().unwrap().remove("scale_decoder_outputs");
        assert!(loaded(&json, &weights).unwrap().0.head_scale() != 1.0);

        weights.insert("encoder.embed_tokens.weight".into(), shared);
        loaded(&json, &weights).unwrap();
        weights.get_mut("encoder.embed_tokens.weight").unwrap().1[0] += 1.0;
        let error = loaded(&json, &weights).unwrap_err().to_string();
        assert!(error.contains("`encoder.embed_tokens.weight` is not `shared.weight`"), "{error}");
    }

    #[test]
    fn what_would_compute_something_else_is_refused() {
        let (json, weights) = of_transformers();
        let said = |json: &Value, weights: &HostWeights| {
            loaded(json, weights).map(drop).unwrap_err().to_string()
        };
        for other in ["umt5", "mt5", "t5gemma"] {
            let mut json = json.clone();
            json["model_type"] = other.into();
            let expected = format!("model_type is \"{other}\", only \"t5\" is read");
            assert!(said(&json, &weights).contains(&expected));
        }
        let mut unnamed = json.clone();
        unnamed.as_object_mut().unwrap().remove("model_type");
        loaded(&unnamed, &weights).unwrap();

        let one = weights["encoder.final_layer_norm.weight"].clone();
        for other in ["lm_head.bias", "user_embedding.weight", "encoder.block.99.layer.0.scale"] {
            let mut weights = weights.clone();
            weights.insert(other.into(), one.clone());
            let said = said(&json, &weights);
            assert!(said.contains(&format!("has `{other}`, which is no weight of a T5")), "{said}");
        }
        let mut early = weights.clone();
        early.insert(UNUSED.into(), one);
        assert_eq!(loaded(&json, &early).unwrap().1, weights);
    }

    #[test]
    fn tokens_that_a_model_does_not_have_or_has_several_of_are_read() {
        let (mut json, weights) = of_transformers();
        json["pad_token_id"] = Value::Null;
        json["eos_token_id"] = serde_json::json!([7, 8]);
        json["decoder_start_token_id"] = Value::Null;
        let (config, _) = loaded(&json, &weights).unwrap();
        assert_eq!((config.pad_token_id, config.eos_token_id), (0, 7));
        assert_eq!(config.decoder_start_token_id, 0);
        json["eos_token_id"] = "one".into();
        assert!(loaded(&json, &weights).unwrap_err().to_string().contains("invalid type: string"));
    }
}
