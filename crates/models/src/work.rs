//! The arithmetic of a network: multiply-adds of a pass, and the values that its operations read and write.

use std::iter::Sum;

/// The arithmetic of a computation. Counts that would overflow stay at the largest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Multiply-adds of matrix products, convolutions and attention, by their definitions: a kernel that
    /// computes the same with fewer, such as Winograd's, does not change them.
    pub multiply_adds: u64,
    /// Values of activations that the operations read and write. Weights are not among them.
    pub values: u64,
}

impl Work {
    /// A matrix product of `rows` activations, without those of an element-wise operation beside it.
    pub(crate) fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            multiply_adds: product(&[rows, inputs, outputs]),
            values: product(&[rows, inputs.saturating_add(outputs)]),
        }
    }

    /// A convolution of `kernel` by `kernel` with a result of `pixels`, over the whole batch.
    pub(crate) fn conv2d(pixels: usize, inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            multiply_adds: product(&[pixels, inputs, outputs, kernel, kernel]),
            values: product(&[pixels, inputs.saturating_add(outputs)]),
        }
    }

    /// Attention of `queries` to `keys`, whose heads have `width` features together: the scores, and the sums
    /// of the values.
    pub(crate) fn attention(queries: usize, keys: usize, width: usize) -> Self {
        let tokens = queries.saturating_add(keys);
        Self {
            multiply_adds: product(&[2, queries, keys, width]),
            values: product(&[2, tokens, width]),
        }
    }

    /// A norm, a sum or an activation of `values` values that is an operation of its own.
    pub(crate) fn elementwise(values: usize) -> Self {
        Self {
            multiply_adds: 0,
            values: product(&[2, values]),
        }
    }

    /// The same computation `count` times.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        Self {
            multiply_adds: self.multiply_adds.saturating_mul(count as u64),
            values: self.values.saturating_mul(count as u64),
        }
    }

    /// Both computations.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            multiply_adds: self.multiply_adds.saturating_add(other.multiply_adds),
            values: self.values.saturating_add(other.values),
        }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::and)
    }
}

fn product(factors: &[usize]) -> u64 {
    let factors = factors.iter().map(|&factor| factor as u64);
    factors.fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_count_as_they_are_defined() {
        let all = [
            Work::linear(5, 3, 4),
            Work::conv2d(10, 3, 4, 3),
            Work::attention(5, 7, 8),
            Work::elementwise(9).times(2),
        ];
        let multiply_adds = all.map(|work| work.multiply_adds);
        assert_eq!(multiply_adds, [60, 10 * 3 * 4 * 9, 2 * 5 * 7 * 8, 0]);
        // Queries, keys, values and the result of attention.
        assert_eq!(all.map(|work| work.values), [35, 70, 2 * 5 * 8 + 2 * 7 * 8, 36]);
        let sum: Work = all.into_iter().sum();
        assert_eq!(
            (sum.multiply_adds, sum.values),
            (60 + 1080 + 560, 35 + 70 + 192 + 36)
        );
    }

    #[test]
    fn counts_of_impossible_sizes_do_not_overflow() {
        let most = usize::MAX;
        let work = Work::linear(most, most, most)
            .and(Work::attention(most, most, most))
            .times(most);
        assert_eq!((work.multiply_adds, work.values), (u64::MAX, u64::MAX));
    }
}
