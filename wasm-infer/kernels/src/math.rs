//! Element-wise mathematics in a form that vectorises, with the same result on every machine but for
//! the logarithm, which is the platform's.

use crate::lanes::wide;
use crate::matmul::dot_here;

/// Lanes of the sums and maxima here.
const LANES: usize = 8;

/// `e^x` for `x <= 0`, with a relative error of at most 2e-7; 1e-38 and less become about that, and
/// NaN stays NaN: what weights that are too large make of an input is to be seen in the scores.
///
/// The constants split `ln 2` in two, so that the reduced argument is exact, and are the minimax
/// polynomial of Cephes (S. Moshier), as mathematics libraries have it.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which the low bits then hold.
    const STEP_OF_ONE: f32 = 12_582_912.0;
    // So written it is one instruction (`maxps`, `f32x4.pmax`) that keeps NaN.
    let x = if x < -86.0 { -86.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + STEP_OF_ONE;
    let n = shifted - STEP_OF_ONE;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The largest value.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = values.chunks_exact(LANES);
    let rest = whole.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in whole {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

/// Softmax, to be multiplied by the factor that is returned.
#[inline(always)]
fn softmax_here(row: &mut [f32]) -> f32 {
    let largest = largest(row);
    let mut lanes = [0.0; LANES];
    let mut whole = row.chunks_exact_mut(LANES);
    for chunk in &mut whole {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *v = exp(*v - largest);
            *lane += *v;
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for v in whole.into_remainder() {
        *v = exp(*v - largest);
        sum += *v;
    }
    1.0 / sum
}

/// Softmax of the first `length` numbers of each row of `stride`, to be multiplied by the row's factor.
pub(crate) fn softmax(rows: &mut [f32], stride: usize, length: usize, factors: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for (row, factor) in rows.chunks_exact_mut(stride).zip(factors) {
                *factor = softmax_here(&mut row[..length]);
            }
        },
    );
}

/// `ln(sum(exp(x)))`, stable; the sum has the same bits on every machine.
pub fn log_sum_exp(values: &[f32]) -> f32 {
    wide(
        #[inline(always)]
        || {
            let largest = largest(values);
            let mut lanes = [0.0; LANES];
            let whole = values.chunks_exact(LANES);
            let rest: f32 = whole.remainder().iter().map(|v| exp(v - largest)).sum();
            for chunk in whole {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(v - largest);
                }
            }
            largest + (lanes.iter().sum::<f32>() + rest).ln()
        },
    )
}

/// RMS norm of each row of `x` times `weight`, to `out` (Zhang & Sennrich 2019; T5 has no mean).
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            let width = weight.len();
            for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let mean = dot_here(row, row) / width as f32;
                // Of a row whose squares overflow, no number: infinity by zero is none.
                let factor = 1.0 / (mean + epsilon).sqrt() + mean * 0.0;
                for ((out, v), w) in out.iter_mut().zip(row).zip(weight) {
                    *out = v * factor * w;
                }
            }
        },
    );
}

/// One head of one query against a few keys: `out = softmax(q . k + bias) v`, all of one width.
#[inline(always)]
pub(crate) fn attend_here<'a>(
    q: &[f32],
    scores: &mut [f32],
    k: impl Fn(usize) -> &'a [f32],
    v: impl Fn(usize) -> &'a [f32],
    bias: impl Fn(usize) -> f32,
    out: &mut [f32],
) {
    for (key, score) in scores.iter_mut().enumerate() {
        *score = dot_here(q, k(key)) + bias(key);
    }
    let factor = softmax_here(scores);
    out.fill(0.0);
    for (key, score) in scores.iter().enumerate() {
        let weight = score * factor;
        out.iter_mut().zip(v(key)).for_each(|(o, v)| *o += weight * v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_the_standard_library() {
        for i in 0..86_000 {
            let x = -(i as f32) / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 2e-7, "exp({x}) is {} and not {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        for x in [-90.0, -1e30, f32::NEG_INFINITY] {
            assert!((0.0..1e-37).contains(&exp(x)), "exp({x})");
        }
    }

    #[test]
    fn what_is_no_number_stays_none_in_a_softmax_and_its_normaliser() {
        for length in [1, 5, 8, 19] {
            // The difference of two infinities is no number either.
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
                for at in 0..length {
                    let mut row = vec![-1.0; length];
                    row[at] = bad;
                    assert!(log_sum_exp(&row).is_nan(), "{bad} at {at} of {length}");
                    assert!(softmax_here(&mut row).is_nan(), "{bad} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn rms_norm_is_the_plain_loop_and_takes_rows_of_zeros() {
        for width in [1, 7, 16, 37] {
            let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 8.0).collect();
            let row: Vec<f32> = (0..width).map(|i| (i * 7 % 11) as f32 / 4.0 - 1.0).collect();
            let mut out = vec![f32::NAN; 2 * width];
            rms_norm(&[&row[..], &vec![0.0; width]].concat(), &weight, 0.25, &mut out);
            let mean = row.iter().map(|v| v * v).sum::<f32>() / width as f32;
            for ((found, v), w) in out.iter().zip(&row).zip(&weight) {
                assert!((found - v / (mean + 0.25).sqrt() * w).abs() < 1e-5, "{width}: {found}");
            }
            assert_eq!(out[width..], vec![0.0; width]);
            // The squares overflow.
            rms_norm(&vec![1e30; width], &weight, 0.25, &mut out[..width]);
            assert!(out[..width].iter().all(|v| v.is_nan()));
        }
    }

    #[test]
    fn softmax_and_its_normaliser_take_any_length() {
        for length in 1..40 {
            let values: Vec<f32> = (0..length).map(|i| (i * 7 % 11) as f32 * 1.5 - 3.0).collect();
            let sum: f64 = values.iter().map(|&v| f64::from(v).exp()).sum();
            assert!((f64::from(log_sum_exp(&values)) - sum.ln()).abs() < 1e-5);
            let mut rows = [values.clone(), vec![7.0; 3]].concat().repeat(2);
            let mut factors = [f32::NAN; 2];
            softmax(&mut rows, length + 3, length, &mut factors);
            for (row, factor) in rows.chunks(length + 3).zip(factors) {
                for (found, &v) in row.iter().zip(&values) {
                    assert!((f64::from(found * factor) - f64::from(v).exp() / sum).abs() < 1e-6);
                }
                assert_eq!(row[length..], [7.0; 3]);
            }
        }
    }
}
