//! Matrix products, by candle's kernels, which sum in 32 bits.

use candle_core::{DType, Error, MetalDevice, Tensor, bail};
use candle_metal_kernels::{GemmDType, call_mlx_gemm};

use super::contiguous;
use super::elementwise::{apply, gated_gelu_tanh_in_place, geglu_in_place};
use super::tensors::{Input, Output, device_of};
use crate::Result;
use crate::gpu::Epilogue;

/// The sizes of a product of matrices `[batch, rows, inner]` and `[batch, inner, columns]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
}

/// A matrix of a product, with the values between its neighbours in batch, rows and columns.
pub(super) struct Matrix<'a> {
    pub(super) input: Input<'a>,
    pub(super) strides: [usize; 3],
}

/// The product of `left` and `right`, of which each has contiguous rows or contiguous columns.
///
/// # Errors
/// The strides do not fit, or the device fails.
pub(super) fn multiply(
    device: &MetalDevice,
    held_type: DType,
    sizes: Sizes,
    left: &Matrix<'_>,
    right: &Matrix<'_>,
    result: &Output,
) -> Result<()> {
    let kind = match held_type {
        DType::F32 => GemmDType::F32,
        DType::F16 => GemmDType::F16,
        DType::BF16 => GemmDType::BF16,
        other => bail!("a product on an Apple GPU of {other:?}"),
    };
    let Sizes {
        batch,
        rows,
        inner,
        columns,
    } = sizes;
    if batch * rows * columns == 0 {
        return Ok(());
    }
    let commands = device.command_encoder()?;
    call_mlx_gemm(
        device.device(),
        &commands,
        device.kernels(),
        kind,
        (batch, rows, columns, inner),
        &left.strides,
        left.input.offset(),
        left.input.buffer(),
        &right.strides,
        right.input.offset(),
        right.input.buffer(),
        result.buffer(),
    )
    .map_err(Error::wrap)
}

/// `x * weight^T + bias` over the last dimension, with an epilogue: `weight` is `[outputs, inputs]`, contiguous.
///
/// # Errors
/// The types differ, or the device fails.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
) -> Result<Tensor> {
    apply(product(x, weight)?, bias, epilogue)
}

/// GEGLU of the projection of `x`: `weight` and `bias` are those of the values, then those of the gates.
///
/// # Errors
/// As [`linear`].
pub(crate) fn linear_geglu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let outputs = weight.dim(0)? / 2;
    let of = |first: usize| product(x, &weight.narrow(0, first, outputs)?).map(Output::into_tensor);
    geglu_in_place(of(0)?, of(outputs)?, bias)
}

/// `gelu_tanh(gates)` times the projection of `x` by `up`, `[outputs, inputs]`.
///
/// # Errors
/// As [`linear`].
pub(crate) fn linear_gated_gelu_tanh(
    gates: Tensor,
    x: &Tensor,
    up: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    gated_gelu_tanh_in_place(gates, linear(x, up, bias, Epilogue::NONE)?)
}

/// [`linear`] without a bias, as what may be written to.
///
/// # Errors
/// As [`linear`].
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Output> {
    let device = device_of(x)?;
    let (outputs, inputs) = weight.dims2()?;
    if x.dtype() != weight.dtype() {
        bail!("a projection of {:?} was given {:?}", weight.dtype(), x.dtype());
    }
    let x = contiguous(x)?;
    let (leading, rows) = (x.dims(), x.elem_count() / inputs.max(1));
    let shape = [&leading[..leading.len() - 1], &[outputs]].concat();
    let result = Output::new(&device, &shape, x.dtype())?;
    let sizes = Sizes {
        batch: 1,
        rows,
        inner: inputs,
        columns: outputs,
    };
    let left = Matrix {
        input: Input::new(&x)?,
        strides: [rows * inputs, inputs, 1],
    };
    let right = Matrix {
        input: Input::new(weight)?,
        strides: [0, 1, inputs],
    };
    multiply(&device, x.dtype(), sizes, &left, &right, &result)?;
    Ok(result)
}
