//! What is done to single values after a product: biases, activations, gates and residuals.

use candle_core::{D, Tensor, bail};

use super::copy::rows_in_order;
use super::launch::{Kernel, Source, count};
use super::tensors::{Input, Output, device_of, undefined};
use crate::Result;
use crate::cpu::activation::Activation;
use crate::gpu::{Epilogue, row_stride};

/// The threads of a group: columns and rows.
const THREADS: [usize; 3] = [64, 4, 1];

/// The number that kernels know an activation by.
const fn number(activation: Option<Activation>) -> u16 {
    match activation {
        None => 0,
        Some(Activation::Gelu) => 1,
        Some(Activation::GeluTanh) => 2,
        Some(Activation::QuickGelu) => 3,
        Some(Activation::Silu) => 4,
    }
}

/// As kernels have it.
#[repr(C)]
struct Values {
    rows: u32,
    columns: u32,
    rows_of_gate: u32,
    gate_stride: u32,
    residual_stride: u32,
}

/// Applies `epilogue` to `product`, the contiguous result of an operation that nobody else reads, in place.
///
/// # Errors
/// The device fails.
pub(super) fn apply(product: Output, bias: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let product = product.into_tensor();
    if bias.is_none() && epilogue.is_none() {
        return Ok(product);
    }
    write(&product, None, bias, epilogue)?;
    Ok(product)
}

/// `activation` of each value of `x`.
///
/// # Errors
/// The device fails.
pub(crate) fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    combined(x, Epilogue::activation(activation))
}

/// `epilogue` of `x`.
///
/// # Errors
/// The device fails.
pub(crate) fn combined(x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let x = super::contiguous(x)?;
    let result = Output::new(&device_of(&x)?, x.dims(), x.dtype())?;
    write(&x, Some(&result), None, epilogue)?;
    Ok(result.into_tensor())
}

/// Writes to `result`, or else to `x` itself.
fn write(x: &Tensor, result: Option<&Output>, bias: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<()> {
    let device = device_of(x)?;
    let columns = x.dims().last().copied().unwrap_or(1);
    let rows = x.elem_count() / columns.max(1);
    let [residual, gate] = [epilogue.residual, epilogue.gate];
    let [residual, gate] = [
        residual.map(rows_in_order).transpose()?,
        gate.map(rows_in_order).transpose()?,
    ];
    for other in residual.iter().chain(&gate).chain(bias) {
        if other.dtype() != x.dtype() {
            bail!("{:?} is combined with {:?}", x.dtype(), other.dtype());
        }
    }
    let stride_of = |tensor: &Option<Tensor>| tensor.as_ref().and_then(row_stride).unwrap_or(columns);
    let gates = epilogue.gate.map_or(Ok(1), |gate| gate.dim(0))?;
    let parameters = Values {
        rows: count(rows)?,
        columns: count(columns)?,
        rows_of_gate: count((rows / gates.max(1)).max(1))?,
        gate_stride: count(stride_of(&gate))?,
        residual_stride: count(stride_of(&residual))?,
    };
    let kernel = Kernel {
        source: Source::Elementwise,
        name: "epilogue",
        held_type: x.dtype(),
        flags: vec![bias.is_some(), residual.is_some(), gate.is_some()],
        numbers: vec![number(epilogue.activation)],
    };
    let of_x = Input::new(x)?;
    let (of_bias, of_residual, of_gate) = (
        Input::optional(bias)?,
        Input::optional(residual.as_ref())?,
        Input::optional(gate.as_ref())?,
    );
    kernel.launch(&device, groups(columns, rows), THREADS, |encoder| {
        of_x.bind(encoder, 0);
        match result {
            Some(result) => result.bind(encoder, 1),
            None => encoder.set_output_buffer(1, Some(of_x.buffer()), of_x.offset()),
        }
        for (index, input) in [(2, &of_bias), (3, &of_residual), (4, &of_gate)] {
            input.as_ref().unwrap_or(&of_x).bind(encoder, index);
        }
        encoder.set_bytes(5, &parameters);
    })
}

fn groups(columns: usize, rows: usize) -> [usize; 3] {
    [columns.div_ceil(THREADS[0]), rows.div_ceil(THREADS[1]), 1]
}

/// As kernels have it.
#[repr(C)]
struct Halves {
    rows: u32,
    columns: u32,
    first_stride: u32,
    second_stride: u32,
}

/// GEGLU of `x`: the first half of the last dimension times the GELU of the second half.
///
/// # Errors
/// The device fails.
pub(crate) fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)? / 2;
    let halves = [x.narrow(D::Minus1, 0, width)?, x.narrow(D::Minus1, width, width)?];
    gated("geglu", &halves, None, None)
}

