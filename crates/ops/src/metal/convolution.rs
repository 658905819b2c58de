//! Convolutions without stored windows.

use candle_core::{Tensor, bail};

use super::contiguous;
use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::Result;
use crate::gpu::{Addends, Windows};

/// The channels and the pixels of a result's tile.
const TILE: usize = 64;
const THREADS: usize = 128;

/// As kernels have it.
#[repr(C)]
struct Sizes {
    in_channels: u32,
    height: u32,
    width: u32,
    out_channels: u32,
    out_height: u32,
    out_width: u32,
    stride: u32,
    above: i32,
    left: u32,
    depth: u32,
}

/// The convolution of `x`, `[batch, in channels, height, width]`, with `weight`,
/// `[out channels, in channels, kernel height, kernel width]`, plus `addends`.
///
/// # Errors
/// The types differ, or the device fails.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, addends: Addends<'_>, windows: Windows) -> Result<Tensor> {
    let device = device_of(x)?;
    if x.dtype() != weight.dtype() {
        bail!("a convolution of {:?} was given {:?}", weight.dtype(), x.dtype());
    }
    let x = contiguous(x)?;
    let (batch, in_channels, height, width) = x.dims4()?;
    let (out_channels, _, kernel_height, kernel_width) = weight.dims4()?;
    let parameters = Sizes {
        in_channels: count(in_channels)?,
        height: count(height)?,
        width: count(width)?,
        out_channels: count(out_channels)?,
        out_height: count(windows.height)?,
        out_width: count(windows.width)?,
        stride: count(windows.stride)?,
        above: i32::try_from(windows.above).map_err(candle_core::Error::wrap)?,
        left: count(windows.left)?,
        depth: count(in_channels * kernel_height * kernel_width)?,
    };
    let small = |side: usize| u16::try_from(side).map_err(candle_core::Error::wrap);
    let kernel = Kernel {
        source: Source::Convolution,
        name: "convolution",
        held_type: x.dtype(),
        flags: vec![
            addends.bias.is_some(),
            addends.shifts.is_some(),
            addends.onto.is_some(),
            windows.upsamples,
        ],
        numbers: vec![small(kernel_height)?, small(kernel_width)?],
    };
    let [shifts, onto] = [addends.shifts, addends.onto].map(|tensor| tensor.map(contiguous).transpose());
    let (shifts, onto) = (shifts?, onto?);
    let result = Output::new(
        &device,
        &[batch, out_channels, windows.height, windows.width],
        x.dtype(),
    )?;
    let (of_x, of_weight) = (Input::new(&x)?, Input::new(weight)?);
    let added = [
        Input::optional(addends.bias)?,
        Input::optional(shifts.as_ref())?,
        Input::optional(onto.as_ref())?,
    ];
    let pixels = windows.height * windows.width;
    let groups = [pixels.div_ceil(TILE), out_channels.div_ceil(TILE), batch];
    kernel.launch(&device, groups, [THREADS, 1, 1], |encoder| {
        of_x.bind(encoder, 0);
        of_weight.bind(encoder, 1);
        result.bind(encoder, 2);
        for (index, input) in added.iter().enumerate() {
            input.as_ref().unwrap_or(&of_x).bind(encoder, 3 + index);
        }
        encoder.set_bytes(6, &parameters);
    })?;
    Ok(result.into_tensor())
}
