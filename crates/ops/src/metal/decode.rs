//! Quantised weights decoded before a product that takes values.

use candle_core::{DType, Tensor};

use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of};
use crate::{Quantization, Result};

/// The threads of a group: eights of columns, and rows.
const THREADS: [usize; 3] = [64, 4, 1];
/// The values that a thread decodes.
const OF_THREAD: usize = 8;

/// As kernels have it.
#[repr(C)]
struct Rows {
    row_bytes: u32,
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
    let device = device_of(rows)?;
    let (outputs, row_bytes) = rows.dims2()?;
    let result = Output::new(&device, &[outputs, inputs], dtype)?;
    let sizes = Rows {
        row_bytes: count(row_bytes)?,
        columns: count(inputs)?,
        count: count(outputs)?,
        form: quantization as u32,
    };
    let kernel = Kernel {
        source: Source::Decode,
        name: "decode_rows",
        held_type: dtype,
        flags: Vec::new(),
        numbers: Vec::new(),
    };
    let groups = [
        inputs.div_ceil(OF_THREAD * THREADS[0]),
        outputs.div_ceil(THREADS[1]),
        1,
    ];
    let rows = Input::new(rows)?;
    kernel.launch(&device, groups, THREADS, |encoder| {
        rows.bind(encoder, 0);
        result.bind(encoder, 1);
        encoder.set_bytes(2, &sizes);
    })?;
    Ok(result.into_tensor())
}
