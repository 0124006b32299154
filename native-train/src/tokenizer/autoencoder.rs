//! The autoencoder whose latent vector is quantised: RQ-VAE (paper, section 3.1) and VQ-VAE.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::balance;
use super::kmeans::{kmeans, relative_distances};
use crate::model::params::{Init, Params, Spec, Views};

/// How the gradient passes the quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Gradient {
    /// Unchanged, as if nothing had been quantised (van den Oord et al. 2017; paper).
    StraightThrough,
    /// Turned and stretched as the quantised vector lies to the latent one (Fifty et al. 2024,
    /// "Restructuring Vector Quantization with the Rotation Trick").
    Rotation,
}

/// Sizes of the autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Width of the content vectors.
    pub input: i64,
    /// Hidden widths of the encoder; the decoder mirrors them.
    pub hidden: Vec<i64>,
    /// Width of a codeword.
    pub codeword: i64,
    /// Codewords of each level.
    pub sizes: Vec<i64>,
    /// Whether a level quantises what the levels before left (RQ-VAE), or its own part of the
    /// latent vector (VQ-VAE: codes without a hierarchy).
    pub residual: bool,
}

impl Shape {
    /// Width of the latent vector.
    pub fn latent(&self) -> i64 {
        if self.residual { self.codeword } else { self.codeword * self.sizes.len() as i64 }
    }

    /// Output widths of the encoder's layers.
    pub fn widths(&self) -> Vec<i64> {
        let mut widths = self.hidden.clone();
        widths.push(self.latent());
        widths
    }

    /// Names, shapes and starts of the weights: PyTorch's default for linear layers, and
    /// codebooks that k-means overwrites.
    pub fn specs(&self) -> Vec<Spec> {
        let mut specs = Vec::new();
        let mut widths = [vec![self.input], self.widths()].concat();
        for part in ["encoder", "decoder"] {
            for (layer, pair) in widths.windows(2).enumerate() {
                let init = Init::Uniform((pair[0] as f64).powf(-0.5));
                let name = |kind: &str| format!("{part}.{layer}.{kind}");
                specs.push(Spec::new(name("weight"), vec![pair[1], pair[0]], init));
                specs.push(Spec::new(name("bias"), vec![pair[1]], init));
            }
            widths.reverse();
        }
        for (level, &size) in self.sizes.iter().enumerate() {
            let shape = vec![size, self.codeword];
            specs.push(Spec::new(codebook(level), shape, Init::Normal(0.1)));
        }
        specs
    }

    /// What a level quantises: the residual, or the level's part of the latent vector.
    fn target(&self, level: usize, z: &Tensor, residual: &Tensor) -> Tensor {
        if self.residual {
            residual.shallow_clone()
        } else {
            z.narrow(1, level as i64 * self.codeword, self.codeword)
        }
    }
}

/// Name of a level's codebook.
pub fn codebook(level: usize) -> String {
    format!("codebook.{level}")
}

/// How a pass quantises and what it weighs.
#[derive(Debug, Clone, Copy)]
pub struct Quantise {
    /// Weight of the commitment term.
    pub beta: f64,
    /// How the gradient passes.
    pub gradient: Gradient,
    /// Whether the last level's codewords are shared out evenly in a batch.
    pub balance_last: bool,
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
    /// What each level quantised, `[batch, codeword]` each.
    pub targets: Vec<Tensor>,
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

/// Latent vectors of normalised vectors `[batch, input]`.
pub fn encode(shape: &Shape, w: &Views, x: &Tensor) -> Tensor {
    mlp(w, "encoder", shape.hidden.len() + 1, x)
}

/// Reconstructs vectors from latent vectors.
pub fn decode(shape: &Shape, w: &Views, latent: &Tensor) -> Tensor {
    mlp(w, "decoder", shape.hidden.len() + 1, latent)
}

/// Encodes, quantises and decodes a batch (`[batch, input]`).
///
/// Residual quantisation: r_0 = z; c_d = argmin_k ||r_d - e_k||; r_{d+1} = r_d - e_{c_d}. The loss
/// terms are `||sg[r_d] - e||^2 + beta ||r_d - sg[e]||^2`; the decoder sees the chosen codewords.
pub fn pass(shape: &Shape, w: &Views, x: &Tensor, how: Quantise) -> Pass {
    let z = encode(shape, w, x);
    let mut residual = z.shallow_clone();
    let mut quantisation = Tensor::zeros([], (Kind::Float, x.device()));
    let (mut codes, mut targets, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    let per_item = |difference: Tensor| {
        difference.square().sum_dim_intlist([1].as_slice(), false, Kind::Float).mean(Kind::Float)
    };
    for level in 0..shape.sizes.len() {
        let codebook = w.get(&codebook(level));
        let target = shape.target(level, &z, &residual);
        let fixed = target.detach();
        let distances = relative_distances(&fixed, &codebook.detach());
        let code = if how.balance_last && level + 1 == shape.sizes.len() {
            balance::balanced(&distances)
        } else {
            distances.argmin(1, false)
        };
        let codeword = Tensor::embedding(codebook, &code, -1, false, false);
        let stopped = codeword.detach();
        quantisation =
            quantisation + per_item(&fixed - &codeword) + per_item(&target - &stopped) * how.beta;
        residual = if shape.residual { &residual - &stopped } else { residual };
        codes.push(code);
        targets.push(fixed);
        chosen.push(stopped);
    }
    let quantised = if shape.residual {
        chosen.iter().skip(1).fold(chosen[0].shallow_clone(), |sum, e| sum + e)
    } else {
        Tensor::cat(&chosen, 1)
    };
    let passed = match how.gradient {
        Gradient::StraightThrough => &z + (&quantised - &z).detach(),
        Gradient::Rotation => rotate(&z, &quantised),
    };
    let reconstruction = per_item(x - decode(shape, w, &passed));
    Pass { reconstruction, quantisation, codes: Tensor::stack(&codes, 1), targets }
}

/// `quantised` as a fixed rotation and stretching of each row of `z`, so that the gradient is
/// turned back into the latent vector's own frame.
///
/// With unit vectors e of z and q of the quantised one and r = (e + q) / ||e + q||, the rotation
/// is z - 2 r (r . z) + 2 q (e . z).
fn rotate(z: &Tensor, quantised: &Tensor) -> Tensor {
    let norm = |x: &Tensor| {
        x.square().sum_dim_intlist([1].as_slice(), true, Kind::Float).sqrt().clamp_min(1e-8)
    };
    let inner = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1].as_slice(), true, Kind::Float);
    let (z_norm, q_norm) = (norm(&z.detach()), norm(quantised));
    let e = z.detach() / &z_norm;
    let q = quantised / &q_norm;
    let sum = &e + &q;
    let r = &sum / norm(&sum);
    let turned = z - &r * inner(&r, z) * 2.0 + &q * inner(&e, z) * 2.0;
    turned * (q_norm / z_norm)
}

