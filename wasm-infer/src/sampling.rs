//! Sampling without replacement: stochastic beam search (Kool, van Hoof & Welling, "Stochastic
//! Beams and Where to Find Them", ICML 2019, algorithm 1).
//!
//! At each level the probability of a live child given its prefix is the softmax of the model's
//! log-probabilities over the level's temperature, over the live children only. Every prefix
//! carries a perturbed log-probability: its own plus Gumbel noise, under the condition that the
//! largest among a prefix's children is the prefix's. The best `beams` whole semantic IDs by it are
//! a sample without replacement, in the order in which they would have been drawn.
//!
//! The noise is a function of seed and semantic ID, the same on every engine but for the rounding of
//! logarithms, so that what is added to or excluded from the catalogue does not change the noise of
//! other items.

use crate::error::InferError;
use crate::search::Beam;

/// The largest seed: what a number in JavaScript holds exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;

/// How a search samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    inverse_temperatures: Vec<f32>,
    seed: u64,
}

/// Temperatures below 1e-4 act as 1e-4, which all but ends the choice already: a hundredth of a nat
/// weighs as much as a hundred. Keys would become so large that 32 bits lose the noise of the levels
/// behind, whose temperatures may be others, and siblings would come in the order of their codes.
const MAX_INVERSE_TEMPERATURE: f32 = 1e4;

impl Sampling {
    /// `temperatures` has one entry for all `levels`, or one a level.
    ///
    /// # Errors
    /// [`InferError::Request`] naming the option that is out of range.
    pub fn new(temperatures: &[f32], levels: usize, seed: u64) -> Result<Self, InferError> {
        let bad = |what: String| Err(InferError::Request(what));
        if temperatures.len() != 1 && temperatures.len() != levels {
            return bad(format!(
                "temperature has {} values, the model has {levels} levels: give one value, or one a level",
                temperatures.len()
            ));
        }
        if let Some(value) = temperatures.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return bad(format!("temperature is {value}, not a finite number above 0"));
        }
        if seed > MAX_SEED {
            return bad(format!("seed is {seed}, above {MAX_SEED}"));
        }
        let inverse = |level: usize| {
            (1.0 / temperatures[level % temperatures.len()]).min(MAX_INVERSE_TEMPERATURE)
        };
        Ok(Self { inverse_temperatures: (0..levels).map(inverse).collect(), seed })
    }

    /// Reciprocal of a level's temperature.
    pub(crate) fn inverse_temperature(&self, level: usize) -> f32 {
        self.inverse_temperatures[level]
    }

    /// The generator's key for a level: the seed, and the level in the bits that no seed has.
    pub(crate) fn key(&self, level: usize) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32 | (level as u32) << 29]
    }

    /// Gives the live children of one beam their keys (perturbed log-probabilities) and
    /// log-probabilities under the sampled distribution.
    ///
    /// `prefix` are the beam's codes; `log_prob` is the model's for a code.
    pub(crate) fn perturb(
        &self,
        parent: &Beam,
        prefix: &[u16],
        children: &mut [Beam],
        log_prob: impl Fn(u16) -> f32,
    ) {
        let level = prefix.len();
        let largest = children.iter().map(|c| log_prob(c.code)).fold(f32::NEG_INFINITY, f32::max);
        // Finite at any temperature, but of what is no number: that stays none.
        let scaled = |code: u16| {
            let scaled = (log_prob(code) - largest) * self.inverse_temperature(level);
            if scaled < -1e30 { -1e30 } else { scaled }
        };
        let normaliser = children.iter().map(|c| scaled(c.code).exp()).sum::<f32>().ln();
        let (counter, key) = (pack(prefix), self.key(level));
        for child in &mut *children {
            child.sampled = parent.sampled + (scaled(child.code) - normaliser);
            let mut counter = counter;
            counter[level / 2] |= u32::from(child.code) << (16 * (level % 2));
            child.key = child.sampled + gumbel(philox(counter, key)[0]);
        }
        let largest = children.iter().map(|c| c.key).fold(f32::NEG_INFINITY, f32::max);
        for child in children {
            child.key = conditioned(child.key, largest, parent.key);
        }
    }
}