/// `(values + bias) * gelu(gates + bias)`, in the place of `values`, of which nobody else reads: contiguous
/// tensors of one shape. `bias` are those of the values, then those of the gates.
///
/// # Errors
/// The device fails.
pub(super) fn geglu_in_place(values: Tensor, gates: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let result = values.clone();
    gated("geglu", &[values, gates], bias, Some(&result))
}

/// `gelu_tanh(gate) * up`
///
/// # Errors
/// The device fails.
pub(crate) fn gated_gelu_tanh(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gated("gated_gelu_tanh", &[gate.clone(), up.clone()], None, None)
}

/// `gelu_tanh(gate) * up`, in the place of `up`, which nobody else reads: contiguous tensors of one shape.
///
/// # Errors
/// The device fails.
pub(super) fn gated_gelu_tanh_in_place(gate: Tensor, up: Tensor) -> Result<Tensor> {
    let result = up.clone();
    gated("gated_gelu_tanh", &[gate, up], None, Some(&result))
}

/// Combines two tensors, to the place of `result` or to a new one.
fn gated(
    name: &'static str,
    [first, second]: &[Tensor; 2],
    bias: Option<&Tensor>,
    result: Option<&Tensor>,
) -> Result<Tensor> {
    let device = device_of(first)?;
    let (first, second) = (rows_in_order(first)?, rows_in_order(second)?);
    let columns = first.dim(D::Minus1)?;
    let rows = first.elem_count() / columns.max(1);
    let stride_of = |tensor: &Tensor| count(row_stride(tensor).unwrap_or(columns));
    let parameters = Halves {
        rows: count(rows)?,
        columns: count(columns)?,
        first_stride: stride_of(&first)?,
        second_stride: stride_of(&second)?,
    };
    let kernel = Kernel {
        source: Source::Elementwise,
        name,
        held_type: first.dtype(),
        flags: vec![bias.is_some(), false, false],
        numbers: vec![number(None)],
    };
    let result = match result {
        Some(result) => result.clone(),
        None => undefined(first.device(), first.dims(), first.dtype())?,
    };
    let (of_first, of_second, of_result) = (Input::new(&first)?, Input::new(&second)?, Input::new(&result)?);
    let of_bias = Input::optional(bias)?;
    kernel.launch(&device, groups(columns, rows), THREADS, |encoder| {
        of_first.bind(encoder, 0);
        of_second.bind(encoder, 1);
        encoder.set_output_buffer(2, Some(of_result.buffer()), of_result.offset());
        of_bias.as_ref().unwrap_or(&of_first).bind(encoder, 3);
        encoder.set_bytes(4, &parameters);
    })?;
    Ok(result)
}

/// `x`, `[batch, tokens, features]`, plus `positions`, `[tokens, features]` in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn add_positions(x: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let device = device_of(x)?;
    let (x, positions) = (super::contiguous(x)?, super::contiguous(positions)?);
    let (batch, tokens, features) = x.dims3()?;
    let parameters = Values {
        rows: count(batch * tokens)?,
        columns: count(features)?,
        rows_of_gate: count(tokens.max(1))?,
        gate_stride: 0,
        residual_stride: count(features)?,
    };
    let kernel = Kernel {
        source: Source::Elementwise,
        name: "add_positions",
        held_type: x.dtype(),
        flags: Vec::new(),
        numbers: Vec::new(),
    };
    let result = Output::new(&device, x.dims(), x.dtype())?;
    let (of_x, of_positions) = (Input::new(&x)?, Input::new(&positions)?);
    kernel.launch(&device, groups(features, batch * tokens), THREADS, |encoder| {
        of_x.bind(encoder, 0);
        of_positions.bind(encoder, 1);
        result.bind(encoder, 2);
        encoder.set_bytes(3, &parameters);
    })?;
    Ok(result.into_tensor())
}
