//! Convolutions without stored windows.

use candle_core::{DType, Tensor, bail};

use super::copy::{copy, in_order};
use super::images::{contiguous_pixels, of_pixels};
use super::launch::{Kernel, Source, count, has_tensor_cores, lanes, suffix};
use super::tensors::{Address, address, device_of, optional_address, undefined};
use crate::Result;
use crate::gpu::{Addends, Windows, contiguous_strides};

/// The pixels of a block's tile, and its threads.
const PIXELS: usize = 128;
const THREADS: u32 = 256;
/// The bytes of a block's tile of 16-bit values: stages of rows for pixels and output channels.
const STAGES: usize = 4;
const BYTES_OF_ROW: usize = 80;
/// The channels that are multiplied at a time.
const DEPTH: usize = 32;
/// The tile of 32-bit values, on both sides.
const PLAIN_TILE: usize = 64;
/// The blocks from which on a device is taken to be busy, and the fewest steps of a part of a sum.
const BUSY: usize = 256;
const STEPS_OF_PART: usize = 8;
const MOST_PARTS: usize = 16;

/// As kernels have it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Convolution {
    x: Address,
    weight: Address,
    y: Address,
    parts: Address,
    bias: Address,
    shifts: Address,
    onto: Address,
    pixels: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_channels: u32,
    out_height: u32,
    out_width: u32,
    stride: u32,
    above: i32,
    left: i32,
    kernel_height: u32,
    kernel_width: u32,
    upsamples: u32,
    splits: u32,
}

/// The convolution of `x`, `[batch, in channels, height, width]`, with `weight`,
/// `[out channels, in channels, kernel height, kernel width]`, plus `addends`.
///
/// # Errors
/// The types differ, or the device fails.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, addends: Addends<'_>, windows: Windows) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        bail!("a convolution of {:?} was given {:?}", weight.dtype(), x.dtype());
    }
    let held_type = x.dtype();
    let is_wide = held_type == DType::F32;
    let device = device_of(x)?;
    if !is_wide && !has_tensor_cores(&device)? {
        return in_32_bits(x, weight, addends, windows);
    }
    let (batch, in_channels, height, width) = x.dims4()?;
    let (out_channels, _, kernel_height, kernel_width) = weight.dims4()?;
    let shifts = addends.shifts.map(in_order).transpose()?;
    let onto = addends.onto.map(contiguous_pixels).transpose()?;
    let shape = [batch, windows.height, windows.width, out_channels];
    let channels = in_channels.next_multiple_of(lanes(held_type));
    let pixels = with_channels(&contiguous_pixels(x)?, channels)?;
    let weight = with_channels(&contiguous_pixels(weight)?, channels)?;
    let result = undefined(x.device(), &shape, held_type)?;
    let out_pixels = batch * windows.height * windows.width;
    let tile = match out_channels {
        _ if is_wide => PLAIN_TILE,
        0..=16 => 16,
        // Where tiles are few, smaller ones keep more of the device busy.
        17..=64 => 64,
        _ if out_pixels.div_ceil(PIXELS) * out_channels.div_ceil(128) < BUSY => 64,
        _ => 128,
    };
    let rows = if is_wide { PLAIN_TILE } else { PIXELS };
    let blocks = [out_pixels.div_ceil(rows), out_channels.div_ceil(tile)];
    let steps = channels.div_ceil(DEPTH) * kernel_height * kernel_width;
    let splits = match is_wide {
        true => 1,
        false => (BUSY / (blocks[0] * blocks[1]).max(1)).clamp(1, (steps / STEPS_OF_PART).clamp(1, MOST_PARTS)),
    };
    let parts = (splits > 1)
        .then(|| undefined(x.device(), &[splits, out_pixels, out_channels], DType::F32))
        .transpose()?;
    let signed = |value: usize| i32::try_from(value).map_err(candle_core::Error::wrap);
    let parameters = Convolution {
        x: address(&pixels)?,
        weight: address(&weight)?,
        y: address(&result)?,
        parts: optional_address(parts.as_ref())?,
        bias: optional_address(addends.bias)?,
        shifts: optional_address(shifts.as_ref())?,
        onto: optional_address(onto.as_ref())?,
        pixels: count(out_pixels)?,
        channels: count(channels)?,
        height: count(height)?,
        width: count(width)?,
        out_channels: count(out_channels)?,
        out_height: count(windows.height)?,
        out_width: count(windows.width)?,
        stride: count(windows.stride)?,
        above: i32::try_from(windows.above).map_err(candle_core::Error::wrap)?,
        left: signed(windows.left)?,
        kernel_height: count(kernel_height)?,
        kernel_width: count(kernel_width)?,
        upsamples: u32::from(windows.upsamples),
        splits: count(splits)?,
    };
    let name = suffix(held_type)?;
    let kernel = Kernel {
        source: Source::Convolution,
        name: &match is_wide {
            true => "convolution_f32".to_owned(),
            false => format!("convolution_{tile}_{name}"),
        },
        blocks: [blocks[0], blocks[1], splits],
        threads: [THREADS, 1, 1],
        shared_bytes: match is_wide {
            true => 0,
            false => count(STAGES * (PIXELS + tile) * BYTES_OF_ROW)?,
        },
    };
    let sum = Kernel {
        source: Source::Convolution,
        name: &format!("sum_parts_{name}"),
        blocks: [result.elem_count().div_ceil(THREADS as usize), 1, 1],
        threads: [THREADS, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernels declare; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device, parameters)?;
        if splits > 1 {
            sum.launch(&device, parameters)?;
        }
    }
    of_pixels(&result)
}

/// `pixels`, `[.., .., .., channels]`, with channels of zeros up to so many, at an address that vectors can be read at.
fn with_channels(pixels: &Tensor, channels: usize) -> Result<Tensor> {
    let dims = pixels.dims();
    let own = dims[3];
    if own == channels && address(pixels)? % 16 == 0 {
        return Ok(pixels.clone());
    }
    let shape = [dims[0], dims[1], dims[2], channels];
    let result = Tensor::zeros(&shape, pixels.dtype(), pixels.device())?;
    copy(pixels, &result, 0, &contiguous_strides(&shape))?;
    Ok(result)
}

/// Where there are no tensor cores for 16 bits.
fn in_32_bits(x: &Tensor, weight: &Tensor, addends: Addends<'_>, windows: Windows) -> Result<Tensor> {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32);
    let [bias, shifts, onto] =
        [addends.bias, addends.shifts, addends.onto].map(|tensor| tensor.map(wide).transpose());
    let (bias, shifts, onto) = (bias?, shifts?, onto?);
    let addends = Addends {
        bias: bias.as_ref(),
        shifts: shifts.as_ref(),
        onto: onto.as_ref(),
    };
    conv2d(&wide(x)?, &wide(weight)?, addends, windows)?.to_dtype(x.dtype())
}
