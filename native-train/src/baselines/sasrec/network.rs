//! The network of SASRec (Kang and McAuley 2018, section 3): a decoder-only Transformer over item
//! embeddings with learned positions, normalised before each part, whose output is compared with
//! the item embeddings themselves.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::model::params::{Init, Spec, Views};

/// Sizes of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Network {
    /// Items of the catalogue.
    pub(super) items: i64,
    /// Positions: the longest history that is read.
    pub(super) positions: i64,
    pub(super) width: i64,
    pub(super) layers: usize,
    pub(super) heads: i64,
    pub(super) dropout: f64,
}

/// Histories of one batch, on a device.
#[derive(Debug)]
pub(super) struct Histories {
    /// `[batch, length]`, `i64`, padded on the left with any item.
    pub(super) items: Tensor,
    /// `[batch, length]`, bool, false at padding.
    pub(super) keep: Tensor,
}

const EPSILON: f64 = 1e-8;
const ITEMS: &str = "items.weight";

impl Network {
    /// Names, shapes and starts of the weights.
    pub(super) fn specs(&self) -> Vec<Spec> {
        let d = self.width;
        let mut specs = Vec::new();
        let mut add = |name: &str, shape: &[i64], init| {
            specs.push(Spec::new(name.to_owned(), shape.to_vec(), init));
        };
        add(ITEMS, &[self.items, d], Init::Normal(0.02));
        add("positions.weight", &[self.positions, d], Init::Normal(0.02));
        // Glorot and Bengio (2010).
        let square = Init::Uniform((3.0 / d as f64).sqrt());
        for layer in 0..self.layers {
            let at = |part: &str| format!("layers.{layer}.{part}");
            for part in ["attention_norm", "feed_forward_norm"] {
                add(&at(&format!("{part}.weight")), &[d], Init::Constant(1.0));
                add(&at(&format!("{part}.bias")), &[d], Init::Constant(0.0));
            }
            for part in ["query", "key", "value"] {
                add(&at(&format!("{part}.weight")), &[d, d], square);
            }
            for part in ["inner", "outer"] {
                add(&at(&format!("{part}.weight")), &[d, d], square);
                add(&at(&format!("{part}.bias")), &[d], Init::Constant(0.0));
            }
        }
        add("norm.weight", &[d], Init::Constant(1.0));
        add("norm.bias", &[d], Init::Constant(0.0));
        specs
    }

