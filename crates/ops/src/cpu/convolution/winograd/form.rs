//! The transforms of Winograd convolution: F(2,3) and F(4,3).
//!
//! F(m, 3) of Lavin and Gray computes m pixels with m + 2 products, each of a combination of m + 2 input
//! pixels (the paper's B^T) and one of the 3 weights (G); accumulated products are combined at the end (A^T).

use super::COLUMNS;
use crate::cpu::simd::Simd;

/// The most products of any form.
pub(super) const MOST_TERMS: usize = 6;

/// A Winograd transform. The lanes of its pixel vectors are groups of neighbours, those of its weight vectors
/// output channels. Of [`MOST_TERMS`] vectors the first [`TERMS`](Self::TERMS) are used.
pub(in crate::cpu::convolution) trait Form {
    /// Neighbouring pixels of a group.
    const GROUP: usize;
    /// Products of a group.
    const TERMS: usize = Self::GROUP + COLUMNS - 1;
    /// Whether elements are pairs of bf16 of two channels.
    const PAIRS: bool;
    /// Channels in an element.
    const CHANNELS: usize = if Self::PAIRS { 2 } else { 1 };

    /// Transforms the pixels under consecutive groups (B^T): those of the group from `pixels` on, and the
    /// first two of the next group, which `after` holds where `pixels` holds the former.
    ///
    /// # Safety
    /// `GROUP * LANES` values of both can be read.
    unsafe fn of_pixels<S: Simd>(simd: S, pixels: *const f32, after: *const f32) -> [S::Vector; MOST_TERMS];

    /// Transforms the weights of a row of the kernel (G).
    fn of_weights<S: Simd>(simd: S, weights: [S::Vector; COLUMNS]) -> [S::Vector; MOST_TERMS];

    /// Writes consecutive groups from their accumulated products (A^T) plus `bias`.
    ///
    /// # Safety
    /// `GROUP * LANES` values can be written.
    unsafe fn write<S: Simd>(simd: S, sums: [S::Vector; MOST_TERMS], bias: S::Vector, to: *mut f32);
}

/// F(2,3) with the points 0, 1 and -1, on pairs of bf16: 4 products instead of 6.
///
/// It combines two numbers at a time, so rounding to bf16 loses little; F(4,3) would lose too much.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu::convolution) struct F23;

