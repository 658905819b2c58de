//! Attention: one kernel that stores no scores for the sizes of heads that it has, in 16 bits, another one for Hopper,
//! and for other sizes products of chunks of queries with all keys.

use candle_core::{D, DType, Tensor};

use super::copy::{copied, copy, in_order};
use super::launch::{Kernel, Limits, Source, count, suffix};
use super::softmax::{scores, softmax};
use super::stream::{Section, Stream};
use super::tensors::{Address, NONE, address, device_of, optional_address, undefined};
use super::{attention_hopper, concatenate};
use crate::Result;
use crate::fused_attention::{SCORES, fused_on_cuda};

/// The sizes of heads that the kernel is compiled for, and the queries of a block of each. Others, which are multiples
/// of 8, are computed with zeros behind them.
const SIZES: [(usize, usize); 7] = [
    (32, 128),
    (48, 128),
    (64, 128),
    (80, 64),
    (96, 64),
    (128, 64),
    (160, 64),
];
/// The size that takes a bias, and the queries of its blocks.
const BIASED: (usize, usize) = (64, 64);
const THREADS: u32 = 128;
/// The keys of a tile, and the values behind each of its rows.
const KEYS: usize = 64;
const PAD: usize = 8;

/// As kernels have it.
#[repr(C)]
struct Attention {
    queries: [Section; 2],
    keys: [Section; 2],
    values: [Section; 2],
    results: [Section; 2],
    bias: Address,
    bias_strides: [u64; 4],
    query_counts: [u32; 2],
    key_counts: [u32; 2],
    size: u32,
    scale: f32,
}

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
    let (batch, heads, queries, size) = q.dims4()?;
    if v.dim(3)? != size || !is_fused(q, size, bias.is_some())? {
        return by_chunks(q, k, v, bias, scale);
    }
    let result = undefined(q.device(), &[batch, queries, heads, size], q.dtype())?.transpose(1, 2)?;
    let (q, k, v) = (readable(q)?, readable(k)?, readable(v)?);
    let streams = [Stream {
        queries: &q,
        keys: &k,
        values: &v,
        result: &result,
    }];
    fused(&streams, bias, scale)?;
    Ok(result)
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
    let size = first.queries.dim(3)?;
    if is_fused(&first.queries, size, false)? {
        let by_heads = |tensor: &Tensor| readable(&tensor.transpose(1, 2)?);
        let results = [&first, &second].map(|heads| {
            let queries = &heads.queries;
            undefined(queries.device(), queries.dims(), queries.dtype())?.transpose(1, 2)
        });
        let [first_result, second_result] = results;
        let (first_result, second_result) = (first_result?, second_result?);
        let of = |heads: &crate::Heads| -> Result<[Tensor; 3]> {
            Ok([
                by_heads(&heads.queries)?,
                by_heads(&heads.keys)?,
                by_heads(&heads.values)?,
            ])
        };
        let (of_first, of_second) = (of(&first)?, of(&second)?);
        let streams = [
            Stream::of(&of_first, &first_result),
            Stream::of(&of_second, &second_result),
        ];
        fused(&streams, None, scale)?;
        let joined = |mixed: &Tensor| mixed.transpose(1, 2)?.flatten_from(2);
        return Ok((joined(&first_result)?, joined(&second_result)?));
    }
    let (of_first, of_second) = (first.queries.dim(1)?, second.queries.dim(1)?);
    // Both inputs are dropped at the end of each call.
    let join = |first: Tensor, second: Tensor| concatenate(&[first, second], 1)?.transpose(1, 2);
    let queries = join(first.queries, second.queries)?;
    let keys = join(first.keys, second.keys)?;
    let values = join(first.values, second.values)?;
    let mixed = by_chunks(&queries, &keys, &values, None, scale)?;
    drop((queries, keys, values));
    let mixed = mixed.transpose(1, 2)?.flatten_from(2)?;
    // Copied, so that neither part keeps the memory of both.
    let part = |first: usize, count: usize| copied(&mixed.narrow(1, first, count)?);
    Ok((part(0, of_first)?, part(of_first, of_second)?))
}

