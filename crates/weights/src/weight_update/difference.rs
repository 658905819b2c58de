//! The difference that a file adds to a tensor, in factors, of which a range of rows is computed at a time.

use super::product::Product;
use super::rows::{RowMove, overlaps};

/// A difference of weights in factors.
#[derive(Debug)]
pub(crate) enum Difference {
    /// `up @ down` (Hu et al., "LoRA", 2021). The rows are those of the tensor.
    LowRank(Product),
    /// LoHa: the elementwise product of two low-rank products (Hyeon-Woo et al., "FedPara", 2022).
    Hadamard {
        products: [Product; 2],
        moves: Vec<RowMove>,
    },
    /// LoKr: the Kronecker product of two matrices (Yeh et al., "Navigating Text-To-Image Customization: From
    /// LyCORIS Fine-Tuning to Model Evaluation", 2024).
    Kronecker {
        left: Matrix,
        right: Matrix,
        moves: Vec<RowMove>,
    },
}

/// A factor of a Kronecker product.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// All values, row after row.
    Whole { values: Vec<f32>, columns: usize },
    /// A low-rank product.
    Product(Product),
}

impl Difference {
    /// Adds the rows of the difference from `first_row` of the tensor on to `values`, which are whole rows of
    /// `columns` values.
    pub(super) fn add_to(&self, values: &mut [f32], first_row: usize, columns: usize) {
        match self {
            Self::LowRank(product) => product.add_to(values, first_row),
            Self::Hadamard { products, moves } => {
                for overlap in overlaps(moves, first_row, values.len() / columns) {
                    let values = &mut values[overlap.at * columns..][..overlap.rows * columns];
                    let [one, other] = products.each_ref().map(|product| {
                        let mut rows = vec![0.0; values.len()];
                        product.fill(&mut rows, overlap.layer);
                        rows
                    });
                    for ((value, one), other) in values.iter_mut().zip(one).zip(other) {
                        *value += one * other;
                    }
                }
            }
            Self::Kronecker { left, right, moves } => {
                for overlap in overlaps(moves, first_row, values.len() / columns) {
                    let values = &mut values[overlap.at * columns..][..overlap.rows * columns];
                    add_kronecker(values, overlap.layer, left, right);
                }
            }
        }
    }
}

/// Adds the rows of the Kronecker product from `first_row` on to `values`. Row `a * rows of right + b` of it
/// is row `b` of `right`, once for each value of row `a` of `left`, multiplied by that value.
fn add_kronecker(values: &mut [f32], first_row: usize, left: &Matrix, right: &Matrix) {
    let columns = left.columns() * right.columns();
    let (mut row, mut rest, of_right) = (first_row, values, right.rows());
    let (mut left_buffer, mut right_buffer) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let run = (of_right - row % of_right).min(rest.len() / columns);
        let (values, later) = rest.split_at_mut(run * columns);
        let left = left.rows_at(row / of_right, 1, &mut left_buffer);
        let right_rows = right.rows_at(row % of_right, run, &mut right_buffer);
        for (values, right) in values
            .chunks_exact_mut(columns)
            .zip(right_rows.chunks_exact(right.columns()))
        {
            for (values, &left) in values.chunks_exact_mut(right.len()).zip(left) {
                for (value, &right) in values.iter_mut().zip(right) {
                    *value += left * right;
                }
            }
        }
        row += run;
        rest = later;
    }
}

impl Matrix {
    fn columns(&self) -> usize {
        match self {
            Self::Whole { columns, .. } => *columns,
            Self::Product(product) => product.columns,
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Whole { values, columns } => values.len() / columns,
            Self::Product(product) => product.up.len() / product.rank,
        }
    }

    /// `count` rows from `first` on, which `buffer` holds where they are computed.
    fn rows_at<'a>(&'a self, first: usize, count: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Whole { values, columns } => &values[first * columns..][..count * columns],
            Self::Product(product) => {
                buffer.resize(count * product.columns, 0.0);
                product.fill(buffer, first);
                buffer
            }
        }
    }
}
