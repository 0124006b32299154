//! The WGSL kernels of Tigret.