/// Whether the kernel takes heads of `size`.
fn is_fused(queries: &Tensor, size: usize, biased: bool) -> Result<bool> {
    let fits = fused_on_cuda(size, queries.dtype()) && form(size, biased).is_some();
    Ok(fits && Limits::of(&device_of(queries)?)?.has_tensor_cores)
}

/// The compiled size for heads of `size`, and the queries of a block.
fn form(size: usize, biased: bool) -> Option<(usize, usize)> {
    if biased {
        return Some(BIASED).filter(|&(compiled, _)| size <= compiled);
    }
    SIZES.into_iter().find(|&(compiled, _)| compiled >= size)
}

/// The tensor with rows that the kernel can read 16 bytes at a time: itself or a copy.
fn readable(tensor: &Tensor) -> Result<Tensor> {
    let strides = tensor.stride();
    let apart = |index: usize| tensor.dims()[index] > 1 && strides[index] % 8 != 0;
    if strides[3] != 1 || apart(0) || apart(1) || apart(2) || address(tensor)? % 16 != 0 {
        copied(tensor)
    } else {
        Ok(tensor.clone())
    }
}

/// Runs one of the kernels for one stream or two.
fn fused(streams: &[Stream<'_>], bias: Option<&Tensor>, scale: f64) -> Result<()> {
    let Some(first) = streams.first() else {
        return Ok(());
    };
    if bias.is_none() && attention_hopper::takes(streams)? {
        return attention_hopper::fused(streams, scale);
    }
    let (batch, heads, _, size) = first.queries.dims4()?;
    let Some((compiled, of_block)) = form(size, bias.is_some()) else {
        candle_core::bail!("attention with heads of {size}");
    };
    let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
    let mut parameters = Attention {
        queries: [Section::default(); 2],
        keys: [Section::default(); 2],
        values: [Section::default(); 2],
        results: [Section::default(); 2],
        bias: optional_address(bias.as_ref())?,
        bias_strides: [NONE; 4],
        query_counts: [0; 2],
        key_counts: [0; 2],
        size: count(size)?,
        scale: scale as f32 * std::f32::consts::LOG2_E,
    };
    if let Some(bias) = &bias {
        parameters.bias_strides = [0, 1, 2, 3].map(|index| bias.stride()[index] as u64);
    }
    let mut blocks = 0;
    for (index, stream) in streams.iter().enumerate() {
        parameters.queries[index] = Section::of(stream.queries)?;
        parameters.keys[index] = Section::of(stream.keys)?;
        parameters.values[index] = Section::of(stream.values)?;
        parameters.results[index] = Section::of(stream.result)?;
        parameters.query_counts[index] = count(stream.queries.dim(2)?)?;
        parameters.key_counts[index] = count(stream.keys.dim(2)?)?;
        blocks += stream.queries.dim(2)?.div_ceil(of_block);
    }
    let form = if bias.is_some() { "_biased" } else { "" };
    let kernel = Kernel {
        source: Source::Attention,
        name: &format!("attention_{compiled}{form}_{}", suffix(first.queries.dtype())?),
        blocks: [blocks, heads, batch],
        threads: [THREADS, 1, 1],
        shared_bytes: count(4 * KEYS * (compiled + PAD) * 2)?,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(first.queries)?, parameters)
    }
}

fn by_chunks(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let (keys, value_size) = (k.dim(2)?, v.dim(3)?);
    let result = undefined(q.device(), &[batch, queries, heads, value_size], q.dtype())?;
    // Where values of the result are, by batch, heads, queries and features.
    let places = [queries * heads * value_size, value_size, heads * value_size, 1];
    let (k, v) = (in_order(k)?, in_order(v)?);
    let chunk = (SCORES / (batch * heads * keys).max(1)).clamp(1, queries.max(1));
    for first in (0..queries).step_by(chunk) {
        let rows = chunk.min(queries - first);
        let scores = scores(&in_order(&q.narrow(D::Minus2, first, rows)?)?, &k)?;
        let bias = bias
            .map(|bias| in_order(&bias.narrow(2, first, rows)?.to_dtype(DType::F32)?))
            .transpose()?;
        let weights = softmax(scores, bias.as_ref(), scale, q.dtype())?;
        let mixed = weights.matmul(&v)?;
        copy(&mixed, &result, first * heads * value_size, &places)?;
    }
    result.transpose(1, 2)
}
