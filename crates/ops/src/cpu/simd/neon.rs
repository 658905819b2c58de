//! Vectors of 4 lanes: NEON, which every 64-bit ARM has.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::{Simd, dot_of_widened};

/// NEON; with `BF16` also the dot products of bf16 that Armv8.6 has (`FEAT_BF16`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<const BF16: bool>;

/// Implementations on vectors only.
macro_rules! proven {
    ($instructions:expr) => {
        // SAFETY: every CPU of this architecture has them. Some are safe functions, as the compiler knows
        // that.
        #[allow(unused_unsafe)]
        unsafe {
            $instructions
        }
    };
}

impl Neon<false> {
    pub(super) fn new() -> Self {
        Self
    }
}

impl Neon<true> {
    /// If the CPU has the dot products.
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("bf16").then_some(Self)
    }
}

impl<const BF16: bool> Neon<BF16> {
    /// Rounds to bf16, ties to even.
    #[inline(always)]
    fn rounded(self, values: float32x4_t) -> uint16x4_t {
        if !BF16 {
            return rounded(values);
        }
        let halves: uint16x4_t;
        // SAFETY: `self` proves that the CPU has the instruction, which touches these registers alone. The intrinsics
        // for bf16 are unstable.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfcvtn {halves:v}.4h, {values:v}.4s",
                halves = lateout(vreg) halves,
                values = in(vreg) values,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        halves
    }
}

/// Rounds to bf16, ties to even.
#[inline(always)]
fn rounded(values: float32x4_t) -> uint16x4_t {
    proven!({
        let bits = vreinterpretq_u32_f32(values);
        let lowest = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        let rounded = vaddq_u32(bits, vaddq_u32(lowest, vdupq_n_u32(0x7FFF)));
        // NaN stays NaN.
        let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
        vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(values, values), rounded, quiet))
    })
}

/// Widens f16 by shifting exponent and fraction into place and rescaling the exponent, which is exact for
/// subnormal numbers too.
#[inline(always)]
fn widened(values: uint16x4_t) -> float32x4_t {
    proven!({
        let bits = vmovl_u16(values);
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let size = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7FFF)));
        // 2^112, the difference of the exponents' biases.
        let scaled = vmulq_f32(
            vreinterpretq_f32_u32(size),
            vdupq_n_f32(f32::from_bits(239 << 23)),
        );
        // Infinities and NaN get the largest exponent again.
        let special = vcgeq_u32(size, vdupq_n_u32(0x7C00 << 13));
        let whole = vorrq_u32(size, vdupq_n_u32(0x7F80_0000));
        let size = vbslq_u32(special, whole, vreinterpretq_u32_f32(scaled));
        vreinterpretq_f32_u32(vorrq_u32(sign, size))
    })
}