/// Starts each codebook by k-means on what the level will quantise of `x`.
pub fn initialise_codebooks(shape: &Shape, params: &Params, x: &Tensor, rng: &mut impl rand::Rng) {
    tch::no_grad(|| {
        let w = params.views();
        let z = encode(shape, &w, x);
        let mut residual = z.shallow_clone();
        for (level, &size) in shape.sizes.iter().enumerate() {
            let target = shape.target(level, &z, &residual);
            let clusters = kmeans(&target, size, rng);
            if shape.residual {
                residual = &residual - clusters.centres.index_select(0, &clusters.nearest);
            }
            w.get(&codebook(level)).shallow_clone().copy_(&clusters.centres);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::to_vec;
    use tch::Device;

    fn shape(residual: bool) -> Shape {
        Shape { input: 6, hidden: vec![5], codeword: 4, sizes: vec![3, 2], residual }
    }

    fn quantise(gradient: Gradient) -> Quantise {
        Quantise { beta: 0.25, gradient, balance_last: false }
    }

    #[test]
    fn both_gradients_give_the_decoder_the_quantised_vector() {
        let x = Tensor::randn([7, 6], (Kind::Float, Device::Cpu));
        for residual in [true, false] {
            let shape = shape(residual);
            let params = Params::new(shape.specs(), 1, Device::Cpu);
            let reconstruction = |gradient| {
                to_vec(&pass(&shape, &params.views(), &x, quantise(gradient)).reconstruction)[0]
            };
            let plain = reconstruction(Gradient::StraightThrough);
            assert!((plain - reconstruction(Gradient::Rotation)).abs() < 1e-5);
        }
    }

    #[test]
    fn the_rotation_keeps_the_angle_between_gradient_and_vector() {
        // d(out)/dz applied to z itself is the quantised vector: the gradient lies to the latent
        // vector as it lay to the codeword.
        let z = Tensor::from_slice(&[3.0f32, 4.0]).view([1, 2]).set_requires_grad(true);
        let quantised = Tensor::from_slice(&[0.0f32, 2.0]).view([1, 2]);
        let out = rotate(&z, &quantised);
        assert!((&out - &quantised).abs().max().double_value(&[]) < 1e-5);
        (&out * &quantised).sum(Kind::Float).backward();
        // The gradient is parallel to the codeword, so it comes back parallel to z.
        let gradient = to_vec(&z.grad());
        assert!((gradient[0] / gradient[1] - 0.75).abs() < 1e-4, "{gradient:?}");
    }

    #[test]
    fn levels_of_a_vq_vae_are_parts_and_those_of_an_rq_vae_residuals() {
        let x = Tensor::randn([4, 6], (Kind::Float, Device::Cpu));
        for residual in [true, false] {
            let shape = shape(residual);
            let params = Params::new(shape.specs(), 2, Device::Cpu);
            let w = params.views();
            let z = encode(&shape, &w, &x);
            assert_eq!(z.size(), [4, if residual { 4 } else { 8 }]);
            let step = pass(&shape, &w, &x, quantise(Gradient::StraightThrough));
            let expected = if residual {
                &z - w.get("codebook.0").index_select(0, &step.codes.select(1, 0))
            } else {
                z.narrow(1, 4, 4)
            };
            assert!((&step.targets[1] - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
