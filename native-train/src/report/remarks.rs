//! What an engineer should look at in semantic IDs, and what would mend it.

use clap::ValueEnum;

use super::Report;
use super::format::{count, percent, score};
use super::neighbours::Shared;
use crate::tokenizer::Method;
use crate::tokenizer::collisions::Collisions;
use crate::tokenizer::stats::{LevelUse, smaller_codebook};

/// Below this share of used codewords a level has collapsed (paper, appendix: at least 80 %).
const LEAST_USED: f64 = 0.8;

/// Below this share of unique items collisions are worth a look; RQ-VAEs of this field report
/// 90 %.
const LEAST_UNIQUE: f64 = 0.9;

/// Below this share of the category, beyond chance, the first code is as good as random.
const LEAST_TOLD: f64 = 0.05;

/// From this share of lost variance on the codes say next to nothing of the vectors.
const MOST_LOST: f64 = 0.9;

/// What an engineer should look at, most urgent first; nothing where all is well.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let training = &report.training;
    let method = training.method.as_deref().and_then(|name| Method::from_str(name, false).ok());
    let made = Made { method, lost: training.reconstruction, alike: training.same_vector };
    let mut remarks =
        remarks_on_codes(&report.levels, &report.collisions, report.collision_size, made);
    if let Some([none, sharing @ ..]) = report.neighbours.as_ref().map(|n| n.by_shared.as_slice())
        && let (Some(apart), Some(together)) = (none.mean_cosine, mean_cosine(sharing))
        && together <= apart
    {
        remarks.push(format!(
            "items that share the first code are no more alike (mean cosine {}) than items that \
             share none ({}): it means nothing to the model's first decoding step",
            score(together),
            score(apart)
        ));
    }
    if let Some(shares) = report.categories.first().and_then(|category| category.prefixes.first())
        && shares.share_beyond_chance < LEAST_TOLD
    {
        remarks.push(format!(
            "the first code tells hardly more of the category ({}) than chance does ({})",
            percent(shares.share),
            percent(shares.share_by_chance)
        ));
    }
    remarks
}

/// The mean cosine of all these pairs; `None` without a pair.
fn mean_cosine(sharing: &[Shared]) -> Option<f64> {
    let pairs: u64 = sharing.iter().map(|shared| shared.pairs).sum();
    let sum = |shared: &Shared| shared.mean_cosine.unwrap_or_default() * shared.pairs as f64;
    (pairs > 0).then(|| sharing.iter().map(sum).sum::<f64>() / pairs as f64)
}

/// How codes were made, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Made {
    /// The method; `None` for codes from elsewhere.
    pub(crate) method: Option<Method>,
    /// Share of the vectors' variance that the codes lose.
    pub(crate) lost: Option<f64>,
    /// Items that share all codes and have the vector of another.
    pub(crate) alike: usize,
}

/// What is worth a look and follows from the codes and how they were made; `collision_size` is how
/// many the collision level holds.
pub(crate) fn remarks_on_codes(
    levels: &[LevelUse],
    collisions: &Collisions,
    collision_size: usize,
    made: Made,
) -> Vec<String> {
    let mut remarks = Vec::new();
    // Of codes from elsewhere it is not known.
    let trained = made.method.is_none_or(Method::has_autoencoder);
    if collisions.distinct == 1 && collisions.items > 1 {
        let reason = if trained { "the codebooks have collapsed, and " } else { "" };
        return vec![format!("all items have the same codes: {reason}{}", remedy(trained))];
    }
    if let Some(lost) = made.lost.filter(|&lost| lost >= MOST_LOST) {
        remarks.push(format!(
            "the codes lose {} of the vectors' variance: {}",
            percent(lost),
            remedy(trained)
        ));
    }
    for (level, used) in (1..).zip(levels) {
        let share = used.used as f64 / used.codewords as f64;
        if share < LEAST_USED && collisions.items >= used.codewords {
            remarks.push(format!(
                "level {level} uses only {} of its codewords: its codebook {}is larger than these \
                 items need",
                percent(share),
                if trained { "has collapsed, or " } else { "" }
            ));
        }
    }
    let c = collisions;
    let of_all = |items: usize| items as f64 / c.items.max(1) as f64;
    let shared = c.items - c.unique_items;
    let is_worth = |items: usize| 1.0 - of_all(items) < LEAST_UNIQUE;
    // A few of many are not what to look at.
    let alike = if 10 * made.alike >= shared { made.alike } else { 0 };
    if alike > 0 && is_worth(shared) {
        remarks.push(format!(
            "{} of the items have the same vector as another, as those of equal or empty texts do: \
             no tokenizer tells them apart, better texts or another encoder would; --collision-size \
             holds them",
            percent(of_all(alike))
        ));
    }
    // The others are the tokenizer's.
    let others = shared.saturating_sub(alike);
    if is_worth(others) || (is_worth(shared) && others > alike) {
        // Larger codebooks do not suit every catalogue.
        let room = levels
            .first()
            .is_some_and(|level| smaller_codebook(c.items, 2 * level.codewords).is_none());
        let usual = if room { "" } else { ", as is usual where so few items share the codewords" };
        remarks.push(format!(
            "{}{} of the items share all their codes with another; only the order in the data set \
             tells them apart{usual}. {} spread them",
            if alike > 0 { "a further " } else { "" },
            percent(of_all(others)),
            match (room, trained) {
                (true, true) => "More levels, larger codebooks or longer training",
                (false, true) => "More levels or longer training",
                (true, false) => "More levels or larger codebooks",
                (false, false) => "More levels",
            }
        ));
    }
    if c.largest_group * 4 > collision_size * 3 {
        remarks.push(format!(
            "the largest group of equal codes has {}, and the collision level holds {}: new items \
             may find no free code",
            count(c.largest_group, "item"),
            collision_size
        ));
    }
    remarks
}

