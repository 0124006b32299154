//! The inner loops of the CPU engine: products with matrices in floats and in integers, attention,
//! norms.
//!
//! A package of its own since a compiler optimises a package as a whole: these loops for speed, the
//! rest of the browser's module for size.
//!
//! Products and sums have the same bits on every machine, whatever its vector instructions; the
//! logarithm of [`log_sum_exp`] is the platform's.

mod attention;
mod fixed;
mod lanes;
mod math;
mod matmul;

pub use attention::{Heads, MAX_STEPS, PathAttention, PositionBias, SharedKeys};
pub use fixed::{FixedLinear, FixedPoint};
pub use lanes::ROWS;
pub use math::{log_sum_exp, rms_norm};
pub use matmul::{Linear, Write, dot, squared_distance};
