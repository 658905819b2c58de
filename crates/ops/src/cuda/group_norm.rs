//! Group norms of images, with silu after them, and the moments that they take.

use candle_core::{CudaDevice, DType, Tensor};

use super::channels_last::of_pixels;
use super::images::contiguous_pixels;
use super::launch::{Kernel, Source, count, lanes, suffix};
use super::tensors::{Address, address, aligned, device_of, optional_address, undefined};
use crate::Result;

/// The threads of a block.
const THREADS: usize = 256;
/// The pixels whose sums a block takes, and the most blocks for an image.
const SLAB: usize = 64;
const SLABS: usize = 256;

/// As kernels have it.
#[repr(C)]
struct Sums {
    x: Address,
    sums: Address,
    pixels: u32,
    channels: u32,
    slab: u32,
    slabs: u32,
}

/// As kernels have it.
#[repr(C)]
struct Moments {
    x: Address,
    sums: Address,
    found: Address,
    earlier: Address,
    earlier_count: f32,
    epsilon: f32,
    batch: u32,
    pixels: u32,
    channels: u32,
    slabs: u32,
    channels_of_group: u32,
}

/// The sums of slabs of pixels, `[batch, slabs, channels, 2]` in 32 bits, of `pixels`, and how many slabs there are.
fn sums(pixels: &Tensor) -> Result<(Tensor, usize)> {
    let (batch, height, width, channels) = pixels.dims4()?;
    let area = height * width;
    let slab = area.div_ceil(SLABS).max(SLAB);
    let slabs = area.div_ceil(slab);
    let result = undefined(pixels.device(), &[batch, slabs, channels, 2], DType::F32)?;
    let parameters = Sums {
        x: address(pixels)?,
        sums: address(&result)?,
        pixels: count(area)?,
        channels: count(channels)?,
        slab: count(slab)?,
        slabs: count(slabs)?,
    };
    let (of_thread, form) = match aligned(pixels.dtype(), &[parameters.x], &[channels]) {
        true => (lanes(pixels.dtype()), ""),
        false => (1, "_single"),
    };
    // Threads side by side take the channels of a pixel.
    let across = (channels / of_thread).next_power_of_two().min(32);
    let name = format!("channel_sums_{}{form}", suffix(pixels.dtype())?);
    let kernel = Kernel {
        source: Source::Norm,
        name: &name,
        blocks: [slabs, (channels / of_thread).div_ceil(across), batch],
        threads: [count(across)?, count(THREADS / across)?, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(pixels)?, parameters)?;
    }
    Ok((result, slabs))
}

/// Runs a kernel of the file of norms with one thread for each of `threads`.
fn launch<P>(device: &CudaDevice, name: &str, threads: usize, parameters: P) -> Result<()> {
    let kernel = Kernel {
        source: Source::Norm,
        name,
        blocks: [threads.div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the callers give the parameters that the kernel declares, of tensors that live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(device, parameters)
    }
}

/// For each group of channels of `x`, `[batch, channels, height, width]`, its mean and the reciprocal of its
/// standard deviation: `[batch, groups, 2]`, in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn group_statistics(x: &Tensor, groups: usize, epsilon: f64) -> Result<Tensor> {
    let pixels = contiguous_pixels(x)?;
    let (batch, height, width, channels) = pixels.dims4()?;
    let (sums, slabs) = sums(&pixels)?;
    let result = undefined(x.device(), &[batch, groups, 2], DType::F32)?;
    let parameters = Moments {
        x: address(&pixels)?,
        sums: address(&sums)?,
        found: address(&result)?,
        earlier: 0,
        earlier_count: 0.0,
        epsilon: epsilon as f32,
        batch: count(batch)?,
        pixels: count(height * width)?,
        channels: count(channels)?,
        slabs: count(slabs)?,
        channels_of_group: count(channels / groups)?,
    };
    let name = format!("group_statistics_{}", suffix(x.dtype())?);
    launch(&device_of(x)?, &name, batch * groups * THREADS, parameters)?;
    Ok(result)
}

