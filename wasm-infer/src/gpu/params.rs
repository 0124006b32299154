//! The parameters of the kernels, a struct for each `Params` in `shaders/`: the same fields in the
//! same order. What they mean stands there.

use bytemuck::{Pod, Zeroable};

/// Words of one launch's parameters, of which a kernel reads the first.
pub(super) const PARAMS: usize = 16;

/// What a launch is given.
pub(super) fn words(params: impl Pod) -> [u32; PARAMS] {
    let mut words = [0; PARAMS];
    let params = bytemuck::cast_slice(std::slice::from_ref(&params));
    words[..params.len()].copy_from_slice(params);
    words
}

/// Those of `embed`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct EmbedParams {
    pub(super) rows: u32,
    pub(super) width4: u32,
    pub(super) outputs: u32,
}

/// Those of all linear layers.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LinearParams {
    pub(super) rows: u32,
    pub(super) inputs4: u32,
    pub(super) outputs: u32,
    pub(super) y_offset: u32,
    pub(super) inputs: u32,
    pub(super) normalise: u32,
    pub(super) relu: u32,
    pub(super) residual: u32,
    pub(super) epsilon: f32,
    pub(super) scale: f32,
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) key_part: u32,
    pub(super) key_offset: u32,
    pub(super) key_stride: u32,
}

/// Those of `attention` in all its forms.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AttentionParams {
    pub(super) queries: u32,
    pub(super) key_rows: u32,
    pub(super) heads: u32,
    pub(super) head4: u32,
    pub(super) q_stride4: u32,
    pub(super) k_offset4: u32,
    pub(super) k_stride4: u32,
    pub(super) v_offset4: u32,
    pub(super) v_stride4: u32,
    pub(super) biased: u32,
    pub(super) reach: u32,
}

/// Those of `attention_beams`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BeamsAttentionParams {
    pub(super) rows: u32,
    pub(super) heads: u32,
    pub(super) head4: u32,
    pub(super) step: u32,
    pub(super) step_rows: u32,
    pub(super) bias_stride: u32,
    pub(super) users: u32,
}

/// Those of `normalise`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NormaliseParams {
    pub(super) vocabulary: u32,
    pub(super) stride: u32,
}

/// Those of `candidates` and of `perturb`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct CandidatesParams {
    pub(super) level: u32,
    pub(super) words: u32,
    pub(super) codes: u32,
    pub(super) offset: u32,
    pub(super) stride: u32,
    pub(super) users: u32,
    pub(super) rows: u32,
}

/// Those of `select`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SelectParams {
    pub(super) level: u32,
    pub(super) words: u32,
    pub(super) codes: u32,
    pub(super) offset: u32,
    pub(super) rows: u32,
    pub(super) width: u32,
    pub(super) next_rows: u32,
    pub(super) users: u32,
    pub(super) stride: u32,
}
