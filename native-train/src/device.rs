//! Where to compute, as a user names it.

use std::path::Path;
use std::sync::Once;

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Result, TrainError};
use crate::stderr::say;

/// What Linux has where there is an NVIDIA GPU and its driver; a container's GPU may have any number.
const NVIDIA: &str = "/dev/nvidiactl";
/// What hides GPUs from CUDA.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// What is the matter without a CUDA device, and what to do.
const NO_CUDA: &str = "this libtorch sees no CUDA device; it has to be a CUDA build of torch 2.11.0, \
                       whose lib folder comes first in LD_LIBRARY_PATH, and the driver one for it";

/// Whether there is a GPU that nobody has hidden.
fn has_unused_gpu() -> bool {
    !std::env::var(VISIBLE).is_ok_and(|devices| hides_all(&devices)) && Path::new(NVIDIA).exists()
}

/// Whether CUDA shows none where [`VISIBLE`] is this: it shows those named before the first that there
/// cannot be.
fn hides_all(devices: &str) -> bool {
    devices.is_empty() || devices.starts_with('-')
}

/// A device as people call it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cpu => "the CPU".to_owned(),
        Device::Cuda(number) => format!("CUDA device {number}"),
        other => format!("{other:?}"),
    }
}

/// The value of every `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// CUDA where this build and machine have it, else the CPU.
    Auto,
    /// The CPU's threads.
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl DeviceChoice {
    /// The device of libtorch.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when CUDA is asked for and there is none.
    pub fn torch(self) -> Result<Device> {
        match self {
            Self::Auto => {
                let device = Device::cuda_if_available();
                if device == Device::Cpu && has_unused_gpu() {
                    static ONCE: Once = Once::new();
                    ONCE.call_once(|| {
                        say(format_args!(
                            "computing on the CPU, though there is an NVIDIA GPU: {NO_CUDA}"
                        ));
                    });
                }
                Ok(device)
            }
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if Cuda::is_available() => Ok(Device::Cuda(0)),
            Self::Cuda => {
                Err(TrainError::usage(format!("--device cuda: {NO_CUDA}, or use --device cpu")))
            }
        }
    }
}

/// For tests that hold a device's results against those of the CPU.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Checks on the CPU, so that the check itself is known to work, and on CUDA where it is there.
    pub(crate) fn on_cpu_and_cuda(check: impl Fn(Device)) {
        check(Device::Cpu);
        if Cuda::is_available() {
            check(Device::Cuda(0));
            return;
        }
        assert!(std::env::var_os("TIGRET_REQUIRE_CUDA").is_none(), "{NO_CUDA}");
        tigret_infer::testing::skipped("what runs on CUDA: libtorch sees no CUDA device");
    }

    /// The cosine of the angle between two vectors.
    pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_gpu_hides_all() {
        assert!(["", "-1", "-1,0"].into_iter().all(hides_all));
        assert!(!["0", "1,0", "0,-1", "GPU-1f"].into_iter().any(hides_all));
    }
}
