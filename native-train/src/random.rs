//! libtorch's generator, which all threads share.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

static GENERATOR: Mutex<()> = Mutex::new(());

/// Draws with libtorch's generator from this seed on. Nothing else draws meanwhile, so the same
/// seed gives the same values whatever other threads do; `draw` must not come here again.
pub(crate) fn seeded<T>(seed: u64, draw: impl FnOnce() -> T) -> T {
    let _lock = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed as i64);
    draw()
}

/// Standard normal values on the host, `f32`.
pub(crate) fn normal<const N: usize>(seed: u64, shape: [i64; N]) -> Tensor {
    seeded(seed, || Tensor::randn(shape, (Kind::Float, Device::Cpu)))
}
