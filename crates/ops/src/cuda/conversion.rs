//! Values in another type.

use candle_core::{DType, Tensor};

use super::channels_last;
use super::launch::{Kernel, Source, suffix};
use super::tensors::{Address, address, device_of, undefined};
use crate::Result;

const THREADS: usize = 256;

/// As kernels have it.
#[repr(C)]
struct Conversion {
    x: Address,
    y: Address,
    count: u64,
}

/// The values of `x` as `dtype`, in the order in which they lie in memory.
///
/// # Errors
/// The device fails.
pub(crate) fn converted(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let is_float = |dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    if x.dtype() == dtype || !is_float(x.dtype()) || !is_float(dtype) {
        return x.to_dtype(dtype);
    }
    match channels_last::pixels(x) {
        Some(pixels) => channels_last::of_pixels(&in_order(&pixels, dtype)?),
        None => in_order(x, dtype),
    }
}

fn in_order(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let x = super::copy::in_order(x)?;
    let result = undefined(x.device(), x.dims(), dtype)?;
    let conversion = Conversion {
        x: address(&x)?,
        y: address(&result)?,
        count: x.elem_count() as u64,
    };
    let kernel = Kernel {
        source: Source::Copy,
        name: &format!("convert_{}_{}", suffix(x.dtype())?, suffix(dtype)?),
        blocks: [x.elem_count().div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; both tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(&x)?, conversion)?;
    }
    Ok(result)
}
