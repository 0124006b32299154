//! 4-bit codes and scales chosen for the products of a matrix instead of for its values.
//!
//! A matrix W that is stored as Q and multiplies the rows x of X has a squared error of
//! tr((W - Q) X^T X (W - Q)^T) in its products. Like GPTQ (Frantar et al. 2023) and QuantEase
//! (Behdin et al. 2023), Q is sought by that error; codes and scales are changed one at a time, each
//! to its best value with all others as they are, until nothing moves.

use half::f16;
use rayon::prelude::*;
use tigret_infer::{Q4, Q4_GROUP};

/// Rounds over all codes and scales of a row, at most; the last ones move next to nothing.
const ROUNDS: usize = 12;

/// The share of the mean of X^T X's diagonal that every value's error counts besides: what the
/// inputs at hand did not show is not free.
const UNSEEN: f64 = 0.01;

/// A matrix, `[rows, columns]`, as codes and scales that suit `gram` (X^T X, `[columns, columns]`).
pub(super) fn fit(values: &[f32], gram: &[f32]) -> Q4 {
    let columns = gram.len().isqrt().max(1);
    let mut fitted = Q4::nearest(columns, values);
    // A model whose numbers overflow says nothing about errors.
    if !gram.iter().all(|g| g.is_finite()) {
        return fitted;
    }
    let mut gram: Vec<f64> = gram.iter().map(|&g| f64::from(g)).collect();
    let diagonal: f64 = gram.iter().step_by(columns + 1).sum();
    for g in gram.iter_mut().step_by(columns + 1) {
        *g += UNSEEN * diagonal / columns as f64;
    }
    let groups = columns.div_ceil(Q4_GROUP);
    values
        .par_chunks_exact(columns)
        .zip(fitted.codes.par_chunks_exact_mut(columns))
        .zip(fitted.scales.par_chunks_exact_mut(groups))
        .for_each(|((row, codes), scales)| refine_row(row, &gram, codes, scales));
    fitted
}

/// Refines one row: codes `[columns]`, scales `[columns / Q4_GROUP rounded up]`. The error to lower
/// is e^T `gram` e for e = `row` - codes * scales.
fn refine_row(row: &[f32], gram: &[f64], codes: &mut [i8], scales: &mut [f16]) {
    let columns = row.len();
    let gram_of = |column: usize| &gram[column * columns..][..columns];
    // `gram` times e: how much a value's growth would lower the error, but for a factor of 2.
    let mut pull = vec![0.0; columns];
    for (column, &value) in row.iter().enumerate() {
        let stored = f64::from(codes[column]) * f64::from(scales[column / Q4_GROUP]);
        add(&mut pull, f64::from(value) - stored, gram_of(column));
    }
    for _ in 0..ROUNDS {
        let mut moved = false;
        for column in 0..columns {
            let curvature = gram_of(column)[column];
            let scale = f64::from(scales[column / Q4_GROUP]);
            // An input that was never anything but zero.
            if curvature <= 0.0 {
                continue;
            }
            let best = f64::from(codes[column]) * scale + pull[column] / curvature;
            let code = Q4::code(best as f32, scale as f32);
            if code != codes[column] {
                add(&mut pull, -scale * f64::from(code - codes[column]), gram_of(column));
                codes[column] = code;
                moved = true;
            }
        }
        for (group, scale) in scales.iter_mut().enumerate() {
            let of = group * Q4_GROUP..((group + 1) * Q4_GROUP).min(columns);
            // `gram` times the codes of the group.
            let mut turned = vec![0.0; columns];
            for column in of.clone() {
                add(&mut turned, f64::from(codes[column]), gram_of(column));
            }
            let by_codes = |with: &[f64]| -> f64 {
                of.clone().map(|column| f64::from(codes[column]) * with[column]).sum()
            };
            let (pulled, curvature) = (by_codes(&pull), by_codes(&turned));
            if curvature <= 0.0 {
                continue;
            }
            let better = Q4::scale((f64::from(*scale) + pulled / curvature) as f32);
            let by = f64::from(better) - f64::from(*scale);
            // Half floats are coarse: the nearest one may be no better than what is there.
            if by * (by * curvature - 2.0 * pulled) < 0.0 {
                *scale = better;
                add(&mut pull, -by, &turned);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
}

/// `sum` + `factor` * `of`.
fn add(sum: &mut [f64], factor: f64, of: &[f64]) {
    sum.iter_mut().zip(of).for_each(|(sum, of)| *sum += factor * of);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers in -1..1 that look drawn.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let number = |i: u32| ((i + 1) * (seed + 1)).wrapping_mul(2_654_435_761) % 2003;
        (0..count as u32).map(|i| number(i) as f32 / 1001.5 - 1.0).collect()
    }

    /// X^T X of inputs that go along with each other, as those of a model do.
    fn gram(columns: usize, seed: u32) -> Vec<f32> {
        let inputs: Vec<Vec<f32>> = (0..2 * columns as u32)
            .map(|row| {
                let common = numbers(3, seed + 7 * row);
                let own = numbers(columns, seed + 7 * row + 3);
                own.iter().enumerate().map(|(c, own)| 0.3 * own + common[c % 3]).collect()
            })
            .collect();
        let product = |a: usize, b: usize| inputs.iter().map(|row| row[a] * row[b]).sum();
        (0..columns * columns).map(|at| product(at / columns, at % columns)).collect()
    }

    /// The squared error of the products with the inputs and a few others, row by row.
    fn errors(values: &[f32], stored: Q4, gram: &[f32]) -> Vec<f64> {
        let columns = stored.columns;
        let read = stored.pack().to_f32();
        let diagonal: f64 = gram.iter().step_by(columns + 1).map(|&g| f64::from(g)).sum();
        let unseen = UNSEEN * diagonal / columns as f64;
        let rows = values.chunks_exact(columns).zip(read.chunks_exact(columns));
        rows.map(|(row, read)| {
            let e: Vec<f64> = row.iter().zip(read).map(|(v, r)| f64::from(v - r)).collect();
            let product = |a: usize| -> f64 {
                let of_row = gram[a * columns..][..columns].iter().zip(&e);
                of_row.map(|(g, e)| f64::from(*g) * e).sum::<f64>() + unseen * e[a]
            };
            (0..columns).map(|a| e[a] * product(a)).sum()
        })
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn products_are_closer_than_with_the_nearest_values(
            columns in 1usize..80,
            rows in 1usize..4,
            seed in 0u32..1000,
        ) {
            let (values, gram) = (numbers(rows * columns, seed), gram(columns, seed));
            let fitted = fit(&values, &gram);
            let nearest = errors(&values, Q4::nearest(columns, &values), &gram);
            for (fitted, nearest) in errors(&values, fitted, &gram).iter().zip(nearest) {
                prop_assert!(*fitted <= nearest * 1.0001 + 1e-9, "{fitted} {nearest}");
            }
        }
    }

    #[test]
    fn with_inputs_that_go_together_most_of_the_error_is_gone() {
        let (values, gram) = (numbers(16 * 96, 5), gram(96, 5));
        let error = |stored| errors(&values, stored, &gram).iter().sum::<f64>();
        let (fitted, nearest) = (error(fit(&values, &gram)), error(Q4::nearest(96, &values)));
        assert!(fitted < 0.3 * nearest, "{fitted} of {nearest}");
    }

    #[test]
    fn inputs_that_tell_nothing_leave_the_nearest_values() {
        let values = numbers(3 * 40, 1);
        for product in [0.0, f32::NAN, f32::INFINITY] {
            assert_eq!(fit(&values, &[product; 1600]), Q4::nearest(40, &values));
        }
    }
}
