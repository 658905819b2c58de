//! Attention: candle's fused kernel for the sizes of heads that it has, and for others products of chunks of
//! queries with all keys.

use candle_core::{DType, Error, Tensor};
use candle_metal_kernels::{SdpaDType, call_sdpa_full};

use super::matmul::{Matrix, Sizes, multiply};
use super::tensors::{Input, Output, device_of};
use super::{concatenate, contiguous, copied, copy, softmax};
use crate::Result;
use crate::fused_attention::{SCORES, fused_head};

/// `softmax(scale * q k^T + bias) v` as in [`attention`](crate::attention), with a bias that has been
/// broadcast. The result is a view of `[batch, queries, heads, value size]`.
///
/// # Errors
/// The device fails.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let (size, value_size) = (q.dim(3)?, v.dim(3)?);
    match fused_head(size, q.dtype()) {
        Some(fused) if size == value_size => of_fused_size(q, k, v, bias, scale, fused),
        _ => by_chunks(q, k, v, bias, scale),
    }
}

/// Joint attention of queries, keys and values, `[batch, tokens, heads, head size]`, of two streams.
///
/// # Errors
/// The device fails.
pub(crate) fn joint_attention(
    first: crate::Heads,
    second: crate::Heads,
    scale: f64,
) -> Result<(Tensor, Tensor)> {
    let (of_first, of_second) = (first.queries.dim(1)?, second.queries.dim(1)?);
    // Both inputs are dropped at the end of each call.
    let join = |first: Tensor, second: Tensor| concatenate(&[first, second], 1)?.transpose(1, 2);
    let queries = join(first.queries, second.queries)?;
    let keys = join(first.keys, second.keys)?;
    let values = join(first.values, second.values)?;
    let mixed = attention(&queries, &keys, &values, None, scale)?;
    drop((queries, keys, values));
    let mixed = mixed.transpose(1, 2)?.flatten_from(2)?;
    // Copied, so that neither part keeps the memory of both.
    let part = |first: usize, count: usize| copied(&mixed.narrow(1, first, count)?);
    Ok((part(0, of_first)?, part(of_first, of_second)?))
}

/// The tensor with heads of `size` values, the new ones zeros, that lie side by side.
fn padded(tensor: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, heads, tokens, own) = tensor.dims4()?;
    if own == size && tensor.stride()[3] == 1 {
        return Ok(tensor.clone());
    }
    let result = Output::new(&device_of(tensor)?, &[batch, heads, tokens, size], tensor.dtype())?;
    copy::copy_padded(tensor, &result, size)?;
    Ok(result.into_tensor())
}

fn of_fused_size(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
    scale: f64,
    size: usize,
) -> Result<Tensor> {
    let device = device_of(q)?;
    let held_type = q.dtype();
    let (batch, heads, queries, own) = q.dims4()?;
    let (q, k, v) = (padded(q, size)?, padded(k, size)?, padded(v, size)?);
    let bias = bias.map(|bias| with_rows_of(bias, held_type)).transpose()?;
    let result = Output::new(&device, &[batch, queries, heads, size], held_type)?;
    let kind = match held_type {
        DType::F16 => SdpaDType::F16,
        DType::BF16 => SdpaDType::BF16,
        _ => SdpaDType::F32,
    };
    let (of_q, of_k, of_v) = (Input::new(&q)?, Input::new(&k)?, Input::new(&v)?);
    let of_bias = bias.as_ref().map(Input::new).transpose()?;
    if queries * batch * heads > 0 {
        let commands = device.command_encoder()?;
        call_sdpa_full(
            device.device(),
            &commands,
            device.kernels(),
            of_q.offset(),
            q.dims(),
            of_q.strides(),
            of_q.buffer(),
            of_k.offset(),
            k.dims(),
            of_k.strides(),
            of_k.buffer(),
            of_v.offset(),
            of_v.buffer(),
            of_v.strides(),
            of_bias.as_ref().map(|_| kind),
            of_bias.as_ref().map(Input::buffer),
            of_bias.as_ref().map(Input::strides),
            result.buffer(),
            &[queries * heads * size, size, heads * size, 1],
            scale as f32,
            false,
            kind,
        )
        .map_err(Error::wrap)?;
    }
    if let Some(bias) = &bias {
        softmax::zero_masked(&result, size, bias)?;
    }
    let mixed = result.into_tensor();
    let mixed = if own == size {
        mixed
    } else {
        contiguous(&mixed.narrow(3, 0, own)?)?
    };
    mixed.transpose(1, 2)
}

