//! Where to compute, as a user names it.

use clap::ValueEnum;
use tch::{Cuda, Device};

use crate::error::{Result, TrainError};

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
            Self::Auto => Ok(Device::cuda_if_available()),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if Cuda::is_available() => Ok(Device::Cuda(0)),
            Self::Cuda => Err(TrainError::usage(
                "--device cuda: this libtorch sees no CUDA device; install the CUDA build of torch \
                 2.11.0 and point LIBTORCH at it, or use --device cpu",
            )),
        }
    }
}
