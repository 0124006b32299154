//! The inner loops of matrix products, in the vector instructions of each target.
//!
//! All implementations give the same bits: sums of floats run in ascending order without fused
//! multiplication, sums of integers are exact in any order.

use bytemuck::{Pod, Zeroable};

/// Output columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Input rows that share one pass over a panel: as many as registers allow.
pub const ROWS: usize = 4;
const _: () = assert!(ROWS == 4, "the tiles of `for_each_tile`");

/// Of one input column, the weights of a panel's outputs.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Floats(pub(crate) [f32; PANEL]);

/// Of two neighbouring input columns, the weights of a panel's outputs: `[PANEL, 2]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Pairs(pub(crate) [i16; 2 * PANEL]);

/// Products of some rows with one panel.
pub(crate) trait Lanes: Copy {
    /// `sum over k of x[r][k] * panel[k][c]`, in ascending order of k.
    fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R];

    /// Adds the same of 16-bit integers, summed in 32 bits, times the output's scale to `sums`; an
    /// `i32` of `x` holds two neighbouring columns of a row, the first in its low half, and those of
    /// the other rows lie beside it.
    fn add_pairs<const R: usize>(
        self,
        panel: &[Pairs],
        x: &[[i32; R]],
        scales: &Floats,
        sums: &mut [[f32; PANEL]; R],
    );
}

/// `sums[r][c] += integers[r][c] * scales[c]`.
#[inline(always)]
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "wasm has it in its loop"))]
fn add_scaled<const R: usize>(
    integers: [[i32; PANEL]; R],
    scales: &Floats,
    sums: &mut [[f32; PANEL]; R],
) {
    for (sums, integers) in sums.iter_mut().zip(integers) {
        for ((sum, integer), scale) in sums.iter_mut().zip(integers).zip(scales.0) {
            *sum += integer as f32 * scale;
        }
    }
}

/// Work that is generic over the instructions.
pub(crate) trait Work {
    /// Runs with one target's instructions; to be `#[inline(always)]`.
    fn with(self, lanes: impl Lanes);
}

/// Work with a target's instructions, for a function that is compiled for them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
struct Op<W, L>(W, L);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<W: Work, L: Lanes> pulp::WithSimd for Op<W, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.0.with(self.1);
    }
}

/// Runs `work` with the best instructions of this machine.
pub(crate) fn run(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if let Some(v4) = pulp::x86::V4::try_new() {
        return pulp::Simd::vectorize(v4, Op(work, avx512::Avx512(v4)));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(v3, Op(work, avx2::Avx2(v3)));
    }
    #[cfg(target_arch = "wasm32")]
    work.with(simd128::Simd128);
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = pulp::aarch64::Neon::try_new() {
        return pulp::Simd::vectorize(neon, Op(work, neon::Neon(neon)));
    }
    #[cfg(not(target_arch = "wasm32"))]
    wide(
        #[inline(always)]
        || work.with(Portable),
    );
}

/// Runs work with all instructions that this machine has, plain loops first.
#[cfg(test)]
pub(crate) fn run_with_each<W: Work>(work: impl Fn() -> W) {
    work().with(Portable);
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        pulp::Simd::vectorize(v3, Op(work(), avx2::Avx2(v3)));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(v4) = pulp::x86::V4::try_new() {
        pulp::Simd::vectorize(v4, Op(work(), avx512::Avx512(v4)));
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = pulp::aarch64::Neon::try_new() {
        pulp::Simd::vectorize(neon, Op(work(), neon::Neon(neon)));
    }
}

/// Runs loops over floats that the compiler turns into the best vector instructions of this
/// machine; all that `work` calls is to be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn wide<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(not(target_arch = "wasm32"))]
    return pulp::Arch::new().dispatch(work);
    #[cfg(target_arch = "wasm32")]
    work()
}

/// Rows cut to the panel's length, so that no bound is checked in the loop.
#[inline(always)]
fn cut<const R: usize>(x: [&[f32]; R], length: usize) -> [&[f32]; R] {
    x.map(|row| &row[..length])
}

