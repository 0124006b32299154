//! The layers of one pass through the network.

use tch::{Device, Kind, Tensor};
use tigret_infer::config::Stack;

use super::dropout::Dropout;
use super::params::Views;
use super::t5::T5;

/// What hides a position. Far from the least `f32`: as `bf16`, or times the logarithm of e to base 2
/// inside a fused kernel, that would be infinite, and a row with nothing to see not a number instead
/// of uniform.
const HIDDEN: f64 = -1e30;

/// To multiples of how many elements ATen pads the rows of a bias for its fused kernel.
const BIAS_ROW: i64 = 8;

/// One pass: the network, its weights, and dropout where it trains.
pub(super) struct Pass<'a> {
    pub(super) model: &'a T5,
    pub(super) weights: &'a Views,
    pub(super) train: Option<&'a Dropout>,
}

impl Pass<'_> {
    pub(super) fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(self.weights.get("shared.weight"), tokens, -1, false, false)
    }

    pub(super) fn head(&self, x: &Tensor) -> Tensor {
        let name = if self.model.config().tie_word_embeddings {
            "shared.weight"
        } else {
            "lm_head.weight"
        };
        self.weights
            .linear(name, &(x * f64::from(self.model.config().head_scale())))
            .to_kind(Kind::Float)
    }

    /// `x` through the norm of a name.
    pub(super) fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let weight = self.weights.get(&format!("{name}.weight"));
        let config = self.model.config();
        x.rms_norm([config.d_model as i64], Some(weight), f64::from(config.layer_norm_epsilon))
    }

    /// Dropout, in place on a CPU: `x` must be nothing that autograd reads again.
    pub(super) fn dropout(&self, x: Tensor) -> Tensor {
        match self.train {
            Some(dropout) => dropout.apply_(x),
            None => x,
        }
    }

    fn residual(&self, x: Tensor, update: Tensor) -> Tensor {
        x + self.dropout(update)
    }

    /// `[batch, length, d_model]` by a matrix of `N` projections one below the other, each to
    /// heads, `[batch, heads, length, d_kv]`.
    pub(super) fn project<const N: usize>(&self, name: &str, x: &Tensor) -> [Tensor; N] {
        let (batch, length) = (x.size()[0], x.size()[1]);
        let (heads, d_kv) = (self.model.config().num_heads as i64, self.model.config().d_kv as i64);
        let all = self.weights.linear(name, x).view([batch, length, N as i64, heads, d_kv]);
        if all.device() != Device::Cpu {
            return heads_of(&all);
        }
        // One copy now, and one on the way back, instead of one for each part.
        let parts = all.permute([2, 0, 3, 1, 4]).contiguous().unbind(0);
        // `unbind` returns as many parts as the axis is long.
        std::array::from_fn(|part| parts[part].shallow_clone())
    }

    /// Heads back to `[batch, length, d_model]`.
    pub(super) fn output(&self, attention: &str, context: &Tensor) -> Tensor {
        let (batch, length) = (context.size()[0], context.size()[2]);
        let joined =
            context.transpose(1, 2).reshape([batch, length, self.model.config().inner() as i64]);
        self.weights.linear(&format!("{attention}.o.weight"), &joined)
    }

    /// Unscaled attention with an additive bias (`[batch or 1, heads or 1, query or 1, key]`, from
    /// [`Pass::for_attention`]); one fused kernel where the device has it for these operands.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
        if q.device() == Device::Cpu {
            // ATen has no fused CPU kernel with dropout or a bias that learns, and its fallback
            // scales queries and keys apart: two passes over memory for a factor of 1.
            let mut scores = q.matmul(&k.transpose(-1, -2));
            let weights = match scores.kind() == bias.kind() {
                true => scores.g_add_(bias),
                false => scores + bias,
            }
            .softmax(-1, Kind::Float);
            // Softmax's gradient reads its result, so not in place.
            let weights = match self.train {
                Some(dropout) => dropout.apply(&weights),
                None => weights,
            };
            return weights.to_kind(v.kind()).matmul(v);
        }
        let (batch, heads) = (q.size()[0], q.size()[1]);
        let (query, key) = (q.size()[2], k.size()[2]);
        let bias = match self.train {
            // With a bias that needs no gradient ATen takes cuDNN's kernel, some of which round the
            // dropout to sixteenths, and which need not give the same result again. What is left may
            // still add the parts of a gradient in any order (docs/fidelity.md, randomness).
            Some(_) if !bias.requires_grad() => bias.detach().set_requires_grad(true),
            _ => bias.shallow_clone(),
        };
        let bias = bias.expand([batch, heads, query, key], true);
        let rate = self.train.map_or(0.0, Dropout::rate);
        Tensor::scaled_dot_product_attention(q, k, v, Some(bias), rate, false, 1.0, false)
    }

    pub(super) fn self_attention(&self, at: &str, x: Tensor, bias: &Tensor) -> Tensor {
        let normed = self.norm(&x, &format!("{at}.0.layer_norm"));
        let attention = format!("{at}.0.SelfAttention");
        let [q, k, v] = self.project(&format!("{attention}.qkv.weight"), &normed);
        let context = self.attend(&q, &k, &v, bias);
        self.residual(x, self.output(&attention, &context))
    }

    pub(super) fn cross_attention(
        &self,
        at: &str,
        x: Tensor,
        (k, v): &(Tensor, Tensor),
        mask: &Tensor,
    ) -> Tensor {
        let normed = self.norm(&x, &format!("{at}.1.layer_norm"));
        let attention = format!("{at}.1.EncDecAttention");
        let [q] = self.project(&format!("{attention}.q.weight"), &normed);
        let context = self.attend(&q, k, v, mask);
        self.residual(x, self.output(&attention, &context))
    }

    pub(super) fn feed_forward(&self, at: &str, layer: usize, x: Tensor) -> Tensor {
        let normed = self.norm(&x, &format!("{at}.{layer}.layer_norm"));
        let dense = format!("{at}.{layer}.DenseReluDense");
        // HF drops after ReLU. A factor of 0 or more commutes with it, and in this order both can
        // work in place.
        let hidden =
            self.dropout(self.weights.linear(&format!("{dense}.wi.weight"), &normed)).relu_();
        self.residual(x, self.weights.linear(&format!("{dense}.wo.weight"), &hidden))
    }

    /// Relative position bias of a stack, `[1, heads, length, length]`.
    pub(super) fn position_bias(&self, stack: Stack, length: i64) -> Tensor {
        let table = self.weights.get(&stack.position_bias());
        let buckets = self.model.position_buckets(stack, length, table.device());
        let bias = Tensor::embedding(table, &buckets, -1, false, false).permute([2, 0, 1]);
        // No fused kernel takes a bias whose neighbouring keys are not neighbours in memory.
        bias.contiguous().unsqueeze(0)
    }

    /// A bias as [`Pass::attend`] takes it, made once for all layers: on CUDA what ATen would make of
    /// it for its fused kernel in each layer anew.
    pub(super) fn for_attention(&self, bias: Tensor) -> Tensor {
        if bias.device() == Device::Cpu {
            return bias;
        }
        aligned(&bias.to_kind(self.products()))
    }

    /// The input of several products, cast once on a GPU. On a CPU each product casts it, so that its
    /// gradients are summed up in `f32`.
    pub(super) fn for_products(&self, x: &Tensor) -> Tensor {
        if x.device() == Device::Cpu { x.shallow_clone() } else { x.to_kind(self.products()) }
    }

    /// What the matrix products compute in.
    fn products(&self) -> Kind {
        self.weights.matrix("encoder.block.0.layer.0.SelfAttention.o.weight").kind()
    }
}

