//! Tensors that become one.

use candle_core::{Tensor, bail};

use super::copy::copy;
use super::tensors::{Output, device_of};
use crate::Result;
use crate::gpu::contiguous_strides;

/// The parts, whose shapes differ in `dimension` alone, one behind the other.
///
/// # Errors
/// There are no parts, or the device fails.
pub(crate) fn concatenate(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        bail!("a concatenation of nothing");
    };
    let mut shape = first.dims().to_vec();
    for part in parts {
        let fits = |(index, (size, other))| index == dimension || size == other;
        let same_rank = part.rank() == shape.len() && dimension < shape.len();
        if !same_rank
            || part.dtype() != first.dtype()
            || !part.dims().iter().zip(&shape).enumerate().all(fits)
        {
            bail!(
                "{:?} and {shape:?} are not joined in dimension {dimension}",
                part.dims()
            );
        }
    }
    shape[dimension] = parts
        .iter()
        .map(|part| part.dim(dimension))
        .sum::<Result<usize>>()?;
    let strides = contiguous_strides(&shape);
    let result = Output::new(&device_of(first)?, &shape, first.dtype())?;
    let mut before = 0;
    for part in parts {
        copy(part, &result, before * strides[dimension], &strides)?;
        before += part.dim(dimension)?;
    }
    Ok(result.into_tensor())
}
