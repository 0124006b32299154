//! Parameters in one flat buffer, so that an optimiser step is a handful of kernels whatever the
//! number of weights, and autograd collects all gradients in one tensor.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, Tensor};

use crate::error::{Result, TrainError};

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

/// Name, shape and start of one weight.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The weight's name in files.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its start.
    pub init: Init,
}

impl Spec {
    fn len(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// All weights of a model in one flat `f32` tensor.
#[derive(Debug)]
pub struct Params {
    flat: Tensor,
    specs: Vec<Spec>,
}

/// The weights by name: views into the flat buffer.
#[derive(Debug)]
pub struct Views(HashMap<String, Tensor>);

impl Views {
    /// A weight.
    ///
    /// # Panics
    /// For a name that the model's specs do not have: a mistake in this crate.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }
}

impl Params {
    /// Initialises every weight; the same seed gives the same weights.
    pub fn new(specs: Vec<Spec>, seed: u64, device: Device) -> Self {
        tch::manual_seed(seed as i64);
        let parts: Vec<Tensor> = specs
            .iter()
            .map(|spec| {
                // Drawn on the CPU, so that the start does not depend on the device.
                let part = Tensor::zeros([spec.len()], (Kind::Float, Device::Cpu));
                match spec.init {
                    Init::Normal(deviation) => part.randn_like() * deviation,
                    Init::Uniform(bound) => (part.rand_like() * 2.0 - 1.0) * bound,
                    Init::Constant(value) => part + value,
                }
            })
            .collect();
        let flat = Tensor::cat(&parts, 0).to_device(device).set_requires_grad(true);
        Self { flat, specs }
    }

    /// The flat buffer, a leaf of autograd.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.flat.numel()
    }

    /// Whether there is no weight at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weights for one pass; gradients flow back into the flat buffer.
    pub fn views(&self) -> Views {
        let sizes: Vec<i64> = self.specs.iter().map(Spec::len).collect();
        let parts = self.flat.split_with_sizes(sizes, 0);
        Views(
            self.specs
                .iter()
                .zip(parts)
                .map(|(spec, part)| (spec.name.clone(), part.view(spec.shape.as_slice())))
                .collect(),
        )
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

    /// A copy of every weight on the host.
    pub fn to_host(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let all = to_vec(&self.flat);
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
    pub fn load(&mut self, weights: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<()> {
        let mut all = Vec::with_capacity(self.len());
        for spec in &self.specs {
            let Some((shape, values)) = weights.get(&spec.name) else {
                return Err(TrainError::usage(format!("weight `{}` is missing", spec.name)));
            };
            if shape.iter().map(|&s| s as i64).ne(spec.shape.iter().copied()) {
                return Err(TrainError::usage(format!(
                    "weight `{}` has shape {shape:?}, the model asks for {:?}",
                    spec.name, spec.shape
                )));
            }
            all.extend_from_slice(values);
        }
        tch::no_grad(|| self.flat.copy_(&Tensor::from_slice(&all)));
        Ok(())
    }
}

/// A tensor's values on the host, flat.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}
