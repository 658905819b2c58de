//! Streaming to an NVIDIA GPU: from disk into page-locked host memory, and from there to the device on a stream of its
//! own, beside the kernels.
//!
//! Everything that candle does on a device goes to one stream, in order. Copies go to a second one. Four events tie
//! them: a buffer is written after the kernels that used it before, and after it was allocated; kernels that use it run
//! after it was written; host memory is refilled after it was copied.

mod buffers;
mod driver_share;
mod management;
mod memory;
mod page_locked;
mod upload;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DriverError};

pub(crate) use buffers::CudaBuffers;
pub(crate) use memory::{bound, memory, release, restart_peak};
pub(crate) use upload::bytes_uploaded;

use crate::Error;

/// Opens device `ordinal` with a stream that is the same on every thread.
#[allow(unsafe_code)]
pub(crate) fn open(ordinal: usize) -> candle_core::Result<CudaDevice> {
    let before = driver_share::Before::look(ordinal);
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: candle uses a single stream of the device, in order, so that nothing it does needs an event to wait for.
    // The only other stream is this module's, which orders itself by events of its own.
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

/// candle's own way to open a device takes a stream that is another one on every thread; then nothing would order what
/// the reading thread does with what is computed.
fn has_one_stream(stream: &CudaStream) -> bool {
    const PER_THREAD: usize = 2;
    stream.cu_stream() as usize != PER_THREAD && !stream.context().is_event_tracking()
}

fn failed(error: DriverError) -> Error {
    Error::Tensor(candle_core::Error::wrap(error))
}
