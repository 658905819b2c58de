//! Convolutions without stored windows.

use candle_core::{DType, Tensor, bail};

use super::channels_last::of_pixels;
use super::copy::{copy, in_order};
use super::images::contiguous_pixels;
use super::launch::{Kernel, Limits, Source, count, lanes, suffix};
use super::tensors::{Address, address, device_of, optional_address, undefined};
use crate::Result;
use crate::gpu::{Addends, Windows, contiguous_strides};

/// The pixels of a block's tile.
const PIXELS: usize = 128;
/// The bytes of a block's tile of 16-bit values: stages of rows for pixels and output channels.
const STAGES: usize = 3;
const BYTES_OF_ROW: usize = 144;
/// The channels that are multiplied at a time.
const DEPTH: usize = 64;
/// The tile of 32-bit values, on both sides, and its threads.
const PLAIN_TILE: usize = 64;
const THREADS: u32 = 256;

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
    let limits = Limits::of(&device)?;
    if !is_wide && !limits.has_tensor_cores {
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
    let (tile, threads) = match out_channels {
        _ if is_wide => (PLAIN_TILE, THREADS),
        0..=16 => (16, 128),
        17..=64 => (64, 128),
        // RTX cards have less shared memory than the larger tile takes.
        _ if shared_bytes(128) > limits.shared_bytes => (64, 128),
        _ => (128, 256),
    };
    let rows = if is_wide { PLAIN_TILE } else { PIXELS };
    let blocks = [out_pixels.div_ceil(rows), out_channels.div_ceil(tile)];
    let splits = match is_wide {
        true => 1,
        false => splits(
            blocks[0] * blocks[1],
            channels.div_ceil(DEPTH) * kernel_height * kernel_width,
            out_pixels * out_channels,
        ),
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
        threads: [threads, 1, 1],
        shared_bytes: match is_wide {
            true => 0,
            false => count(shared_bytes(tile))?,
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

/// The shared memory of a block for a tile of so many output channels.
const fn shared_bytes(tile: usize) -> usize {
    STAGES * (PIXELS + tile) * BYTES_OF_ROW
}

/// Into how many parts a sum of `steps` steps is split for `blocks` tiles of a result of so many `values`, so that the
/// time is the least on a device that runs [`AT_A_TIME`] blocks. Time is counted in steps of all these blocks.
fn splits(blocks: usize, steps: usize, values: usize) -> usize {
    /// What a block takes beside its steps.
    const AROUND: f64 = 8.0;
    /// What writing and reading a part takes, by its values.
    const OF_VALUE: f64 = 1.1e-6;
    let time = |splits: usize| {
        let rounds = (blocks * splits).div_ceil(AT_A_TIME) as f64;
        let summed = if splits > 1 {
            (splits * values) as f64 * OF_VALUE
        } else {
            0.0
        };
        rounds * (steps.div_ceil(splits) as f64 + AROUND) + summed
    };
    let possible = 1..=(steps / STEPS_OF_PART).clamp(1, MOST_PARTS);
    let better = |best: usize, other: usize| if time(other) < time(best) { other } else { best };
    possible.reduce(better).unwrap_or(1)
}

/// The blocks that run at a time: two for each multiprocessor of an H100. Any other number gives the same results up to
/// rounding, but it is one for all devices, so that it depends on shapes alone.
const AT_A_TIME: usize = 264;
/// The fewest steps of a part of a sum, and the most parts.
const STEPS_OF_PART: usize = 4;
const MOST_PARTS: usize = 16;

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
