//! The loss that training makes small.

use tch::Tensor;

use super::samples::Batch;
use crate::model::T5;
use crate::model::dropout::Dropout;
use crate::model::params::Views;

/// Mean cross-entropy of the labels over the whole vocabulary, teacher-forced.
pub fn loss(model: &T5, weights: &Views, batch: &Batch, train: Option<&Dropout>) -> Tensor {
    let encoded = model.encode(weights, &batch.tokens, &batch.keep, train);
    let cross = model.cross_state(weights, &encoded, &batch.keep);
    let (rows, levels) = (batch.labels.size()[0], batch.labels.size()[1]);
    let start =
        batch.labels.narrow(1, 0, 1).full_like(f64::from(model.config().decoder_start_token_id));
    let inputs = Tensor::cat(&[start, batch.labels.narrow(1, 0, levels - 1)], 1);
    let logits = model.decode(weights, &inputs, &cross, train);
    logits.view([rows * levels, -1]).cross_entropy_for_logits(&batch.labels.view([rows * levels]))
}
