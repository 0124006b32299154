//! The WGSL kernels of Tigret.
//!
//! Each kernel is one file; parts that several share lie in `shared/` and come in by `#import`.
//! The build assembles the permutations that `permutations.txt` lists, validates each with naga
//! and reads workgroup sizes and bindings from it, so that no other code repeats them. What Rust has to
//! repeat, parameters and constants, stands in [`LAYOUTS`], for a test to compare.

/// One permutation of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shader {
    /// Its name in `permutations.txt`.
    pub name: &'static str,
    /// WGSL in pieces, of which permutations share most.
    pub source: &'static [&'static str],
    /// What the device has to have beyond plain WGSL.
    pub requires: Option<Requirement>,
    /// Invocations of a workgroup in x, y and z.
    pub workgroup_size: [u32; 3],
    /// Bindings of group 0, ascending.
    pub bindings: &'static [Binding],
}

/// What not every device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// `f16` arithmetic: the device feature `shader-f16`, to be enabled by the source.
    Halves,
    /// Packed dot products of bytes: the language feature `packed_4x8_integer_dot_product`.
    PackedProducts,
    /// Subgroups: the device feature `subgroups`, to be enabled by the source in a browser.
    Subgroups,
}

/// One binding of a shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Its index in group 0.
    pub index: u8,
    /// What it is.
    pub kind: BindingKind,
}

/// What a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is read.
    Read,
    /// A storage buffer that is written.
    ReadWrite,
}

/// What a permutation and the code that launches it have to agree on. For tests: a program that does
/// not read it does not contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The permutation's name.
    pub name: &'static str,
    /// Members of `Params`, with their offsets in bytes.
    pub params: &'static [(&'static str, u32)],
    /// Its constants of type `u32`.
    pub constants: &'static [(&'static str, u32)],
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// The permutation of a name.
pub fn shader(name: &str) -> Option<&'static Shader> {
    SHADERS.binary_search_by(|shader| shader.name.cmp(name)).ok().map(|index| &SHADERS[index])
}

#[cfg(test)]
#[path = "../compact.rs"]
mod compact;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_stays_within_the_default_limits() {
        for shader in SHADERS {
            let storage = shader.bindings.iter().filter(|b| b.kind != BindingKind::Uniform).count();
            assert!(storage <= 8, "{} binds {storage} storage buffers", shader.name);
            let invocations: u32 = shader.workgroup_size.iter().product();
            assert!(invocations <= 256, "{} has {invocations} invocations", shader.name);
            assert_eq!(shader.bindings[0].kind, BindingKind::Uniform, "{}", shader.name);
        }
    }

    #[test]
    fn names_are_sorted_and_found() {
        assert!(SHADERS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(shader("select").map(|s| s.name), Some("select"));
        assert_eq!(shader("no such kernel"), None);
    }
}
