//! Page-locked host memory, which the device copies from by DMA.

use std::ops::Range;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::{CUdeviceptr, CUevent_flags};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, PinnedHostSlice, result,
};

use super::failed;
use crate::Result;

/// The bytes of one copy: small enough that copies that kernels wait for are not delayed, large enough for
/// full bandwidth.
const PIECE: usize = 4 << 20;

/// Page-locked host memory and the event after its last copy.
#[derive(Debug)]
pub(super) struct PageLocked {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl PageLocked {
    /// Allocates `bytes` zeros.
    #[allow(unsafe_code)]
    pub(super) fn zeros(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        // Waiting threads sleep instead of spinning, because the CPU has other work.
        let copied = context
            .new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))
            .map_err(failed)?;
        // SAFETY: the driver gives whole fresh pages of the system, which are zeros, and any byte is a `u8`.
        let memory = unsafe { context.alloc_pinned_with_flags(bytes, 0) }.map_err(failed)?;
        Ok(Self { memory, copied })
    }

    /// The number of bytes.
    pub(super) fn length(&self) -> usize {
        self.memory.len()
    }

    /// The bytes, after all queued copies.
    pub(super) fn bytes(&mut self) -> Result<&mut [u8]> {
        self.copied.synchronize().map_err(failed)?;
        self.memory.as_mut_slice().map_err(failed)
    }

    /// Queues a copy of the bytes in `range` to `target` on `stream`.
    ///
    /// # Safety
    /// As many bytes from `target` on are the device's memory, and stay so until the copy has been made.
    /// Nothing else reads or writes them meanwhile.
    #[allow(unsafe_code)]
    pub(super) unsafe fn copy_to(
        &self,
        range: Range<usize>,
        target: CUdeviceptr,
        stream: &CudaStream,
    ) -> Result<()> {
        stream.context().bind_to_thread().map_err(failed)?;
        let bytes = &self.memory.as_slice().map_err(failed)?[range];
        let copied = bytes.chunks(PIECE).zip(0..).try_for_each(|(piece, index)| {
            let target = target + index * PIECE as CUdeviceptr;
            // SAFETY: the caller answers for the target. The source is not freed or written to before the
            // event that is recorded below: `bytes` and `drop` wait for it.
            unsafe { result::memcpy_htod_async(target, piece, stream.cu_stream()) }
        });
        // Also after a failure, for the copies before it.
        let recorded = self.copied.record(stream);
        copied.and(recorded).map_err(failed)
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        // A device that fails here no longer copies.
        let _ = self.copied.synchronize();
    }
}
