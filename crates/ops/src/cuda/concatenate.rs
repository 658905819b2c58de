//! Tensors that become one.

use candle_core::{Tensor, bail};

use super::channels_last;
use super::copy::copy;
use super::tensors::undefined;
use crate::Result;
use crate::gpu::contiguous_strides;

/// The parts, whose shapes differ in `dimension` alone, one behind the other. Images become one whose channels are last
/// if those of the first one are.
///
/// # Errors
/// There are no parts, their shapes or types do not fit, or the device fails.
pub(crate) fn concatenate(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        bail!("a concatenation of nothing");
    };
    if let Some(pixels) = channels_last::pixels(first) {
        let of_pixels: Option<Vec<Tensor>> = parts
            .iter()
            .map(|part| {
                (part.rank() == pixels.rank())
                    .then(|| part.permute((0, 2, 3, 1)).ok())
                    .flatten()
            })
            .collect();
        if let (Some(parts), Some(&dimension)) = (of_pixels, [0, 3, 1, 2].get(dimension)) {
            return channels_last::of_pixels(&in_order(&parts, dimension)?);
        }
    }
    in_order(parts, dimension)
}

fn in_order(parts: &[Tensor], dimension: usize) -> Result<Tensor> {
    let mut shape = parts[0].dims().to_vec();
    for part in parts {
        let fits = |(index, (size, other))| index == dimension || size == other;
        let same_rank = part.rank() == shape.len() && dimension < shape.len();
        if !same_rank
            || part.dtype() != parts[0].dtype()
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
    let result = undefined(parts[0].device(), &shape, parts[0].dtype())?;
    let mut before = 0;
    for part in parts {
        copy(part, &result, before * strides[dimension], &strides)?;
        before += part.dim(dimension)?;
    }
    Ok(result)
}