impl Form for F23 {
    const GROUP: usize = 2;
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn of_pixels<S: Simd>(simd: S, pixels: *const f32, after: *const f32) -> [S::Vector; MOST_TERMS] {
        // SAFETY: guaranteed by the caller.
        let ([a, b], [c, d]) = unsafe { (columns(simd, pixels), columns(simd, after)) };
        let zero = simd.zero();
        [
            simd.sub(a, c),
            simd.add(b, c),
            simd.sub(c, b),
            simd.sub(b, d),
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn of_weights<S: Simd>(simd: S, [a, b, c]: [S::Vector; COLUMNS]) -> [S::Vector; MOST_TERMS] {
        let (half, zero) = (simd.splat(0.5), simd.zero());
        let (outer, middle) = (simd.mul(half, simd.add(a, c)), simd.mul(half, b));
        [a, simd.add(outer, middle), simd.sub(outer, middle), c, zero, zero]
    }

    #[inline(always)]
    unsafe fn write<S: Simd>(
        simd: S,
        [a, b, c, d, ..]: [S::Vector; MOST_TERMS],
        bias: S::Vector,
        to: *mut f32,
    ) {
        let first = simd.add(simd.add(a, simd.add(b, c)), bias);
        let second = simd.add(simd.sub(simd.sub(b, c), d), bias);
        let pixels = simd.interleave(first, second);
        // SAFETY: guaranteed by the caller.
        unsafe {
            simd.store(to, pixels[0]);
            simd.store(to.add(S::LANES), pixels[1]);
        }
    }
}

/// F(4,3) with the points 0, 1, -1, 2 and -2, on 32-bit floats: 6 products instead of 12.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu::convolution) struct F43;

impl Form for F43 {
    const GROUP: usize = 4;
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn of_pixels<S: Simd>(simd: S, pixels: *const f32, after: *const f32) -> [S::Vector; MOST_TERMS] {
        // SAFETY: guaranteed by the caller.
        let (here, there, here_after, there_after) = unsafe {
            (
                columns(simd, pixels),
                columns(simd, pixels.add(2 * S::LANES)),
                columns(simd, after),
                columns(simd, after.add(2 * S::LANES)),
            )
        };
        let ([a, c], [b, d]) = (
            simd.deinterleave(here[0], there[0]),
            simd.deinterleave(here[1], there[1]),
        );
        let ([e, _], [f, _]) = (
            simd.deinterleave(here_after[0], there_after[0]),
            simd.deinterleave(here_after[1], there_after[1]),
        );
        let (two, four) = (simd.splat(2.0), simd.splat(4.0));
        let (even, odd) = (simd.negated_fma(four, c, e), simd.negated_fma(four, b, d));
        let (even_two, odd_two) = (simd.sub(e, c), simd.mul(two, simd.sub(d, b)));
        [
            simd.fma(four, simd.sub(a, c), even_two),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(even_two, odd_two),
            simd.sub(even_two, odd_two),
            simd.negated_fma(two, odd_two, simd.sub(f, d)),
        ]
    }

    #[inline(always)]
    fn of_weights<S: Simd>(simd: S, [a, b, c]: [S::Vector; COLUMNS]) -> [S::Vector; MOST_TERMS] {
        let (fourth, sixth) = (simd.splat(1.0 / 4.0), simd.splat(1.0 / 6.0));
        let (twelfth, twenty_fourth) = (simd.splat(1.0 / 12.0), simd.splat(1.0 / 24.0));
        let outer = simd.mul(simd.add(a, c), simd.splat(-1.0 / 6.0));
        let outer_two = simd.mul(simd.fma(simd.splat(4.0), c, a), twenty_fourth);
        let (middle, middle_two) = (simd.mul(b, sixth), simd.mul(b, twelfth));
        [
            simd.mul(a, fourth),
            simd.sub(outer, middle),
            simd.add(outer, middle),
            simd.add(outer_two, middle_two),
            simd.sub(outer_two, middle_two),
            c,
        ]
    }

    #[inline(always)]
    unsafe fn write<S: Simd>(
        simd: S,
        [a, b, c, d, e, f]: [S::Vector; MOST_TERMS],
        bias: S::Vector,
        to: *mut f32,
    ) {
        let (even, odd) = (simd.add(b, c), simd.sub(b, c));
        let (even_two, odd_two) = (simd.add(d, e), simd.sub(d, e));
        let first = simd.add(simd.add(simd.add(a, even), even_two), bias);
        let second = simd.add(simd.fma(simd.splat(2.0), odd_two, odd), bias);
        let third = simd.add(simd.fma(simd.splat(4.0), even_two, even), bias);
        let fourth = simd.add(simd.add(simd.fma(simd.splat(8.0), odd_two, odd), f), bias);
        let (evens, odds) = (simd.interleave(first, third), simd.interleave(second, fourth));
        for half in 0..2 {
            let pixels = simd.interleave(evens[half], odds[half]);
            // SAFETY: guaranteed by the caller.
            unsafe {
                simd.store(to.add(2 * half * S::LANES), pixels[0]);
                simd.store(to.add((2 * half + 1) * S::LANES), pixels[1]);
            }
        }
    }
}

/// Even and odd pixels.
///
/// # Safety
/// `2 * LANES` values can be read.
#[inline(always)]
unsafe fn columns<S: Simd>(simd: S, pixels: *const f32) -> [S::Vector; 2] {
    // SAFETY: guaranteed by the caller.
    unsafe { simd.deinterleave(simd.load(pixels), simd.load(pixels.add(S::LANES))) }
}
