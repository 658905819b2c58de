//! Residual additions.

use candle_core::{DType, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
#[cfg(gpu)]
use crate::contiguous::contiguous;
use crate::cpu::kernel::on_two;
use crate::cpu::lanewise::map;
use crate::cpu::simd::InstructionSet;
use crate::cpu::sum::Sum;
#[cfg(gpu)]
use crate::gpu::{Epilogue, has_kernels, on_gpu};

/// `x + y`, two tensors of one shape.
///
/// # Errors
/// The shapes differ, or the device fails.
pub fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("a sum of {:?} and {:?}", x.dims(), y.dims());
    }
    match Backend::of(x.device()) {
        Backend::Cpu => on_two("sum", x.dims(), x, y, |x, y| {
            Ok(map(InstructionSet::best(), Sum, [x.floats()?, y.floats()?]))
        }),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, combined(x, Epilogue::residual(y))),
        _ => x + y,
    }
}

/// `x + y`, each repeated where the other one has more, as by [`Tensor::broadcast_add`].
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn broadcast_sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match Backend::of(x.device()) {
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let shape = x.shape().broadcast_shape_binary_op(y.shape(), "broadcast_sum")?;
            let [x, y] = [x, y].map(|part| contiguous(&part.broadcast_as(&shape)?));
            sum(&x?, &y?)
        }
        _ => x.broadcast_add(y),
    }
}

/// `x`, `[batch, tokens, features]`, plus `positions`, `[tokens, features]` in 32 bits, for each of the batch. The
/// sums are rounded to the type of `x`.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn add_positions(x: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (_, tokens, features) = x.dims3()?;
    if positions.dims() != [tokens, features] || positions.dtype() != DType::F32 {
        bail!(
            "positions {:?} of {:?} for {:?}",
            positions.dims(),
            positions.dtype(),
            x.dims()
        );
    }
    match Backend::of(x.device()) {
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, add_positions(x, positions)),
        _ => x
            .to_dtype(DType::F32)?
            .broadcast_add(positions)?
            .to_dtype(x.dtype()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{equal, random};

    #[test]
    fn sums_are_those_of_the_plain_definition() {
        for shape in [&[1][..], &[3, 5, 7], &[2, 40_000], &[3, 333, 512]] {
            let (x, y) = (random(shape, 1), random(shape, 2));
            equal(&sum(&x, &y).unwrap(), &(&x + &y).unwrap());
        }
        let (x, y) = (random(&[30, 70], 1), random(&[70, 30], 2));
        equal(
            &sum(&x, &y.t().unwrap()).unwrap(),
            &(&x + y.t().unwrap()).unwrap(),
        );
        assert!(sum(&x, &y).is_err());
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let of = |values: &[f32]| Tensor::new(values, &candle_core::Device::Cpu).unwrap();
        let (x, y) = (
            of(&[f32::INFINITY, f32::INFINITY, f32::NAN]),
            of(&[1.0, f32::NEG_INFINITY, 0.0]),
        );
        let sums = sum(&x, &y).unwrap().to_vec1::<f32>().unwrap();
        assert!(sums[0] == f32::INFINITY && sums[1].is_nan() && sums[2].is_nan());
    }
}