/// For each channel of `rows`, `[batch, channels, rows, width]`, its mean and the sum of squared deviations from it,
/// merged with those of so many `earlier` values of each channel: `[batch, channels, 2]`, in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn channel_moments(rows: &Tensor, earlier: Option<(usize, &Tensor)>) -> Result<Tensor> {
    let pixels = contiguous_pixels(rows)?;
    let (batch, height, width, channels) = pixels.dims4()?;
    let (sums, slabs) = sums(&pixels)?;
    let result = undefined(rows.device(), &[batch, channels, 2], DType::F32)?;
    let parameters = Moments {
        x: address(&pixels)?,
        sums: address(&sums)?,
        found: address(&result)?,
        earlier: optional_address(earlier.map(|(_, moments)| moments))?,
        earlier_count: earlier.map_or(0, |(count, _)| count) as f32,
        epsilon: 0.0,
        batch: count(batch)?,
        pixels: count(height * width)?,
        channels: count(channels)?,
        slabs: count(slabs)?,
        channels_of_group: 1,
    };
    let name = format!("channel_moments_{}", suffix(rows.dtype())?);
    launch(&device_of(rows)?, &name, batch * channels * WARP, parameters)?;
    Ok(result)
}

/// The threads of a warp.
const WARP: usize = 32;

/// As kernels have it.
#[repr(C)]
struct Grouping {
    moments: Address,
    statistics: Address,
    groups: u32,
    channels_of_group: u32,
    count: f32,
    epsilon: f32,
}

/// The statistics of `groups` groups, as [`group_statistics`], from the moments of channels of `values` values.
///
/// # Errors
/// The device fails.
pub(crate) fn grouped_statistics(
    moments: &Tensor,
    values: usize,
    groups: usize,
    epsilon: f64,
) -> Result<Tensor> {
    let (batch, channels, _) = moments.dims3()?;
    let result = undefined(moments.device(), &[batch, groups, 2], DType::F32)?;
    let parameters = Grouping {
        moments: address(moments)?,
        statistics: address(&result)?,
        groups: count(batch * groups)?,
        channels_of_group: count(channels / groups)?,
        count: values as f32,
        epsilon: epsilon as f32,
    };
    launch(
        &device_of(moments)?,
        "grouped_statistics",
        batch * groups,
        parameters,
    )?;
    Ok(result)
}

/// As kernels have it.
#[repr(C)]
struct Groups {
    x: Address,
    y: Address,
    statistics: Address,
    weight: Address,
    bias: Address,
    parts: u64,
    parts_of_image: u64,
    channels: u32,
    channels_of_group: u32,
    then_silu: u32,
}

/// `x`, `[batch, channels, height, width]`, normed by the `statistics` of its groups, times `weight` plus `bias`,
/// `[channels]`, with silu after it if wanted.
///
/// # Errors
/// The device fails.
pub(crate) fn group_normalized(
    x: &Tensor,
    groups: usize,
    statistics: &Tensor,
    [weight, bias]: [&Tensor; 2],
    then_silu: bool,
) -> Result<Tensor> {
    let pixels = contiguous_pixels(x)?;
    let (batch, _, _, channels) = pixels.dims4()?;
    let result = undefined(x.device(), pixels.dims(), x.dtype())?;
    let [weight, bias] = [weight.to_dtype(x.dtype())?, bias.to_dtype(x.dtype())?];
    let [x_address, y] = [address(&pixels)?, address(&result)?];
    let [weight_address, bias_address] = [address(&weight)?, address(&bias)?];
    let addresses = [x_address, y, weight_address, bias_address];
    let (of_thread, form) = match aligned(x.dtype(), &addresses, &[channels]) {
        true => (lanes(x.dtype()), ""),
        false => (1, "_single"),
    };
    let parts = pixels.elem_count() / of_thread;
    let parameters = Groups {
        x: x_address,
        y,
        statistics: address(statistics)?,
        weight: weight_address,
        bias: bias_address,
        parts: parts as u64,
        parts_of_image: (parts / batch.max(1)) as u64,
        channels: count(channels)?,
        channels_of_group: count(channels / groups)?,
        then_silu: u32::from(then_silu),
    };
    let name = format!("group_normalize_{}{form}", suffix(x.dtype())?);
    launch(&device_of(x)?, &name, parts, parameters)?;
    of_pixels(&result)
}
