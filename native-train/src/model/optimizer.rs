//! Optimisers over one flat parameter buffer, with a state that can be saved and resumed.

use tch::{Kind, Tensor};

use super::params::Params;

/// AdamW (Loshchilov and Hutter 2019).
#[derive(Debug)]
pub struct AdamW {
    first: Tensor,
    second: Tensor,
    decay_mask: Tensor,
    steps: i32,
    betas: (f64, f64),
    epsilon: f64,
    weight_decay: f64,
    /// If updates are scaled by the RMS of each weight.
    scale: Option<Scale>,
}

/// Which values belong to which weight.
#[derive(Debug)]
struct Scale {
    /// Values of each weight, `[weights]`, `i64`.
    lengths: Tensor,
    /// The weight of each value, `[len]`, `i32`.
    weight_of: Tensor,
}

/// Smallest RMS that a weight is taken to have, so that one of zeros can grow (Adafactor, Shazeer and
/// Stern 2018, section 8).
const LEAST_SIZE: f64 = 1e-3;

impl AdamW {
    /// Starts with zero moments; `weight_decay` applies to matrices only.
    pub fn new(params: &Params, weight_decay: f64) -> Self {
        let zeros = || params.flat().detach().zeros_like();
        Self {
            first: zeros(),
            second: zeros(),
            decay_mask: params.decay_mask(),
            steps: 0,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay,
            scale: None,
        }
    }

    /// From now on a step changes each weight by learning rate × that matrix's RMS, as Adafactor's
    /// (Shazeer and Stern 2018, section 8), with which T5 was trained: an embedding, which begins
    /// with an RMS of 1, learns as fast for its size as a matrix, which begins with a tenth of it.
    pub fn scaled_by_weights(self, params: &Params) -> Self {
        let lengths = params.lengths();
        let weight_of = Tensor::repeat_interleave(&lengths, params.count() as i64);
        Self { scale: Some(Scale { lengths, weight_of: weight_of.to_kind(Kind::Int) }), ..self }
    }

    /// One step with the gradient of the flat buffer, `[len]`, scaled down to `max_norm` (infinite:
    /// never) where it is longer; its memory is reused. The norm stays on the device: no value is read
    /// back.
    pub fn step(
        &mut self,
        params: &Params,
        mut gradient: Tensor,
        learning_rate: f64,
        max_norm: f64,
    ) {
        tch::no_grad(|| {
            let mut flat = params.flat().detach();
            if max_norm.is_finite() {
                let scale = (max_norm / (gradient.norm() + 1e-6)).clamp_max(1.0);
                let _ = gradient.g_mul_(&scale);
            }
            self.steps += 1;
            let (beta1, beta2) = self.betas;
            let _ = self.first.lerp_(&gradient, 1.0 - beta1);
            let _ = self.second.lerp_(&gradient.square_(), 1.0 - beta2);
            let correction1 = 1.0 - beta1.powi(self.steps);
            let correction2 = 1.0 - beta2.powi(self.steps);
            if self.weight_decay > 0.0 {
                let mut decay = &self.decay_mask * (-learning_rate * self.weight_decay);
                let _ = flat.g_mul_(&decay.g_add_scalar_(1.0));
            }
            // The gradient is done with; its buffer takes what is computed next.
            let mut update = gradient;
            update.copy_(&self.second);
            let _ = update.sqrt_().g_mul_scalar_(1.0 / correction2.sqrt());
            let _ = update.g_add_scalar_(self.epsilon).reciprocal_().g_mul_(&self.first);
            if let Some(scale) = &self.scale {
                let _ = update.g_mul_(&scale.of(&flat));
            }
            let _ = flat.g_sub_(&update.g_mul_scalar_(learning_rate / correction1));
        });
    }

    /// The moments and the number of steps, for a checkpoint.
    pub fn state(&self) -> (&Tensor, &Tensor, i32) {
        (&self.first, &self.second, self.steps)
    }

    /// Takes up a checkpoint's state.
    pub fn load_state(&mut self, first: &Tensor, second: &Tensor, steps: i32) {
        tch::no_grad(|| {
            self.first.copy_(first);
            self.second.copy_(second);
        });
        self.steps = steps;
    }
}

impl Scale {
    /// The root mean square of the weight that each value belongs to, `[len]`.
    fn of(&self, flat: &Tensor) -> Tensor {
        // On a CPU ATen adds the values of a segment to one sum, which in `f32` would lose those of
        // a large weight.
        let squares = flat.to_kind(Kind::Double).square_();
        let (lengths, none) = (Some(&self.lengths), None);
        // `unsafe_` leaves out a check of the lengths, for which the host would wait.
        let mean = Tensor::segment_reduce(&squares, "mean", lengths, none, none, 0, true, 0.0);
        let sizes = mean.sqrt().clamp_min(LEAST_SIZE).to_kind(Kind::Float);
        sizes.index_select(0, &self.weight_of)
    }
}

/// Adagrad (Duchi et al. 2011), the paper's optimiser for the RQ-VAE.
#[derive(Debug)]
pub struct Adagrad {
    sum: Tensor,
}

impl Adagrad {
    /// Starts with a sum of 0.1, as TensorFlow's Adagrad does: from zero, the first steps would
    /// be as long as the learning rate itself.
    pub fn new(params: &Params) -> Self {
        Self { sum: params.flat().detach().full_like(0.1) }
    }

    /// The sum of squared gradients, for a checkpoint.
    pub fn state(&self) -> &Tensor {
        &self.sum
    }

