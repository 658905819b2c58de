//! Matrix products, by cuBLAS, which sums in 32 bits.

use candle_core::{Tensor, bail};

use super::copy::in_order;
use super::elementwise::{apply, gated_gelu_tanh_in_place, geglu_in_place};
use crate::Result;
use crate::gpu::Epilogue;

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
    let of = |first: usize| product(x, &weight.narrow(0, first, outputs)?);
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
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    if x.dtype() != weight.dtype() {
        bail!("a projection of {:?} was given {:?}", weight.dtype(), x.dtype());
    }
    let x = in_order(x)?;
    let (leading, rows) = (x.dims(), x.elem_count() / inputs.max(1));
    let shape = [&leading[..leading.len() - 1], &[outputs]].concat();
    x.reshape((rows, inputs))?.matmul(&weight.t()?)?.reshape(shape)
}