    /// The embeddings, which are input and output alike, `[items, width]`.
    pub(super) fn embeddings<'w>(&self, w: &'w Views) -> &'w Tensor {
        w.get(ITEMS)
    }

    /// What the network makes of each position with all before it, `[batch, length, width]`. The
    /// score of an item as the next one is its embedding's product with this. The rows of padding
    /// hold nothing of use.
    pub(super) fn forward(&self, w: &Views, histories: &Histories, train: bool) -> Tensor {
        let length = histories.items.size()[1];
        // The latest item always has the last position, however long the history.
        let positions = w.get("positions.weight").narrow(0, self.positions - length, length);
        let embedded = Tensor::embedding(self.embeddings(w), &histories.items, -1, false, false);
        let mut x = self.dropout(&(embedded * (self.width as f64).sqrt() + positions), train);
        let mask = self.mask(&histories.keep);
        for layer in 0..self.layers {
            let at = |part: &str| format!("layers.{layer}.{part}");
            let normed = norm(w, &at("attention_norm"), &x);
            x = self.residual(&x, &self.attention(w, layer, &normed, &mask, train), train);
            let normed = norm(w, &at("feed_forward_norm"), &x);
            let inner = linear(w, &at("inner"), &normed).relu();
            let outer = linear(w, &at("outer"), &self.dropout(&inner, train));
            x = self.residual(&x, &outer, train);
        }
        norm(w, "norm", &x)
    }

    fn attention(&self, w: &Views, layer: usize, x: &Tensor, mask: &Tensor, train: bool) -> Tensor {
        let (batch, length, width) = (x.size()[0], x.size()[1], self.width);
        let [query, key, value] = ["query", "key", "value"].map(|part| {
            x.linear(w.get(&format!("layers.{layer}.{part}.weight")), None::<Tensor>)
                .view([batch, length, self.heads, width / self.heads])
                .transpose(1, 2)
        });
        let scale = ((width / self.heads) as f64).sqrt();
        let scores = query.matmul(&key.transpose(-1, -2)) / scale + mask;
        let weights = self.dropout(&scores.softmax(-1, Kind::Float), train);
        weights.matmul(&value).transpose(1, 2).reshape([batch, length, width])
    }

    /// Additive, `[batch, 1, length, length]`: a position sees itself and what is before it, and
    /// no padding. Finite, so that a row of padding, which sees nothing, is uniform and not NaN.
    fn mask(&self, keep: &Tensor) -> Tensor {
        let length = keep.size()[1];
        let causal = Tensor::ones([length, length], (Kind::Bool, keep.device())).tril(0);
        let seen = keep.unsqueeze(1).logical_and(&causal).unsqueeze(1);
        seen.logical_not().to_kind(Kind::Float) * f64::from(f32::MIN)
    }

    fn residual(&self, x: &Tensor, update: &Tensor, train: bool) -> Tensor {
        x + self.dropout(update, train)
    }

    fn dropout(&self, x: &Tensor, train: bool) -> Tensor {
        if train && self.dropout > 0.0 { x.dropout(self.dropout, true) } else { x.shallow_clone() }
    }
}

fn norm(w: &Views, name: &str, x: &Tensor) -> Tensor {
    let [weight, bias] = ["weight", "bias"].map(|part| w.get(&format!("{name}.{part}")));
    x.layer_norm([weight.size()[0]].as_slice(), Some(weight), Some(bias), EPSILON, true)
}

fn linear(w: &Views, name: &str, x: &Tensor) -> Tensor {
    let [weight, bias] = ["weight", "bias"].map(|part| w.get(&format!("{name}.{part}")));
    x.linear(weight, Some(bias))
}

/// Rows of logits that are made together at least: each time all embeddings are read, and all their
/// gradients written. Of a million items they are 128 MB.
const LEAST_ROWS: i64 = 32;

/// Mean cross-entropy over the whole catalogue of `hidden` (`[rows, width]`), whose next items are
/// `targets` (`[rows]`, `i64`). Returns the loss, and a scalar whose gradient is the loss's.
///
/// Autograd would keep the logits of all rows for the backward pass, which do not fit for a large
/// catalogue. Here they are made a few rows at a time, and the gradient of the cross-entropy,
/// softmax minus one-hot, is taken by hand at once.
pub(super) fn cross_entropy(
    hidden: &Tensor,
    embeddings: &Tensor,
    targets: &Tensor,
) -> (Tensor, Tensor) {
    // Logits held at once: 8 MiB, of up to 65,536 items, stay in a CPU's cache; 256 MiB keep a GPU busy.
    let logits = if hidden.device().is_cuda() { 1 << 26 } else { 1 << 21 };
    let chunk = (logits / embeddings.size()[0]).max(LEAST_ROWS).min(hidden.size()[0]);
    cross_entropy_in_chunks(hidden, embeddings, targets, chunk)
}