/// `[batch, length, N, heads, d_kv]` as N views `[batch, heads, length, d_kv]`: fused attention takes
/// any strides with neighbours in the last axis, and its gradients come back in that order.
fn heads_of<const N: usize>(all: &Tensor) -> [Tensor; N] {
    // `unbind`'s gradient is a copy, also of a single part.
    let parts = if N == 1 { vec![all.squeeze_dim(2)] } else { all.unbind(2) };
    std::array::from_fn(|part| parts[part].transpose(1, 2))
}

/// `[batch, length]` bool to an additive mask `[batch, 1, 1, length]`.
pub(super) fn additive_mask(keep: &Tensor) -> Tensor {
    additive_mask_of(keep).unsqueeze(1).unsqueeze(1)
}

/// The same values in rows that begin at multiples of [`BIAS_ROW`] elements.
pub(super) fn aligned(bias: &Tensor) -> Tensor {
    let keys = bias.size()[bias.dim() - 1];
    bias.constant_pad_nd([0, (BIAS_ROW - keys % BIAS_ROW) % BIAS_ROW]).narrow(-1, 0, keys)
}

/// 0 where true, [`HIDDEN`] where false.
pub(super) fn additive_mask_of(keep: &Tensor) -> Tensor {
    keep.logical_not().to_kind(Kind::Float) * HIDDEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Params;
    use crate::model::presets::Preset;
    use tigret_infer::TokenLayout;

    #[test]
    fn heads_without_a_copy_are_those_with_one() {
        let all = crate::random::normal(1, [2, 5, 3, 4, 8]);
        let copied = all.permute([2, 0, 3, 1, 4]).contiguous().unbind(0);
        for (part, copied) in heads_of::<3>(&all).iter().zip(&copied) {
            assert!(part.equal(copied));
            let strides = part.stride();
            assert!(strides[3] == 1 && strides[..3].iter().all(|s| s % BIAS_ROW == 0));
        }
        let [one] = heads_of(&all.narrow(2, 1, 1));
        assert!(one.equal(&copied[1]));
    }

    #[test]
    fn a_bias_lies_in_memory_as_fused_kernels_take_it() {
        let layout = TokenLayout::contiguous(&[5, 4, 2], 6, 4);
        let model = T5::new(Preset::Tiny.config(&layout));
        let weights = Params::new(model.specs(), 0, Device::Cpu).views();
        let pass = Pass { model: &model, weights: &weights, train: None };
        let keep = Tensor::from_slice(&[true, true, true, false]).view([1, 4]);
        for length in [3, 8, 13] {
            let bias = pass.position_bias(Stack::Encoder, length);
            for bias in [bias, additive_mask(&keep)] {
                let aligned = aligned(&bias);
                let strides = aligned.stride();
                assert_eq!(strides[3], 1);
                assert!(strides[..3].iter().all(|stride| stride % BIAS_ROW == 0), "{strides:?}");
                assert!(aligned.equal(&bias));
            }
        }
    }
}
