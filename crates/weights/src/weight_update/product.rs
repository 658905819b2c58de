//! A product of two matrices, of which a range of rows is computed at a time.

use gemm::Parallelism;

/// `up @ down`, with a factor multiplied into `up`.
#[derive(Debug)]
pub(crate) struct Product {
    /// `[rows, rank]`
    pub(crate) up: Vec<f32>,
    /// `[rank, columns]`
    pub(crate) down: Vec<f32>,
    pub(crate) rank: usize,
    pub(crate) columns: usize,
}

impl Product {
    /// Adds the rows of the product from `first_row` on to `values`, which are whole rows.
    pub(super) fn add_to(&self, values: &mut [f32], first_row: usize) {
        self.multiply(values, first_row, true);
    }

    /// Fills `values`, which are whole rows, with the rows of the product from `first_row` on.
    pub(super) fn fill(&self, values: &mut [f32], first_row: usize) {
        self.multiply(values, first_row, false);
    }

    #[allow(unsafe_code)]
    fn multiply(&self, values: &mut [f32], first_row: usize, adds: bool) {
        let &Self { rank, columns, .. } = self;
        let up = &self.up[first_row * rank..];
        let rows = values.len() / columns;
        assert!(
            up.len() >= rows * rank && self.down.len() >= rank * columns,
            "a product of matrices that do not go together. This is a bug."
        );
        // SAFETY: all three matrices are stored row after row in slices that are large enough, as was checked
        // above, and `values` is borrowed for nobody else.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                rank,
                values.as_mut_ptr(),
                1,
                columns as isize,
                adds,
                up.as_ptr(),
                1,
                rank as isize,
                self.down.as_ptr(),
                1,
                columns as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}
