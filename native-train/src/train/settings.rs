//! What a training is told to do, and how it is known again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind};
use tigret_infer::T5Config;

use super::samples::{Batching, MICRO_BATCH};
use super::schedule::Schedule;
use crate::data::Dataset;
use crate::model::Provenance;
use crate::tokenizer::SemanticIds;

/// What the matrix products of training compute in; everything else is `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats.
    Bf16,
}

impl Precision {
    /// The faster one on a device: CUDA has matrix units for `bf16`, most CPUs do not.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::Bf16 } else { Self::F32 }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// Which optimiser trains the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// AdamW whose updates are scaled by the size of the weight, as Adafactor's are.
    ScaledAdamw,
    /// AdamW.
    Adamw,
}

impl OptimizerKind {
    /// Most bytes that a step of `batch` samples holds for each weight on a CPU, not counting the
    /// activations of its samples.
    pub fn bytes_a_weight(self, batch: usize) -> u64 {
        // The weight, its gradient, two moments, whether it decays, and which weight it belongs to.
        let (held, update) = match self {
            Self::ScaledAdamw => (24, 8),
            Self::Adamw => (20, 4),
        };
        // Each pass has a gradient of its own, in parts and joined, before it is added.
        let passes = (tch::get_num_threads().max(1) as u64).min(batch.div_ceil(MICRO_BATCH) as u64);
        held + (8 * passes).max(update)
    }
}

/// Settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub config: T5Config,
    /// Samples a step, in the mean.
    pub batch: usize,
    /// How samples are shared out to steps.
    pub batching: Batching,
    /// What matrix products compute in.
    pub precision: Precision,
    /// Passes over the samples at most.
    pub epochs: u64,
    /// Which optimiser.
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps to the peak.
    pub warmup: u64,
    /// How the rate falls from there.
    pub schedule: Schedule,
    /// Weight decay of AdamW, on matrices.
    pub weight_decay: f64,
    /// Largest gradient norm.
    pub clip: f64,
    /// Probability that a sample's user token is dropped.
    pub drop_user: f64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Validations without a better NDCG@10 before the run stops.
    pub patience: u32,
    /// Users of a validation, drawn once.
    pub validation_users: usize,
    /// Beams of a validation.
    pub validation_beams: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// What a training follows from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    #[serde(flatten)]
    pub(super) settings: Settings,
    pub(super) trained_on: Provenance,
    max_items: usize,
}

impl Identity {
    pub(super) fn new(settings: Settings, dataset: &Dataset, ids: &SemanticIds) -> Self {
        let trained_on = Provenance::new(dataset, &ids.layout, ids.of_items(&dataset.items));
        Self { settings, trained_on, max_items: ids.layout.max_items }
    }

    /// Why a training that followed from `before` is another one than that of these settings,
    /// `dataset` and `ids`, if so.
    pub(super) fn differs(
        &self,
        before: &Self,
        dataset: &Dataset,
        ids: &SemanticIds,
    ) -> Option<String> {
        if !before.trained_on.has_ids(&ids.layout, ids.of_items(&dataset.items)) {
            return Some("on other semantic IDs".to_owned());
        }
        if !before.trained_on.has_sequences(dataset) {
            return Some("on other sequences".to_owned());
        }
        if before.trained_on != self.trained_on {
            // Validations over more items cannot be compared with those of before.
            return Some("with fewer items".to_owned());
        }
        let mut other = other_settings(&before.settings, &self.settings);
        let (then, now) = (before.max_items, self.max_items);
        if then != now {
            other.push(format!("`tigret tokenize --max-items {then}`, not {now}"));
        }
        (!other.is_empty()).then(|| format!("with other settings ({})", other.join(", ")))
    }
}

/// The settings that differ, by the names of the options.
fn other_settings(before: &Settings, now: &Settings) -> Vec<String> {
    let named = |settings: &Settings| -> BTreeMap<String, Value> {
        let mut fields = match serde_json::to_value(settings) {
            Ok(Value::Object(fields)) => fields,
            // Our own settings are an object.
            _ => Map::new(),
        };
        if let Some(Value::Object(config)) = fields.remove("config") {
            // Both stacks have as many layers.
            fields.extend(config.into_iter().filter(|(name, _)| name != "num_decoder_layers"));
        }
        let option = |name: String| match name.as_str() {
            "num_layers" => "layers".to_owned(),
            "d_model" => "width".to_owned(),
            "num_heads" => "heads".to_owned(),
            "dropout_rate" => "dropout".to_owned(),
            _ => name.replace('_', "-"),
        };
        fields.into_iter().map(|(name, value)| (option(name), value)).collect()
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    };
    let (before, now) = (named(before), named(now));
    let options: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = options.into_iter().map(|option| (option, before.get(option), now.get(option)));
    differ
        .filter(|(_, then, now)| then != now)
        .map(|(option, then, now)| format!("--{option} {}, not {}", text(then), text(now)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::trainer::tests::{data, settings};

    #[test]
    fn a_training_with_other_settings_is_not_taken_up_and_they_are_named() {
        let (dataset, ids) = data();
        let settings = settings(&ids, 0.1);
        let now = Identity::new(settings.clone(), &dataset, &ids);
        let json = serde_json::to_string(&now).unwrap();
        let same = || serde_json::from_str::<Identity>(&json).unwrap();
        let differs = |before| now.differs(&before, &dataset, &ids);
        assert_eq!(differs(same()), None);
        let optimizer = OptimizerKind::ScaledAdamw;
        let mut config = settings.config.clone();
        config.d_model = 32;
        let config = Settings { config, ..settings.clone() };
        for (other, said) in [
            (Settings { optimizer, ..settings.clone() }, "--optimizer scaled-adamw, not adamw"),
            (
                Settings { precision: Precision::Bf16, ..settings.clone() },
                "--precision bf16, not f32",
            ),
            (Settings { seed: 6, ..settings.clone() }, "--seed 6, not 5"),
            (Settings { seed: 6, epochs: 3, ..settings }, "--epochs 3, not 1, --seed 6, not 5"),
            (config, "--width 32, not 64"),
        ] {
            let other = Identity { settings: other, ..same() };
            assert_eq!(differs(other), Some(format!("with other settings ({said})")));
        }
        let other = Identity { max_items: 2, ..same() };
        let said = "with other settings (`tigret tokenize --max-items 2`, not 4)".to_owned();
        assert_eq!(differs(other), Some(said));
    }
}
