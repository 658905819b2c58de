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
    while stride == 2 && first < length {
        let count = S::LANES.min(length - first);
        // SAFETY: no more is read and written than both slices have.
        unsafe {
            let [values, _] = pairs_of(simd, &from[2 * first..], count);
            simd.store_first(to.as_mut_ptr().add(first), values, count);
        }
        first += count;
    }
    for index in first..length {
        to[index] = from[index * stride];
    }
}

/// The `count` values of a row from the one at `first` on, `stride` (1 or 2) apart; zeros if there are none.
///
/// # Safety
/// `count` is 1 to `LANES`, and a row that is not empty has these values.
#[inline(always)]
unsafe fn some_of<S: Simd>(simd: S, from: &[f32], first: usize, count: usize, stride: usize) -> S::Vector {
    // SAFETY: guaranteed by the caller, and slices are checked.
    unsafe {
        match (from.is_empty(), stride) {
            (true, _) => simd.zero(),
            (_, 1) => simd.load_first(from[first..first + count].as_ptr(), count),
            _ => pairs_of(simd, &from[2 * first..], count)[0],
        }
    }
}

/// The even and the odd ones of the first `2 * count` values, of which the last one may be missing, and is 0 then.
///
/// # Safety
/// `count` is 1 to `LANES`, and there are at least `2 * count - 1` values.
#[inline(always)]
unsafe fn pairs_of<S: Simd>(simd: S, from: &[f32], count: usize) -> [S::Vector; 2] {
    let length = from.len().min(2 * count);
    // SAFETY: as many are loaded as there are.
    unsafe {
        let (first, second) = (length.min(S::LANES), length.saturating_sub(S::LANES));
        simd.deinterleave(
            simd.load_first(from.as_ptr(), first),
            simd.load_first(from.as_ptr().wrapping_add(S::LANES), second),
        )
    }
}

/// The same for two slices, as pairs of bf16. If `odd` is empty, its values are 0.
#[inline(always)]
pub(super) fn copy_pairs<S: Simd>(simd: S, even: &[f32], odd: &[f32], stride: usize, to: &mut [f32]) {
    let mut first = 0;
    // SAFETY: no more is read and written than the slices have.
    unsafe {
        while stride <= 2 && first < to.len() {
            let count = S::LANES.min(to.len() - first);
            let pairs = simd.pair(
                some_of(simd, even, first, count, stride),
                some_of(simd, odd, first, count, stride),
            );
            simd.store_first(to.as_mut_ptr().add(first), pairs, count);
            first += count;
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
