//! The autoencoder whose latent vector is quantised: RQ-VAE (paper, section 3.1) and VQ-VAE.

use clap::ValueEnum;
use serde::Serialize;
use tch::{Kind, Reduction, Tensor};

use super::balance;
use super::kmeans::{Centres, kmeans};
use crate::model::params::{Init, Params, Spec, Views};

/// How the gradient passes the quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
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

    /// Floating-point operations of an item's matrix products in a training step.
    pub fn flop_per_item(&self) -> f64 {
        // Encoder and decoder; a multiply and an add each; forward, and two products backward.
        let pairs = [vec![self.input], self.widths()].concat();
        let products: i64 = pairs.windows(2).map(|pair| pair[0] * pair[1]).sum();
        (products * 2 * 2 * 3) as f64
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
        let shape = vec![self.sizes.iter().sum(), self.codeword];
        specs.push(Spec::new(CODEBOOKS.to_owned(), shape, Init::Normal(0.1)));
        specs
    }

    /// A level's part of [`CODEBOOKS`] or of anything else that has a row a codeword.
    pub fn of_level(&self, all: &Tensor, level: usize) -> Tensor {
        all.narrow(0, self.first_row(level), self.sizes[level])
    }

    /// The row of a level's first codeword in [`CODEBOOKS`].
    fn first_row(&self, level: usize) -> i64 {
        self.sizes[..level].iter().sum()
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

/// Name of the weight that holds the codewords of all levels, `[sum of sizes, codeword]`.
pub const CODEBOOKS: &str = "codebooks";

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
    /// What was chosen, and of what.
    pub choice: Choice,
}

