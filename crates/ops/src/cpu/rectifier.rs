//! Rectifiers and scaled sums on the processor.

use std::mem::MaybeUninit;

use super::lanewise::{Lanewise, write};
use super::sections::Section;
use super::simd::{InstructionSet, Simd};

/// Every value, or `slope` times those that are not positive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rectifier {
    pub(crate) slope: f32,
}

impl Lanewise<1> for Rectifier {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        let below = simd.mul(simd.splat(self.slope), x);
        simd.select_less(simd.zero(), x, x, below)
    }
}

/// The first plus `scale` times the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScaledSum {
    pub(crate) scale: f32,
}

impl Lanewise<2> for ScaledSum {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, [x, y]: [S::Vector; 2]) -> S::Vector {
        simd.fma(simd.splat(self.scale), y, x)
    }
}

/// Channels of pictures, each with a slope of its own.
#[derive(Clone, Copy)]
struct Channels<'a> {
    slopes: &'a [f32],
}

impl Section for Channels<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let slope = self.slopes[index % self.slopes.len()];
        write(simd, Rectifier { slope }, [from], to)
    }
}

/// As [`Rectifier`], with a slope for each channel of `pixels`.
pub(crate) fn prelu(set: InstructionSet, values: &[f32], slopes: &[f32], pixels: usize) -> Vec<f32> {
    Channels { slopes }.of(set, values, pixels)
}
