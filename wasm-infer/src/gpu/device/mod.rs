//! What the executor needs of a device: buffers, kernels, and one submit of launches. Natively it
//! is wgpu's; in a page it is the browser's own, through web-sys, since wgpu in between takes
//! 33 KB of a module that has to stay small, and compiles one pipeline after the other there.

#[cfg_attr(target_arch = "wasm32", path = "page.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "native.rs")]
mod backend;

use std::sync::{Arc, Mutex, PoisonError};

use tigret_shaders::Shader;

use crate::error::InferError;

#[cfg(not(target_arch = "wasm32"))]
pub use backend::Counts;
pub(super) use backend::{Buffer, Device, Group, Kernel};

/// What a device has beyond plain WGSL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extras {
    /// [`tigret_shaders::Requirement::Halves`].
    pub(super) halves: bool,
    /// [`tigret_shaders::Requirement::PackedProducts`].
    pub(super) packed_products: bool,
    /// [`tigret_shaders::Requirement::Subgroups`].
    pub(super) subgroups: bool,
}

/// What there is to know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    /// Whether the adapter is software that runs on the processor, as llvmpipe and SwiftShader are.
    pub(super) software: bool,
    /// Whether packed dot products are emulated: on Metal, which has none.
    pub(super) unpacks: bool,
    /// What the device has beyond plain WGSL.
    pub(super) extras: Extras,
    /// Most bytes of a storage buffer.
    pub(super) limit: u64,
}

/// How far a kernel may loop on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Candidates of a step.
    pub(super) candidates: u64,
    /// Iterations that an invocation of an attention makes.
    pub(super) iterations: u64,
}

impl Bounds {
    /// One workgroup walks all candidates, and a driver takes a kernel that runs for seconds for one
    /// that hangs. 512 beams over codebooks of 8,192 have as many.
    const HARDWARE: Self = Self { candidates: 4 << 20, iterations: u64::MAX };
    /// Mesa's adapter ends the loops of an invocation after this many iterations, all loops together.
    /// `select` walks the candidates six times with 256 invocations, and for each of 512 beams that
    /// survive it takes 65 more at most: two binary searches among 2^28 items, and a path of 7 steps.
    const MESA_SOFTWARE: Self =
        Self { candidates: (65_535 - 512 * (2 * 29 + 7) - 512) / 6 * 256, iterations: 65_535 };
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Weights and values of kernels.
    Storage,
    /// Parameters of launches, [`PARAMS_STRIDE`] bytes each.
    Params,
    /// What the host reads.
    ReadBack,
}

/// Bytes between the parameters of two launches: the largest alignment that WebGPU allows.
pub(super) const PARAMS_STRIDE: usize = 256;

/// Bytes of the parameters of a launch.
const PARAMS_BYTES: u64 = super::params::PARAMS as u64 * 4;

/// A kernel over buffers.
pub(super) struct Launch<'a> {
    /// Of the group.
    pub(super) kernel: &'a Kernel,
    /// The buffers.
    pub(super) group: &'a Group,
    /// Where the parameters stand, in bytes.
    pub(super) params_at: u32,
    /// Workgroups in x and y.
    pub(super) workgroups: [u32; 2],
}

/// Why a device can no longer be used; the first reason stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn record(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    /// Whether there is one.
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing where there is none.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] with what it is.
    pub(super) fn check(&self) -> Result<(), InferError> {
        self.get().map_or(Ok(()), |what| Err(InferError::DeviceLost(what)))
    }
}

/// The text of a kernel, behind the directives that it needs.
fn source(shader: &Shader, directives: &str) -> String {
    directives.to_owned() + &shader.source.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_walks_512_beams_over_codebooks_of_8192_and_no_more() {
        assert_eq!(Bounds::HARDWARE.candidates, 512 * 8192);
    }
}
