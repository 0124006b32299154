//! Which kernel computes what on a device, and in how many workgroups.

use tigret_shaders::{Shader, shader};

use super::weights::Matrix;
use crate::weights::WeightFormat;

/// Most workgroups of a launch in one dimension, by WebGPU's default limits.
pub(in crate::gpu) const MAX_GROUPS: u32 = 65_535;

/// Outputs of a linear layer that are too few for a GPU, of which even a small one runs some thousand
/// invocations at once: less than 64 workgroups at 50 rows. Rows themselves do not count, so that an
/// answer does not depend, by the order of its sums, on who else is asked about and how widely.
const FEW_OUTPUTS: u32 = 1024;

/// Which permutations of the kernels a device is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::gpu) struct Kernels {
    /// Whether linear layers in floats and attentions compute wide tiles; takes subgroups.
    pub(in crate::gpu) wide: bool,
    /// Whether linear layers in floats of few outputs are shared out further.
    pub(in crate::gpu) split: bool,
    /// Whether `f16` weights are multiplied in halves.
    pub(in crate::gpu) halves: bool,
    /// Whether integer weights are multiplied by packed dot products.
    pub(in crate::gpu) packed_products: bool,
    /// Whether reductions over a workgroup use subgroups.
    pub(in crate::gpu) subgroups: bool,
}

impl Kernels {
    pub(super) fn products(self, matrix: &Matrix) -> Products {
        let rounded = match matrix.format {
            WeightFormat::F32 => false,
            WeightFormat::F16 => self.halves && matrix.fits_halves,
            WeightFormat::Q8 | WeightFormat::Q4 => self.packed_products,
        };
        match self {
            _ if rounded => Products::Rounded,
            Self { wide: true, .. } => Products::Wide,
            Self { split: true, .. } if matrix.outputs < FEW_OUTPUTS => Products::Split,
            Self { wide: false, .. } => Products::Narrow,
        }
    }

    pub(in crate::gpu) fn attention(self) -> &'static Shader {
        kernel(&["attention", if self.wide { "_wide" } else { "" }])
    }

    /// Queries of a workgroup of an attention.
    pub(in crate::gpu) fn queries(self) -> u32 {
        if self.wide { 8 } else { 16 }
    }

    /// A kernel in which the invocations of a workgroup reduce or scan something together.
    pub(in crate::gpu) fn reducing(self, name: &str) -> &'static Shader {
        kernel(&[name, if self.subgroups { "_subgroups" } else { "" }])
    }
}

/// How a linear layer multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) enum Products {
    /// In floats, an invocation four rows by four outputs: for GPUs.
    Narrow,
    /// The same, shared by four invocations: for matrices of few outputs.
    Split,
    /// In floats, eight rows by sixteen outputs: for software with subgroups.
    Wide,
    /// Inputs rounded to what the device multiplies fastest, four rows by four outputs.
    Rounded,
}

impl Products {
    /// The kernel of a linear layer; there is none that rounds for `f32`.
    pub(in crate::gpu) fn linear(self, format: WeightFormat) -> &'static Shader {
        let how = match (self, format) {
            (Self::Narrow, _) | (Self::Rounded, WeightFormat::F32) => "",
            (Self::Split, _) => "_split",
            (Self::Wide, _) => "_wide",
            (Self::Rounded, WeightFormat::F16) => "_half",
            (Self::Rounded, WeightFormat::Q8 | WeightFormat::Q4) => "_packed",
        };
        kernel(&["linear_", format.name(), how])
    }

    /// The workgroups of its kernel.
    pub(in crate::gpu) fn groups(self, shader: &Shader, rows: u32, outputs: u32) -> [u32; 2] {
        let (outputs_each, rows_each) = match self {
            Self::Narrow | Self::Rounded => (4, 4),
            // Four rows for each four invocations.
            Self::Split => (4, 1),
            Self::Wide => (16, 8),
        };
        cover(shader, [outputs.div_ceil(outputs_each), rows.div_ceil(rows_each)])
    }
}

/// The kernel whose name in `shaders/permutations.txt` these parts make. A plan is tested with all that
/// it may ask for, so there is one.
pub(in crate::gpu) fn kernel(name: &[&str]) -> &'static Shader {
    let name = name.concat();
    shader(&name).unwrap_or_else(|| panic!("there is no kernel {name}"))
}

/// Workgroups that cover at least these invocations.
pub(in crate::gpu) fn cover(shader: &Shader, invocations: [u32; 2]) -> [u32; 2] {
    let [x, y, _] = shader.workgroup_size;
    [invocations[0].div_ceil(x), invocations[1].div_ceil(y)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::pack::Axis;
    use crate::gpu::plan::BufferId;

    #[test]
    fn products_are_rounded_and_shared_out_where_the_matrix_allows_it() {
        use Products::{Narrow, Rounded, Split, Wide};
        use WeightFormat::{F16, F32, Q4, Q8};
        let hardware =
            Kernels { split: true, halves: true, packed_products: true, ..Kernels::default() };
        let software = Kernels { wide: true, subgroups: true, ..Kernels::default() };
        for (kernels, format, outputs, fits_halves, expected) in [
            (hardware, F32, 1020, false, Split),
            (hardware, F32, 1024, false, Narrow),
            (hardware, F16, 1020, true, Rounded),
            (hardware, F16, 1020, false, Split),
            (hardware, Q8, 1020, false, Rounded),
            (hardware, Q4, 1024, false, Rounded),
            (Kernels::default(), F16, 1020, true, Narrow),
            (Kernels::default(), Q4, 1020, false, Narrow),
            (software, F16, 1020, true, Wide),
            (Kernels { packed_products: true, ..software }, Q8, 1020, false, Rounded),
        ] {
            let (weights, inputs) = (BufferId(0), Axis::Plain(8));
            let matrix = Matrix { format, weights, scales: None, inputs, outputs, fits_halves };
            assert_eq!(kernels.products(&matrix), expected, "{kernels:?}, {matrix:?}");
        }
    }
}
