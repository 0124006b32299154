//! Shared helpers of the cross-crate tests.

pub mod mutation;
pub mod readers;

use std::path::{Path, PathBuf};

use tigret_infer::search::Hit;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Holds two answers against each other by the contract's rule: the same items in the same order
/// wherever neighbouring scores differ by more than `tolerance`, and scores within `tolerance`.
///
/// # Errors
/// What differs.
pub fn same_answer(expected: &[Hit], found: &[Hit], tolerance: f32) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("{} hits instead of {}", found.len(), expected.len()));
    }
    for (place, (e, f)) in expected.iter().zip(found).enumerate() {
        if (e.score - f.score).abs() > tolerance {
            return Err(format!("place {place}: score {} instead of {}", f.score, e.score));
        }
        if e.rank == f.rank {
            continue;
        }
        // Another item may stand here only if its own score is as good within the tolerance. The
        // last place may go to an item just outside the expected list.
        let own = expected.iter().find(|other| other.rank == f.rank);
        let last = expected.last().map_or(0.0, |hit| hit.score);
        let close = match own {
            Some(own) => (own.score - e.score).abs() <= 2.0 * tolerance,
            None => (e.score - last).abs() <= 2.0 * tolerance,
        };
        if !close {
            return Err(format!("place {place}: rank {} instead of {}", f.rank, e.rank));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(list: &[(u32, f32)]) -> Vec<Hit> {
        list.iter().map(|&(rank, score)| Hit::scored(rank, score)).collect()
    }

    #[test]
    fn order_may_differ_only_between_equal_scores() {
        let expected = hits(&[(1, -1.0), (2, -2.0), (3, -2.0001)]);
        assert!(same_answer(&expected, &hits(&[(1, -1.0), (3, -2.0), (2, -2.0)]), 1e-3).is_ok());
        assert!(same_answer(&expected, &hits(&[(2, -1.0), (1, -2.0), (3, -2.0)]), 1e-3).is_err());
        assert!(same_answer(&expected, &hits(&[(1, -1.1), (2, -2.0), (3, -2.0)]), 1e-3).is_err());
        assert!(same_answer(&expected, &hits(&[(1, -1.0)]), 1e-3).is_err());
    }
}
