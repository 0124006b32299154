//! Where to compute, as a user names it.

use std::path::Path;

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Result, TrainError};

/// What Linux has where there is an NVIDIA GPU and its driver.
const NVIDIA: &str = "/dev/nvidia0";

/// What is the matter without a CUDA device, and what to do.
const NO_CUDA: &str = "this libtorch sees no CUDA device; put the lib folder of a CUDA build of torch \
                       2.11.0 first in LD_LIBRARY_PATH";

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
                if device == Device::Cpu && Path::new(NVIDIA).exists() {
                    eprintln!(
                        "tigret: computing on the CPU, though there is an NVIDIA GPU: {NO_CUDA}"
                    );
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