impl<const BF16: bool> Simd for Neon<BF16> {
    type Vector = float32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const HAS_BF16_DOT: bool = BF16;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        proven!(vdupq_n_f32(value))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: guaranteed by the caller.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: float32x4_t) {
        // SAFETY: guaranteed by the caller.
        unsafe { vst1q_f32(to, vector) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> float32x4_t {
        let mut lanes = [0.0; 4];
        for (index, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: guaranteed by the caller.
            *lane = unsafe { from.add(index).read_unaligned() };
        }
        // SAFETY: there are 4 values.
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, vector: float32x4_t, count: usize) {
        let mut lanes = [0.0; 4];
        // SAFETY: there are 4 values.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), vector) };
        for (index, lane) in lanes.into_iter().enumerate().take(count) {
            // SAFETY: guaranteed by the caller.
            unsafe { to.add(index).write_unaligned(lane) }
        }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        proven!(vsqrtq_f32(a))
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        proven!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn negated_fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        proven!(vfmsq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        proven!(vbslq_f32(vcltq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        proven!(vabsq_f32(a))
    }

    #[inline(always)]
    fn select_less(
        self,
        a: float32x4_t,
        b: float32x4_t,
        then: float32x4_t,
        otherwise: float32x4_t,
    ) -> float32x4_t {
        proven!(vbslq_f32(vcltq_f32(a, b), then, otherwise))
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        proven!(vrndnq_f32(a))
    }

    #[inline(always)]
    fn power_of_two(self, whole: float32x4_t) -> float32x4_t {
        proven!({
            let exponent = vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        proven!({
            let halves = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(halves) + vget_lane_f32::<1>(halves)
        })
    }

    #[inline(always)]
    fn greatest(self, a: float32x4_t) -> f32 {
        proven!(vmaxvq_f32(a))
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> float32x4_t {
        // SAFETY: guaranteed by the caller.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> float32x4_t {
        // SAFETY: guaranteed by the caller.
        unsafe { widened(vld1_u16(from.cast())) }
    }

    #[inline(always)]
    fn narrow(self, first: float32x4_t, second: float32x4_t) -> float32x4_t {
        proven!(vreinterpretq_f32_u16(vcombine_u16(
            self.rounded(first),
            self.rounded(second)
        )))
    }

    #[inline(always)]
    fn pair(self, even: float32x4_t, odd: float32x4_t) -> float32x4_t {
        proven!({
            let even = vmovl_u16(self.rounded(even));
            let odd = vshll_n_u16::<16>(self.rounded(odd));
            vreinterpretq_f32_u32(vorrq_u32(even, odd))
        })
    }

    #[inline(always)]
    fn even_bf16(self, pairs: float32x4_t) -> float32x4_t {
        proven!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(
            pairs
        ))))
    }

    #[inline(always)]
    fn odd_bf16(self, pairs: float32x4_t) -> float32x4_t {
        proven!(vreinterpretq_f32_u32(vandq_u32(
            vreinterpretq_u32_f32(pairs),
            vdupq_n_u32(0xFFFF_0000)
        )))
    }

    #[inline(always)]
    fn even_f16(self, pairs: float32x4_t) -> float32x4_t {
        proven!(widened(vmovn_u32(vreinterpretq_u32_f32(pairs))))
    }

    #[inline(always)]
    fn odd_f16(self, pairs: float32x4_t) -> float32x4_t {
        proven!(widened(vshrn_n_u32::<16>(vreinterpretq_u32_f32(pairs))))
    }

    #[inline(always)]
    fn dot_bf16(self, sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        if !BF16 {
            return dot_of_widened(self, sum, a, b);
        }
        let mut sum = sum;
        // SAFETY: as for rounding.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    fn bits(self, words: float32x4_t, shift: u32, mask: u32) -> float32x4_t {
        proven!({
            // A negative shift to the left is one to the right.
            let shifted = vshlq_u32(vreinterpretq_u32_f32(words), vdupq_n_s32(-(shift as i32)));
            vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32(mask)))
        })
    }

    #[inline(always)]
    fn signed_byte(self, words: float32x4_t, index: u32) -> float32x4_t {
        proven!({
            let shift = vdupq_n_s32(24 - 8 * index as i32);
            let highest = vshlq_s32(vreinterpretq_s32_f32(words), shift);
            vcvtq_f32_s32(vshrq_n_s32::<24>(highest))
        })
    }

    #[inline(always)]
    fn interleave(self, a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
        proven!([vzip1q_f32(a, b), vzip2q_f32(a, b)])
    }

    #[inline(always)]
    fn deinterleave(self, a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
        proven!([vuzp1q_f32(a, b), vuzp2q_f32(a, b)])
    }

    #[inline(always)]
    unsafe fn transpose_columns(
        self,
        from: *const u8,
        from_step: usize,
        columns: usize,
        to: *mut u8,
        to_step: usize,
    ) {
        if columns < 4 {
            return;
        }
        // SAFETY: guaranteed by the caller. Loads and stores of bytes need no alignment.
        unsafe {
            let row = |row: usize| vreinterpretq_f32_u8(vld1q_u8(from.add(row * from_step)));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let even_ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
            let odd_ab = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
            let even_cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
            let odd_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
            let columns = [
                vtrn1q_f64(even_ab, even_cd),
                vtrn1q_f64(odd_ab, odd_cd),
                vtrn2q_f64(even_ab, even_cd),
                vtrn2q_f64(odd_ab, odd_cd),
            ];
            for (column, vector) in columns.into_iter().enumerate() {
                vst1q_u8(to.add(column * to_step), vreinterpretq_u8_f64(vector));
            }
        }
    }
}
