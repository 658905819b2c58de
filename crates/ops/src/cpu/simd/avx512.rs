//! Vectors of 16 lanes: AVX-512.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::{bf16, f16};

use super::tiles::{self, TileProduct};
use super::{Simd, amx, dot_of_widened};

/// AVX-512 F, BW, DQ and VL; with BF16 where `BF16` is set, and with the tiles of AMX where `TILES` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool, const TILES: bool>(Proof);

/// Only [`Avx512::detect`] makes one.
#[derive(Debug, Clone, Copy)]
struct Proof;

impl<const BF16: bool, const TILES: bool> Avx512<BF16, TILES> {
    /// The instruction set, if the CPU has it.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"))
            && (!TILES || amx::is_usable());
        has.then_some(Self(Proof))
    }
}

/// Whether the CPU is from Intel. Its bf16 dot product has half the throughput per cycle of two float FMAs:
/// floats multiply twice as many numbers in the same time, without rounding.
pub(super) fn is_intels() -> bool {
    let maker = __cpuid(0);
    [maker.ebx, maker.edx, maker.ecx]
        .map(u32::to_le_bytes)
        .as_flattened()
        == b"GenuineIntel"
}

/// Implementations on vectors only.
macro_rules! proven {
    ($instructions:expr) => {
        // SAFETY: `self` is the proof that the CPU has them.
        unsafe { $instructions }
    };
}

/// The first `count` of 16 lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

/// Rounds to bf16, ties to even.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn rounded(values: __m512) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let bits = _mm512_castps_si512(values);
        let lowest = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7FFF));
        let rounded = _mm512_add_epi32(bits, half);
        // NaN stays NaN.
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        let is_none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        let narrowed = _mm512_mask_mov_epi32(rounded, is_none, quiet);
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(narrowed))
    }
}

/// 4 elements of each of the rows 0, 4, 8 and 12 from an address on.
///
/// # Safety
/// They can be read, and the CPU has AVX-512.
#[inline(always)]
unsafe fn quarters(from: *const u8, step: usize) -> __m512 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let vector = _mm512_castps128_ps512(_mm_loadu_ps(from.cast()));
        let vector = _mm512_insertf32x4::<1>(vector, _mm_loadu_ps(from.add(4 * step).cast()));
        let vector = _mm512_insertf32x4::<2>(vector, _mm_loadu_ps(from.add(8 * step).cast()));
        _mm512_insertf32x4::<3>(vector, _mm_loadu_ps(from.add(12 * step).cast()))
    }
}

