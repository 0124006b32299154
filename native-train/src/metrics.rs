//! Ranking metrics (paper, section 4): Recall@k and NDCG@k with one relevant item, averaged over
//! users. An item of 0-based rank r < k counts 1 for Recall@k and 1 / log2(r + 2) for NDCG@k, where an
//! ideal ranking has 1.

use serde::{Deserialize, Serialize};

/// Recall and NDCG at 5 and 10.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of users whose item is among the first five.
    #[serde(rename = "recall@5")]
    pub recall_5: f64,
    /// NDCG of the first five.
    #[serde(rename = "ndcg@5")]
    pub ndcg_5: f64,
    /// Share of users whose item is among the first ten.
    #[serde(rename = "recall@10")]
    pub recall_10: f64,
    /// NDCG of the first ten.
    #[serde(rename = "ndcg@10")]
    pub ndcg_10: f64,
}

impl Metrics {
    /// From the 0-based rank of each user's item, `None` where it was not returned.
    pub fn from_ranks(ranks: &[Option<usize>]) -> Self {
        let users = ranks.len().max(1) as f64;
        let recall = |k| ranks.iter().flatten().filter(|&&r| r < k).count() as f64 / users;
        let ndcg = |k| {
            let gain = |&r: &usize| 1.0 / (r as f64 + 2.0).log2();
            ranks.iter().flatten().filter(|&&r| r < k).map(gain).fold(0.0, |a, b| a + b) / users
        };
        Self { recall_5: recall(5), ndcg_5: ndcg(5), recall_10: recall(10), ndcg_10: ndcg(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_hits_and_discounts_by_rank() {
        let m = Metrics::from_ranks(&[Some(0), Some(4), Some(9), None]);
        assert_eq!((m.recall_5, m.recall_10), (0.5, 0.75));
        assert!((m.ndcg_5 - (1.0 + 1.0 / 6f64.log2()) / 4.0).abs() < 1e-12);
        assert!((m.ndcg_10 - (1.0 + 1.0 / 6f64.log2() + 1.0 / 11f64.log2()) / 4.0).abs() < 1e-12);
        let sixth = Metrics::from_ranks(&[Some(5)]);
        assert_eq!((sixth.recall_5, sixth.ndcg_5, sixth.recall_10), (0.0, 0.0, 1.0));
        assert_eq!(Metrics::from_ranks(&[Some(10)]), Metrics::default());
        assert_eq!(Metrics::from_ranks(&[]), Metrics::default());
    }
}
