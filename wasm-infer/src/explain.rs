//! How a recommendation comes about: the levels of its semantic ID, what each item of the history
//! did for it, and which prefixes the search kept on the way.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::InferError;
use crate::recommender::{Recommender, Request, check_scores};

/// Why an item has the score that it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The item.
    pub id: String,
    /// Its semantic ID.
    pub codes: Vec<u16>,
    /// The model's log-probability of each of its codes, given those before it.
    pub log_probs: Vec<f32>,
    /// Their sum.
    pub score: f32,
    /// The items of the history that the model read, oldest first.
    pub history: Vec<Influence>,
}

/// What one item of a history did for the score of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// The item of the history.
    pub id: String,
    /// Its semantic ID.
    pub codes: Vec<u16>,
    /// Leading codes that both semantic IDs share.
    pub shared: usize,
    /// The score less the score without this item: above 0 where it speaks for the other.
    pub influence: f32,
}

/// A prefix of semantic IDs that a search kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prefix {
    /// Its codes.
    pub codes: Vec<u16>,
    /// Sum of the model's log-probabilities of them.
    pub score: f32,
    /// Items of the catalogue under it.
    pub items: u32,
}

impl Recommender {
    /// Why an item has the score that it has for a request's history and user; the rest of the
    /// request makes no difference. Any item of the catalogue can be asked about. It is always the
    /// CPU that computes, one pass of the model for each item of the history and one more.
    ///
    /// # Errors
    /// [`InferError::Request`] for an id that the catalogue does not have, or an option out of
    /// range; [`BundleError::Overflow`](crate::error::BundleError::Overflow) where a score is not a
    /// number.
    pub fn explain(&mut self, request: &Request, id: &str) -> Result<Explanation, InferError> {
        let catalog = Arc::clone(self.catalog());
        let rank = catalog.rank_of(id).ok_or_else(|| {
            InferError::Request(format!("the catalogue has no item \"{id}\" to explain"))
        })?;
        let codes = catalog.codes_of(rank);
        // A filter would make no difference.
        let (user_token, _) = Self::check(&self.bundle().tokens, request)?;
        let known: Vec<u32> = request.history.iter().filter_map(|id| catalog.rank_of(id)).collect();
        let read = known.len().saturating_sub(self.bundle().tokens.max_items);
        let history = &known[read..];
        let cpu = self.cpu();
        let score_without = |left_out: Option<usize>| {
            let mut kept: Vec<&[u16]> =
                history.iter().map(|&rank| catalog.codes_of(rank)).collect();
            if let Some(place) = left_out {
                kept.remove(place);
            }
            let input = cpu.model().layout().encoder_input(user_token, kept.into_iter());
            let log_probs = cpu.log_probs_of(&input, codes);
            let score: f32 = log_probs.iter().sum();
            check_scores([score])?;
            Ok::<_, InferError>((log_probs, score))
        };
        let (log_probs, score) = score_without(None)?;
        let mut influences = Vec::with_capacity(history.len());
        for (place, &rank) in history.iter().enumerate() {
            let (_, without) = score_without(Some(place))?;
            let own = catalog.codes_of(rank);
            influences.push(Influence {
                id: catalog.id_of(rank).to_owned(),
                codes: own.to_vec(),
                shared: own.iter().zip(codes).take_while(|(a, b)| a == b).count(),
                influence: score - without,
            });
        }
        let (id, codes) = (id.to_owned(), codes.to_vec());
        Ok(Explanation { id, codes, log_probs, score, history: influences })
    }