/// The bias in the type of the queries, from the beginning of a buffer and with contiguous rows: what the fused
/// kernel reads. Only what is broadcast over the batch or heads stays a view.
fn with_rows_of(bias: &Tensor, held_type: DType) -> Result<Tensor> {
    let (batch, heads, queries, keys) = bias.dims4()?;
    // One of each dimension that is broadcast.
    let one = |dimension: usize, tensor: Tensor| {
        if tensor.stride()[dimension] == 0 {
            tensor.narrow(dimension, 0, 1)
        } else {
            Ok(tensor)
        }
    };
    let own = one(1, one(0, bias.clone())?)?;
    let own = contiguous(&own)?.to_dtype(held_type)?;
    let own = if own.layout().start_offset() == 0 {
        own
    } else {
        copied(&own)?
    };
    own.broadcast_as((batch, heads, queries, keys))
}

fn by_chunks(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let device = device_of(q)?;
    let held_type = q.dtype();
    let (batch, heads, queries, size) = q.dims4()?;
    let (keys, value_size) = (k.dim(2)?, v.dim(3)?);
    let maps = batch * heads;
    let of_maps =
        |tensor: &Tensor, rows: usize, width: usize| contiguous(tensor)?.reshape((maps, rows, width));
    let (q, k, v) = (
        of_maps(q, queries, size)?,
        of_maps(k, keys, size)?,
        of_maps(v, keys, value_size)?,
    );
    let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
    let result = Output::new(&device, &[batch, queries, heads, value_size], held_type)?;
    // Where values of the result are, by batch, heads, queries and features.
    let places = [queries * heads * value_size, value_size, heads * value_size, 1];
    let chunk = (SCORES / (maps * keys).max(1)).clamp(1, queries.max(1));
    for first in (0..queries).step_by(chunk) {
        let rows = chunk.min(queries - first);
        let some = q.narrow(1, first, rows)?;
        let scores = Output::new(&device, &[maps, rows, keys], held_type)?;
        let sizes = Sizes {
            batch: maps,
            rows,
            inner: size,
            columns: keys,
        };
        let left = Matrix {
            input: Input::new(&some)?,
            strides: [queries * size, size, 1],
        };
        let right = Matrix {
            input: Input::new(&k)?,
            strides: [keys * size, 1, size],
        };
        multiply(&device, held_type, sizes, &left, &right, &scores)?;
        let scores = scores.into_tensor();
        let bias = bias
            .as_ref()
            .map(|bias| contiguous(&bias.narrow(2, first, rows)?))
            .transpose()?;
        softmax::in_place(&scores, bias.as_ref(), scale)?;
        let mixed = Output::new(&device, &[maps, rows, value_size], held_type)?;
        let sizes = Sizes {
            inner: keys,
            columns: value_size,
            ..sizes
        };
        let left = Matrix {
            input: Input::new(&scores)?,
            strides: [rows * keys, keys, 1],
        };
        let right = Matrix {
            input: Input::new(&v)?,
            strides: [keys * value_size, value_size, 1],
        };
        multiply(&device, held_type, sizes, &left, &right, &mixed)?;
        let mixed = mixed.into_tensor().reshape((batch, heads, rows, value_size))?;
        copy::copy(&mixed, &result, first * heads * value_size, &places)?;
    }
    result.into_tensor().transpose(1, 2)
}
