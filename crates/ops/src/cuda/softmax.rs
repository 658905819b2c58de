//! The weights of attention by its definition: products of queries and keys, and the softmax of their rows.
//!
//! Scores are stored in 32 bits: a rounding of 16 bits is a factor of the weights that grows with the score.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{D, DType, Error, Tensor, bail};

use super::launch::{Kernel, Source, count, suffix};
use super::tensors::{Address, address, device_of, optional_address, undefined};
use crate::Result;

/// The threads that share a row: what the kernel is written for.
const THREADS: u32 = 256;

/// As kernels have it.
#[repr(C)]
struct Scores {
    scores: Address,
    weights: Address,
    bias: Address,
    rows: u32,
    width: u32,
    scale: f32,
}

/// `q k^T` in 32 bits, `[batch, heads, queries, keys]`, of contiguous `[batch, heads, tokens, head size]`.
///
/// # Errors
/// The types differ, or the device fails.
pub(super) fn scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let (batch, heads, queries, size) = q.dims4()?;
    let keys = k.dim(2)?;
    let kind = match q.dtype() {
        DType::F32 => sys::cudaDataType::CUDA_R_32F,
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        other => bail!("attention of {other:?} on an NVIDIA GPU"),
    };
    if k.dtype() != q.dtype() || !q.is_contiguous() || !k.is_contiguous() {
        bail!("queries {q:?} with keys {k:?}");
    }
    let device = device_of(q)?;
    let result = undefined(q.device(), &[batch, heads, queries, keys], DType::F32)?;
    if result.elem_count() == 0 {
        return Ok(result);
    }
    device.cuda_stream().context().bind_to_thread().w()?;
    let number = |count: usize| i32::try_from(count).map_err(Error::wrap);
    let apart = |count: usize| i64::try_from(count).map_err(Error::wrap);
    let (one, zero) = (1.0_f32, 0.0_f32);
    let (q, k, to) = (address(q)?, address(k)?, address(&result)?);
    // The library sees matrices by columns: the transposes of ours.
    // SAFETY: the matrices have these sizes and are live until the kernel ends: memory is freed in the order of the
    // stream, which is the library's too.
    #[allow(unsafe_code)]
    unsafe {
        result::gemm_strided_batched_ex(
            *device.cublas_handle().handle(),
            sys::cublasOperation_t::CUBLAS_OP_T,
            sys::cublasOperation_t::CUBLAS_OP_N,
            number(keys)?,
            number(queries)?,
            number(size)?,
            std::ptr::from_ref(&one).cast(),
            k as *const _,
            kind,
            number(size)?,
            apart(keys * size)?,
            q as *const _,
            kind,
            number(size)?,
            apart(queries * size)?,
            std::ptr::from_ref(&zero).cast(),
            to as *mut _,
            sys::cudaDataType::CUDA_R_32F,
            number(keys)?,
            apart(queries * keys)?,
            number(batch * heads)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .map_err(Error::wrap)?;
    Ok(result)
}

/// The softmax of `scale * scores + bias` over the last dimension, as `dtype`. `scores` are contiguous, and nobody else
/// reads them: weights of 32 bits take their place. `bias` is of the same shape, contiguous, in 32 bits. A row of nothing
/// but minus infinity becomes zeros.
///
/// # Errors
/// The shapes or types do not fit, or the device fails.
pub(super) fn softmax(scores: Tensor, bias: Option<&Tensor>, scale: f64, dtype: DType) -> Result<Tensor> {
    let width = scores.dim(D::Minus1)?;
    if let Some(bias) = bias
        && (bias.dims() != scores.dims() || bias.dtype() != DType::F32 || !bias.is_contiguous())
    {
        bail!("a bias {bias:?} of scores {scores:?}");
    }
    let rows = scores.elem_count() / width.max(1);
    let weights = match dtype {
        DType::F32 => scores.clone(),
        _ => undefined(scores.device(), scores.dims(), dtype)?,
    };
    let parameters = Scores {
        scores: address(&scores)?,
        weights: address(&weights)?,
        bias: optional_address(bias)?,
        rows: count(rows)?,
        width: count(width)?,
        scale: scale as f32,
    };
    let kernel = Kernel {
        source: Source::Norm,
        name: &format!("softmax_{}", suffix(dtype)?),
        blocks: [rows, 1, 1],
        threads: [THREADS, 1, 1],
        shared_bytes: 0,
    };
    // SAFETY: the parameters are those that the kernel declares; the tensors live.
    #[allow(unsafe_code)]
    unsafe {
        kernel.launch(&device_of(&scores)?, parameters)?;
    }
    Ok(weights)
}