fn cross_entropy_in_chunks(
    hidden: &Tensor,
    embeddings: &Tensor,
    targets: &Tensor,
    chunk: i64,
) -> (Tensor, Tensor) {
    let rows = hidden.size()[0];
    let (loss, to_hidden, to_embeddings) = tch::no_grad(|| {
        let (hidden, embeddings) = (hidden.detach(), embeddings.detach());
        let mut loss = Tensor::zeros([], (Kind::Float, hidden.device()));
        let mut to_embeddings = embeddings.zeros_like();
        let mut to_hidden = Vec::new();
        for Range { start, end } in chunks(rows, chunk) {
            let hidden = hidden.narrow(0, start, end - start);
            let target = targets.narrow(0, start, end - start).unsqueeze(1);
            let mut gradient = hidden.matmul(&embeddings.tr()).softmax(-1, Kind::Float);
            // Where a target's probability is below what `f32` holds, the loss is cut off at 87.
            loss -= gradient.gather(1, &target, false).clamp_min(1e-38).log().sum(Kind::Float);
            let one = Tensor::full_like(&target.to_kind(Kind::Float), -1.0);
            let _ = gradient.scatter_add_(1, &target, &one);
            to_hidden.push(gradient.matmul(&embeddings));
            let _ = to_embeddings.addmm_(&gradient.tr(), &hidden);
        }
        (loss / rows as f64, Tensor::cat(&to_hidden, 0) / rows as f64, to_embeddings / rows as f64)
    });
    let carrier =
        (hidden * to_hidden).sum(Kind::Float) + (embeddings * to_embeddings).sum(Kind::Float);
    (loss, carrier)
}

