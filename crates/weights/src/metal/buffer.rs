//! Metal buffers that show pieces of a window without a copy, and tensors in them.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use block2::RcBlock;
use candle_core::op::BackpropOp;
use candle_core::{DType, MetalDevice, MetalStorage, Storage, Tensor};
use candle_metal_kernels::metal::Buffer;
use objc2_metal::{MTLDevice, MTLResourceOptions};

use super::window::{Piece, no_buffer};
use crate::Result;
use crate::lock::lock;

/// The options of candle's own buffers, whose hazards candle tracks.
const OPTIONS: MTLResourceOptions = MTLResourceOptions(
    MTLResourceOptions::StorageModeShared.0 | MTLResourceOptions::HazardTrackingModeUntracked.0,
);

/// A buffer that shows `piece`. The piece is given back once neither a tensor nor a command buffer that has
/// not completed holds the buffer.
///
/// # Errors
/// The device has no room for the buffer. The piece is given back.
#[allow(unsafe_code)]
pub(super) fn buffer_over(device: &MetalDevice, mut piece: Piece) -> Result<Arc<Buffer>> {
    let (start, length) = (piece.mapping().start(), piece.mapping().length());
    let piece = Mutex::new(Some(piece));
    let deallocator = RcBlock::new(move |_: NonNull<c_void>, _: usize| {
        let piece = lock(&piece).take();
        drop(piece);
    });
    // SAFETY: the memory is mapped in whole pages and of this length. The deallocator owns it and is the only
    // one to free it: when it is called, or when Metal drops it without a call. Any thread may call it.
    let buffer = unsafe {
        device
            .metal_device()
            .as_ref()
            .newBufferWithBytesNoCopy_length_options_deallocator(
                start.cast(),
                length,
                OPTIONS,
                Some(&deallocator),
            )
    };
    let buffer = buffer.ok_or_else(|| no_buffer(format!("{length} bytes cannot be shown")))?;
    Ok(Arc::new(Buffer::new(buffer)))
}

/// The tensor of `shape` whose values begin `offset` bytes into `buffer`.
pub(super) fn tensor_in(
    buffer: &Arc<Buffer>,
    offset: usize,
    device: &MetalDevice,
    held_type: DType,
    shape: &[usize],
) -> Result<Tensor> {
    let first = offset / held_type.size_in_bytes();
    let count: usize = shape.iter().product();
    let storage = MetalStorage::new(buffer.clone(), device.clone(), first + count, held_type);
    let whole = Tensor::from_storage(Storage::Metal(storage), first + count, BackpropOp::none(), false);
    Ok(whole.narrow(0, first, count)?.reshape(shape)?)
}

/// The address of the memory that the buffer of `tensor` shows.
pub(super) fn address_of(tensor: &Tensor) -> Option<usize> {
    match &*tensor.storage_and_layout().0 {
        Storage::Metal(storage) => Some(storage.buffer().contents() as usize),
        _ => None,
    }
}
