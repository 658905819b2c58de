//! Copies rows of pixels in and out.

// Several slices are indexed together.
#![allow(clippy::needless_range_loop)]

use super::Convolution;
use crate::cpu::buffers::LINE;
use crate::cpu::simd::Simd;

/// Copies `count` rows of `length` values, with the given steps between rows.
#[inline(always)]
pub(super) fn copy_rows<S: Simd>(
    simd: S,
    (from, from_step): (&[f32], usize),
    (to, to_step): (&mut [f32], usize),
    [count, length]: [usize; 2],
) {
    assert!(
        count > 0
            && (count - 1) * from_step + length <= from.len()
            && (count - 1) * to_step + length <= to.len(),
        "rows do not fit where they are copied. This is a bug."
    );
    for row in 0..count {
        // SAFETY: as was asserted.
        unsafe {
            let (from, to) = (
                from.as_ptr().add(row * from_step),
                to.as_mut_ptr().add(row * to_step),
            );
            let mut first = 0;
            while first + S::LANES <= length {
                simd.store(to.add(first), simd.load(from.add(first)));
                first += S::LANES;
            }
            let rest = simd.load_first(from.add(first), length - first);
            simd.store_first(to.add(first), rest, length - first);
        }
    }
}

/// Prefetches `count` rows of `length` values, a step apart. The addresses need not be valid.
#[inline(always)]
pub(super) fn fetch_rows<S: Simd>(
    simd: S,
    (from, from_step): (*const f32, usize),
    [count, length]: [usize; 2],
) {
    for row in 0..count {
        let from = from.wrapping_add(row * from_step);
        for first in (0..length).step_by(LINE) {
            simd.prefetch(from.wrapping_add(first).cast());
        }
    }
}

/// Copies `to.len()` values that are `stride` apart, from the first of `from` on.
#[inline(always)]
pub(super) fn copy_strided<S: Simd>(simd: S, from: &[f32], stride: usize, to: &mut [f32]) {
    let length = to.len();
    if stride == 1 {
        return copy_rows(simd, (from, 0), (to, 0), [1, length]);
    }
    let mut first = 0;
    while stride == 2 && first + S::LANES <= length && 2 * (first + S::LANES) <= from.len() {
        // SAFETY: as was just compared.
        unsafe {
            let from = from.as_ptr().add(2 * first);
            let [values, _] = simd.deinterleave(simd.load(from), simd.load(from.add(S::LANES)));
            simd.store(to.as_mut_ptr().add(first), values);
        }
        first += S::LANES;
    }
    for index in first..length {
        to[index] = from[index * stride];
    }
}

/// The same for two slices, as pairs of bf16. If `odd` is empty, its values are 0.
#[inline(always)]
pub(super) fn copy_pairs<S: Simd>(simd: S, even: &[f32], odd: &[f32], stride: usize, to: &mut [f32]) {
    let mut first = 0;
    let length = even.len().min(odd.len());
    // SAFETY: vectors are read and written as far as all lists go.
    unsafe {
        while stride <= 2 && first + S::LANES <= to.len() && stride * (first + S::LANES) <= length {
            let (even, odd) = (
                even.as_ptr().add(stride * first),
                odd.as_ptr().add(stride * first),
            );
            let pairs = if stride == 1 {
                simd.pair(simd.load(even), simd.load(odd))
            } else {
                let [even, _] = simd.deinterleave(simd.load(even), simd.load(even.add(S::LANES)));
                let [odd, _] = simd.deinterleave(simd.load(odd), simd.load(odd.add(S::LANES)));
                simd.pair(even, odd)
            };
            simd.store(to.as_mut_ptr().add(first), pairs);
            first += S::LANES;
        }
        for index in first..to.len() {
            let odd = if odd.is_empty() { 0.0 } else { odd[index * stride] };
            let even = even[index * stride];
            let pair = simd.pair(simd.splat(even), simd.splat(odd));
            simd.store_first(to.as_mut_ptr().add(index), pair, 1);
        }
    }
}

impl Convolution<'_> {
    /// Writes consecutive pixels from `first` on, plus the addends of pixels.
    ///
    /// # Safety
    /// They are inside of the result, which is alive, and no other thread touches them.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(&self, simd: S, pixels: &[f32], first: usize) {
        // SAFETY: guaranteed by the caller; both other lists are checked.
        unsafe {
            write(
                simd,
                pixels,
                self.addends.onto.map(|onto| &onto[first..first + pixels.len()]),
                self.result.0.add(first),
            );
        }
    }
}

/// Writes pixels plus `onto`.
///
/// # Safety
/// `pixels.len()` values can be written.
#[inline(always)]
pub(super) unsafe fn write<S: Simd>(simd: S, pixels: &[f32], onto: Option<&[f32]>, to: *mut f32) {
    let count = pixels.len();
    let Some(onto) = onto else {
        // SAFETY: guaranteed by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(to, count) };
        return copy_rows(simd, (pixels, 0), (to, 0), [1, count]);
    };
    assert_eq!(onto.len(), count, "values to add to are missing. This is a bug.");
    let mut first = 0;
    // SAFETY: both lists have so many values, and so many can be written.
    unsafe {
        while first + S::LANES <= count {
            let (pixels, onto) = (pixels.as_ptr().add(first), onto.as_ptr().add(first));
            simd.store(to.add(first), simd.add(simd.load(onto), simd.load(pixels)));
            first += S::LANES;
        }
        let rest = count - first;
        let (pixels, onto) = (pixels.as_ptr().add(first), onto.as_ptr().add(first));
        let sum = simd.add(simd.load_first(onto, rest), simd.load_first(pixels, rest));
        simd.store_first(to.add(first), sum, rest);
    }
}
