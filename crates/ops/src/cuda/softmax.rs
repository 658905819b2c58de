//! The softmax of rows, in one kernel.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorage, WrapErr, kernels};
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Shape, Tensor, bail};

use crate::Result;

/// Threads that share a row: what the kernel is written for.
const THREADS: u32 = 32;

/// The softmax of each row of the last dimension of `x`, which are 32-bit floats on a GPU. A row of nothing
/// but minus infinity has none.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.dtype() != DType::F32 || x.elem_count() == 0 {
        bail!("a softmax of {:?} {:?}", x.dtype(), x.dims());
    }
    x.contiguous()?.apply_op1_no_bwd(&Softmax)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("this softmax is a GPU's")
    }

    #[allow(unsafe_code)]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let Some((first, end)) = layout.contiguous_offsets() else {
            bail!("a softmax of rows that are apart")
        };
        let width = layout.shape().dim(D::Minus1)?;
        let (Ok(rows), Ok(columns)) = (u32::try_from((end - first) / width), i32::try_from(width)) else {
            bail!("a softmax of {:?}", layout.shape())
        };
        if i32::try_from(end - first).is_err() {
            // The kernel counts in 32 bits.
            bail!("a softmax of {:?}", layout.shape());
        }
        let device = storage.device();
        let values = storage.as_cuda_slice::<f32>()?.slice(first..end);
        let kernel = device.get_or_load_func("softmax_f32", &kernels::REDUCE)?;
        // SAFETY: the kernel writes every value of the result before anything reads it.
        let result = unsafe { device.alloc::<f32>(end - first)? };
        let mut launch = kernel.builder();
        launch.arg(&values).arg(&result).arg(&columns);
        let threads = LaunchConfig {
            grid_dim: (rows, 1, 1),
            block_dim: (1, THREADS, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the kernel takes two arrays of as many rows as there are blocks and the rows' width, and
        // touches nothing beside them; threads of one column share a row.
        unsafe { launch.launch(threads) }.w()?;
        Ok((
            CudaStorage::wrap_cuda_slice(result, device.clone()),
            layout.shape().clone(),
        ))
    }
}
