//! Parameters in one flat buffer, so that an optimiser step is a handful of kernels whatever the
//! number of weights, and autograd collects all gradients in one tensor.
//!
//! The buffer is `f32`. Computing in another kind takes one cast of the whole buffer a pass; its
//! gradient comes back in `f32`, so that small steps are not lost (Micikevicius et al. 2018).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::checkpoint::HostWeights;
use crate::error::{Result, TrainError};
use crate::random;

/// How a weight starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `-bound..bound`.
    Uniform(f64),
    /// This value.
    Constant(f64),
}

/// The kind in which a pass reads a weight, where its matrix products do not compute in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// In either.
    Both,
    /// In that of the products.
    Reduced,
    /// In `f32`.
    Full,
}

/// Name, shape and start of one weight.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The weight's name in files.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its start.
    pub init: Init,
    /// The matrix that this weight and its neighbours of the same stack form, row upon row; one
    /// product with it does the work of several. `None` for a weight on its own.
    pub stack: Option<String>,
    /// Which of [`Views::get`] and [`Views::matrix`] has it; both where all is `f32`.
    pub read: Read,
}

impl Spec {
    /// A weight on its own, which is read in `f32`.
    pub fn new(name: String, shape: Vec<i64>, init: Init) -> Self {
        Self { name, shape, init, stack: None, read: Read::Full }
    }

    /// The values of this weight.
    ///
    /// # Errors
    /// [`TrainError::Usage`] where it is missing or has another shape.
    pub fn values<'a>(&self, weights: &'a HostWeights) -> Result<&'a [f32]> {
        let Some((shape, values)) = weights.get(&self.name) else {
            return Err(TrainError::usage(format!("weight `{}` is missing", self.name)));
        };
        if shape.iter().map(|&s| s as i64).ne(self.shape.iter().copied()) {
            return Err(TrainError::usage(format!(
                "weight `{}` has shape {shape:?}, the model asks for {:?}",
                self.name, self.shape
            )));
        }
        Ok(values)
    }

    fn len(&self) -> i64 {
        self.shape.iter().product()
    }
}

struct Group<'a> {
    name: &'a str,
    shape: Vec<i64>,
    read: Read,
}

impl Group<'_> {
    fn len(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// All weights of a model in one flat `f32` tensor.
#[derive(Debug)]
pub struct Params {
    flat: Tensor,
    /// In the buffer's order.
    specs: Vec<Spec>,
}

/// The weights by name, and stacks of weights by theirs: views into the flat buffer.
#[derive(Debug)]
pub struct Views {
    master: HashMap<String, Tensor>,
    /// The same in the kind that computes, where it is not `f32`.
    reduced: Option<HashMap<String, Tensor>>,
    /// Where the inputs of products are summed up, if anyone asked.
    inputs: Option<InputGrams>,
}

/// By the name of a matrix or stack, X^T X of the rows X that it has multiplied, `[in, in]`, `f32`.
pub type InputGrams = Arc<Mutex<BTreeMap<String, Tensor>>>;

impl Views {
    /// The same views once more, for another thread.
    pub fn shallow_clone(&self) -> Self {
        let cloned = |views: &HashMap<String, Tensor>| {
            views.iter().map(|(name, view)| (name.clone(), view.shallow_clone())).collect()
        };
        Self {
            master: cloned(&self.master),
            reduced: self.reduced.as_ref().map(cloned),
            inputs: self.inputs.clone(),
        }
    }

    /// The same views; each product adds its input to `grams`, padding and all.
    pub fn recording(self, grams: &InputGrams) -> Self {
        Self { inputs: Some(Arc::clone(grams)), ..self }
    }

    /// Where they lie.
    pub fn device(&self) -> Device {
        self.master.values().next().map_or(Device::Cpu, Tensor::device)
    }

    /// A weight or stack in `f32`.
    ///
    /// # Panics
    /// For a name that the model's specs do not have, of a weight within a stack, or of one that is
    /// not [`Read`] so: a mistake in this crate.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.master[name]
    }

    /// The same in the kind that the matrix products compute in.
    ///
    /// # Panics
    /// As [`Views::get`].
    pub fn matrix(&self, name: &str) -> &Tensor {
        &self.reduced.as_ref().unwrap_or(&self.master)[name]
    }

    /// `x` (`[..., in]`) by a matrix or stack (`[out, in]`), in the kind that the matrix products
    /// compute in, `[..., out]`.
    ///
    /// # Panics
    /// As [`Views::get`].
    pub fn linear(&self, name: &str, x: &Tensor) -> Tensor {
        let matrix = self.matrix(name);
        if let Some(grams) = &self.inputs {
            let rows = x.detach().to_kind(Kind::Float).reshape([-1, matrix.size()[1]]);
            let gram = rows.transpose(0, 1).matmul(&rows);
            let mut grams = grams.lock().unwrap_or_else(PoisonError::into_inner);
            match grams.get_mut(name) {
                Some(sum) => *sum += gram,
                None => drop(grams.insert(name.to_owned(), gram)),
            }
        }
        x.to_kind(matrix.kind()).linear(matrix, None::<Tensor>)
    }
}

