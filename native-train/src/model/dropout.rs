//! Dropout (Srivastava et al. 2014).
//!
//! On a CPU, ATen draws the mask by one Mersenne Twister on one thread, which at these sizes takes
//! as long as all else that is not a matrix product. Here each micro-batch has a generator of its
//! own, a faster one, in the thread that computes it.

use std::cell::RefCell;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tch::{Device, Tensor};

/// The dropout of one pass.
#[derive(Debug)]
pub struct Dropout {
    rate: f64,
    generator: RefCell<SmallRng>,
}

impl Dropout {
    /// Drops values with probability `rate`, in `0.0..1.0`. The same seed gives the same masks in
    /// the same order; on CUDA they follow from libtorch's own seed instead.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rate, generator: RefCell::new(SmallRng::seed_from_u64(seed)) }
    }

    /// The probability of being dropped.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// `x` with values dropped, and the others scaled so that the mean stays.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        match (self.rate > 0.0, x.device()) {
            (false, _) => x.shallow_clone(),
            (true, Device::Cpu) => x * self.mask(x),
            (true, _) => x.dropout(self.rate, true),
        }
    }

    /// [`Dropout::apply`] to what nobody needs any more: in place where that is the faster way.
    pub fn apply_(&self, mut x: Tensor) -> Tensor {
        match (self.rate > 0.0, x.device()) {
            (false, _) => x,
            (true, Device::Cpu) => {
                let mask = self.mask(&x);
                x.g_mul_(&mask)
            }
            // In place it would be three kernels instead of one, with a scale that is rounded to `bf16`.
            (true, _) => x.dropout(self.rate, true),
        }
    }

    /// 0 or `1 / (1 - rate)`, of the shape and kind of `x`.
    fn mask(&self, x: &Tensor) -> Tensor {
        // 16 random bits a value; the rate is rounded to them, and the scale fits the rounded one.
        let dropped = (self.rate * 65_536.0).round().min(65_535.0);
        let kept = (65_536.0 / (65_536.0 - dropped)) as f32;
        let mut mask = vec![0.0f32; x.numel()];
        let mut generator = self.generator.borrow_mut();
        for four in mask.chunks_mut(4) {
            let bits = generator.next_u64();
            for (at, value) in four.iter_mut().enumerate() {
                let drawn = (bits >> (16 * at)) as u16;
                *value = if f64::from(drawn) < dropped { 0.0 } else { kept };
            }
        }
        Tensor::from_slice(&mask).view(x.size().as_slice()).to_kind(x.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::to_vec;
    use tch::Kind;

    fn ones(count: i64) -> Tensor {
        Tensor::ones([count], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn drops_the_share_asked_for_and_keeps_the_mean() {
        let values = to_vec(&Dropout::new(0.25, 7).apply(&ones(200_000)));
        let dropped = values.iter().filter(|&&v| v == 0.0).count() as f64 / 200_000.0;
        // Five standard deviations of a share of 200,000 draws.
        assert!((dropped - 0.25).abs() < 5.0 * (0.25f64 * 0.75 / 200_000.0).sqrt(), "{dropped}");
        assert!(values.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-4));
        // Neighbours and the four draws of one number are independent: both dropped in 1/16.
        for distance in [1, 2, 3, 4, 5] {
            let both = values.windows(distance + 1).filter(|w| w[0] == 0.0 && w[distance] == 0.0);
            let share = both.count() as f64 / 200_000.0;
            assert!((share - 0.0625).abs() < 0.0625 * 0.25, "{distance}: {share}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_masks_and_no_two_masks_are_alike() {
        let (a, b) = (Dropout::new(0.1, 3), Dropout::new(0.1, 3));
        let masks = |dropout: &Dropout| -> Vec<Vec<f32>> {
            (0..3).map(|_| to_vec(&dropout.apply(&ones(1000)))).collect()
        };
        let first = masks(&a);
        assert_eq!(first, masks(&b));
        assert!(first[0] != first[1] && first[1] != first[2]);
        assert_ne!(first, masks(&Dropout::new(0.1, 4)));
    }

    #[test]
    fn the_gradient_passes_where_the_value_did() {
        let x = ones(1000).set_requires_grad(true);
        let y = Dropout::new(0.5, 1).apply(&x);
        y.sum(Kind::Float).backward();
        assert_eq!(to_vec(&x.grad()), to_vec(&y));
        let in_place = Dropout::new(0.5, 1).apply_(ones(1000) * 1.0);
        assert_eq!(to_vec(&in_place), to_vec(&y));
        assert_eq!(to_vec(&Dropout::new(0.0, 1).apply(&ones(9))), [1.0; 9]);
    }
}