/// Codes as a counter, two a word.
fn pack(codes: &[u16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (level, &code) in codes.iter().enumerate() {
        words[level / 2] |= u32::from(code) << (16 * (level % 2));
    }
    words
}

/// The counter-based generator Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
/// 1, 2, 3", SC 2011): four random words for a counter under a key.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let (high, low) = product(0xd251_1f53, a);
        let (other_high, other_low) = product(0xcd9e_8d57, c);
        [a, b, c, d] = [other_high ^ b ^ k, other_low, high ^ d ^ l, low];
        k = k.wrapping_add(0x9e37_79b9);
        l = l.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// Standard Gumbel noise: `-ln(-ln(1 - u))`, `u` in steps of 2^-23 from 2^-24. The step is coarse
/// enough for `1 - u` to be exact and fine enough that `u` is never 0 or 1.
fn gumbel(bits: u32) -> f32 {
    let u = ((bits >> 9) as f32 + 0.5) / (1 << 23) as f32;
    -(-(-u).ln_1p()).ln()
}

/// Gumbel noise of which the largest is `largest`, given that the largest is `maximum` (Kool et
/// al., appendix B.3).
fn conditioned(value: f32, largest: f32, maximum: f32) -> f32 {
    let gap = value - largest;
    if gap >= 0.0 {
        return maximum;
    }
    let part = if gap > -0.7 { (-gap.exp_m1()).ln() } else { (-gap.exp()).ln_1p() };
    let v = maximum - value + part;
    maximum - v.max(0.0) - (-v.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_words_of_its_authors() {
        // Known answers of the Random123 distribution.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_counter_is_the_codes_and_a_key_the_seed_and_the_level() {
        assert_eq!(pack(&[1, 2, 3, 0xffff, 5]), [0x0002_0001, 0xffff_0003, 5, 0]);
        let sampling = Sampling::new(&[1.0], 8, MAX_SEED).unwrap();
        assert_eq!(sampling.key(0), [u32::MAX, 0x001f_ffff]);
        assert_eq!(sampling.key(7), [u32::MAX, 0xe01f_ffff]);
    }

    #[test]
    fn noise_is_finite_and_gumbel() {
        for bits in [0, 1 << 9, u32::MAX / 2, u32::MAX] {
            assert!(gumbel(bits).is_finite(), "{bits}");
        }
        // Mean: Euler's constant; variance: pi^2 / 6.
        let draws: Vec<f64> =
            (0..100_000).map(|i| f64::from(gumbel(philox([i, 0, 0, 0], [1, 0])[0]))).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5772).abs() < 0.02, "{mean}");
        assert!((variance - 1.6449).abs() < 0.05, "{variance}");
    }

    #[test]
    fn the_largest_noise_becomes_the_parents_and_none_exceeds_it() {
        assert_eq!(conditioned(2.5, 2.5, -7.0), -7.0);
        for maximum in [-40.0f32, -3.0, 0.0, 20.0] {
            let mut before = maximum;
            for gap in [1e-6f32, 1e-3, 0.1, 0.69, 0.71, 3.0, 50.0, 1e6, 1e30] {
                let value = conditioned(2.5 - gap, 2.5, maximum);
                assert!(value.is_finite() && value <= before, "{maximum} {gap}: {value}");
                // In f64 and as the paper's equation stands, where that does not overflow.
                if gap <= 50.0 {
                    let gap = f64::from(2.5 - (2.5 - gap));
                    let exact =
                        -((-f64::from(maximum)).exp() - (-2.5f64).exp() + (gap - 2.5).exp()).ln();
                    assert!((f64::from(value) - exact).abs() < 1e-4, "{maximum} {gap}");
                }
                before = value;
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let refused = |temperatures: &[f32], seed| {
            Sampling::new(temperatures, 4, seed).map(|_| ()).map_err(|e| e.to_string())
        };
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let message = refused(&[1.0, 1.0, temperature, 1.0], 0).unwrap_err();
            assert!(message.contains("temperature is"), "{message}");
        }
        let uneven = refused(&[1.0, 1.0], 0).unwrap_err();
        assert!(uneven.contains("temperature has 2 values, the model has 4 levels"), "{uneven}");
        assert!(refused(&[], 0).unwrap_err().contains("temperature has 0 values"));
        assert!(refused(&[1.0], MAX_SEED + 1).unwrap_err().contains("seed is"));
        assert!(refused(&[f32::MIN_POSITIVE / 4.0], MAX_SEED).is_ok());
    }
}