impl Params {
    /// Initialises every weight; the same seed gives the same weights.
    pub fn new(specs: Vec<Spec>, seed: u64, device: Device) -> Self {
        // A CPU keeps the order given, by which the last bits of the gradient's norm go.
        Self::in_order(specs, seed, device, device != Device::Cpu)
    }

    /// [`Params::new`]; `by_read` puts together in the buffer what is read in the same kind.
    fn in_order(specs: Vec<Spec>, seed: u64, device: Device, by_read: bool) -> Self {
        let start = |spec: &Spec| {
            // Drawn on the CPU, so that the start does not depend on the device.
            let part = Tensor::zeros([spec.len()], (Kind::Float, Device::Cpu));
            match spec.init {
                Init::Normal(deviation) => part.randn_like() * deviation,
                Init::Uniform(bound) => (part.rand_like() * 2.0 - 1.0) * bound,
                Init::Constant(value) => part + value,
            }
        };
        let parts: Vec<Tensor> = random::seeded(seed, || specs.iter().map(start).collect());
        let mut weights: Vec<(Spec, Tensor)> = specs.into_iter().zip(parts).collect();
        if by_read {
            weights.sort_by_key(|(spec, _)| spec.read);
        }
        let (specs, parts): (_, Vec<Tensor>) = weights.into_iter().unzip();
        let flat = Tensor::cat(&parts, 0).to_device(device).set_requires_grad(true);
        Self { flat, specs }
    }

    /// The flat buffer, a leaf of autograd.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The gradient of `loss` (`[]`, computed from this buffer's views) by the buffer, `[len]`, and by
    /// nothing else that has one.
    pub fn backward(&self, loss: &Tensor) -> Tensor {
        Tensor::run_backward(&[loss], &[&self.flat], false, false).swap_remove(0)
    }

    /// The same weights, in the same memory, as a leaf of its own: gradients of passes at the same
    /// time do not meet.
    pub fn replica(&self) -> Self {
        Self { flat: self.flat.detach().set_requires_grad(true), specs: self.specs.clone() }
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.flat.numel()
    }

    /// The weights for one pass in `f32`; gradients flow back into the flat buffer.
    pub fn views(&self) -> Views {
        self.views_in(Kind::Float)
    }

    /// The weights for one pass whose matrix products compute in `kind`.
    pub fn views_in(&self, kind: Kind) -> Views {
        if kind == Kind::Float {
            return Views { master: self.split(&self.flat, None), reduced: None, inputs: None };
        }
        let reduced = self.split(&self.flat.to_kind(kind), Some(Read::Full));
        Views {
            master: self.split(&self.flat, Some(Read::Reduced)),
            reduced: Some(reduced),
            inputs: None,
        }
    }

    /// Views of all that is not read as `unread`. Neighbours that are stay one part: autograd makes
    /// zeros for each part that nothing was computed from.
    fn split(&self, flat: &Tensor, unread: Option<Read>) -> HashMap<String, Tensor> {
        let groups = self.groups();
        let is_unread = |group: &Group<'_>| Some(group.read) == unread;
        let parts: Vec<&[Group<'_>]> =
            groups.chunk_by(|a, b| is_unread(a) && is_unread(b)).collect();
        let sizes: Vec<i64> = parts.iter().map(|part| part.iter().map(Group::len).sum()).collect();
        parts
            .iter()
            .zip(flat.split_with_sizes(sizes, 0))
            .filter(|(part, _)| !is_unread(&part[0]))
            .map(|(part, view)| (part[0].name.to_owned(), view.view(part[0].shape.as_slice())))
            .collect()
    }

    /// What [`Views`] are made of: stacks, and weights on their own, in the buffer's order.
    fn groups(&self) -> Vec<Group<'_>> {
        self.specs
            .chunk_by(|a, b| a.stack.is_some() && a.stack == b.stack)
            .map(|members| {
                let mut shape = members[0].shape.clone();
                shape[0] = members.iter().map(|spec| spec.shape[0]).sum();
                let name = members[0].stack.as_ref().unwrap_or(&members[0].name);
                Group { name, shape, read: members[0].read }
            })
            .collect()
    }

