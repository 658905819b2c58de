//! DoRA: weights as directions with magnitudes of their own (Liu et al., "DoRA: Weight-Decomposed Low-Rank
//! Adaptation", 2024).

use std::sync::OnceLock;

use super::difference::Difference;
use super::rows::{RowMove, overlaps};

/// An update by a difference, after which each row, or each input, gets a magnitude.
///
/// With `V = W + difference` the tensor becomes `W + scale * (magnitude * V / norm(V) - W)`.
#[derive(Debug)]
pub(crate) struct Decomposition {
    pub(crate) difference: Difference,
    pub(crate) magnitudes: Magnitudes,
    pub(crate) scale: f32,
}

/// The magnitudes of the parts of a weight.
#[derive(Debug)]
pub(crate) enum Magnitudes {
    /// One for each row of the layer; the norm is that of the row.
    Rows { values: Vec<f32>, moves: Vec<RowMove> },
    /// One for each input; the norm is over all rows, and over the kernel of a convolution.
    Inputs {
        values: Vec<f32>,
        /// The magnitudes divided by the norms, which need one pass over the tensor.
        over_norms: OnceLock<Vec<f32>>,
    },
}

/// Is added to norms, as in LyCORIS, so that a row of zeros stays one.
const EPSILON: f64 = f32::EPSILON as f64;

impl Decomposition {
    /// Updates `values`, which are whole rows of the tensor from `first_row` on.
    pub(super) fn apply(&self, values: &mut [f32], first_row: usize, columns: usize) {
        let scale = self.scale;
        let before = if scale == 1.0 { Vec::new() } else { values.to_vec() };
        self.difference.add_to(values, first_row, columns);
        match &self.magnitudes {
            Magnitudes::Rows { values: all, moves } => {
                for overlap in overlaps(moves, first_row, values.len() / columns) {
                    let rows = values[overlap.at * columns..].chunks_exact_mut(columns);
                    for (row, magnitude) in rows.zip(&all[overlap.layer..][..overlap.rows]) {
                        let squares = row.iter().map(|&value| f64::from(value) * f64::from(value));
                        let factor = over_norm(*magnitude, squares.sum());
                        row.iter_mut().for_each(|value| *value *= factor);
                    }
                }
            }
            Magnitudes::Inputs { over_norms, .. } => {
                let factors = over_norms.get().map_or(&[][..], Vec::as_slice);
                assert!(
                    !factors.is_empty(),
                    "norms that were not computed. This is a bug."
                );
                let area = columns / factors.len();
                for row in values.chunks_exact_mut(columns) {
                    for (values, factor) in row.chunks_exact_mut(area).zip(factors) {
                        values.iter_mut().for_each(|value| *value *= factor);
                    }
                }
            }
        }
        for (value, before) in values.iter_mut().zip(before) {
            *value = before + scale * (*value - before);
        }
    }
}

impl Magnitudes {
    /// The number of inputs whose norms are missing.
    pub(super) fn missing_norms(&self) -> Option<usize> {
        match self {
            Self::Inputs { values, over_norms } => over_norms.get().is_none().then_some(values.len()),
            Self::Rows { .. } => None,
        }
    }

    /// Keeps the norms of the inputs, given their squares.
    pub(super) fn set_norms(&self, squares: &[f64]) {
        if let Self::Inputs { values, over_norms } = self {
            over_norms.get_or_init(|| {
                let factors = values.iter().zip(squares);
                factors
                    .map(|(&magnitude, &squares)| over_norm(magnitude, squares))
                    .collect()
            });
        }
    }
}

/// A magnitude divided by the norm of which `squares` is the square.
fn over_norm(magnitude: f32, squares: f64) -> f32 {
    (f64::from(magnitude) / (squares.sqrt() + EPSILON)) as f32
}

/// Adds the squares of `values`, whole rows of `columns` values, to the `sums` of their inputs.
pub(super) fn add_squares(sums: &mut [f64], values: &[f32], columns: usize) {
    let area = columns / sums.len();
    for row in values.chunks_exact(columns) {
        for (sum, values) in sums.iter_mut().zip(row.chunks_exact(area)) {
            for &value in values {
                *sum += f64::from(value) * f64::from(value);
            }
        }
    }
}
