//! Group norms of images, with silu after them, and the moments that they take.

use candle_core::{DType, Tensor};

use super::contiguous;
use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::Result;

/// The threads that sum one group.
const GROUP_THREADS: usize = 1024;
/// The threads of a group that norm pixels of a channel.
const PIXEL_THREADS: usize = 256;

/// The groups whose statistics a threadgroup computes.
const STATISTICS_THREADS: usize = 64;

/// As kernels have it.
#[repr(C)]
struct Groups {
    channels: u32,
    channels_of_group: u32,
    pixels: u32,
    epsilon: f32,
}

/// For each group of channels of `x`, `[batch, channels, height, width]`, its mean and the reciprocal of its
/// standard deviation: `[batch, groups, 2]`, in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn group_statistics(x: &Tensor, groups: usize, epsilon: f64) -> Result<Tensor> {
    let device = device_of(x)?;
    let x = contiguous(x)?;
    let (batch, channels, height, width) = x.dims4()?;
    let parameters = Groups {
        channels: count(channels)?,
        channels_of_group: count(channels / groups)?,
        pixels: count(height * width)?,
        epsilon: epsilon as f32,
    };
    let kernel = kernel("group_statistics", x.dtype(), Vec::new());
    let result = Output::new(&device, &[batch, groups, 2], DType::F32)?;
    let of_x = Input::new(&x)?;
    let thread_groups = [batch * groups * usize::from(height * width > 0), 1, 1];
    kernel.launch(&device, thread_groups, [GROUP_THREADS, 1, 1], |encoder| {
        of_x.bind(encoder, 0);
        result.bind(encoder, 1);
        encoder.set_bytes(2, &parameters);
    })?;
    Ok(result.into_tensor())
}

/// As kernels have it.
#[repr(C)]
struct Channels {
    pixels: u32,
    earlier_count: f32,
}

/// For each channel of `rows`, `[batch, channels, rows, width]`, its mean and the sum of squared deviations from it,
/// merged with those of so many `earlier` values of each channel: `[batch, channels, 2]`, in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn channel_moments(rows: &Tensor, earlier: Option<(usize, &Tensor)>) -> Result<Tensor> {
    let device = device_of(rows)?;
    let rows = contiguous(rows)?;
    let (batch, channels, height, width) = rows.dims4()?;
    let parameters = Channels {
        pixels: count(height * width)?,
        earlier_count: earlier.map_or(0, |(count, _)| count) as f32,
    };
    let flags = vec![false, false, false, false, false, earlier.is_some()];
    let kernel = kernel("channel_moments", rows.dtype(), flags);
    let result = Output::new(&device, &[batch, channels, 2], DType::F32)?;
    let of_rows = Input::new(&rows)?;
    let of_earlier = Input::optional(earlier.map(|(_, moments)| moments))?;
    let thread_groups = [batch * channels * usize::from(height * width > 0), 1, 1];
    kernel.launch(&device, thread_groups, [GROUP_THREADS, 1, 1], |encoder| {
        of_rows.bind(encoder, 0);
        result.bind(encoder, 1);
        of_earlier.as_ref().unwrap_or(&of_rows).bind(encoder, 2);
        encoder.set_bytes(3, &parameters);
    })?;
    Ok(result.into_tensor())
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
    let device = device_of(moments)?;
    let (batch, channels, _) = moments.dims3()?;
    let parameters = Grouping {
        groups: count(batch * groups)?,
        channels_of_group: count(channels / groups)?,
        count: values as f32,
        epsilon: epsilon as f32,
    };
    let kernel = kernel("grouped_statistics", DType::F32, Vec::new());
    let result = Output::new(&device, &[batch, groups, 2], DType::F32)?;
    let of_moments = Input::new(moments)?;
    let thread_groups = [(batch * groups).div_ceil(STATISTICS_THREADS), 1, 1];
    kernel.launch(&device, thread_groups, [STATISTICS_THREADS, 1, 1], |encoder| {
        of_moments.bind(encoder, 0);
        result.bind(encoder, 1);
        encoder.set_bytes(2, &parameters);
    })?;
    Ok(result.into_tensor())
}

/// As kernels have it.
#[repr(C)]
struct Grouping {
    groups: u32,
    channels_of_group: u32,
    count: f32,
    epsilon: f32,
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
    let device = device_of(x)?;
    let x = contiguous(x)?;
    let statistics = contiguous(statistics)?;
    let (batch, channels, height, width) = x.dims4()?;
    let pixels = height * width;
    let parameters = Groups {
        channels: count(channels)?,
        channels_of_group: count(channels / groups)?,
        pixels: count(pixels)?,
        epsilon: 0.0,
    };
    let kernel = kernel("group_normalize", x.dtype(), vec![false, false, false, then_silu]);
    let result = Output::new(&device, x.dims(), x.dtype())?;
    let of_x = Input::new(&x)?;
    let inputs = [Input::new(&statistics)?, Input::new(weight)?, Input::new(bias)?];
    let thread_groups = [pixels.div_ceil(PIXEL_THREADS), batch * channels, 1];
    kernel.launch(&device, thread_groups, [PIXEL_THREADS, 1, 1], |encoder| {
        of_x.bind(encoder, 0);
        result.bind(encoder, 1);
        for (index, input) in inputs.iter().enumerate() {
            input.bind(encoder, 2 + index);
        }
        encoder.set_bytes(5, &parameters);
    })?;
    Ok(result.into_tensor())
}

fn kernel(name: &'static str, held_type: DType, flags: Vec<bool>) -> Kernel {
    Kernel {
        source: Source::Norm,
        name,
        held_type,
        flags,
        numbers: Vec::new(),
    }
}