    /// A mask `[len]`, 1 where weight decay applies: everything but vectors (norms, biases).
    pub fn decay_mask(&self) -> Tensor {
        let parts: Vec<Tensor> = self
            .specs
            .iter()
            .map(|spec| {
                let decays = if spec.shape.len() > 1 { 1.0 } else { 0.0 };
                Tensor::full([spec.len()], decays, (Kind::Float, self.flat.device()))
            })
            .collect();
        Tensor::cat(&parts, 0)
    }

    /// How many values each weight has, `[weights]`, in the buffer's order.
    pub fn lengths(&self) -> Tensor {
        let lengths: Vec<i64> = self.specs.iter().map(Spec::len).collect();
        Tensor::from_slice(&lengths).to_device(self.flat.device())
    }

    /// A copy of every weight on the host.
    pub fn to_host(&self) -> HostWeights {
        self.by_name(&self.flat)
    }

    /// A flat tensor `[len]` that belongs to the buffer, such as an optimiser's moment, weight by
    /// weight on the host.
    pub fn by_name(&self, flat: &Tensor) -> HostWeights {
        let all = to_vec(flat);
        let mut at = 0;
        self.specs
            .iter()
            .map(|spec| {
                let len = spec.len() as usize;
                let values = all[at..at + len].to_vec();
                at += len;
                (spec.name.clone(), (spec.shape.iter().map(|&s| s as usize).collect(), values))
            })
            .collect()
    }

    /// Overwrites every weight.
    ///
    /// # Errors
    /// [`TrainError::Usage`] naming a weight that is missing or has another shape.
    pub fn load(&mut self, weights: &HostWeights) -> Result<()> {
        let flat = self.flat_of(weights)?;
        tch::no_grad(|| self.flat.copy_(&flat));
        Ok(())
    }

    /// The inverse of [`Params::by_name`]: `[len]`, `f32`, on the host.
    ///
    /// # Errors
    /// As [`Params::load`].
    pub fn flat_of(&self, weights: &HostWeights) -> Result<Tensor> {
        let mut all = Vec::with_capacity(self.count());
        for spec in &self.specs {
            all.extend_from_slice(spec.values(weights)?);
        }
        Ok(Tensor::from_slice(&all))
    }
}

/// A tensor's values on the host, flat.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights that are read in all ways, not one after the other.
    fn specs() -> Vec<Spec> {
        let spec = |name: &str, shape: &[i64], stack: Option<&str>, read| Spec {
            stack: stack.map(str::to_owned),
            read,
            ..Spec::new(name.to_owned(), shape.to_vec(), Init::Normal(1.0))
        };
        vec![
            spec("norm", &[4], None, Read::Full),
            spec("q", &[2, 4], Some("qk"), Read::Reduced),
            spec("k", &[3, 4], Some("qk"), Read::Reduced),
            spec("bias", &[3, 2], None, Read::Full),
            spec("out", &[4, 4], None, Read::Reduced),
            spec("shared", &[5, 4], None, Read::Both),
        ]
    }

    #[test]
    fn weights_and_gradients_do_not_depend_on_the_order_of_the_buffer() {
        let x = random::normal(2, [3, 4]);
        let of = |by_read, kind| {
            let params = Params::in_order(specs(), 7, Device::Cpu, by_read);
            let views = params.views_in(kind);
            let out = views.linear("out", &(&x * views.get("norm")));
            let loss = views.linear("qk", &out).sum(Kind::Float)
                + views.linear("shared", &out).sum(Kind::Float)
                + views.get("shared").square().sum(Kind::Float)
                + views.get("bias").square().sum(Kind::Float);
            (params.to_host(), params.by_name(&params.backward(&loss)))
        };
        for kind in [Kind::Float, Kind::BFloat16] {
            let (weights, gradients) = of(false, kind);
            assert!(gradients.values().all(|(_, values)| values.iter().any(|&g| g != 0.0)));
            assert_eq!(of(true, kind), (weights, gradients), "{kind:?}");
        }
        let sorted = Params::in_order(specs(), 7, Device::Cpu, true);
        let names: Vec<&str> = sorted.specs.iter().map(|spec| &spec.name[..]).collect();
        assert_eq!(names, ["shared", "q", "k", "out", "norm", "bias"]);
    }
}
