//! Linear combinations of tensors: what every step of a solver is built from.

use candle_core::{Result, Tensor};

/// The sum of `weight * tensor` over `terms`, tensors of one shape, in the order of the terms. A term with
/// weight 0 is left out, even if its tensor is not finite.
///
/// # Errors
/// The shapes differ or the device fails.
pub(crate) fn weighted_sum(terms: &[(f32, &Tensor)]) -> Result<Tensor> {
    let mut present = terms.iter().filter(|(weight, _)| *weight != 0.0);
    let scaled = |(weight, tensor): &(f32, &Tensor)| tensor.affine(f64::from(*weight), 0.0);
    match present.next() {
        Some(first) => present.try_fold(scaled(first)?, |sum, term| sum + scaled(term)?),
        None => terms[0].1.zeros_like(),
    }
}

/// `(end - begin) / distance`: the divided difference of two predictions.
///
/// # Errors
/// The shapes differ or the device fails.
pub(crate) fn divided_difference(end: &Tensor, begin: &Tensor, distance: f32) -> Result<Tensor> {
    weighted_sum(&[(1.0 / distance, end), (-1.0 / distance, begin)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_term_without_weight_cannot_spoil_a_sum() {
        let one = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        let not_finite = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
        let sum = weighted_sum(&[(0.0, &not_finite), (2.0, &one)]).unwrap();
        assert_eq!(sum.to_vec1::<f32>().unwrap(), [2.0]);
    }
}
