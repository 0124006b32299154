//! What a training is told to do, and how it is known again.

use std::collections::{BTreeMap, BTreeSet};

use clap::builder::RangedU64ValueParser;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind};
use tigret_infer::T5Config;
use tigret_infer::search::MAX_BEAMS;

use super::batch::MICRO_BATCH;
use super::samples::Batching;
use super::schedule::Schedule;
use crate::data::Dataset;
use crate::model::Provenance;
use crate::tokenizer::SemanticIds;

/// Reads a number of things.
type Count = RangedU64ValueParser<usize>;

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

/// Options of a training run.
///
/// Their places in the help leave room for options of `tigret train` that are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Samples a step, in the mean.
    #[arg(long, display_order = 10, default_value_t = Options::DEFAULT.batch,
          value_parser = Count::new().range(1..=65_536))]
    pub batch: usize,
    /// Whether steps have as many samples each, or about as many tokens.
    #[arg(long, display_order = 20, value_enum, default_value_t = Options::DEFAULT.batching)]
    pub batching: Batching,
    /// Passes over the samples at most.
    #[arg(long, display_order = 40, default_value_t = Options::DEFAULT.epochs,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub epochs: u64,
    /// Which optimiser: AdamW, or AdamW whose updates are scaled by the size of each weight, as those
    /// of T5's Adafactor are.
    #[arg(long, display_order = 60, value_enum, default_value_t = Options::DEFAULT.optimizer)]
    pub optimizer: OptimizerKind,
    /// Peak learning rate: with scaled-adamw relative to each weight's root mean square; with adamw
    /// the default is 0.001.
    // From step 10,000 on, a peak of 0.03 after 1,000 steps is about 5 % below the paper's rate.
    #[arg(long, display_order = 70, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.learning_rate,
          default_value_if("optimizer", "adamw", "0.001"))]
    pub learning_rate: f64,
    /// Warm-up: steps until the learning rate reaches its peak.
    #[arg(long, display_order = 80, default_value_t = Options::DEFAULT.warmup)]
    pub warmup: u64,
    /// How the learning rate decays after the warm-up.
    #[arg(long, display_order = 90, value_enum, default_value_t = Options::DEFAULT.schedule)]
    pub schedule: Schedule,
    /// Weight decay.
    #[arg(long, display_order = 100, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.weight_decay)]
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    #[arg(long, display_order = 120, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.clip)]
    pub clip: f64,
    /// Probability that a sample's user token is dropped, so that the model works without one.
    #[arg(long, display_order = 130, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.drop_user)]
    pub drop_user: f64,
    /// Probability that an item of a sample's history is dropped, so that a model that is trained
    /// for long does not know samples by heart; the latest item never is.
    #[arg(long, display_order = 135, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.drop_items)]
    pub drop_items: f64,
    /// Weight of a term that makes the items of a user's history unlikely to be next, for data in
    /// which users do not return to items; 0 leaves it out.
    #[arg(long, display_order = 140, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.unlikelihood)]
    pub unlikelihood: f64,
    /// Decay of a moving average of the weights, such as 0.999, which is validated and kept in their
    /// place: what a learning rate that has not decayed yet leaves uneven, it smooths; 0 for none, the
    /// default of a linear schedule.
    #[arg(long, display_order = 145, allow_negative_numbers = true,
          default_value_t = Options::DEFAULT.ema,
          default_value_if("schedule", "linear", "0"))]
    // What earlier versions wrote has none.
    #[serde(default)]
    pub ema: f64,
    /// Validations without a better NDCG@10 before training stops.
    #[arg(long, display_order = 160, default_value_t = Options::DEFAULT.patience,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub patience: u32,
    /// Users of a validation.
    #[arg(long, display_order = 170, default_value_t = Options::DEFAULT.validation_users,
          value_parser = Count::new().range(1..))]
    pub validation_users: usize,
    /// Beams of a validation.
    #[arg(long, display_order = 180, default_value_t = Options::DEFAULT.validation_beams,
          value_parser = Count::new().range(10..=MAX_BEAMS as u64))]
    pub validation_beams: usize,
    /// Seed of everything random.
    #[arg(long, display_order = 200, default_value_t = Options::DEFAULT.seed)]
    pub seed: u64,
}

impl Options {
    /// Most bytes that a step holds for each weight on a CPU, not counting the activations of its samples.
    pub fn bytes_a_weight(&self) -> u64 {
        // The weight, its gradient, two moments, whether it decays, and which weight it belongs to.
        let (held, update) = match self.optimizer {
            OptimizerKind::ScaledAdamw => (24, 8),
            OptimizerKind::Adamw => (20, 4),
        };
        let average = if self.ema > 0.0 { 4 } else { 0 };
        // Each pass has a gradient of its own, in parts and joined, before it is added.
        let parts = self.batch.div_ceil(MICRO_BATCH) as u64;
        let passes = (tch::get_num_threads().max(1) as u64).min(parts);
        held + average + (8 * passes).max(update)
    }

