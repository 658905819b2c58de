//! Vectors of 8 lanes: AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::Simd;

/// AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2Fma(Proof);

/// Only [`Avx2Fma::detect`] makes one.
#[derive(Debug, Clone, Copy)]
struct Proof;

impl Avx2Fma {
    /// The instruction set, if the CPU has it.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(Proof))
    }
}

/// Implementations on vectors only.
macro_rules! proven {
    ($instructions:expr) => {
        // SAFETY: `self` is the proof that the CPU has them.
        unsafe { $instructions }
    };
}

/// The first `count` of 8 lanes.
#[inline(always)]
fn first(count: usize) -> __m256i {
    const LANES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let lanes = &LANES[8 - count..16 - count];
    // SAFETY: the slice has 8 values. Only methods of the set, whose value is the proof, come here.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

/// Rounds to bf16, ties to even, in the lower half of each lane.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn rounded(values: __m256) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let bits = _mm256_castps_si256(values);
        let lowest = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7FFF));
        let rounded = _mm256_add_epi32(bits, half);
        // NaN stays NaN.
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let is_none = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, is_none))
    }
}

/// 4 elements of each of the rows 0 and 4 from an address on.
///
/// # Safety
/// They can be read, and the CPU has AVX.
#[inline(always)]
unsafe fn halves(from: *const u8, step: usize) -> __m256 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let vector = _mm256_castps128_ps256(_mm_loadu_ps(from.cast()));
        _mm256_insertf128_ps::<1>(vector, _mm_loadu_ps(from.add(4 * step).cast()))
    }
}

impl Simd for Avx2Fma {
    type Vector = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const HAS_BF16_DOT: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        proven!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: __m256) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: guaranteed by the caller; what the mask leaves out is not touched.
        unsafe {
            if count == Self::LANES {
                _mm256_loadu_ps(from)
            } else {
                _mm256_maskload_ps(from, first(count))
            }
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, vector: __m256, count: usize) {
        // SAFETY: guaranteed by the caller; no more than `count` lanes are written.
        unsafe {
            if count == Self::LANES {
                return _mm256_storeu_ps(to, vector);
            }
            // By halves: on some CPUs a store with a mask takes a dozen cycles.
            let mut rest = _mm256_castps256_ps128(vector);
            let mut to = to;
            if count & 4 != 0 {
                _mm_storeu_ps(to, rest);
                rest = _mm256_extractf128_ps::<1>(vector);
                to = to.add(4);
            }
            if count & 2 != 0 {
                _mm_storel_pd(to.cast(), _mm_castps_pd(rest));
                rest = _mm_movehl_ps(rest, rest);
                to = to.add(2);
            }
            if count & 1 != 0 {
                _mm_store_ss(to, rest);
            }
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        proven!(_mm256_sqrt_ps(a))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn negated_fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        proven!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
        proven!(_mm256_blendv_ps(
            otherwise,
            then,
            _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
        ))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        proven!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn power_of_two(self, whole: __m256) -> __m256 {
        proven!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        proven!({
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    fn greatest(self, a: __m256) -> f32 {
        proven!({
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn narrow(self, first: __m256, second: __m256) -> __m256 {
        proven!({
            // Packing takes quarters in turns.
            let packed = _mm256_packus_epi32(rounded(first), rounded(second));
            _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed))
        })
    }

    #[inline(always)]
    fn pair(self, even: __m256, odd: __m256) -> __m256 {
        proven!(_mm256_castsi256_ps(_mm256_or_si256(
            rounded(even),
            _mm256_slli_epi32::<16>(rounded(odd))
        )))
    }

    #[inline(always)]
    fn even_bf16(self, pairs: __m256) -> __m256 {
        proven!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(
            pairs
        ))))
    }

    #[inline(always)]
    fn odd_bf16(self, pairs: __m256) -> __m256 {
        proven!(_mm256_castsi256_ps(_mm256_and_si256(
            _mm256_castps_si256(pairs),
            _mm256_set1_epi32(0xFFFF_0000_u32 as i32)
        )))
    }

    #[inline(always)]
    fn even_f16(self, pairs: __m256) -> __m256 {
        proven!({
            let even = _mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(0xFFFF));
            let (low, high) = (_mm256_castsi256_si128(even), _mm256_extracti128_si256::<1>(even));
            _mm256_cvtph_ps(_mm_packus_epi32(low, high))
        })
    }

    #[inline(always)]
    fn odd_f16(self, pairs: __m256) -> __m256 {
        proven!({
            let odd = _mm256_srli_epi32::<16>(_mm256_castps_si256(pairs));
            let (low, high) = (_mm256_castsi256_si128(odd), _mm256_extracti128_si256::<1>(odd));
            _mm256_cvtph_ps(_mm_packus_epi32(low, high))
        })
    }

    #[inline(always)]
    fn bits(self, words: __m256, shift: u32, mask: u32) -> __m256 {
        proven!({
            let shift = _mm_cvtsi32_si128(shift as i32);
            let shifted = _mm256_srl_epi32(_mm256_castps_si256(words), shift);
            _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(mask as i32)))
        })
    }

    #[inline(always)]
    fn signed_byte(self, words: __m256, index: u32) -> __m256 {
        proven!({
            let shift = _mm_cvtsi32_si128(24 - 8 * index as i32);
            let highest = _mm256_sll_epi32(_mm256_castps_si256(words), shift);
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(highest))
        })
    }

    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> [__m256; 2] {
        proven!({
            let (lower, upper) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            [
                _mm256_permute2f128_ps::<0x20>(lower, upper),
                _mm256_permute2f128_ps::<0x31>(lower, upper),
            ]
        })
    }

    #[inline(always)]
    fn deinterleave(self, a: __m256, b: __m256) -> [__m256; 2] {
        proven!({
            // By halves, of which the inner quarters then change places.
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(a, b));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xDD>(a, b));
            [
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(even)),
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(odd)),
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
            // apart, so that exchanging 4 by 4 in each half gives 8 elements of a column in order.
            unsafe {
                let from = from.add(4 * column);
                let a = halves(from, from_step);
                let b = halves(from.add(from_step), from_step);
                let c = halves(from.add(2 * from_step), from_step);
                let d = halves(from.add(3 * from_step), from_step);
                let low_ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                let high_ab = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                let low_cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
                let high_cd = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
                let columns = [
                    _mm256_unpacklo_pd(low_ab, low_cd),
                    _mm256_unpackhi_pd(low_ab, low_cd),
                    _mm256_unpacklo_pd(high_ab, high_cd),
                    _mm256_unpackhi_pd(high_ab, high_cd),
                ];
                for (index, vector) in columns.into_iter().enumerate() {
                    let to = to.add((column + index) * to_step);
                    _mm256_storeu_ps(to.cast(), _mm256_castpd_ps(vector));
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        proven!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
}
