//! Arithmetic on one vector, or on several at a time.
//!
//! The operations of a function such as `exp` wait for each other, for longer than a CPU looks ahead. So functions are
//! evaluated for several vectors at a time, one operation of all of them after the other. The lanes of the vectors have
//! the same bits as with one vector at a time.

// Several vectors are indexed together.
#![allow(clippy::needless_range_loop)]

use super::Simd;

/// The arithmetic of [`Simd`], on its vectors or [`Wide`] ones.
pub(crate) trait Arithmetic: Copy {
    /// [`LANES`](Self::LANES) lanes.
    type Vector: Copy;
    /// Lanes of a vector.
    const LANES: usize;

    /// As [`Simd::splat`].
    fn splat(self, value: f32) -> Self::Vector;
    /// As [`Simd::load_first`].
    ///
    /// # Safety
    /// `count` values can be read.
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::Vector;
    /// As [`Simd::store_first`].
    ///
    /// # Safety
    /// `count` values can be written.
    unsafe fn store_first(self, to: *mut f32, vector: Self::Vector, count: usize);
    /// As [`Simd::add`].
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::sub`].
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::mul`].
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::div`].
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::fma`].
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// As [`Simd::negated_fma`].
    fn negated_fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// As [`Simd::max`].
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::min`].
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// As [`Simd::abs`].
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// As [`Simd::select_less`].
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        then: Self::Vector,
        otherwise: Self::Vector,
    ) -> Self::Vector;
    /// As [`Simd::round`].
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// As [`Simd::power_of_two`].
    fn power_of_two(self, whole: Self::Vector) -> Self::Vector;
    /// As [`Simd::times_power_of_two`].
    fn times_power_of_two(self, a: Self::Vector, whole: Self::Vector) -> Self::Vector;

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(0.0)
    }
}

/// Vectors of a [`Wide`] one: enough that few operations wait, and few enough for 16 registers.
const COUNT: usize = 4;

/// The vectors of an instruction set, some at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide<S: Simd>(pub(crate) S);

macro_rules! arithmetic {
    ($($name:ident($($vector:ident),*);)*) => {
        impl<S: Simd> Arithmetic for S {
            type Vector = <S as Simd>::Vector;
            const LANES: usize = <S as Simd>::LANES;

            #[inline(always)]
            fn splat(self, value: f32) -> Self::Vector {
                Simd::splat(self, value)
            }

            #[inline(always)]
            unsafe fn load_first(self, from: *const f32, count: usize) -> Self::Vector {
                // SAFETY: guaranteed by the caller.
                unsafe { Simd::load_first(self, from, count) }
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut f32, vector: Self::Vector, count: usize) {
                // SAFETY: guaranteed by the caller.
                unsafe { Simd::store_first(self, to, vector, count) }
            }

            $(
                #[inline(always)]
                fn $name(self, $($vector: Self::Vector),*) -> Self::Vector {
                    Simd::$name(self, $($vector),*)
                }
            )*
        }

        impl<S: Simd> Arithmetic for Wide<S> {
            type Vector = [<S as Simd>::Vector; COUNT];
            const LANES: usize = COUNT * <S as Simd>::LANES;

            #[inline(always)]
            fn splat(self, value: f32) -> Self::Vector {
                [Simd::splat(self.0, value); COUNT]
            }

            #[inline(always)]
            unsafe fn load_first(self, from: *const f32, count: usize) -> Self::Vector {
                let mut vectors = [self.0.zero(); COUNT];
                for index in 0..COUNT {
                    let before = index * <S as Simd>::LANES;
                    let count = count.saturating_sub(before).min(<S as Simd>::LANES);
                    // SAFETY: guaranteed by the caller.
                    vectors[index] = unsafe { Simd::load_first(self.0, from.wrapping_add(before), count) };
                }
                vectors
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut f32, vectors: Self::Vector, count: usize) {
                for index in 0..COUNT {
                    let before = index * <S as Simd>::LANES;
                    let count = count.saturating_sub(before).min(<S as Simd>::LANES);
                    // SAFETY: guaranteed by the caller.
                    unsafe { Simd::store_first(self.0, to.wrapping_add(before), vectors[index], count) };
                }
            }

            $(
                #[inline(always)]
                fn $name(self, $($vector: Self::Vector),*) -> Self::Vector {
                    let mut results = [self.0.zero(); COUNT];
                    for index in 0..COUNT {
                        results[index] = Simd::$name(self.0, $($vector[index]),*);
                    }
                    results
                }
            )*
        }
    };
}

arithmetic! {
    add(a, b);
    sub(a, b);
    mul(a, b);
    div(a, b);
    fma(a, b, c);
    negated_fma(a, b, c);
    max(a, b);
    min(a, b);
    abs(a);
    select_less(a, b, then, otherwise);
    round(a);
    power_of_two(whole);
    times_power_of_two(a, whole);
}