fn chunks(rows: i64, chunk: i64) -> impl Iterator<Item = Range<i64>> {
    (0..rows).step_by(chunk as usize).map(move |start| start..(start + chunk).min(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Params;
    use crate::model::params::to_vec;
    use crate::random;
    use std::collections::BTreeMap;
    use tch::Device;

    const NETWORK: Network =
        Network { items: 11, positions: 6, width: 8, layers: 2, heads: 2, dropout: 0.4 };

    /// Weights that are all drawn, norms and biases too.
    fn params(network: &Network) -> Params {
        let mut specs = network.specs();
        specs.iter_mut().for_each(|spec| spec.init = Init::Uniform(0.7));
        Params::new(specs, 3, Device::Cpu)
    }

    fn forward(params: &Params, rows: &[&[u32]], train: bool) -> Tensor {
        let rows: Vec<Vec<u32>> = rows.iter().map(|row| row.to_vec()).collect();
        let histories = NETWORK.histories(&rows, Device::Cpu);
        tch::no_grad(|| NETWORK.forward(&params.views(), &histories, train))
    }

    type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    /// The same network as loops over numbers, for one history without padding.
    fn forward_by_loops(weights: &Weights, history: &[u32]) -> Vec<Vec<f64>> {
        let d = NETWORK.width as usize;
        let get =
            |name: String| -> Vec<f64> { weights[&name].1.iter().map(|&x| f64::from(x)).collect() };
        let norm = |name: &str, x: &[f64]| -> Vec<f64> {
            let (weight, bias) = (get(format!("{name}.weight")), get(format!("{name}.bias")));
            let mean = x.iter().sum::<f64>() / d as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
            (0..d).map(|i| (x[i] - mean) / (variance + 1e-8).sqrt() * weight[i] + bias[i]).collect()
        };
        // Rows of a weight are outputs.
        let product = |name: String, x: &[f64]| -> Vec<f64> {
            get(name).chunks(d).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let (items, positions) = (get("items.weight".into()), get("positions.weight".into()));
        let first = NETWORK.positions as usize - history.len();
        let mut x: Vec<Vec<f64>> = history
            .iter()
            .enumerate()
            .map(|(t, &item)| {
                let at = |i| items[item as usize * d + i] * (d as f64).sqrt();
                (0..d).map(|i| at(i) + positions[(first + t) * d + i]).collect()
            })
            .collect();
        for layer in 0..NETWORK.layers {
            let at = |part: &str| format!("layers.{layer}.{part}");
            let normed: Vec<Vec<f64>> = x.iter().map(|x| norm(&at("attention_norm"), x)).collect();
            let [query, key, value] = ["query.weight", "key.weight", "value.weight"]
                .map(|part| normed.iter().map(|x| product(at(part), x)).collect::<Vec<_>>());
            let of_head = d / NETWORK.heads as usize;
            for t in 0..x.len() {
                for head in 0..NETWORK.heads as usize {
                    let part = head * of_head..(head + 1) * of_head;
                    let score = |s: usize| -> f64 {
                        let dot: f64 = part.clone().map(|i| query[t][i] * key[s][i]).sum();
                        (dot / (of_head as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = (0..=t).map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    for i in part.clone() {
                        x[t][i] += (0..=t).map(|s| scores[s] / sum * value[s][i]).sum::<f64>();
                    }
                }
            }
            for x in &mut x {
                let normed = norm(&at("feed_forward_norm"), x);
                let inner_bias = get(at("inner.bias"));
                let inner = product(at("inner.weight"), &normed);
                let inner: Vec<f64> = (0..d).map(|i| (inner[i] + inner_bias[i]).max(0.0)).collect();
                let (outer, bias) = (product(at("outer.weight"), &inner), get(at("outer.bias")));
                (0..d).for_each(|i| x[i] += outer[i] + bias[i]);
            }
        }
        x.iter().map(|x| norm("norm", x)).collect()
    }

    #[test]
    fn the_forward_pass_is_the_papers_formulas() {
        let params = params(&NETWORK);
        let rows: [&[u32]; 3] = [&[4, 0, 10, 4, 7, 1], &[3], &[9, 2, 2]];
        let hidden = to_vec(&forward(&params, &rows, false));
        let d = NETWORK.width as usize;
        for (row, history) in rows.iter().enumerate() {
            let expected = forward_by_loops(&params.to_host(), history).concat();
            let found = &hidden[((row + 1) * 6 - history.len()) * d..(row + 1) * 6 * d];
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_later_item_changes_nothing_before_it() {
        let params = params(&NETWORK);
        let hidden = |row: &[u32]| to_vec(&forward(&params, &[row], false));
        let (one, other) = (hidden(&[1, 2, 3, 4, 5]), hidden(&[1, 2, 3, 9, 5]));
        let d = NETWORK.width as usize;
        assert_eq!(one[..3 * d], other[..3 * d]);
        assert_ne!(one[3 * d..4 * d], other[3 * d..4 * d]);
        assert_ne!(one[4 * d..], other[4 * d..], "the last sees what is before it");
    }

    #[test]
    fn dropout_is_for_training_only() {
        let params = params(&NETWORK);
        let hidden = |train| to_vec(&forward(&params, &[&[1, 2, 3]], train));
        assert_eq!(hidden(false), hidden(false));
        assert_ne!(hidden(true), hidden(false));
    }

    #[test]
    fn the_loss_and_its_gradient_are_those_of_autograd() {
        let leaf = |seed, shape: [i64; 2]| random::normal(seed, shape).set_requires_grad(true);
        let (hidden, embeddings) = (leaf(1, [37, 8]), leaf(2, [11, 8]));
        let targets: Vec<i64> = (0..37).map(|row| row * 7 % 11).collect();
        let targets = Tensor::from_slice(&targets);
        let plain = hidden.matmul(&embeddings.tr()).cross_entropy_for_logits(&targets);
        let expected = Tensor::run_backward(&[&plain], &[&hidden, &embeddings], false, false);
        for chunk in [1, 5, 36, 37] {
            let (loss, carrier) = cross_entropy_in_chunks(&hidden, &embeddings, &targets, chunk);
            let found = Tensor::run_backward(&[&carrier], &[&hidden, &embeddings], false, false);
            assert!((loss.double_value(&[]) - plain.double_value(&[])).abs() < 1e-5);
            for (found, expected) in found.iter().zip(&expected) {
                let distance = (found - expected).abs().max().double_value(&[]);
                assert!(distance < 1e-6, "{distance} in chunks of {chunk}");
            }
        }
    }
}
