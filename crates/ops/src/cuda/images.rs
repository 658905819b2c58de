//! Operations on images whose channels are last: their pixels as tokens, and upsampling.

use candle_core::{Tensor, bail};

use super::channels_last::of_pixels;
use super::copy::in_order;
use super::launch::{Kernel, Source, count};
use super::tensors::{Address, address, device_of, undefined};
use crate::Result;

const THREADS: usize = 256;

/// The pixels of an image, `[batch, height, width, channels]`, contiguous: a view where it lies so, else a copy.
///
/// # Errors
/// The image has other than four dimensions, or the device fails.
pub(super) fn contiguous_pixels(image: &Tensor) -> Result<Tensor> {
    in_order(&image.permute((0, 2, 3, 1))?)
}

/// The pixels of an image as tokens, `[batch, height * width, channels]`: a view where the channels are last.
///
/// # Errors
/// The image has other than four dimensions, or the device fails.
pub(crate) fn tokens_of_image(image: &Tensor) -> Result<Tensor> {
    contiguous_pixels(image)?.flatten(1, 2)
}

/// The image of such tokens, a view of them.
///
/// # Errors
/// The tokens are not so many, or the device fails.
pub(crate) fn image_of_tokens(tokens: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (batch, _, channels) = tokens.dims3()?;
    of_pixels(&in_order(tokens)?.reshape((batch, height, width, channels))?)
}

/// As kernels have it.
#[repr(C)]
struct Planes {
    x: Address,
    y: Address,
    count: u64,
    width: u32,
    parts: u32,
}

/// `x`, `[batch, channels, height, width]`, with every pixel as four.
///
/// # Errors
/// The device fails.
pub(crate) fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    let pixels = contiguous_pixels(x)?;
    let (batch, height, width, channels) = pixels.dims4()?;
    let result = undefined(x.device(), &[batch, 2 * height, 2 * width, channels], x.dtype())?;
    let value = x.dtype().size_in_bytes();
    let (from, to) = (address(&pixels)?, address(&result)?);
    let part = match channels * value % 16 == 0 && from % 16 == 0 {
        true => 16,
        false => value,
    };
    let name = match part {
        2 => "upsample_nearest_2",
        4 => "upsample_nearest_4",
        16 => "upsample_nearest_16",
        other => bail!("images of values of {other} bytes"),
    };
    let parts = channels * value / part;
    let total = result.elem_count() * value / part;
    let planes = Planes {
        x: from,
        y: to,
        count: total as u64,
        width: count(width)?,
        parts: count(parts)?,
    };
    let kernel = Kernel {
        source: Source::Copy,
        name,
        blocks: [total.div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; both tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(x)?, planes)?;
    }
    of_pixels(&result)
}
