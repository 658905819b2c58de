//! What becomes of the products before they are written.

use super::super::activation::{Activation, GatedGeluTanh, Geglu};
use super::super::lanewise::Lanewise;
use super::super::simd::Simd;

/// What becomes of a projection's results, bias included, before they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// They stay as they are.
    Nothing,
    /// A function of each.
    Activation(Activation),
    /// The first half of each row times the gelu of the second.
    Geglu,
    /// Each times the approximated gelu of its gate; as many gates as results.
    GatedGeluTanh { gates: &'a [f32] },
    /// Each is added to its residual; as many residuals as results.
    Residual { residual: &'a [f32] },
    /// Each is multiplied by its column's gate, of which there is a row for every `tokens` rows, and added to its residual.
    GatedResidual {
        residual: &'a [f32],
        gates: &'a [f32],
        tokens: usize,
    },
}

impl End<'_> {
    /// Columns of the weight that a result is made of.
    pub(crate) fn products(&self) -> usize {
        match self {
            Self::Geglu => 2,
            _ => 1,
        }
    }
}

/// Some columns of one row of the results.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The row.
    pub(super) row: usize,
    /// The first column.
    pub(super) column: usize,
    /// Columns of all results.
    pub(super) width: usize,
}

/// Writes `columns` results at `place` to `to`, made of `sums` and where two belong together of `others`, which both have a
/// value for every lane of the last vector. `bias` has one for every column of the weight.
///
/// # Safety
/// There is room for so many results behind `to`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    simd: S,
    end: End<'_>,
    place: Place,
    (sums, others): (&[f32], &[f32]),
    bias: Option<&[f32]>,
    to: *mut f32,
    columns: usize,
) {
    let lanes = S::LANES;
    // A division takes longer than what is done with some results.
    let of_token = match end {
        End::GatedResidual { tokens, .. } => place.row / tokens * place.width,
        _ => 0,
    };
    for first in (0..columns).step_by(lanes) {
        let count = lanes.min(columns - first);
        let column = place.column + first;
        let index = place.row * place.width + column;
        let part = |values: &[f32], at: usize| {
            let values = &values[at..at + count];
            // SAFETY: so many values there are.
            unsafe { simd.load_first(values.as_ptr(), count) }
        };
        let biased = |sums: &[f32], section: usize| {
            // SAFETY: a whole vector can be read.
            let sums = unsafe { simd.load(sums[first..first + lanes].as_ptr()) };
            match bias {
                Some(bias) => simd.add(sums, part(bias, section * place.width + column)),
                None => sums,
            }
        };
        let value = biased(sums, 0);
        let value = match end {
            End::Nothing => value,
            End::Activation(activation) => activation.of(simd, [value]),
            End::Geglu => Geglu.of(simd, [value, biased(others, 1)]),
            End::GatedGeluTanh { gates } => GatedGeluTanh.of(simd, [part(gates, index), value]),
            End::Residual { residual } => simd.add(part(residual, index), value),
            End::GatedResidual { residual, gates, .. } => {
                simd.fma(part(gates, of_token + column), value, part(residual, index))
            }
        };
        // SAFETY: as the caller vouches for.
        unsafe { simd.store_first(to.add(first), value, count) };
    }
}
