//! What the kernels of all GPUs have in common: the descriptions of operations, and the way from an operation to the
//! kernels of its device.
//!
//! The modules `metal` and `cuda` offer functions of the same names, which take these descriptions.

mod descriptions;
mod moments;
mod views;

pub(crate) use descriptions::{Addends, Epilogue, RowNorm, Windows};
pub(crate) use moments::ChannelMoments;
pub(crate) use views::{contiguous_strides, row_stride};

use candle_core::bail;

use crate::Result;
use crate::capabilities::Backend;

/// Calls a function of the kernels of `$backend`, a GPU that [has kernels](has_kernels) in this build.
macro_rules! on_gpu {
    ($backend:expr, $($call:tt)+) => {
        match $backend {
            #[cfg(metal)]
            $crate::capabilities::Backend::Metal => $crate::metal::$($call)+,
            #[cfg(feature = "cuda")]
            $crate::capabilities::Backend::Cuda => $crate::cuda::$($call)+,
            other => $crate::gpu::without_kernels(other),
        }
    };
}
pub(crate) use on_gpu;

/// Whether this build has kernels for `backend`.
pub(crate) const fn has_kernels(backend: Backend) -> bool {
    match backend {
        Backend::Cpu => false,
        Backend::Cuda => cfg!(feature = "cuda"),
        Backend::Metal => cfg!(metal),
    }
}

/// # Errors
/// Always: the build has no kernels for the backend.
pub(crate) fn without_kernels<T>(backend: Backend) -> Result<T> {
    bail!("this build has no kernels for {}", backend.name())
}
