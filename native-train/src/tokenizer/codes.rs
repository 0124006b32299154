//! Codes of all items by a fitted quantiser, and how well they stand for the vectors.

use rayon::prelude::*;
use tch::{Kind, Tensor};
use tigret_infer::{Quantizer, Structure};

use super::autoencoder::{self, Shape};
use super::balance;
use crate::model::params::Params;

/// Items whose codes are computed at once.
const BLOCK: usize = 128;

/// Codes of all items, on all cores: each is computed alone, so threads do not change them.
pub(super) fn encode(quantizer: &Quantizer, ids: &[&str], vectors: &[f32]) -> Vec<u16> {
    let input = quantizer.config().input;
    let blocks = ids.par_chunks(BLOCK).enumerate();
    blocks
        .flat_map_iter(|(at, ids)| {
            quantizer.encode(ids, &vectors[at * BLOCK * input..][..ids.len() * input])
        })
        .collect()
}

/// Separates items that share all codes; see [`balance::separate`].
pub(super) fn separate(
    quantizer: &Quantizer,
    data: &Tensor,
    decoder: Option<&(Shape, Params)>,
    codes: &mut [u16],
) -> usize {
    let levels = quantizer.levels();
    let latent = tch::no_grad(|| match decoder {
        Some((shape, params)) => autoencoder::encode(shape, &params.views(), data),
        None => data.shallow_clone(),
    });
    let residual = match levels {
        1 => latent,
        _ => latent - rows_of(quantizer, codes, levels - 1).to_device(data.device()),
    };
    let last = Tensor::from_slice(&quantizer.tensors().codebooks[levels - 1])
        .view([-1, quantizer.config().latent() as i64])
        .to_device(data.device());
    balance::separate(codes, levels, &residual, &last)
}

/// Latent vectors `[items, latent]` of the first `levels` codes.
fn rows_of(quantizer: &Quantizer, codes: &[u16], levels: usize) -> Tensor {
    let all = quantizer.levels();
    let rows: Vec<f32> = codes
        .chunks_exact(all)
        .flat_map(|row| quantizer.latent_of_codes(&row[..levels]).unwrap_or_default())
        .collect();
    Tensor::from_slice(&rows).view([(codes.len() / all) as i64, -1])
}

/// `sum ||x - x_hat||^2 / sum ||x - mean||^2` over all items.
pub(super) fn lost_variance(
    quantizer: &Quantizer,
    codes: &[u16],
    data: &Tensor,
    decoder: Option<&(Shape, Params)>,
) -> Option<f64> {
    quantizer.latent_of_codes(&codes[..quantizer.levels()])?;
    let latent = rows_of(quantizer, codes, quantizer.levels()).to_device(data.device());
    let restored = tch::no_grad(|| match (decoder, quantizer.config().structure) {
        (Some((shape, params)), _) => autoencoder::decode(shape, &params.views(), &latent),
        (None, Structure::Product) => {
            // The rotation has orthonormal rows, so its transpose undoes it.
            let (rotation, _) = &quantizer.tensors().layers[0];
            let rotation = Tensor::from_slice(rotation).view([latent.size()[1], -1]);
            latent.matmul(&rotation.to_device(data.device()))
        }
        (None, _) => latent,
    });
    let total = |x: Tensor| x.square().sum(Kind::Double).double_value(&[]);
    let variance = total(data - data.mean_dim([0].as_slice(), true, Kind::Float));
    (variance > 0.0).then(|| total(data - restored) / variance)
}