/// What codes are that say nothing of the vectors, and what to do.
fn remedy(trained: bool) -> &'static str {
    match trained {
        true => {
            "they say next to nothing of the vectors; lower --learning-rate, try another \
             --normalize, compare with --method rq-kmeans, or take smaller codebooks"
        }
        false => "they say next to nothing of the vectors; choose another --method",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_fit_the_way_in_which_the_codes_were_made() {
        let level = LevelUse { used: 4, codewords: 8, perplexity: 4.0 };
        let collisions = Collisions { items: 90, unique_items: 9, distinct: 40, largest_group: 3 };
        let of = |method, lost| {
            remarks_on_codes(
                &[level],
                &collisions,
                90,
                Made { method: Some(method), lost, alike: 0 },
            )
            .join("\n")
        };
        let trained = of(Method::RqVae, Some(0.3));
        assert!(trained.contains("has collapsed") && trained.contains("longer training"));
        assert!(!trained.contains("variance"), "{trained}");
        for method in [Method::Lsh, Method::RqKmeans, Method::Opq, Method::Random] {
            let said = of(method, None);
            assert!(said.contains("is larger than these items need"), "{said}");
            assert!(!said.contains("collapsed") && !said.contains("training"), "{said}");
        }
        let lost = of(Method::RqVae, Some(0.99));
        assert!(
            lost.contains("lose 99.0 % of the vectors' variance")
                && lost.contains("--learning-rate")
        );

        let one = LevelUse { used: 1, codewords: 8, perplexity: 1.0 };
        let all = Collisions { items: 90, unique_items: 0, distinct: 1, largest_group: 90 };
        let made = Made { method: Some(Method::RqVae), lost: Some(1.0), alike: 0 };
        let said = remarks_on_codes(&[one, one], &all, 90, made);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("all items have the same codes: the codebooks have collapsed"));
        assert!(said[0].contains("--method rq-kmeans"), "{said:?}");
    }

    #[test]
    fn equal_vectors_are_told_from_codes_that_levels_would_spread() {
        let of = |unique_items, alike| {
            let collisions =
                Collisions { items: 100, unique_items, distinct: 90, largest_group: 9 };
            let made = Made { method: Some(Method::RqKmeans), lost: None, alike };
            remarks_on_codes(&[], &collisions, 90, made)
        };
        assert!(of(95, 5).is_empty());
        let said = of(60, 35);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("35.0 % of the items have the same vector"), "{said:?}");
        assert!(!said[0].contains("levels"), "{said:?}");
        let both = of(30, 35);
        assert!(
            both[1].starts_with("a further 35.0 % of the items share all their codes"),
            "{both:?}"
        );
        assert!(both[1].contains("More levels"), "{both:?}");
        assert_eq!(of(60, 0).len(), 1);
        // A few of many are not the reason, and do not take others below the limit.
        assert_eq!(of(60, 2), of(60, 0));
        assert!(of(89, 1)[0].starts_with("11.0 % of the items share all their codes"));
        let told = of(89, 3);
        assert!(
            told[1].starts_with("a further 8.0 % of the items share all their codes"),
            "{told:?}"
        );
    }
}
