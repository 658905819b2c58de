//! What is done to single values after a product: biases, activations, gates and residuals.

use candle_core::{D, DType, Tensor, bail};

use super::channels_last::{of_pixels, pixels};
use super::copy::in_order;
use super::copy::rows_in_order;
use super::images::contiguous_pixels;
use super::launch::{Kernel, Source, count, lanes, suffix};
use super::tensors::{Address, NONE, address, aligned, device_of, optional_address, undefined};
use crate::Result;
use crate::cpu::activation::Activation;
use crate::gpu::{Epilogue, row_stride};

const THREADS: usize = 256;

/// The number that kernels know an activation by.
const fn number(activation: Option<Activation>) -> u32 {
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
    x: Address,
    y: Address,
    bias: Address,
    residual: Address,
    gate: Address,
    rows: u32,
    columns: u32,
    rows_of_gate: u32,
    gate_stride: u32,
    residual_stride: u32,
    activation: u32,
}

/// Applies `epilogue` to `product`, the contiguous result of an operation that nobody else reads, in place.
///
/// # Errors
/// The device fails.
pub(super) fn apply(product: Tensor, bias: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<Tensor> {
    if bias.is_some() || !epilogue.is_none() {
        write(&product, &product, bias, epilogue)?;
    }
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
    if pixels(x).is_some() {
        // An image, and what has its shape, with the channels last.
        let x = contiguous_pixels(x)?;
        let residual = epilogue.residual.map(contiguous_pixels).transpose()?;
        let epilogue = Epilogue {
            residual: residual.as_ref(),
            ..epilogue
        };
        return of_pixels(&in_rows(&x, epilogue)?);
    }
    in_rows(&in_order(x)?, epilogue)
}

fn in_rows(x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let result = undefined(x.device(), x.dims(), x.dtype())?;
    write(x, &result, None, epilogue)?;
    Ok(result)
}

/// Writes to `result`, which may be `x` itself.
fn write(x: &Tensor, result: &Tensor, bias: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<()> {
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
    let (gate_stride, residual_stride) = (stride_of(&gate), stride_of(&residual));
    let values = Values {
        x: address(x)?,
        y: address(result)?,
        bias: optional_address(bias)?,
        residual: optional_address(residual.as_ref())?,
        gate: optional_address(gate.as_ref())?,
        rows: count(rows)?,
        columns: count(columns)?,
        rows_of_gate: count((rows / gates.max(1)).max(1))?,
        gate_stride: count(gate_stride)?,
        residual_stride: count(residual_stride)?,
        activation: number(epilogue.activation),
    };
    let addresses = [values.x, values.y, values.bias, values.residual, values.gate];
    let distances = [columns, gate_stride, residual_stride];
    let is_aligned = aligned(x.dtype(), &addresses, &distances);
    launch("epilogue", x, is_aligned, rows * columns, values)
}

/// Runs a kernel with a thread for as many values as 16 bytes hold, or for one.
fn launch<P>(name: &str, x: &Tensor, is_aligned: bool, values: usize, parameters: P) -> Result<()> {
    let (of_thread, form) = match is_aligned {
        true => (lanes(x.dtype()), ""),
        false => (1, "_single"),
    };
    let kernel = Kernel {
        source: Source::Elementwise,
        name: &format!("{name}_{}{form}", suffix(x.dtype())?),
        blocks: [(values / of_thread).div_ceil(THREADS), 1, 1],
        threads: [THREADS as u32, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the callers give the parameters that the kernel declares, of tensors that live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(x)?, parameters)
    }
}

/// As kernels have it.
#[repr(C)]
struct Halves {
    first: Address,
    second: Address,
    y: Address,
    bias: Address,
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
    let (first, second) = (rows_in_order(first)?, rows_in_order(second)?);
    let columns = first.dim(D::Minus1)?;
    let rows = first.elem_count() / columns.max(1);
    let stride_of = |tensor: &Tensor| row_stride(tensor).unwrap_or(columns);
    let result = match result {
        Some(result) => result.clone(),
        None => undefined(first.device(), first.dims(), first.dtype())?,
    };
    let (first_stride, second_stride) = (stride_of(&first), stride_of(&second));
    let halves = Halves {
        first: address(&first)?,
        second: address(&second)?,
        y: address(&result)?,
        bias: optional_address(bias)?,
        rows: count(rows)?,
        columns: count(columns)?,
        first_stride: count(first_stride)?,
        second_stride: count(second_stride)?,
    };
    let addresses = [halves.first, halves.second, halves.y, halves.bias];
    let is_aligned = aligned(first.dtype(), &addresses, &[columns, first_stride, second_stride]);
    launch(name, &first, is_aligned, rows * columns, halves)?;
    Ok(result)
}

/// `x`, `[batch, tokens, features]`, plus `positions`, `[tokens, features]` in 32 bits.
///
/// # Errors
/// The device fails.
pub(crate) fn add_positions(x: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (x, positions) = (in_order(x)?, in_order(positions)?);
    let (batch, tokens, features) = x.dims3()?;
    if positions.dtype() != DType::F32 {
        bail!("positions of {:?}", positions.dtype());
    }
    let result = undefined(x.device(), x.dims(), x.dtype())?;
    let values = Values {
        x: address(&x)?,
        y: address(&result)?,
        bias: NONE,
        residual: address(&positions)?,
        gate: NONE,
        rows: count(batch * tokens)?,
        columns: count(features)?,
        rows_of_gate: count(tokens.max(1))?,
        gate_stride: 0,
        residual_stride: count(features)?,
        activation: 0,
    };
    let is_aligned = aligned(x.dtype(), &[values.x, values.y], &[features]);
    launch("add_positions", &x, is_aligned, x.elem_count(), values)?;
    Ok(result)
}
