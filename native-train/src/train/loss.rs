//! The loss that training makes small.

use tch::{Kind, Tensor};

use super::batch::{Batch, Past};
use crate::model::T5;
use crate::model::dropout::Dropout;
use crate::model::params::Views;
use crate::model::t5::CrossState;

/// Mean cross-entropy of the labels over the whole vocabulary, teacher-forced; with past items
/// their unlikelihood as well.
///
/// Unlikelihood (Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section
/// 3) is `-log(1 - p)`. Here p is the probability of an item's last code after its other codes, so
/// that the item itself is ranked lower and items of like content are not: the codes before the
/// last say what the user likes.
pub fn loss(model: &T5, weights: &Views, batch: &Batch, train: Option<&Dropout>) -> Tensor {
    let encoded = model.encode(weights, &batch.tokens, &batch.keep, train);
    let cross = model.cross_state(weights, &encoded, &batch.keep);
    let Some(Past { labels: past, weight }) = &batch.past else {
        return cross_entropy(&forced(model, weights, &batch.labels, &cross, train), &batch.labels);
    };
    let (rows, levels) = (batch.labels.size()[0], batch.labels.size()[1]);
    let both = Tensor::cat(&[&batch.labels, past], 0);
    let logits = forced(model, weights, &both, &cross.twice(), train);
    let likely = cross_entropy(&logits.narrow(0, 0, rows), &batch.labels);
    let last = logits.narrow(0, rows, rows).select(1, levels - 1).to_kind(Kind::Float);
    let others = last.scatter_value(1, &past.narrow(1, levels - 1, 1), f64::NEG_INFINITY);
    let unlikely = last.logsumexp(1, false) - others.logsumexp(1, false);
    // A user may return to an item all the same.
    let is_other = past.not_equal_tensor(&batch.labels).any_dim(1, false).to_kind(Kind::Float);
    // One code of all, as in the mean of the cross-entropy.
    likely + (unlikely * is_other).mean(Kind::Float) * (weight / levels as f64)
}

/// Logits `[batch, levels, vocab_size]` of codes after the given ones (`labels`,
/// `[batch, levels]`).
fn forced(
    model: &T5,
    weights: &Views,
    labels: &Tensor,
    cross: &CrossState,
    train: Option<&Dropout>,
) -> Tensor {
    let start = labels.narrow(1, 0, 1).full_like(f64::from(model.config().decoder_start_token_id));
    let inputs = Tensor::cat(&[start, labels.narrow(1, 0, labels.size()[1] - 1)], 1);
    model.decode(weights, &inputs, cross, train)
}

/// Mean over all labels (`[batch, levels]`).
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let count = labels.numel() as i64;
    logits.reshape([count, -1]).cross_entropy_for_logits(&labels.view([count]))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::Params;
    use crate::model::params::to_vec;
    use crate::model::presets::Preset;
    use crate::random;
    use crate::train::batch::{Draws, Resident};
    use crate::train::samples::training_samples;
    use crate::train::trainer::tests::data;

    #[test]
    fn unlikelihood_is_of_the_last_code_and_spares_an_item_that_is_the_target_too() {
        let (dataset, ids) = data();
        let model = T5::new(Preset::Tiny.config(&ids.layout));
        let params = Params::new(model.specs(), 1, Device::Cpu);
        let samples = training_samples(&dataset);
        let resident = Resident::new(&dataset, &ids, &samples, Device::Cpu);
        let rows = 9;
        let chosen: Vec<u32> = (0..rows).collect();
        let index = Tensor::arange(i64::from(rows), (Kind::Int64, Device::Cpu));
        let draws = Draws { unlikelihood: 0.7, ..Draws::NONE };
        let mut batch = random::seeded(3, || resident.batch(&chosen, &index, draws));
        let views = params.views();
        let both = to_vec(&loss(&model, &views, &batch, None))[0];
        let Past { labels: past, .. } = batch.past.take().expect("it was asked for");
        let likely = to_vec(&loss(&model, &views, &batch, None))[0];

        let encoded = model.encode(&views, &batch.tokens, &batch.keep, None);
        let cross = model.cross_state(&views, &encoded, &batch.keep);
        let log_p = forced(&model, &views, &past, &cross, None).log_softmax(-1, Kind::Float);
        let levels = past.size()[1];
        let of_last = |row: i64| {
            let token = past.int64_value(&[row, levels - 1]);
            -(-log_p.double_value(&[row, levels - 1, token]).exp()).ln_1p()
        };
        let all: f64 = (0..i64::from(rows)).map(of_last).sum();
        let term = |sum: f64| (0.7 * sum / f64::from(rows) / levels as f64) as f32;
        assert!((both - likely - term(all)).abs() < 1e-5, "{both}, {likely}, {}", term(all));

        // As if the first user had returned to an item.
        past.get(0).copy_(&batch.labels.get(0));
        batch.past = Some(Past { labels: past.shallow_clone(), weight: 0.7 });
        let spared = to_vec(&loss(&model, &views, &batch, None))[0];
        let rest: f64 = (1..i64::from(rows)).map(of_last).sum();
        assert!((spared - likely - term(rest)).abs() < 1e-5, "{spared}, {likely}, {}", term(rest));
    }
}
