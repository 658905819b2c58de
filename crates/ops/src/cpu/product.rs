//! Matrix products on the processor.
//!
//! The arithmetic is the `gemm` crate's. Here the matrices that a product reads and writes are described and
//! checked, work is shared among threads, and weights of 16 bits are widened a panel of rows at a time.

use std::ops::Range;

use gemm::Parallelism;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::kernel::Values;
use super::scratch::with_scratch;
use super::vector::vectorised;

/// Rows of a weight that a task multiplies by.
pub(crate) const PANEL_ROWS: usize = 128;
/// Rows of activations that a task multiplies.
const BAND_ROWS: usize = 1024;

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

// SAFETY: a Target is only ever written through `multiply` and `fill`, whose contract is that no two calls that
// run at the same time share an element.
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
    pub(crate) fn at(self, offset: usize) -> Self {
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

    /// Where `rows` rows of `columns` values can be written.
    pub(crate) fn block(self, rows: usize, columns: usize) -> *mut f32 {
        assert!(
            spans(self.length, rows, columns, self.row_step, 1),
            "a block lies outside of its target. This is a bug."
        );
        self.values
    }

    /// Copies `row` to each of the first `rows` rows.
    ///
    /// # Safety
    /// As for [`multiply`].
    pub(crate) unsafe fn fill_rows(self, rows: usize, row: &[f32]) {
        // SAFETY: as the caller vouches for.
        unsafe { self.fill(rows, row.len(), |_, to| to.copy_from_slice(row)) }
    }

    /// Calls `fill(index, row)` with the first `columns` values of each of the first `rows` rows.
    ///
    /// # Safety
    /// As for [`multiply`].
    pub(crate) unsafe fn fill(self, rows: usize, columns: usize, fill: impl Fn(usize, &mut [f32])) {
        assert!(
            spans(self.length, rows, columns, self.row_step, 1),
            "rows lie outside of their target. This is a bug."
        );
        for index in 0..rows {
            // SAFETY: the row lies inside of the slice, which was checked above; the caller vouches that it
            // lives and that nobody else touches it.
            fill(index, unsafe {
                std::slice::from_raw_parts_mut(self.values.add(index * self.row_step), columns)
            });
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
pub(crate) unsafe fn multiply(target: Target, left: Matrix<'_>, right: Matrix<'_>, scale: f32, add: bool) {
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
            // Tasks are shared among threads by whoever calls, so that no thread waits for another inside.
            Parallelism::None,
        );
    }
}

/// `x * weight^T + bias`: `x` holds rows of `inputs` values, `weight` `outputs` rows of as many.
///
/// A task multiplies a band of rows by a panel of the weight, which it widens into a buffer of its own that
/// stays in the cache. Bands and panels are the same for every type of weight, so that widening changes no bit.
pub(crate) fn linear(
    x: &[f32],
    weight: Values<'_>,
    bias: Option<&[f32]>,
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let rows = x.len() / inputs.max(1);
    let mut result = vec![0.0; rows * outputs];
    let target = Target::new(&mut result, outputs);
    let (bands, panels) = (rows.div_ceil(BAND_ROWS), outputs.div_ceil(PANEL_ROWS));
    (0..bands * panels).into_par_iter().for_each(|task| {
        let (band, panel) = (task / panels * BAND_ROWS, task % panels * PANEL_ROWS);
        let (rows, columns) = (BAND_ROWS.min(rows - band), PANEL_ROWS.min(outputs - panel));
        let left = Matrix::row_major(&x[band * inputs..], rows, inputs);
        let target = target.at(band * outputs + panel);
        with_floats(weight, panel * inputs..(panel + columns) * inputs, |weight| {
            let right = Matrix::row_major(weight, columns, inputs).transposed();
            // SAFETY: `result` lives until the end, and the tile of this task is no other's.
            unsafe {
                if let Some(bias) = bias {
                    target.fill_rows(rows, &bias[panel..panel + columns]);
                }
                multiply(target, left, right, 1.0, bias.is_some());
            }
        });
    });
    result
}

/// Gives `use_them` a range of values as 32-bit floats: in place where they are stored so, else widened into
/// a buffer.
pub(crate) fn with_floats<R>(
    values: Values<'_>,
    range: Range<usize>,
    use_them: impl FnOnce(&[f32]) -> R,
) -> R {
    match values {
        Values::F32(values) => use_them(&values[range]),
        Values::Bf16(values) => with_scratch(range.len(), |widened| {
            widen_bf16(&values[range], widened);
            use_them(widened)
        }),
        Values::F16(values) => with_scratch(range.len(), |widened| {
            // With the processor's own instruction where it has one.
            values[range].convert_to_f32_slice(widened);
            use_them(widened)
        }),
    }
}

vectorised! {
    fn widen_bf16(from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}