impl<const BF16: bool, const TILES: bool> Simd for Avx512<BF16, TILES> {
    type Vector = __m512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const HAS_BF16_DOT: bool = BF16;
    const HAS_TILES: bool = TILES;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        proven!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: guaranteed by the caller; what the mask leaves out is not touched.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, vector: __m512, count: usize) {
        // SAFETY: guaranteed by the caller; what the mask leaves out is not touched.
        unsafe { _mm512_mask_storeu_ps(to, first(count), vector) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        proven!(_mm512_sqrt_ps(a))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn negated_fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        proven!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
        proven!(_mm512_mask_blend_ps(
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
            otherwise,
            then
        ))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proven!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(a))
    }

    #[inline(always)]
    fn power_of_two(self, whole: __m512) -> __m512 {
        proven!({
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn times_power_of_two(self, a: __m512, whole: __m512) -> __m512 {
        proven!({
            let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(whole, _mm512_set1_ps(-126.0));
            _mm512_maskz_scalef_ps(normal, a, whole)
        })
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        proven!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    fn greatest(self, a: __m512) -> f32 {
        proven!({
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    fn narrow(self, first: __m512, second: __m512) -> __m512 {
        if BF16 {
            // Both are vectors of 512 bits; the instruction has the higher half first.
            return proven!(transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)));
        }
        proven!({
            let first = _mm512_castsi256_si512(rounded(first));
            _mm512_castsi512_ps(_mm512_inserti64x4::<1>(first, rounded(second)))
        })
    }

    #[inline(always)]
    fn pair(self, even: __m512, odd: __m512) -> __m512 {
        if BF16 {
            return proven!({
                let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                let places = _mm512_add_epi32(
                    _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                    _mm512_set1_epi32(16 << 16),
                );
                let places = _mm512_or_si512(places, _mm512_slli_epi32::<16>(places));
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(places, halves))
            });
        }
        proven!({
            let even = _mm512_cvtepu16_epi32(rounded(even));
            let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded(odd)));
            _mm512_castsi512_ps(_mm512_or_si512(even, odd))
        })
    }

    #[inline(always)]
    fn even_bf16(self, pairs: __m512) -> __m512 {
        proven!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(
            pairs
        ))))
    }

    #[inline(always)]
    fn odd_bf16(self, pairs: __m512) -> __m512 {
        proven!(_mm512_castsi512_ps(_mm512_and_si512(
            _mm512_castps_si512(pairs),
            _mm512_set1_epi32(0xFFFF_0000_u32 as i32)
        )))
    }

    #[inline(always)]
    fn even_f16(self, pairs: __m512) -> __m512 {
        proven!(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_castps_si512(pairs))))
    }

    #[inline(always)]
    fn odd_f16(self, pairs: __m512) -> __m512 {
        proven!({
            let odd = _mm512_srli_epi32::<16>(_mm512_castps_si512(pairs));
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(odd))
        })
    }

    #[inline(always)]
    fn bits(self, words: __m512, shift: u32, mask: u32) -> __m512 {
        proven!({
            let shift = _mm_cvtsi32_si128(shift as i32);
            let shifted = _mm512_srl_epi32(_mm512_castps_si512(words), shift);
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(mask as i32)))
        })
    }

    #[inline(always)]
    fn four_bits(self, words: __m512, shift: u32) -> __m512 {
        proven!({
            // The index of a permutation is the lowest four bits of a lane.
            let floats = _mm512_set_ps(
                15.0, 14.0, 13.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0,
            );
            let shift = _mm_cvtsi32_si128(shift as i32);
            _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_castps_si512(words), shift), floats)
        })
    }

    #[inline(always)]
    fn signed_byte(self, words: __m512, index: u32) -> __m512 {
        proven!({
            let shift = _mm_cvtsi32_si128(24 - 8 * index as i32);
            let highest = _mm512_sll_epi32(_mm512_castps_si512(words), shift);
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(highest))
        })
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        if BF16 {
            // All are vectors of 512 bits.
            return proven!(_mm512_dpbf16_ps(
                sum,
                transmute::<__m512, __m512bh>(a),
                transmute::<__m512, __m512bh>(b)
            ));
        }
        dot_of_widened(self, sum, a, b)
    }

    #[inline(always)]
    fn configure_tiles(self) {
        if TILES {
            // SAFETY: `self` is the proof that the CPU and the operating system allow it.
            unsafe { amx::configure() };
        }
    }

    #[inline(always)]
    fn release_tiles(self) {
        if TILES {
            // SAFETY: as above.
            unsafe { amx::release() };
        }
    }

    #[inline(always)]
    unsafe fn multiply_tiles<const ROWS: usize, const COLUMNS: usize>(self, product: &TileProduct<'_>) {
        // SAFETY: guaranteed by the caller; `self` is the proof that the CPU has the instructions.
        unsafe {
            if TILES {
                amx::multiply::<ROWS, COLUMNS>(product);
            } else {
                tiles::multiply_plainly::<ROWS, COLUMNS>(product);
            }
        }
    }

    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        proven!({
            let lower = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
            let upper = _mm512_add_epi32(lower, _mm512_set1_epi32(8));
            [
                _mm512_permutex2var_ps(a, lower, b),
                _mm512_permutex2var_ps(a, upper, b),
            ]
        })
    }

    #[inline(always)]
    fn deinterleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        proven!({
            let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            [
                _mm512_permutex2var_ps(a, even, b),
                _mm512_permutex2var_ps(a, odd, b),
            ]
        })
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
        for column in (0..columns).step_by(4) {
            // SAFETY: the caller vouches for the memory. Each vector holds 4 elements of rows that are 4
            // apart, so that exchanging 4 by 4 in each quarter gives 16 elements of a column in order.
            unsafe {
                let from = from.add(4 * column);
                let a = quarters(from, from_step);
                let b = quarters(from.add(from_step), from_step);
                let c = quarters(from.add(2 * from_step), from_step);
                let d = quarters(from.add(3 * from_step), from_step);
                let low_ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let high_ab = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let low_cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let high_cd = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                let columns = [
                    _mm512_unpacklo_pd(low_ab, low_cd),
                    _mm512_unpackhi_pd(low_ab, low_cd),
                    _mm512_unpacklo_pd(high_ab, high_cd),
                    _mm512_unpackhi_pd(high_ab, high_cd),
                ];
                for (index, vector) in columns.into_iter().enumerate() {
                    let to = to.add((column + index) * to_step);
                    _mm512_storeu_ps(to.cast(), _mm512_castpd_ps(vector));
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
}
