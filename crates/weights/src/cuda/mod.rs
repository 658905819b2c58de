//! Streaming of weights to an NVIDIA GPU: from disk into page-locked host memory, and from there to the
//! device on a second CUDA stream, in parallel with kernels.
//!
//! candle queues all work on one stream. Copies use a second stream. Events order the two: a buffer is
//! written after its allocation and after the kernels that read it before; kernels that read a buffer run
//! after the copy; host memory is refilled after its copy.

mod buffers;
mod driver_share;
mod management;
mod memory;
mod page_locked;
mod resident;
mod upload;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, DriverError};

pub(crate) use buffers::CudaBuffers;
pub(crate) use memory::{bound, memory, release, restart_peak};
pub(crate) use resident::{ResidentBuffers, release_staging};

use crate::Error;

/// Opens device `ordinal` with one stream for all threads.
#[allow(unsafe_code)]
pub(crate) fn open(ordinal: usize) -> candle_core::Result<CudaDevice> {
    let before = driver_share::Before::look(ordinal);
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: candle queues all work on a single stream, so that its work needs no events. The only other
    // stream is that of this module, which is ordered by events of its own.
    unsafe {
        device.disable_event_tracking();
    }
    memory::keep_freed(&device)?;
    driver_share::multiply_once(&device);
    if !before.is_open() {
        memory::release(&device)?;
        before.note(&memory::memory(&device)?);
    }
    Ok(device)
}

/// How many GPUs the driver has, without opening one.
pub(crate) fn count() -> usize {
    CudaContext::device_count().map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

/// Whether all threads share one stream. By default candle uses one stream per thread, and nothing would
/// order the work of the reading thread before the kernels.
fn has_one_stream(stream: &CudaStream) -> bool {
    const PER_THREAD: usize = 2;
    stream.cu_stream() as usize != PER_THREAD && !stream.context().is_event_tracking()
}

fn failed(error: DriverError) -> Error {
    Error::Tensor(candle_core::Error::wrap(error))
}