/// The codewords of a batch.
#[derive(Debug)]
pub struct Choice {
    /// Rows of [`CODEBOOKS`], `[batch, levels]`: codes counted through all levels.
    pub rows: Tensor,
    /// What each level quantised, `[batch, levels, codeword]`.
    pub targets: Tensor,
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

/// Latent vectors `[batch, latent]` of normalised vectors `[batch, input]`.
pub fn encode(shape: &Shape, w: &Views, x: &Tensor) -> Tensor {
    mlp(w, "encoder", shape.hidden.len() + 1, x)
}

/// Reconstructs vectors `[batch, input]` from latent vectors `[batch, latent]`.
pub fn decode(shape: &Shape, w: &Views, latent: &Tensor) -> Tensor {
    mlp(w, "decoder", shape.hidden.len() + 1, latent)
}

/// Encodes, quantises and decodes a batch (`[batch, input]`).
///
/// Residual quantisation: r_0 = z; c_d = argmin_k ||r_d - e_k||; r_{d+1} = r_d - e_{c_d}. The loss
/// terms are `||sg[r_d] - e||^2 + beta ||r_d - sg[e]||^2`; the decoder sees the chosen codewords.
///
/// All levels share their kernels but for the choice itself: on a GPU a step takes as long as its
/// launches do.
pub fn pass(shape: &Shape, w: &Views, x: &Tensor, how: Quantise) -> Pass {
    let items = x.size()[0];
    let per_item = |sum: Tensor, weight: f64| sum * (weight / items as f64);
    let z = encode(shape, w, x);
    let codebooks = w.get(CODEBOOKS);
    let choice = tch::no_grad(|| choose(shape, codebooks, &z, how.balance_last));
    let codewords = Tensor::embedding(codebooks, &choice.rows, -1, false, false);
    let codebook_term = codewords.mse_loss(&choice.targets, Reduction::Sum);
    let stopped = codewords.detach();
    // ||r_d - e_d|| is the distance of z from all codewords so far, so that the residuals'
    // gradients need no subtraction of their own.
    let (latent, aim) = match shape.residual {
        true => (z.unsqueeze(1), stopped.cumsum(1, Kind::Float)),
        false => (z.view([items, -1, shape.codeword]), stopped),
    };
    let commitment = latent.expand_as(&aim).mse_loss(&aim, Reduction::Sum);
    let quantised = match shape.residual {
        true => aim.select(1, -1),
        false => aim.view([items, -1]),
    };
    let passed = match how.gradient {
        Gradient::StraightThrough => &z + (&quantised - &z).detach(),
        Gradient::Rotation => rotate(&z, &quantised),
    };
    let reconstruction = decode(shape, w, &passed).mse_loss(x, Reduction::Sum);
    Pass {
        reconstruction: per_item(reconstruction, 1.0),
        quantisation: per_item(codebook_term, 1.0) + per_item(commitment, how.beta),
        choice,
    }
}

/// Chooses the codewords of latent vectors `[batch, latent]`.
fn choose(shape: &Shape, codebooks: &Tensor, z: &Tensor, balance_last: bool) -> Choice {
    let centres = Centres::new(codebooks);
    let mut residual = z.shallow_clone();
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (level, &size) in shape.sizes.iter().enumerate() {
        let first = shape.first_row(level);
        let last = level + 1 == shape.sizes.len();
        let target = shape.target(level, z, &residual);
        let distances = centres.narrow(first, size).relative_distances(&target);
        let code = match balance_last && last {
            true => balance::balanced(&distances),
            false => distances.argmin(1, false),
        };
        let row = if first > 0 { code + first } else { code };
        if shape.residual && !last {
            residual = &target - codebooks.index_select(0, &row);
        }
        rows.push(row);
        targets.push(target);
    }
    Choice { rows: Tensor::stack(&rows, 1), targets: Tensor::stack(&targets, 1) }
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
            shape.of_level(w.get(CODEBOOKS), level).copy_(&clusters.centres);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::to_vec;
    use crate::random;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    fn shape(residual: bool) -> Shape {
        Shape { input: 6, hidden: vec![5], codeword: 4, sizes: vec![3, 2], residual }
    }

    fn quantise(gradient: Gradient) -> Quantise {
        Quantise { beta: 0.25, gradient, balance_last: false }
    }

    #[test]
    fn both_gradients_give_the_decoder_the_quantised_vector() {
        let x = random::normal(7, [7, 6]);
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
    fn the_rotation_trick_is_the_matrix_of_its_paper_held_fixed() {
        // Fifty et al. 2024, section 4: q~ = (|q| / |e|) R e with R = I - 2 r r^T + 2 q^ e^T, where
        // hats are unit vectors, r = (e^ + q^) / |e^ + q^|, and no gradient flows into R or the ratio.
        let [z, quantised, upstream] = [1, 2, 3].map(|seed| random::normal(seed, [5, 4]));
        let z = z.set_requires_grad(true);
        let turned = rotate(&z, &quantised);
        (&turned * &upstream).sum(Kind::Float).backward();
        let rows = |x: &Tensor| -> Vec<Vec<f64>> {
            to_vec(x).chunks(4).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
        };
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let unit = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| v / norm(x)).collect() };
        let (values, gradients) = (rows(&turned), rows(&z.grad()));
        for (at, ((z, q), up)) in
            rows(&z).iter().zip(rows(&quantised)).zip(rows(&upstream)).enumerate()
        {
            let (e, q_unit) = (unit(z), unit(&q));
            let sum: Vec<f64> = e.iter().zip(&q_unit).map(|(a, b)| a + b).collect();
            let r = unit(&sum);
            let matrix = |i: usize, j: usize| {
                let one = if i == j { 1.0 } else { 0.0 };
                norm(&q) / norm(z) * (one - 2.0 * r[i] * r[j] + 2.0 * q_unit[i] * e[j])
            };
            for i in 0..4 {
                let value: f64 = (0..4).map(|j| matrix(i, j) * z[j]).sum();
                let gradient: f64 = (0..4).map(|j| matrix(j, i) * up[j]).sum();
                assert!((value - q[i]).abs() < 1e-5 && (values[at][i] - q[i]).abs() < 1e-5);
                assert!((gradient - gradients[at][i]).abs() < 1e-4, "{at} {i}: {gradient}");
            }
        }
    }

