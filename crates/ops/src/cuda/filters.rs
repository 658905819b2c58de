//! The weights of convolutions with the channels of a tap side by side.

use candle_core::Tensor;

use super::channels_last;
use super::launch::{Kernel, Source, count};
use super::tensors::{Address, address, device_of};
use crate::Result;

const THREADS: u32 = 256;
/// The shared memory of a block that every device has from compute capability 7.5 on.
const SHARED_BYTES: usize = 64 << 10;

/// As kernels have it.
#[repr(C)]
struct Filters {
    weights: Address,
    channels: u32,
    taps: u32,
}

/// The contiguous `weight`, `[out channels, in channels, kernel height, kernel width]`, with its channels last, in its own
/// place: nothing may read `weight` any more. `None` if it is too large for that, and stays as it is.
///
/// # Errors
/// The device fails.
pub(crate) fn channels_last_in_place(weight: &Tensor) -> Result<Option<Tensor>> {
    let (out_channels, channels, height, width) = weight.dims4()?;
    let bytes = channels * height * width * weight.dtype().size_in_bytes();
    let name = match weight.dtype().size_in_bytes() {
        2 => "filters_channels_last_2",
        4 => "filters_channels_last_4",
        _ => return Ok(None),
    };
    if bytes > SHARED_BYTES || !weight.is_contiguous() {
        return Ok(None);
    }
    let kernel = Kernel {
        source: Source::Copy,
        name,
        blocks: [out_channels, 1, 1],
        threads: [THREADS, 1, 1],
        shared_bytes: count(bytes)?,
    };
    let filters = Filters {
        weights: address(weight)?,
        channels: count(channels)?,
        taps: count(height * width)?,
    };
    if height * width > 1 {
        // SAFETY: the parameters are those that the kernel declares; the tensor lives, and nothing else reads it.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(&device_of(weight)?, filters)?;
        }
    }
    let pixels = weight.reshape((out_channels, height, width, channels))?;
    channels_last::of_pixels(&pixels).map(Some)
}
