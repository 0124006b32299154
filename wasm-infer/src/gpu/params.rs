//! The parameters of the kernels, a struct for each `Params` in `shaders/`: the same fields in the
//! same order, as a test makes sure. What they mean stands there.

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

/// Those of `log_sum_exp`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LogSumExpParams {
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use tigret_shaders::LAYOUTS;

    use super::*;
    use crate::gpu::plan::{PERTURBED, RECORD};

    /// The fields with their offsets: `Debug` names them in their order, and each is a word.
    fn fields<P: Pod + Debug>() -> Vec<(String, u32)> {
        let text = format!("{:?}", P::zeroed());
        let names =
            text.split(['{', ',']).filter_map(|field| Some(field.split_once(':')?.0.trim()));
        let fields: Vec<_> = names.map(str::to_owned).zip((0..).step_by(4)).collect();
        assert_eq!(size_of::<P>(), 4 * fields.len(), "{text}");
        fields
    }

    #[test]
    fn params_are_laid_out_as_the_kernels_read_them() {
        for layout in LAYOUTS {
            let fields = match layout.name {
                name if name.starts_with("embed") => fields::<EmbedParams>(),
                name if name.starts_with("linear") => fields::<LinearParams>(),
                "attention_beams" => fields::<BeamsAttentionParams>(),
                name if name.starts_with("attention") => fields::<AttentionParams>(),
                name if name.starts_with("log_sum_exp") => fields::<LogSumExpParams>(),
                name if name.starts_with("perturb") => fields::<CandidatesParams>(),
                "candidates" => fields::<CandidatesParams>(),
                name if name.starts_with("select") => fields::<SelectParams>(),
                name => panic!("{name} is given no parameters"),
            };
            let expected = layout.params.iter().map(|&(name, offset)| (name.to_owned(), offset));
            assert_eq!(fields, expected.collect::<Vec<_>>(), "{}", layout.name);
        }
    }

    #[test]
    fn beam_records_are_laid_out_as_the_kernels_read_them() {
        for (constant, value) in [("RECORD", RECORD), ("PERTURBED", PERTURBED)] {
            let all = LAYOUTS.iter().flat_map(|layout| layout.constants);
            let mut of_kernels = all.filter(|(name, _)| *name == constant).peekable();
            assert!(of_kernels.peek().is_some(), "no kernel has {constant}");
            assert!(of_kernels.all(|&(_, found)| found as usize == value), "{constant}");
        }
    }
}
