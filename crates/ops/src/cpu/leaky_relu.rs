//! Leaky ReLU, PReLU and scaled sums on the CPU.

use std::mem::MaybeUninit;

use super::lanewise::{Lanewise, write};
use super::sections::Section;
use super::simd::wide::Arithmetic;
use super::simd::{InstructionSet, Simd};

/// Leaky ReLU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeakyRelu {
    pub(crate) slope: f32,
}

impl Lanewise<1> for LeakyRelu {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x]: [A::Vector; 1]) -> A::Vector {
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
    fn of<A: Arithmetic>(self, simd: A, [x, y]: [A::Vector; 2]) -> A::Vector {
        simd.fma(simd.splat(self.scale), y, x)
    }
}

/// PReLU: channels with a slope each.
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
        write(simd, LeakyRelu { slope }, [from], to)
    }
}

/// [`LeakyRelu`] with a slope for each channel of `pixels` values.
pub(crate) fn prelu(set: InstructionSet, values: &[f32], slopes: &[f32], pixels: usize) -> Vec<f32> {
    Channels { slopes }.of(set, values, pixels)
}
