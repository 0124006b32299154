//! The residual-quantised variational autoencoder (paper, section 3.1).

use tch::{Kind, Tensor};

use super::kmeans::{kmeans, relative_distances};
use crate::model::params::{Init, Params, Spec, Views};

/// Sizes of an RQ-VAE.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Width of the content vectors.
    pub input: i64,
    /// Hidden widths of the encoder; the decoder mirrors them.
    pub hidden: Vec<i64>,
    /// Width of the latent vector and the codewords.
    pub latent: i64,
    /// Levels.
    pub levels: usize,
    /// Codewords of each level.
    pub codebook: i64,
}

impl Shape {
    /// Widths from the input to the latent vector.
    fn widths(&self) -> Vec<i64> {
        let mut widths = vec![self.input];
        widths.extend(&self.hidden);
        widths.push(self.latent);
        widths
    }

    /// Names, shapes and starts of the weights: PyTorch's default for linear layers, and
    /// codebooks that k-means overwrites.
    pub fn specs(&self) -> Vec<Spec> {
        let mut specs = Vec::new();
        let mut widths = self.widths();
        for part in ["encoder", "decoder"] {
            for (layer, pair) in widths.windows(2).enumerate() {
                let bound = (pair[0] as f64).powf(-0.5);
                specs.push(Spec {
                    name: format!("{part}.{layer}.weight"),
                    shape: vec![pair[1], pair[0]],
                    init: Init::Uniform(bound),
                });
                specs.push(Spec {
                    name: format!("{part}.{layer}.bias"),
                    shape: vec![pair[1]],
                    init: Init::Uniform(bound),
                });
            }
            widths.reverse();
        }
        for level in 0..self.levels {
            specs.push(Spec {
                name: format!("codebook.{level}"),
                shape: vec![self.codebook, self.latent],
                init: Init::Normal(0.1),
            });
        }
        specs
    }
}

/// One pass over a batch.
#[derive(Debug)]
pub struct Pass {
    /// Mean over the batch of `||x - x_hat||^2`.
    pub reconstruction: Tensor,
    /// Mean over the batch of the codebook and commitment terms, summed over levels.
    pub quantisation: Tensor,
    /// Chosen codewords, `[batch, levels]`.
    pub codes: Tensor,
    /// The residual before each level, `[batch, latent]` each.
    pub residuals: Vec<Tensor>,
}

fn mlp(w: &Views, part: &str, layers: usize, x: &Tensor) -> Tensor {
    let mut x = x.shallow_clone();
    for layer in 0..layers {
        let weight = w.get(&format!("{part}.{layer}.weight"));
        x = x.linear(weight, Some(w.get(&format!("{part}.{layer}.bias"))));
        if layer + 1 < layers {
            x = x.relu();
        }
    }
    x
}

/// Encodes, quantises and decodes a batch (`[batch, input]`).
///
/// Residual quantisation: r_0 = z; c_d = argmin_k ||r_d - e_k||; r_{d+1} = r_d - e_{c_d}. The loss
/// terms are `||sg[r_d] - e||^2 + beta ||r_d - sg[e]||^2`; the decoder sees the sum of the chosen
/// codewords, with the gradient passed straight through to the encoder.
pub fn pass(shape: &Shape, w: &Views, x: &Tensor, beta: f64) -> Pass {
    let layers = shape.hidden.len() + 1;
    let z = mlp(w, "encoder", layers, x);
    let mut residual = z.shallow_clone();
    let mut quantised = z.detach().zeros_like();
    let mut quantisation = Tensor::zeros([], (Kind::Float, x.device()));
    let (mut codes, mut residuals) = (Vec::new(), Vec::new());
    for level in 0..shape.levels {
        let codebook = w.get(&format!("codebook.{level}"));
        let fixed = residual.detach();
        let chosen = relative_distances(&fixed, &codebook.detach()).argmin(1, false);
        let codeword = Tensor::embedding(codebook, &chosen, -1, false, false);
        let per_item = |difference: Tensor| {
            difference
                .square()
                .sum_dim_intlist([1].as_slice(), false, Kind::Float)
                .mean(Kind::Float)
        };
        let stopped = codeword.detach();
        quantisation =
            quantisation + per_item(&fixed - &codeword) + per_item(&residual - &stopped) * beta;
        quantised += &stopped;
        residual = &residual - &stopped;
        residuals.push(fixed);
        codes.push(chosen);
    }
    let straight_through = &z + (quantised - &z).detach();
    let decoded = mlp(w, "decoder", layers, &straight_through);
    let reconstruction = (x - decoded)
        .square()
        .sum_dim_intlist([1].as_slice(), false, Kind::Float)
        .mean(Kind::Float);
    Pass { reconstruction, quantisation, codes: Tensor::stack(&codes, 1), residuals }
}

/// Starts each codebook by k-means on the residuals that the levels before leave of `x`.
pub fn initialise_codebooks(shape: &Shape, params: &Params, x: &Tensor, rng: &mut impl rand::Rng) {
    tch::no_grad(|| {
        let w = params.views();
        let mut residual = mlp(&w, "encoder", shape.hidden.len() + 1, x);
        for level in 0..shape.levels {
            let centres = kmeans(&residual, shape.codebook, 20, rng);
            let chosen = relative_distances(&residual, &centres).argmin(1, false);
            residual = &residual - centres.index_select(0, &chosen);
            w.get(&format!("codebook.{level}")).shallow_clone().copy_(&centres);
        }
    });
}
