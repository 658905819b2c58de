//! What the copy engine of Hopper knows of a tensor.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys;
use candle_core::{DType, Tensor, bail};

use super::launch::count;
use super::tensors::address;
use crate::Result;

/// A map of a tensor of four dimensions, as the driver encodes it for kernels (`CUtensorMap`).
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct TensorMap([u64; 16]);

/// As large and aligned as the driver wants it (CUDA 13 says 128 bytes).
#[repr(C, align(128))]
struct Encoded(TensorMap);

const _: () = assert!(size_of::<TensorMap>() == size_of::<sys::CUtensorMap>());
const _: () = assert!(align_of::<Encoded>() >= align_of::<sys::CUtensorMap>());

impl TensorMap {
    /// A map of `[batch, heads, tokens, size]` in 16 bits, for tiles of `columns` values (128 bytes) of `rows` tokens
    /// of a head. Rows of a tile are swizzled, and hold zeros where the tensor has ended.
    ///
    /// # Errors
    /// Tokens, heads or the address are not aligned to 16 bytes, or the driver does not take the tensor for another reason.
    pub(super) fn of(tensor: &Tensor, columns: usize, rows: usize) -> Result<Self> {
        let (batch, heads, tokens, size) = tensor.dims4()?;
        let data_type = match tensor.dtype() {
            DType::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            DType::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            other => bail!("attention in 16 bits, not {other:?}"),
        };
        let dims = [size, tokens, heads, batch].map(|size| size as u64);
        // Of a dimension of one value the driver wants a stride too.
        let stride = |dimension: usize| {
            if tensor.dims()[dimension] > 1 {
                tensor.stride()[dimension] as u64 * 2
            } else {
                16
            }
        };
        let strides = [2, 1, 0].map(stride);
        let tile = [count(columns)?, count(rows)?, 1, 1];
        let steps = [1; 4];
        let mut encoded = Encoded(TensorMap([0; 16]));
        // SAFETY: the driver reads four or three numbers of each list, and writes a map, whose size and alignment are
        // asserted above. It does not access the tensor.
        #[allow(unsafe_code)]
        unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut encoded).cast(),
                data_type,
                4,
                address(tensor)? as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .w()?;
        Ok(encoded.0)
    }
}
