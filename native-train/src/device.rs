//! Where to compute, as a user names it.

use std::path::Path;
use std::sync::Once;

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Result, TrainError};
use crate::stderr::say;

/// What Linux has where there is an NVIDIA GPU and its driver.
const NVIDIA: &str = "/dev/nvidia0";

/// What is the matter without a CUDA device, and what to do.
const NO_CUDA: &str = "this libtorch sees no CUDA device; it has to be a CUDA build of torch 2.11.0, \
                       whose lib folder comes first in LD_LIBRARY_PATH, and the driver one for it";

/// Whether there is a GPU that nobody has hidden.
fn has_unused_gpu() -> bool {
    let hidden = std::env::var_os("CUDA_VISIBLE_DEVICES").is_some_and(|devices| devices.is_empty());
    !hidden && Path::new(NVIDIA).exists()
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