    /// Takes up a checkpoint's state.
    pub fn load_state(&mut self, sum: &Tensor) {
        tch::no_grad(|| self.sum.copy_(sum));
    }

    /// One step with the gradient of the flat buffer, `[len]`.
    pub fn step(&mut self, params: &Params, gradient: &Tensor, learning_rate: f64) {
        tch::no_grad(|| {
            let _ = self.sum.g_add_(&gradient.square());
            let mut flat = params.flat().detach();
            let _ = flat.g_sub_(&(gradient / (self.sum.sqrt() + 1e-10) * learning_rate));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Spec, to_vec};
    use crate::random;
    use tch::Device;

    /// A matrix of six values and a vector of four, of other sizes.
    fn matrix_and_vector() -> Params {
        let weights = [("matrix", vec![2, 3], 0.3), ("vector", vec![4], 2.0)];
        let specs = weights
            .map(|(name, shape, size)| Spec::new(name.to_owned(), shape, Init::Normal(size)));
        Params::new(specs.into(), 7, Device::Cpu)
    }

    fn in_f64(tensor: &Tensor) -> Vec<f64> {
        to_vec(tensor).into_iter().map(f64::from).collect()
    }

    fn assert_close(params: &Params, expected: &[f64], what: &str) {
        let found = in_f64(params.flat());
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 5e-6, "{what}, {at}: {found}, not {expected}");
        }
    }

    #[test]
    fn adagrad_divides_by_the_root_of_all_squares_so_far_and_of_a_tenth() {
        let params = matrix_and_vector();
        let mut optimizer = Adagrad::new(&params);
        let mut expected = in_f64(params.flat());
        let mut sums = [0.1; 10];
        for (step, rate) in [(0, 0.4), (1, 0.1)] {
            let gradient = random::normal(step, [10]);
            for ((value, sum), g) in expected.iter_mut().zip(&mut sums).zip(in_f64(&gradient)) {
                *sum += g * g;
                *value -= rate * g / sum.sqrt();
            }
            optimizer.step(&params, &gradient, rate);
            assert_close(&params, &expected, &format!("step {step}"));
        }
    }

    #[test]
    fn adamw_takes_the_steps_of_its_formula_whether_or_not_they_are_scaled() {
        const MATRIX: usize = 6;
        let (weight_decay, max_norm) = (0.3, 2.0);
        for scaled in [false, true] {
            let params = matrix_and_vector();
            let plain = AdamW::new(&params, weight_decay);
            let mut optimizer = if scaled { plain.scaled_by_weights(&params) } else { plain };
            let mut expected = in_f64(params.flat());
            let (mut first, mut second) = ([0.0; 10], [0.0; 10]);
            for (step, size, rate) in [(1, 0.1, 0.01), (2, 5.0, 0.03), (3, 0.3, 0.02)] {
                let gradient = random::normal(step as u64, [10]) * size;
                let values = in_f64(&gradient);
                let norm = values.iter().map(|g| g * g).sum::<f64>().sqrt();
                assert_eq!(norm > max_norm, step == 2, "the second alone is cut: {norm}");
                let cut = (max_norm / norm).min(1.0);
                expected[..MATRIX].iter_mut().for_each(|value| *value *= 1.0 - rate * weight_decay);
                let (matrix, vector) = expected.split_at(MATRIX);
                let sizes = [matrix, vector].map(|weight| {
                    let squares: f64 = weight.iter().map(|x| x * x).sum();
                    if scaled { (squares / weight.len() as f64).sqrt() } else { 1.0 }
                });
                for at in 0..10 {
                    let g = cut * values[at];
                    first[at] = 0.9 * first[at] + 0.1 * g;
                    second[at] = 0.999 * second[at] + 0.001 * g * g;
                    let mean = first[at] / (1.0 - 0.9f64.powi(step));
                    let square: f64 = second[at] / (1.0 - 0.999f64.powi(step));
                    let size = sizes[usize::from(at >= MATRIX)];
                    expected[at] -= rate * size * mean / (square.sqrt() + 1e-8);
                }
                optimizer.step(&params, gradient, rate, max_norm);
                assert_close(&params, &expected, &format!("scaled: {scaled}, step {step}"));
            }
        }
    }

    #[test]
    fn a_scaled_step_changes_every_weight_by_the_same_share_of_its_size() {
        let starts = [("large", 3, 2.0), ("small", 5, 0.01), ("zero", 4, 0.0)];
        let specs = starts
            .map(|(name, len, value)| Spec::new(name.to_owned(), vec![len], Init::Constant(value)));
        let params = Params::new(specs.to_vec(), 0, Device::Cpu);
        let gradient =
            Tensor::from_slice(&[1.0f32, -5.0, 0.3, 1e3, 1.0, -1.0, 2.0, 0.1, 7.0, 7.0, 7.0, -7.0]);
        let signs = to_vec(&gradient.sign());
        let mut optimizer = AdamW::new(&params, 0.0).scaled_by_weights(&params);
        optimizer.step(&params, gradient, 0.125, f64::INFINITY);
        // Adam's first step is the sign of the gradient.
        let sizes = [[2.0; 3].as_slice(), &[0.01; 5], &[LEAST_SIZE as f32; 4]].concat();
        let starts = [[2.0; 3].as_slice(), &[0.01; 5], &[0.0; 4]].concat();
        for (at, found) in to_vec(params.flat()).into_iter().enumerate() {
            let expected: f32 = starts[at] - 0.125 * sizes[at] * signs[at];
            assert!((found - expected).abs() < 1e-5 * sizes[at], "{at}: {found}, not {expected}");
        }
    }
}
