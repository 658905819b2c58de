//! Activations and gated activations on the CPU.

use std::mem::MaybeUninit;

use super::lanewise::{Lanewise, write};
use super::parallel_fill::parallel_fill;
use super::simd::wide::Arithmetic;
use super::simd::{InstructionSet, Kernel, Simd, functions};

/// Results of a parallel task.
const PIECE: usize = 1 << 13;

/// A function of single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    GeluTanh,
    QuickGelu,
    Silu,
}

impl Lanewise<1> for Activation {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x]: [A::Vector; 1]) -> A::Vector {
        match self {
            Self::Gelu => functions::gelu(simd, x),
            Self::GeluTanh => functions::gelu_tanh(simd, x),
            Self::QuickGelu => functions::quick_gelu(simd, x),
            Self::Silu => functions::silu(simd, x),
        }
    }
}

/// `gelu_tanh` of the first times the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatedGeluTanh;

impl Lanewise<2> for GatedGeluTanh {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [gate, up]: [A::Vector; 2]) -> A::Vector {
        simd.mul(functions::gelu_tanh(simd, gate), up)
    }
}

/// The first times the gelu of the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geglu;

impl Lanewise<2> for Geglu {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [value, gate]: [A::Vector; 2]) -> A::Vector {
        simd.mul(value, functions::gelu(simd, gate))
    }
}

/// GEGLU of rows of `width` values, which is even.
pub(crate) fn geglu(set: InstructionSet, values: &[f32], width: usize) -> Vec<f32> {
    let half = (width / 2).max(1);
    let piece = (PIECE / half).max(1) * half;
    parallel_fill(values.len() / 2, piece, |first, to| {
        set.run(GatedRows {
            half,
            from: &values[2 * first..2 * (first + to.len())],
            to,
        })
    })
}

/// Rows of `half` values followed by as many gates.
struct GatedRows<'a, 'b> {
    half: usize,
    from: &'b [f32],
    to: &'a mut [MaybeUninit<f32>],
}

impl<'a> Kernel for GatedRows<'a, '_> {
    type Output = &'a mut [f32];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> &'a mut [f32] {
        let rows = self.from.chunks_exact(2 * self.half);
        for (from, to) in rows.zip(self.to.chunks_mut(self.half)) {
            let (values, gates) = from.split_at(self.half);
            write(simd, Geglu, [values, gates], to);
        }
        // SAFETY: there is a row for each half, as it is twice as many values, and each half has been
        // written.
        unsafe { self.to.assume_init_mut() }
    }
}
