//! Matrix products, by cuBLAS, which sums in 32 bits.

use candle_core::{DType, Tensor, bail};

use super::copy::in_order;
use super::cublas_lt::{Matrices, Shape, multiply, takes};
use super::elementwise::{apply, gated_gelu_tanh_in_place, geglu_in_place};
use super::tensors::{NONE, address, device_of, optional_address, undefined};
use crate::Result;
use crate::cpu::activation::Activation;
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
    let (outputs, inputs) = weight.dims2()?;
    if x.dtype() != weight.dtype() {
        bail!("a projection of {:?} was given {:?}", weight.dtype(), x.dtype());
    }
    let x = in_order(x)?;
    let (leading, rows) = (x.dims(), x.elem_count() / inputs.max(1));
    let shape = [&leading[..leading.len() - 1], &[outputs]].concat();
    if x.dtype() != DType::F32 && rows > 0 {
        if let Some(product) = fused(&x, weight, bias, epilogue, (rows, &shape))? {
            return Ok(product);
        }
    }
    let product = x.reshape((rows, inputs))?.matmul(&weight.t()?)?.reshape(shape)?;
    apply(product, bias, epilogue)
}

/// The product with as much of the epilogue in the same kernel as the library has, or `None` if it has no kernel.
fn fused(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
    (rows, dims): (usize, &[usize]),
) -> Result<Option<Tensor>> {
    let (outputs, inputs) = weight.dims2()?;
    let result = undefined(x.device(), dims, x.dtype())?;
    let residual = epilogue.residual.map(in_order).transpose()?;
    // What the library does in the order of an epilogue: the bias, then the GELU or the residual.
    let gelu = matches!(epilogue.activation, Some(Activation::GeluTanh)) && residual.is_none();
    let whole = epilogue.gate.is_none() && (epilogue.activation.is_none() || gelu);
    let (of_bias, of_residual) = match whole {
        true => (bias, residual.as_ref()),
        false => (None, None),
    };
    if of_bias.is_some_and(|bias| bias.dtype() != x.dtype())
        || of_residual.is_some_and(|residual| residual.dtype() != x.dtype())
    {
        bail!("a projection of {:?} with what is of another type", x.dtype());
    }
    let shape = Shape {
        rows,
        inputs,
        outputs,
        held_type: x.dtype(),
        has_bias: of_bias.is_some(),
        has_residual: of_residual.is_some(),
        then_gelu: whole && gelu,
    };
    let matrices = Matrices {
        x: address(x)?,
        weight: address(weight)?,
        bias: optional_address(of_bias)?,
        residual: optional_address(of_residual)?,
        result: address(&result)?,
    };
    debug_assert!(matrices.result != NONE);
    if !takes(&matrices, [inputs, outputs]) || !multiply(&device_of(x)?, shape, matrices)? {
        return Ok(None);
    }
    match whole {
        true => Ok(Some(result)),
        false => apply(result, bias, epilogue).map(Some),
    }
}

/// GEGLU of the projection of `x`: `weight` and `bias` are those of the values, then those of the gates.
///
/// # Errors
/// As [`linear`].
pub(crate) fn linear_geglu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let outputs = weight.dim(0)? / 2;
    let of = |first: usize| linear(x, &weight.narrow(0, first, outputs)?, None, Epilogue::NONE);
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
