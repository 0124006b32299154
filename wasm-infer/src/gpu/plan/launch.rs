//! One launch of a kernel.

use bytemuck::Pod;
use tigret_shaders::Shader;

use super::BufferId;
use super::kernels::MAX_GROUPS;
use crate::config::T5Config;
use crate::gpu::params::{LinearParams, PARAMS, words};

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gpu) struct Dispatch {
    pub(in crate::gpu) shader: &'static Shader,
    /// Storage buffers in the order of the shader's bindings.
    pub(in crate::gpu) buffers: Vec<BufferId>,
    /// The shader's `Params`.
    pub(in crate::gpu) params: [u32; PARAMS],
    /// Workgroups.
    pub(in crate::gpu) groups: [u32; 2],
}

/// Operands of an attention over shared keys, in values.
pub(super) struct AttentionShape {
    pub(super) users: u32,
    /// Queries of a user.
    pub(super) queries: u32,
    /// Rows of keys and values of a user.
    pub(super) key_rows: u32,
    pub(super) q: BufferId,
    pub(super) q_stride: u32,
    pub(super) kv: BufferId,
    /// Where the transposed keys begin.
    pub(super) k_offset: u32,
    pub(super) v_offset: u32,
    pub(super) v_stride: u32,
    pub(super) bias: Option<BufferId>,
}

/// Which outputs of a linear layer are keys, and where they go.
pub(super) struct Keys {
    /// Outputs of a part: queries, keys or values of a layer.
    pub(super) part: u32,
    /// Parts of a layer.
    pub(super) parts: u32,
    /// Which of them are the keys.
    pub(super) key_part: u32,
    /// Where the transposed keys begin.
    pub(super) key_offset: u32,
    /// Values between the components of a key.
    pub(super) key_stride: u32,
}

/// A linear layer that is being described.
pub(super) struct Linear {
    pub(super) shader: &'static Shader,
    pub(super) buffers: Vec<BufferId>,
    pub(super) params: LinearParams,
    pub(super) groups: [u32; 2],
}

impl Linear {
    pub(super) fn norm(mut self, norm: BufferId, config: &T5Config) -> Self {
        self.buffers[1] = norm;
        self.params.normalise = 1;
        self.params.epsilon = config.layer_norm_epsilon;
        self
    }

    pub(super) fn relu(mut self) -> Self {
        self.params.relu = 1;
        self
    }

    pub(super) fn residual(mut self) -> Self {
        self.params.residual = 1;
        self
    }

    pub(super) fn at(mut self, y_offset: u32) -> Self {
        self.params.y_offset = y_offset;
        self
    }

    pub(super) fn keys(
        mut self,
        Keys { part, parts, key_part, key_offset, key_stride }: Keys,
    ) -> Self {
        self.params = LinearParams { part, parts, key_part, key_offset, key_stride, ..self.params };
        self
    }

    pub(super) fn scale(mut self, scale: f32) -> Self {
        self.params.scale = scale;
        self
    }
}

impl From<Linear> for Dispatch {
    fn from(Linear { shader, buffers, params, groups }: Linear) -> Self {
        Self { shader, buffers, params: words(params), groups }
    }
}

/// A dispatch of so many workgroups.
pub(super) fn dispatch(
    shader: &'static Shader,
    buffers: &[BufferId],
    params: impl Pod,
    groups: [u32; 2],
) -> Dispatch {
    Dispatch { shader, buffers: buffers.to_vec(), params: words(params), groups }
}

/// Folds more workgroups in x than WebGPU allows into rows of y; the kernel counts its invocations
/// over both.
pub(super) fn spread([x, y]: [u32; 2]) -> [u32; 2] {
    [x.min(MAX_GROUPS), y * x.div_ceil(MAX_GROUPS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_beyond_webgpus_limit_is_folded_into_rows_that_cover_it() {
        for (groups, folded) in [
            ([1, 1], [1, 1]),
            ([MAX_GROUPS, 1], [MAX_GROUPS, 1]),
            ([MAX_GROUPS + 1, 1], [MAX_GROUPS, 2]),
            ([200_000, 2], [MAX_GROUPS, 8]),
        ] {
            assert_eq!(spread(groups), folded);
        }
    }
}
