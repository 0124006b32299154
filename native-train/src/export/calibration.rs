//! What the matrices of a model are multiplied with, seen on training samples.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use tch::{Device, Tensor};

use crate::data::Dataset;
use crate::model::TrainedModel;
use crate::model::params::{InputGrams, to_vec};
use crate::tokenizer::SemanticIds;
use crate::train::batch::{Draws, Resident};
use crate::train::loss::loss;
use crate::train::samples::{Sample, training_samples};

/// Samples to look at, at most: a matrix of the encoder meets tens of thousands of rows in them, one
/// of the decoder thousands.
const SAMPLES: usize = 1024;

/// Samples of one pass.
const BATCH: usize = 64;

/// By matrix or stack of matrices, X^T X (`[in, in]`) over the rows X that it is multiplied with when
/// the model predicts samples from all over a data set's training sequences. Empty where there is no
/// sample.
pub(super) fn input_grams(
    trained: &TrainedModel,
    ids: &SemanticIds,
    dataset: &Dataset,
) -> BTreeMap<String, Vec<f32>> {
    let all = training_samples(dataset);
    let mut samples: Vec<Sample> =
        all.iter().copied().step_by(all.len().div_ceil(SAMPLES).max(1)).collect();
    let length = |sample: &Sample| (sample.target as usize).min(ids.layout.max_items);
    // Only histories of one length together: padding would be summed up as well.
    samples.sort_by_key(length);
    let resident = Resident::new(dataset, ids, &samples, Device::Cpu);
    let grams = InputGrams::default();
    let numbered: Vec<u32> = (0..samples.len() as u32).collect();
    tch::no_grad(|| {
        let views = trained.weights.shallow_clone().recording(&grams);
        let length = |number: u32| length(&samples[number as usize]);
        let alike = numbered.chunk_by(|&a, &b| length(a) == length(b));
        for chosen in alike.flat_map(|alike| alike.chunks(BATCH)) {
            let index: Vec<i64> = chosen.iter().map(|&number| i64::from(number)).collect();
            let batch = resident.batch(chosen, &Tensor::from_slice(&index), Draws::NONE);
            let _ = loss(&trained.model, &views, &batch, None);
        }
    });
    let grams = grams.lock().unwrap_or_else(PoisonError::into_inner);
    grams.iter().map(|(name, gram)| (name.clone(), to_vec(gram))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing;
    use crate::model::presets::Preset;
    use crate::model::t5::stack_of;
    use crate::model::{Params, T5};
    use tch::Kind;
    use tigret_infer::TokenLayout;

    fn untrained(layout: &TokenLayout) -> TrainedModel {
        let model = T5::new(Preset::Tiny.config(layout));
        let params = Params::new(model.specs(), 3, Device::Cpu);
        let weights = tch::no_grad(|| params.views());
        TrainedModel { model, weights }
    }

    #[test]
    fn every_matrix_has_the_products_of_what_it_multiplies_on_training_samples_alone() {
        let sequences: Vec<Vec<u32>> =
            (0..9).map(|user| (0..4 + user).map(|i| (7 * i + user) % 20).collect()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let dataset = testing::dataset(20, &sequences);
        let codes: Vec<u16> = (0..20).flat_map(|i| [i % 5, i / 5, i % 2]).collect();
        let layout = TokenLayout::contiguous(&[5, 4, 2], 6, 4);
        let ids = SemanticIds::new(&dataset.items, layout.clone(), &codes).unwrap();
        let trained = untrained(&layout);
        let grams = input_grams(&trained, &ids, &dataset);
        let matrices =
            trained.model.specs().into_iter().filter(|spec| {
                spec.shape.len() == 2 && !spec.name.contains("relative_attention_bias")
            });
        for spec in matrices {
            let gram = &grams[&stack_of(&spec.name).unwrap_or_else(|| spec.name.clone())];
            assert_eq!(gram.len() as i64, spec.shape[1] * spec.shape[1], "{}", spec.name);
        }

        // The first layer of the encoder multiplies what is known without it: normed embeddings.
        let mut tokens = Vec::new();
        for sequence in &dataset.sequences {
            for target in 1..sequence.train().len() {
                let history = sequence.train()[..target].iter().map(|&item| ids.codes(item));
                tokens.extend(layout.encoder_input(layout.user_token(&sequence.user), history));
            }
        }
        let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        let expected = tch::no_grad(|| {
            let rows =
                trained.weights.get("shared.weight").index_select(0, &Tensor::from_slice(&tokens));
            let square = (&rows * &rows).mean_dim([-1i64].as_slice(), true, Kind::Float);
            let normed = rows / (square + 1e-6).sqrt();
            normed.transpose(0, 1).matmul(&normed)
        });
        let found = &grams["encoder.block.0.layer.0.SelfAttention.qkv.weight"];
        for (found, expected) in found.iter().zip(to_vec(&expected)) {
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }

        // What is held out changes nothing.
        let other = testing::with_other_targets(&dataset, 3);
        assert_eq!(input_grams(&trained, &ids, &other), grams);
    }

    #[test]
    fn without_a_sample_there_is_nothing() {
        let dataset = testing::dataset(4, &[&[0, 1, 2]]);
        let layout = TokenLayout::contiguous(&[4, 1], 0, 4);
        let ids =
            SemanticIds::new(&dataset.items, layout.clone(), &[0, 0, 1, 0, 2, 0, 3, 0]).unwrap();
        assert!(input_grams(&untrained(&layout), &ids, &dataset).is_empty());
    }
}
