//! The values of tests, and how near to the expected ones results have to be.

use candle_core::{DType, Tensor};

pub(crate) use crate::random::random;

/// The types that kernels are compiled for.
pub(crate) const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Each type with each case.
pub(crate) fn in_every_type<T: Copy>(cases: &[T]) -> impl Iterator<Item = (DType, T)> {
    let with = |held_type| cases.iter().map(move |&case| (held_type, case));
    TYPES.into_iter().flat_map(with)
}

/// What 32-bit sums may be wrong by, relative to the greatest value of a result.
pub(crate) const WITHIN: f32 = 1e-5;

/// The values of a tensor in 32 bits rounded to those that a type has, so that kernels and plain definitions are given
/// the same ones.
pub(crate) fn held(tensor: &Tensor, held_type: DType) -> Tensor {
    let held = tensor
        .to_dtype(held_type)
        .and_then(|tensor| tensor.to_dtype(DType::F32));
    held.unwrap()
}

/// All values, row by row.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Checks every value: a result is computed in 32 bits, to `within` of the greatest expected value, and rounded once to
/// `held_type`.
pub(crate) fn assert_close(what: &str, held_type: DType, found: &[f32], expected: &[f32], within: f32) {
    // Half the distance of neighbours, relative to a value and, of the smallest values, absolute.
    let (relative, absolute) = match held_type {
        DType::F16 => (2.0_f32.powi(-11), 2.0_f32.powi(-25)),
        DType::BF16 => (2.0_f32.powi(-8), 0.0),
        _ => (0.0, 0.0),
    };
    assert_eq!(found.len(), expected.len(), "{what} in {held_type:?}");
    let greatest = expected
        .iter()
        .fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = relative * expected.abs() + absolute + within * greatest;
        assert!(
            (found - expected).abs() <= allowed,
            "{what} in {held_type:?}: value {index} is {found}, not {expected}"
        );
    }
}
