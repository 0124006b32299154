//! An exponential moving average of the weights over the steps of a training (Polyak and Juditsky 1992):
//! at a learning rate that has not decayed, it does better than the weights themselves.

use tch::Tensor;

use super::params::Params;

/// The average of a flat parameter buffer.
#[derive(Debug)]
pub(crate) struct Average {
    /// `[len]`, `f32`, where the buffer lies.
    flat: Tensor,
    decay: f64,
}

impl Average {
    /// Of weights that have taken no step yet.
    pub(crate) fn new(params: &Params, decay: f64) -> Self {
        Self { flat: params.flat().detach().copy(), decay }
    }

    /// Takes in the weights after their `steps`th step. The first steps count for less than `decay` says,
    /// so that the random start is soon forgotten.
    pub(crate) fn add(&mut self, params: &Params, steps: u64) {
        let decay = self.decay.min((1.0 + steps as f64) / (10.0 + steps as f64));
        tch::no_grad(|| {
            let _ = self.flat.lerp_(&params.flat().detach(), 1.0 - decay);
        });
    }

    /// Exchanges the average and the weights, which computes with the average until it is called again.
    pub(crate) fn swap(&mut self, params: &Params) {
        tch::no_grad(|| {
            let mut weights = params.flat().detach();
            let held = weights.copy();
            weights.copy_(&self.flat);
            self.flat.copy_(&held);
        });
    }

    /// The average, `[len]`, for a checkpoint.
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Takes up a checkpoint's average.
    pub(crate) fn load(&mut self, flat: &Tensor) {
        tch::no_grad(|| self.flat.copy_(flat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Spec, to_vec};
    use tch::Device;

    #[test]
    fn an_average_follows_the_weights_and_takes_their_place_only_while_it_is_asked_to() {
        let spec = Spec::new("w".to_owned(), vec![2], Init::Constant(4.0));
        let params = Params::new(vec![spec], 0, Device::Cpu);
        let mut average = Average::new(&params, 0.5);
        let mut expected = 4.0;
        for (steps, value) in [(1, 8.0), (2, 2.0), (40, 6.0)] {
            let _ = tch::no_grad(|| params.flat().detach().fill_(value));
            average.add(&params, steps);
            let decay = (1.0 + steps as f64) / (10.0 + steps as f64);
            expected += (1.0 - decay.min(0.5)) * (value - expected);
        }
        average.swap(&params);
        for found in to_vec(params.flat()) {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{found}, not {expected}");
        }
        average.swap(&params);
        assert_eq!(to_vec(params.flat()), [6.0, 6.0]);
    }
}