    /// The same, but as long as with `longer`, where a training that began with these goes on with those
    /// as if it had begun with them.
    fn lengthened(self, longer: &Self) -> Self {
        let epochs = match self.schedule {
            Schedule::InverseSqrt => self.epochs.max(longer.epochs),
            // Its rates follow from the number of all steps.
            Schedule::Linear => self.epochs,
        };
        Self { epochs, patience: self.patience.max(longer.patience), ..self }
    }

    /// The defaults.
    pub const DEFAULT: Self = Self {
        batch: 256,
        batching: Batching::Samples,
        epochs: 100,
        optimizer: OptimizerKind::ScaledAdamw,
        learning_rate: 0.03,
        warmup: 1000,
        schedule: Schedule::InverseSqrt,
        weight_decay: 0.05,
        clip: 1.0,
        drop_user: 0.2,
        drop_items: 0.0,
        unlikelihood: 0.0,
        ema: 0.999,
        patience: 10,
        validation_users: 2000,
        validation_beams: 20,
        seed: 0,
    };
}

/// Settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub config: T5Config,
    /// What matrix products compute in.
    pub precision: Precision,
    /// Steps between validations.
    pub validate_every: u64,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
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
        let places = ids.places_in_file();
        let trained_on = Provenance::new(dataset, &ids.layout, ids.in_file(), &places);
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
        if !ids.are_of(&before.trained_on) {
            return Some("on other semantic IDs".to_owned());
        }
        if !ids.sequences_are_of(&before.trained_on, dataset) {
            return Some("on other sequences".to_owned());
        }
        if before.trained_on.items() != self.trained_on.items() {
            // Validations over more items cannot be compared with those of before.
            return Some("with fewer items".to_owned());
        }
        let options = before.settings.options.lengthened(&self.settings.options);
        let before_lengthened = Settings { options, ..before.settings.clone() };
        let mut other = other_settings(&before_lengthened, &self.settings);
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
    use crate::train::trainer::tests::{OPTIONS, data, settings};

    #[test]
    fn a_training_with_other_settings_is_not_taken_up_and_they_are_named() {
        let (dataset, ids) = data();
        let settings = settings(&ids, 0.1, OPTIONS);
        let now = Identity::new(settings.clone(), &dataset, &ids);
        let json = serde_json::to_string(&now).unwrap();
        let same = || serde_json::from_str::<Identity>(&json).unwrap();
        let differs = |before| now.differs(&before, &dataset, &ids);
        assert_eq!(differs(same()), None);
        let optimizer = OptimizerKind::ScaledAdamw;
        let mut config = settings.config.clone();
        config.d_model = 32;
        let with = |options| Settings { options, ..settings.clone() };
        for (other, said) in [
            (with(Options { optimizer, ..OPTIONS }), "--optimizer scaled-adamw, not adamw"),
            (
                Settings { precision: Precision::Bf16, ..settings.clone() },
                "--precision bf16, not f32",
            ),
            (with(Options { seed: 6, ..OPTIONS }), "--seed 6, not 5"),
            (with(Options { unlikelihood: 1.0, ..OPTIONS }), "--unlikelihood 1.0, not 0.0"),
            (with(Options { seed: 6, epochs: 3, ..OPTIONS }), "--epochs 3, not 1, --seed 6, not 5"),
            (Settings { config, ..settings.clone() }, "--width 32, not 64"),
            (with(Options { patience: 2, ..OPTIONS }), "--patience 2, not 1"),
        ] {
            let other = Identity { settings: other, ..same() };
            assert_eq!(differs(other), Some(format!("with other settings ({said})")));
        }
        // One that was to be shorter goes on, unless its learning rate was that of its length.
        let longer = with(Options { epochs: 7, patience: 8, ..OPTIONS });
        let longer = Identity::new(longer, &dataset, &ids);
        assert_eq!(longer.differs(&same(), &dataset, &ids), None);
        let linear = |epochs| {
            let options = Options { schedule: Schedule::Linear, epochs, ..OPTIONS };
            Identity::new(with(options), &dataset, &ids)
        };
        let said = linear(7).differs(&linear(1), &dataset, &ids);
        assert_eq!(said, Some("with other settings (--epochs 1, not 7)".to_owned()));
        let other = Identity { max_items: 2, ..same() };
        let said = "with other settings (`tigret tokenize --max-items 2`, not 4)".to_owned();
        assert_eq!(differs(other), Some(said));
    }
}