    /// The loss written down level by level, as the paper has it, and its gradient.
    fn plain_loss_and_gradient(
        shape: &Shape,
        params: &Params,
        x: &Tensor,
        how: Quantise,
    ) -> Vec<f32> {
        let w = params.views();
        let z = encode(shape, &w, x);
        let mut residual = z.shallow_clone();
        let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
        let per_item = |x: Tensor| {
            x.square().sum_dim_intlist([1].as_slice(), false, Kind::Float).mean(Kind::Float)
        };
        let mut chosen = Vec::new();
        for level in 0..shape.sizes.len() {
            let codebook = shape.of_level(w.get(CODEBOOKS), level);
            let target = shape.target(level, &z, &residual);
            let distances = (target.unsqueeze(1) - codebook.unsqueeze(0)).square();
            let code =
                distances.sum_dim_intlist([2].as_slice(), false, Kind::Float).argmin(1, false);
            let codeword = codebook.index_select(0, &code);
            loss += per_item(target.detach() - &codeword);
            loss += per_item(&target - codeword.detach()) * how.beta;
            residual = if shape.residual { residual - codeword.detach() } else { residual };
            chosen.push(codeword.detach());
        }
        let quantised = match shape.residual {
            true => chosen.iter().skip(1).fold(chosen[0].shallow_clone(), |sum, e| sum + e),
            false => Tensor::cat(&chosen, 1),
        };
        let passed = match how.gradient {
            Gradient::StraightThrough => &z + (&quantised - &z).detach(),
            Gradient::Rotation => rotate(&z, &quantised),
        };
        loss += per_item(x - decode(shape, &w, &passed));
        [to_vec(&loss), to_vec(&params.backward(&loss))].concat()
    }

    #[test]
    fn a_pass_has_loss_and_gradient_of_the_paper_s_formula() {
        for (residual, gradient) in [
            (true, Gradient::StraightThrough),
            (true, Gradient::Rotation),
            (false, Gradient::StraightThrough),
            (false, Gradient::Rotation),
        ] {
            let shape = shape(residual);
            let x = random::normal(9, [9, 6]);
            let how = quantise(gradient);
            let ours = Params::new(shape.specs(), 4, Device::Cpu);
            let plain = Params::new(shape.specs(), 4, Device::Cpu);
            let step = pass(&shape, &ours.views(), &x, how);
            let loss = &step.reconstruction + &step.quantisation;
            let found = [to_vec(&loss), to_vec(&ours.backward(&loss))].concat();
            let expected = plain_loss_and_gradient(&shape, &plain, &x, how);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 1e-5, "{residual} {gradient:?} {at}");
            }
        }
    }

    #[test]
    fn levels_of_a_vq_vae_are_parts_and_those_of_an_rq_vae_residuals() {
        let x = random::normal(4, [4, 6]);
        for residual in [true, false] {
            let shape = shape(residual);
            let params = Params::new(shape.specs(), 2, Device::Cpu);
            let w = params.views();
            let z = encode(&shape, &w, &x);
            assert_eq!(z.size(), [4, if residual { 4 } else { 8 }]);
            let step = pass(&shape, &w, &x, quantise(Gradient::StraightThrough));
            let expected = if residual {
                &z - w.get(CODEBOOKS).index_select(0, &step.choice.rows.select(1, 0))
            } else {
                z.narrow(1, 4, 4)
            };
            assert!(
                (&step.choice.targets.select(1, 1) - expected).abs().max().double_value(&[]) < 1e-6
            );
        }
    }

    #[test]
    fn codewords_start_at_the_centres_of_what_their_level_quantises() {
        let x = random::normal(3, [60, 6]);
        for residual in [true, false] {
            let shape = shape(residual);
            let params = Params::new(shape.specs(), 4, Device::Cpu);
            initialise_codebooks(&shape, &params, &x, &mut ChaCha8Rng::seed_from_u64(1));
            let w = tch::no_grad(|| params.views());
            let z = encode(&shape, &w, &x);
            let mut target = z.narrow(1, 0, 4);
            for (level, &size) in shape.sizes.iter().enumerate() {
                let codebook = shape.of_level(w.get(CODEBOOKS), level);
                let squares = (target.unsqueeze(1) - codebook.unsqueeze(0)).square();
                let distances = squares.sum_dim_intlist([2].as_slice(), false, Kind::Float);
                let nearest = distances.argmin(1, false);
                for code in 0..size {
                    let rows = nearest.eq(code).nonzero().view([-1]);
                    let points = target.index_select(0, &rows);
                    let centre = points.mean_dim([0].as_slice(), false, Kind::Float);
                    let off = (centre - codebook.get(code)).abs().max().double_value(&[]);
                    assert!(off < 1e-5, "{residual}, level {level}, code {code}: {off}");
                }
                target = match residual {
                    true => target - codebook.index_select(0, &nearest),
                    false => z.narrow(1, 4, 4),
                };
            }
        }
    }
}
