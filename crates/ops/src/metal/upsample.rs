//! Images of twice the height and width.

use candle_core::Tensor;

use super::contiguous;
use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::Result;

const THREADS: usize = 64;

/// As kernels have it.
#[repr(C)]
struct Planes {
    height: u32,
    width: u32,
}

/// `x`, `[batch, channels, height, width]`, with every pixel as four.
///
/// # Errors
/// The device fails.
pub(crate) fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    let device = device_of(x)?;
    let x = contiguous(x)?;
    let (batch, channels, height, width) = x.dims4()?;
    let result = Output::new(&device, &[batch, channels, 2 * height, 2 * width], x.dtype())?;
    let kernel = Kernel {
        source: Source::Copy,
        name: "upsample_nearest",
        held_type: x.dtype(),
        flags: Vec::new(),
        numbers: Vec::new(),
    };
    let planes = Planes {
        height: count(height)?,
        width: count(width)?,
    };
    let of_x = Input::new(&x)?;
    let groups = [(2 * width).div_ceil(THREADS), batch * channels * 2 * height, 1];
    kernel.launch(&device, groups, [THREADS, 1, 1], |encoder| {
        of_x.bind(encoder, 0);
        result.bind(encoder, 1);
        encoder.set_bytes(2, &planes);
    })?;
    Ok(result.into_tensor())
}
