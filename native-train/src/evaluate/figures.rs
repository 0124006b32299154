//! The figures of an evaluation: what `tigret evaluate` writes, and whoever shows them reads.

use std::collections::BTreeMap;
use std::iter;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Protocol, Settings};
use crate::baselines::Method;
use crate::metrics::Metrics;

/// Figures of a model and of baselines, by one protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was asked.
    pub settings: Asked,
    /// Users that were ranked for.
    pub users: usize,
    /// The model's figures may be too high: what it is to find may be what it was trained on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trained_on_other_sequences: bool,
    /// `None` where baselines were evaluated alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Metrics>,
    /// Of the most popular items.
    pub popularity: Metrics,
    /// Of the other baselines that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<Method, OfBaseline>,
    /// The best that any recommender could have, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimum: Option<Metrics>,
}

/// What was asked: with the search, where a model searched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Asked {
    /// Of a model and baselines.
    Model(Settings),
    /// Of baselines alone.
    BaselinesAlone(Protocol),
}

/// The figures of a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfBaseline {
    /// Its figures.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// What they follow from, beside the data.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
    /// Seconds until it could rank: of a training, those of all its sessions.
    pub seconds: f64,
}

impl Asked {
    /// What was asked of each ranking.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Model(settings) => settings.protocol,
            Self::BaselinesAlone(protocol) => *protocol,
        }
    }

    /// Whether a model was not given the user tokens.
    pub fn without_users(&self) -> bool {
        matches!(self, Self::Model(settings) if !settings.user_token)
    }
}

impl Evaluation {
    /// Every baseline with its figures, popularity first.
    pub fn all_baselines(&self) -> impl Iterator<Item = (Method, &Metrics)> {
        let others = self.baselines.iter().map(|(method, of)| (*method, &of.metrics));
        iter::once((Method::Popularity, &self.popularity)).chain(others)
    }

    /// The figures of a baseline, if it was evaluated.
    pub fn of(&self, baseline: Method) -> Option<Metrics> {
        self.all_baselines().find(|(method, _)| *method == baseline).map(|(_, metrics)| *metrics)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::evaluate::Split;

    /// Of ten users: Recall@10 of a model and of popularity.
    pub(crate) fn evaluation(split: Split, model: f64, popularity: f64) -> Evaluation {
        let of = |recall_10| Metrics { recall_10, ..Metrics::default() };
        Evaluation {
            settings: Asked::Model(Settings::of(split, 10)),
            users: 10,
            trained_on_other_sequences: false,
            model: Some(of(model)),
            popularity: of(popularity),
            baselines: BTreeMap::new(),
            optimum: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Split;

    #[test]
    fn what_is_written_is_read_again_with_and_without_a_model() {
        let of_model = testing::evaluation(Split::Validation, 0.5, 0.25);
        let item_knn = OfBaseline {
            metrics: Metrics { ndcg_5: 0.125, ..Metrics::default() },
            settings: serde_json::json!({"neighbours": 7}),
            seconds: 1.5,
        };
        let alone = Evaluation {
            settings: Asked::BaselinesAlone(Protocol::of(Split::Test)),
            model: None,
            baselines: BTreeMap::from([(Method::ItemKnn, item_knn.clone())]),
            ..of_model.clone()
        };
        for evaluation in [of_model, alone.clone()] {
            let json = serde_json::to_string(&evaluation).unwrap();
            assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation, "{json}");
        }
        assert_eq!(alone.of(Method::ItemKnn), Some(item_knn.metrics));
        assert_eq!(alone.of(Method::Popularity), Some(alone.popularity));
        assert_eq!(alone.of(Method::SasRec), None);
    }
}
