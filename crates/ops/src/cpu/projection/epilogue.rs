//! The epilogue of the GEMM, which runs before results are written.

use std::ops::Range;

use super::super::activation::{Activation, GatedGeluTanh, Geglu};
use super::super::lanewise::Lanewise;
use super::super::simd::Simd;
use super::super::simd::wide::{Arithmetic, Wide};

/// The operation on a projection's results, bias included, before they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// None.
    Identity,
    /// An activation function.
    Activation(Activation),
    /// GEGLU: the first half of each row times the GELU of the second.
    Geglu,
    /// Each result times `gelu_tanh` of its gate; as many gates as results.
    GatedGeluTanh { gates: &'a [f32] },
    /// Each result plus its residual; as many residuals as results.
    Residual { residual: &'a [f32] },
    /// Each result times its column's gate, plus its residual. There is a row of gates for every `tokens`
    /// rows.
    GatedResidual {
        residual: &'a [f32],
        gates: &'a [f32],
        tokens: usize,
    },
}

impl Epilogue<'_> {
    /// Columns of the weight for one result.
    pub(crate) fn products(&self) -> usize {
        match self {
            Self::Geglu => 2,
            _ => 1,
        }
    }
}

/// Position of some columns of one row of results.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// The row.
    pub(super) row: usize,
    /// The first column.
    pub(super) column: usize,
    /// Columns of all results.
    pub(super) width: usize,
}

/// Writes `columns` results at `position` to `to`, from `sums` and for two products per result `others`. Both
/// have a value for every lane of the last vector. `bias` has a value for every column of the weight.
///
/// # Safety
/// `to` can be written for `columns` values.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    simd: S,
    epilogue: Epilogue<'_>,
    position: Position,
    (sums, others): (&[f32], &[f32]),
    bias: Option<&[f32]>,
    to: *mut f32,
    columns: usize,
) {
    let wide = match epilogue {
        Epilogue::Activation(_) | Epilogue::Geglu | Epilogue::GatedGeluTanh { .. } => {
            columns / Wide::<S>::LANES * Wide::<S>::LANES
        }
        // Too few operations to wait for.
        _ => 0,
    };
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = (sums, others);
        finish_vectors(Wide(simd), epilogue, position, sums, bias, to, 0..wide);
        finish_vectors(simd, epilogue, position, sums, bias, to, wide..columns);
    }
}

/// Writes the results of `range`, a vector of `simd` at a time.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn finish_vectors<A: Arithmetic>(
    simd: A,
    epilogue: Epilogue<'_>,
    position: Position,
    (sums, others): (&[f32], &[f32]),
    bias: Option<&[f32]>,
    to: *mut f32,
    range: Range<usize>,
) {
    let lanes = A::LANES;
    // Computed once: a division takes longer than the epilogue of a few results.
    let of_token = match epilogue {
        Epilogue::GatedResidual { tokens, .. } => position.row / tokens * position.width,
        _ => 0,
    };
    for first in range.clone().step_by(lanes) {
        let count = lanes.min(range.end - first);
        let column = position.column + first;
        let index = position.row * position.width + column;
        let part = |values: &[f32], at: usize| {
            let values = &values[at..at + count];
            // SAFETY: the slice has `count` values.
            unsafe { simd.load_first(values.as_ptr(), count) }
        };
        let biased = |sums: &[f32], section: usize| {
            // SAFETY: a whole vector can be read.
            let sums = unsafe { simd.load_first(sums[first..first + lanes].as_ptr(), lanes) };
            match bias {
                Some(bias) => simd.add(sums, part(bias, section * position.width + column)),
                None => sums,
            }
        };
        let value = biased(sums, 0);
        let value = match epilogue {
            Epilogue::Identity => value,
            Epilogue::Activation(activation) => activation.of(simd, [value]),
            Epilogue::Geglu => Geglu.of(simd, [value, biased(others, 1)]),
            Epilogue::GatedGeluTanh { gates } => GatedGeluTanh.of(simd, [part(gates, index), value]),
            Epilogue::Residual { residual } => simd.add(part(residual, index), value),
            Epilogue::GatedResidual { residual, gates, .. } => {
                simd.fma(part(gates, of_token + column), value, part(residual, index))
            }
        };
        // SAFETY: guaranteed by the caller.
        unsafe { simd.store_first(to.add(first), value, count) };
    }
}
