//! Scaled dot-product attention.

use candle_core::{D, DType, Tensor, bail};

use crate::Result;

/// Scores that the plain definition holds at a time: 64 MiB of 32-bit floats.
const PLAIN_SCORES: usize = 1 << 24;

/// `softmax(scale * q k^T + bias) v`. Vaswani and others, "Attention Is All You Need", 2017.
///
/// - `q`: `[batch, heads, queries, head size]`
/// - `k`: `[batch, heads, keys, head size]`
/// - `v`: `[batch, heads, keys, value size]`
/// - `bias`: what is added to the scores before the softmax, such as a causal mask of `-inf` or T5's bias by
///   position; anything that broadcasts to `[batch, heads, queries, keys]`
///
/// gives `[batch, heads, queries, value size]`. The whole matrix of scores is never stored. A query whose
/// every key is masked by `-inf` gets zeros.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (batch, heads, queries, size) = q.dims4()?;
    let (key_batch, key_heads, keys, key_size) = k.dims4()?;
    let (value_batch, value_heads, values, _) = v.dims4()?;
    if (key_batch, key_heads, key_size) != (batch, heads, size)
        || (value_batch, value_heads, values) != (batch, heads, keys)
    {
        bail!(
            "attention of queries {:?} to keys {:?} and values {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    let bias = bias
        .map(|bias| bias.broadcast_as((batch, heads, queries, keys)))
        .transpose()?;
    plain(q, k, v, bias.as_ref(), scale)
}

/// The plain definition, by chunks of queries whose scores stay small.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let keys = k.dim(2)?;
    let chunk = (PLAIN_SCORES / (batch * heads * keys).max(1)).clamp(1, queries.max(1));
    let (transposed, v) = (k.t()?.contiguous()?, v.contiguous()?);
    let mut chunks = Vec::new();
    for first in (0..queries).step_by(chunk) {
        let count = chunk.min(queries - first);
        let scores = (q
            .narrow(2, first, count)?
            .contiguous()?
            .matmul(&transposed)?
            .to_dtype(DType::F32)?
            * scale)?;
        let scores = match bias {
            Some(bias) => scores.broadcast_add(&bias.narrow(2, first, count)?.to_dtype(DType::F32)?)?,
            None => scores,
        };
        // A row that is masked whole has no greatest score; zero in its place keeps `-inf - -inf` away.
        let greatest = scores.max_keepdim(D::Minus1)?.clamp(f32::MIN, f32::MAX)?;
        let weights = scores.broadcast_sub(&greatest)?.exp()?;
        let sums = weights
            .sum_keepdim(D::Minus1)?
            .clamp(f32::MIN_POSITIVE, f32::MAX)?;
        chunks.push(weights.broadcast_div(&sums)?.to_dtype(v.dtype())?.matmul(&v)?);
    }
    match chunks.len() {
        0 => Tensor::zeros((batch, heads, 0, v.dim(3)?), v.dtype(), v.device()),
        _ => Tensor::cat(&chunks, 2),
    }
}
