//! The learning rate: a linear warm-up, then a fall.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// With the inverse square root of the step (paper, section 4); knows no end.
    InverseSqrt,
    /// In a line, to nothing after the last step of all epochs.
    Linear,
}

impl Schedule {
    /// Learning rate at a step (counted from 0) of `steps`, with the peak after `warmup`.
    pub fn rate(self, peak: f64, warmup: u64, steps: u64, step: u64) -> f64 {
        let at = (step + 1) as f64;
        let warmup = warmup.max(1) as f64;
        let fall = match self {
            Self::InverseSqrt => (warmup / at).sqrt(),
            // The last step still learns something.
            Self::Linear => (steps as f64 + 1.0 - at) / (steps as f64 + 1.0 - warmup).max(1.0),
        };
        peak * (at / warmup).min(fall)
    }
}

/// A warm-up that leaves most of `steps` to the rates after the peak, where `warmup` takes more than
/// a quarter of them.
pub fn shorter_warmup(warmup: u64, steps: u64) -> Option<u64> {
    let better = (steps / 10).max(1);
    (warmup > steps / 4 && better < warmup).then_some(better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_then_falls_with_the_square_root() {
        for (step, expected) in [(0, 0.0001), (99, 0.01), (399, 0.005)] {
            let rate = Schedule::InverseSqrt.rate(0.01, 100, 400, step);
            assert!((rate - expected).abs() < 1e-12, "{step}: {rate}");
        }
    }

    #[test]
    fn rises_to_the_peak_then_falls_in_a_line_to_the_last_step() {
        let rate = |step| Schedule::Linear.rate(0.01, 100, 500, step);
        for (step, expected) in
            [(0, 0.0001), (99, 0.01), (299, 0.01 * 201.0 / 401.0), (499, 0.01 / 401.0)]
        {
            assert!((rate(step) - expected).abs() < 1e-12, "{step}: {}", rate(step));
        }
    }

    #[test]
    fn every_step_learns_however_long_the_warm_up_is() {
        for schedule in [Schedule::InverseSqrt, Schedule::Linear] {
            for (warmup, steps) in [(0, 1), (1, 1), (5, 5), (50, 5), (3, 9)] {
                for step in 0..steps {
                    let rate = schedule.rate(0.01, warmup, steps, step);
                    assert!(rate > 0.0 && rate <= 0.01, "{schedule:?} {warmup} {step}: {rate}");
                }
            }
        }
    }

    #[test]
    fn a_warm_up_of_more_than_a_quarter_of_all_steps_is_long() {
        for (warmup, steps, better) in [
            (1000, 104, Some(10)),
            (1000, 1300, Some(130)),
            (1000, 4000, None),
            (1000, 4003, None),
            (26, 104, None),
            (27, 104, Some(10)),
            (2, 3, Some(1)),
            (1, 3, None),
            (0, 3, None),
        ] {
            assert_eq!(shorter_warmup(warmup, steps), better, "{warmup} of {steps}");
        }
    }
}
