//! Quantised weights decoded before a product that takes values.

use candle_core::{DType, Tensor};

use super::launch::{Kernel, Source, count, suffix};
use super::tensors::{Address, address, device_of, undefined};
use crate::{Quantization, Result};

const THREADS: usize = 256;
/// The values that a thread decodes.
const OF_THREAD: usize = 8;

/// As kernels have it.
#[repr(C)]
struct Rows {
    rows: Address,
    values: Address,
    row_bytes: u64,
    columns: u32,
    count: u32,
    form: u32,
}

/// The values of `rows`, `[outputs, bytes of a row]`, contiguous, as `[outputs, inputs]` of type `dtype`: those that
/// [`Quantization::decode`] gives, rounded.
///
/// # Errors
/// The device fails.
pub(crate) fn decoded(
    rows: &Tensor,
    quantization: Quantization,
    inputs: usize,
    dtype: DType,
) -> Result<Tensor> {
    let (outputs, row_bytes) = rows.dims2()?;
    let result = undefined(rows.device(), &[outputs, inputs], dtype)?;
    let parameters = Rows {
        rows: address(rows)?,
        values: address(&result)?,
        row_bytes: row_bytes as u64,
        columns: count(inputs)?,
        count: count(outputs)?,
        form: quantization as u32,
    };
    let kernel = Kernel {
        source: Source::Decode,
        name: &format!("decode_rows_{}", suffix(dtype)?),
        blocks: [(outputs * inputs.div_ceil(OF_THREAD)).div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; the rows have the bytes of `inputs` values, and both
    // tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(rows)?, parameters)?;
    }
    Ok(result)
}