    /// The prefixes that the search of a request keeps at each level, in ascending order of
    /// semantic ID; those of the last level are the items. It is always the CPU that computes.
    ///
    /// # Errors
    /// [`InferError::Request`] for an option out of range;
    /// [`BundleError::Overflow`](crate::error::BundleError::Overflow) where a score is not a number.
    pub fn trace(&mut self, request: &Request) -> Result<Vec<Vec<Prefix>>, InferError> {
        let catalog = Arc::clone(self.catalog());
        let (query, _) = Self::prepare(&self.bundle().tokens, &catalog, request)?;
        let mut levels: Vec<Vec<Prefix>> = Vec::new();
        self.cpu().search_seen(&query, &mut |level, beams| {
            let prefix = |beam: &crate::search::Beam| Prefix {
                codes: catalog.codes_of(beam.node.start)[..=level].to_vec(),
                score: beam.score,
                items: beam.node.len() as u32,
            };
            levels.push(beams.iter().map(prefix).collect());
        });
        // A search with nothing to find ends before its first level.
        levels.resize(catalog.levels(), Vec::new());
        check_scores(levels.iter().flatten().map(|prefix| prefix.score))?;
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::recommender::Backend;
    use crate::testing::{Shape, random_bundle};
    use crate::weights::WeightFormat;

    fn recommender() -> Recommender {
        let shape = Shape { items: 80, ..Shape::default() };
        let bundle = Arc::new(random_bundle(&shape, WeightFormat::F32, 3));
        block_on(Recommender::new(bundle, Backend::Cpu)).unwrap()
    }

    fn ids(recommender: &Recommender, ranks: &[u32]) -> Vec<String> {
        ranks.iter().map(|&rank| recommender.catalog().id_of(rank).to_owned()).collect()
    }

    #[test]
    fn an_explanation_adds_up_to_the_score_and_to_the_scores_without_each_item() {
        let mut recommender = recommender();
        let history = [&["unknown".to_owned()][..], &ids(&recommender, &[5, 40, 5, 61])].concat();
        let user = Some("ann".to_owned());
        let request = Request { history, user, top: 5, beams: 30, ..Request::default() };
        for pick in block_on(recommender.recommend(&request)).unwrap().items {
            let found = recommender.explain(&request, &pick.id).unwrap();
            assert_eq!((&found.id, &found.codes), (&pick.id, &pick.codes));
            assert!((found.score - pick.score).abs() < 1e-4, "{} {}", found.score, pick.score);
            assert!((found.log_probs.iter().sum::<f32>() - found.score).abs() < 1e-5);
            assert_eq!(found.history.len(), 4, "unknown items are not read");
            for (place, item) in found.history.iter().enumerate() {
                let mut history = request.history[1..].to_vec();
                assert_eq!(item.id, history.remove(place));
                let without =
                    recommender.explain(&Request { history, ..request.clone() }, &pick.id);
                let expected = found.score - without.unwrap().score;
                assert!((item.influence - expected).abs() < 1e-5);
                let shared = item.codes.iter().zip(&pick.codes).take_while(|(a, b)| a == b);
                assert_eq!(item.shared, shared.count());
            }
        }
    }

    #[test]
    fn only_what_the_model_reads_is_explained() {
        let mut recommender = recommender();
        let most = recommender.bundle().tokens.max_items;
        let ranks: Vec<u32> = (0..most as u32 + 3).collect();
        let history = ids(&recommender, &ranks);
        let request = Request { history: history.clone(), ..Request::default() };
        let found = recommender.explain(&request, &history[0]).unwrap();
        let read: Vec<&String> = found.history.iter().map(|item| &item.id).collect();
        assert_eq!(read, history[3..].iter().collect::<Vec<_>>());
        assert!(recommender.explain(&Request::default(), &history[0]).unwrap().history.is_empty());
        let message = recommender.explain(&request, "nothing").unwrap_err().to_string();
        assert!(message.contains("no item \"nothing\""), "{message}");
    }

    #[test]
    fn a_trace_ends_at_the_items_and_each_prefix_goes_on_one_of_the_level_before() {
        let mut recommender = recommender();
        let history = ids(&recommender, &[7, 8]);
        let request =
            Request { history, beams: 12, top: 12, exclude_history: true, ..Request::default() };
        let levels = recommender.trace(&request).unwrap();
        assert_eq!(levels.len(), recommender.bundle().tokens.levels.len());
        let catalog = Arc::clone(recommender.catalog());
        for (level, prefixes) in levels.iter().enumerate() {
            assert!(prefixes.len() <= 12 && prefixes.iter().all(|p| p.codes.len() == level + 1));
            for prefix in prefixes.iter().filter(|_| level > 0) {
                let parents = levels[level - 1].iter();
                let parent = parents.clone().find(|p| p.codes[..] == prefix.codes[..level]);
                assert!(parent.is_some_and(|p| p.score >= prefix.score));
            }
            for prefix in prefixes {
                let rows = catalog.codes().chunks_exact(levels.len());
                let under = rows.filter(|codes| codes.starts_with(&prefix.codes)).count();
                assert_eq!(prefix.items as usize, under, "{:?}", prefix.codes);
            }
        }
        let mut last: Vec<_> =
            levels[levels.len() - 1].iter().map(|p| (&p.codes, p.score)).collect();
        last.sort_by(|a, b| b.1.total_cmp(&a.1));
        let items = block_on(recommender.recommend(&request)).unwrap().items;
        assert_eq!(last, items.iter().map(|p| (&p.codes, p.score)).collect::<Vec<_>>());
    }

    #[test]
    fn a_trace_of_a_search_with_nothing_to_find_has_all_levels_too() {
        let mut recommender = recommender();
        let request = Request { allow: Some(Vec::new()), ..Request::default() };
        let levels = recommender.trace(&request).unwrap();
        assert_eq!(levels.len(), recommender.bundle().tokens.levels.len());
        assert!(levels.iter().all(Vec::is_empty));
    }
}