/// What the compiler makes of plain loops, for processors that have no instructions below.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "wasm always has SIMD128 here"))]
pub(crate) struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
        let x = cut(x, panel.len());
        let mut sums = [[0.0; PANEL]; R];
        for (k, weights) in panel.iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(x) {
                for (sum, weight) in sums.iter_mut().zip(weights.0) {
                    *sum += row[k] * weight;
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn add_pairs<const R: usize>(
        self,
        panel: &[Pairs],
        x: &[[i32; R]],
        scales: &Floats,
        all: &mut [[f32; PANEL]; R],
    ) {
        let mut sums = [[0; PANEL]; R];
        for (weights, x) in panel.iter().zip(x) {
            for (sums, &pair) in sums.iter_mut().zip(x) {
                let (low, high) = (pair as i16, (pair >> 16) as i16);
                for (sum, pair) in sums.iter_mut().zip(weights.0.chunks_exact(2)) {
                    *sum +=
                        i32::from(pair[0]) * i32::from(low) + i32::from(pair[1]) * i32::from(high);
                }
            }
        }
        add_scaled(sums, scales, all);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use core::arch::x86_64::{__m256, __m256i};

    use pulp::x86::V3;

    use super::{Floats, Lanes, PANEL, Pairs, add_scaled, cut};

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(pub(super) V3);

    impl Lanes for Avx2 {
        #[inline(always)]
        fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
            let avx = self.0.avx;
            let x = cut(x, panel.len());
            let mut sums = [[avx._mm256_setzero_ps(); 2]; R];
            let panel: &[[__m256; 2]] = bytemuck::must_cast_slice(panel);
            for (k, weights) in panel.iter().enumerate() {
                for (sums, row) in sums.iter_mut().zip(x) {
                    let value = avx._mm256_set1_ps(row[k]);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = avx._mm256_add_ps(*sum, avx._mm256_mul_ps(value, *weight));
                    }
                }
            }
            sums.map(bytemuck::must_cast)
        }

        #[inline(always)]
        fn add_pairs<const R: usize>(
            self,
            panel: &[Pairs],
            x: &[[i32; R]],
            scales: &Floats,
            all: &mut [[f32; PANEL]; R],
        ) {
            let (avx, avx2) = (self.0.avx, self.0.avx2);
            let mut sums = [[avx._mm256_setzero_si256(); 2]; R];
            let panel: &[[__m256i; 2]] = bytemuck::must_cast_slice(panel);
            for (weights, x) in panel.iter().zip(x) {
                for (sums, &pair) in sums.iter_mut().zip(x) {
                    let pair = avx._mm256_set1_epi32(pair);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        let products = avx2._mm256_madd_epi16(pair, *weight);
                        *sum = avx2._mm256_add_epi32(*sum, products);
                    }
                }
            }
            add_scaled(sums.map(bytemuck::must_cast), scales, all);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use core::arch::x86_64::{__m512, __m512i};

    use pulp::x86::V4;

    use super::{Floats, Lanes, PANEL, Pairs, add_scaled, cut};

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(pub(super) V4);

    impl Lanes for Avx512 {
        #[inline(always)]
        fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
            let avx = self.0.avx512f;
            let x = cut(x, panel.len());
            let mut sums = [avx._mm512_setzero_ps(); R];
            let panel: &[__m512] = bytemuck::must_cast_slice(panel);
            for (k, weights) in panel.iter().enumerate() {
                for (sum, row) in sums.iter_mut().zip(x) {
                    let value = avx._mm512_set1_ps(row[k]);
                    *sum = avx._mm512_add_ps(*sum, avx._mm512_mul_ps(value, *weights));
                }
            }
            sums.map(bytemuck::must_cast)
        }

        #[inline(always)]
        fn add_pairs<const R: usize>(
            self,
            panel: &[Pairs],
            x: &[[i32; R]],
            scales: &Floats,
            all: &mut [[f32; PANEL]; R],
        ) {
            let (avx, bytes_and_words) = (self.0.avx512f, self.0.avx512bw);
            let mut sums = [avx._mm512_setzero_si512(); R];
            let panel: &[__m512i] = bytemuck::must_cast_slice(panel);
            for (weights, x) in panel.iter().zip(x) {
                for (sum, &pair) in sums.iter_mut().zip(x) {
                    let pair = avx._mm512_set1_epi32(pair);
                    let products = bytes_and_words._mm512_madd_epi16(pair, *weights);
                    *sum = avx._mm512_add_epi32(*sum, products);
                }
            }
            add_scaled(sums.map(bytemuck::must_cast), scales, all);
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use core::arch::aarch64::int16x8_t;

    use super::{Floats, Lanes, PANEL, Pairs, Portable, add_scaled};

    /// Vectors of a half panel: with two sums a vector, four rows fill half of the 32 registers.
    const HALF: usize = PANEL / 8;

    #[derive(Clone, Copy)]
    pub(super) struct Neon(pub(super) pulp::aarch64::Neon);

    impl Lanes for Neon {
        #[inline(always)]
        fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
            // Plain loops become these instructions.
            Portable.floats(panel, x)
        }

        #[inline(always)]
        fn add_pairs<const R: usize>(
            self,
            panel: &[Pairs],
            x: &[[i32; R]],
            scales: &Floats,
            all: &mut [[f32; PANEL]; R],
        ) {
            let neon = self.0.neon;
            let panel: &[[[int16x8_t; HALF]; 2]] = bytemuck::must_cast_slice(panel);
            let mut whole = [[[neon.vdupq_n_s32(0); HALF]; 2]; R];
            for half in 0..2 {
                // Even and odd columns are summed apart, since an instruction multiplies and adds.
                let mut sums = [[[neon.vdupq_n_s32(0); 2]; HALF]; R];
                for (weights, x) in panel.iter().zip(x) {
                    for (sums, &pair) in sums.iter_mut().zip(x) {
                        let pair = neon.vreinterpretq_s16_s32(neon.vdupq_n_s32(pair));
                        let low_pair = neon.vget_low_s16(pair);
                        for ([low, high], weight) in sums.iter_mut().zip(weights[half]) {
                            *low = neon.vmlal_s16(*low, neon.vget_low_s16(weight), low_pair);
                            *high = neon.vmlal_high_s16(*high, weight, pair);
                        }
                    }
                }
                for (whole, sums) in whole.iter_mut().zip(sums) {
                    whole[half] = sums.map(
                        #[inline(always)]
                        |[low, high]| neon.vpaddq_s32(low, high),
                    );
                }
            }
            add_scaled(whole.map(bytemuck::must_cast), scales, all);
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod simd128 {
    use core::arch::wasm32::{
        f32x4_add, f32x4_convert_i32x4, f32x4_mul, f32x4_splat, i32x4_add, i32x4_dot_i16x8,
        i32x4_splat, v128,
    };

    use super::{Floats, Lanes, PANEL, Pairs, cut};

    /// Vectors of a half panel: engines have 16 registers, so a tile is as wide as four rows allow.
    const HALF: usize = PANEL / 8;

    #[derive(Clone, Copy)]
    pub(crate) struct Simd128;

    impl Lanes for Simd128 {
        #[inline(always)]
        fn floats<const R: usize>(self, panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
            sum_floats(panel, x)
        }

        #[inline(always)]
        fn add_pairs<const R: usize>(
            self,
            panel: &[Pairs],
            x: &[[i32; R]],
            scales: &Floats,
            all: &mut [[f32; PANEL]; R],
        ) {
            add_pairs(panel, x, scales, all);
        }
    }

    // Functions of their own: engines keep the sums of a loop in registers when little is around it.

    #[inline(never)]
    fn sum_floats<const R: usize>(panel: &[Floats], x: [&[f32]; R]) -> [[f32; PANEL]; R] {
        let x = cut(x, panel.len());
        let panel: &[[[v128; HALF]; 2]] = bytemuck::must_cast_slice(panel);
        let mut all = [[[f32x4_splat(0.0); HALF]; 2]; R];
        for half in 0..2 {
            let mut sums = [[f32x4_splat(0.0); HALF]; R];
            for (k, weights) in panel.iter().enumerate() {
                for (sums, row) in sums.iter_mut().zip(x) {
                    let value = f32x4_splat(row[k]);
                    for (sum, weight) in sums.iter_mut().zip(weights[half]) {
                        *sum = f32x4_add(*sum, f32x4_mul(value, weight));
                    }
                }
            }
            for (all, sums) in all.iter_mut().zip(sums) {
                all[half] = sums;
            }
        }
        all.map(bytemuck::must_cast)
    }

    #[inline(never)]
    fn add_pairs<const R: usize>(
        panel: &[Pairs],
        x: &[[i32; R]],
        scales: &Floats,
        all: &mut [[f32; PANEL]; R],
    ) {
        let panel: &[[[v128; HALF]; 2]] = bytemuck::must_cast_slice(panel);
        let scales: &[[v128; HALF]; 2] = bytemuck::must_cast_ref(scales);
        for half in 0..2 {
            let mut sums = [[i32x4_splat(0); HALF]; R];
            for (weights, x) in panel.iter().zip(x) {
                for (sums, &pair) in sums.iter_mut().zip(x) {
                    let pair = i32x4_splat(pair);
                    for (sum, weight) in sums.iter_mut().zip(weights[half]) {
                        *sum = i32x4_add(*sum, i32x4_dot_i16x8(pair, weight));
                    }
                }
            }
            for (all, sums) in all.iter_mut().zip(sums) {
                let (halves, _) = all.as_chunks_mut::<{ PANEL / 2 }>();
                let mut quads: [v128; HALF] = bytemuck::must_cast(halves[half]);
                for ((quad, sum), scale) in quads.iter_mut().zip(sums).zip(scales[half]) {
                    *quad = f32x4_add(*quad, f32x4_mul(f32x4_convert_i32x4(sum), scale));
                }
                halves[half] = bytemuck::must_cast(quads);
            }
        }
    }
}
