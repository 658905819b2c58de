//! Matrix products on the processor.
//!
//! The arithmetic is the `gemm` crate's. Here weights of 16 bits are widened a panel of rows at a time, and
//! the matrices that a product reads and writes are described and checked.

use std::cell::RefCell;

use gemm::Parallelism;
use rayon::prelude::*;

use super::kernel::Values;

/// Floats in a panel of widened weights: 4 MB.
const PANEL_VALUES: usize = 1 << 20;
/// Widening is shared among threads in pieces of this many values.
const PIECE: usize = 1 << 14;

/// A matrix inside a slice: `rows` by `columns`, with steps from one element to the next in each direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix stored row after row.
    pub(crate) fn row_major(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self {
            values,
            rows,
            columns,
            row_step: columns,
            column_step: 1,
        }
    }

    /// The same matrix with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }

    fn fits(&self) -> bool {
        spans(
            self.values.len(),
            self.rows,
            self.columns,
            self.row_step,
            self.column_step,
        )
    }
}

/// A place that a product is written to or added to, possibly between values of others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    values: *mut f32,
    length: usize,
    pub(crate) row_step: usize,
}

// SAFETY: a Target is only ever written through `multiply`, whose contract is that no two calls that run at
// the same time share an element.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A target of rows of `row_step` values, which lie one after the other.
    pub(crate) fn new(values: &mut [f32], row_step: usize) -> Self {
        Self {
            values: values.as_mut_ptr(),
            length: values.len(),
            row_step,
        }
    }

    /// The part of the target that begins `offset` values later.
    pub(crate) fn from_offset(self, offset: usize) -> Self {
        assert!(
            offset <= self.length,
            "a product begins outside of its target. This is a bug."
        );
        // SAFETY: the offset lies inside of the slice that the target was made of, or at its end.
        Self {
            values: unsafe { self.values.add(offset) },
            length: self.length - offset,
            ..self
        }
    }
}

fn spans(length: usize, rows: usize, columns: usize, row_step: usize, column_step: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_step + (columns - 1) * column_step < length
}

/// Adds `scale * left * right` to `target`, or overwrites it where `add` is not set.
///
/// # Safety
/// The slice that `target` was made of lives, and no other thread touches the elements that are written:
/// `left.rows` rows of `right.columns` values.
pub(crate) unsafe fn multiply(
    target: Target,
    left: Matrix<'_>,
    right: Matrix<'_>,
    scale: f32,
    add: bool,
    parallelism: Parallelism,
) {
    assert!(
        left.fits()
            && right.fits()
            && left.columns == right.rows
            && spans(target.length, left.rows, right.columns, target.row_step, 1),
        "a product does not fit its matrices. This is a bug."
    );
    // SAFETY: all three matrices lie inside of their slices, which was checked above; the caller vouches for
    // the rest.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            target.values,
            1,
            target.row_step as isize,
            add,
            left.values.as_ptr(),
            left.column_step as isize,
            left.row_step as isize,
            right.values.as_ptr(),
            right.column_step as isize,
            right.row_step as isize,
            if add { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x * weight^T + bias`: `x` holds rows of `inputs` values, `weight` `outputs` rows of as many.
pub(crate) fn linear(
    x: &[f32],
    weight: Values<'_>,
    bias: Option<&[f32]>,
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let rows = x.len() / inputs.max(1);
    let mut result = vec![0.0; rows * outputs];
    if let Some(bias) = bias {
        result
            .par_chunks_mut(outputs.max(1))
            .for_each(|row| row.copy_from_slice(bias));
    }
    let left = Matrix::row_major(x, rows, inputs);
    let target = Target::new(&mut result, outputs);
    // The panels are the same for every type of weight, so that widening changes no bit.
    let panel_rows = (PANEL_VALUES / inputs.max(1)).clamp(64, 2048);
    for first in (0..outputs).step_by(panel_rows) {
        let count = panel_rows.min(outputs - first);
        let range = first * inputs..(first + count) * inputs;
        with_floats(weight, range, |panel| {
            let right = Matrix::row_major(panel, count, inputs).transposed();
            // SAFETY: `result` lives until the end, and this call alone writes to it meanwhile.
            unsafe {
                multiply(
                    target.from_offset(first),
                    left,
                    right,
                    1.0,
                    bias.is_some(),
                    Parallelism::Rayon(0),
                );
            }
        });
    }
    result
}

/// Gives `use_them` a range of values as 32-bit floats: in place where they are stored so, else widened into
/// a buffer that is used again for the next panel.
pub(crate) fn with_floats<R>(
    values: Values<'_>,
    range: std::ops::Range<usize>,
    use_them: impl FnOnce(&[f32]) -> R,
) -> R {
    thread_local! {
        static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    let widened = |fill: &dyn Fn(&mut [f32])| {
        // Taken out of its cell for the while: rayon may run another kernel on this thread inside of
        // `use_them`, which then makes a buffer of its own.
        let mut panel = PANEL.with(RefCell::take);
        if panel.len() < range.len() {
            panel.resize(range.len(), 0.0);
        }
        fill(&mut panel[..range.len()]);
        panel
    };
    let panel = match values {
        Values::F32(values) => return use_them(&values[range]),
        Values::Bf16(values) => widened(&|panel| {
            let source = &values[range.clone()];
            panel
                .par_chunks_mut(PIECE)
                .zip(source.par_chunks(PIECE))
                .for_each(|(to, from)| {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                    }
                });
        }),
        Values::F16(values) => widened(&|panel| {
            let source = &values[range.clone()];
            panel
                .par_chunks_mut(PIECE)
                .zip(source.par_chunks(PIECE))
                .for_each(|(to, from)| {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from.to_f32();
                    }
                });
        }),
    };
    let result = use_them(&panel[..range.len()]);
    // A buffer of the size of a panel is worth keeping, a larger one is not.
    if panel.len() <= 2 * PANEL_VALUES {
        PANEL.with(|cell| cell.replace(panel));
    }
    result
}
