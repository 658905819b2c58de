//! Buffers in the memory that CPU and GPU share, into which blocks are read ahead of their turns.

use std::sync::{Arc, Mutex};

use candle_core::{DType, MetalDevice, Tensor};
use candle_metal_kernels::metal::Buffer;

use super::buffer::{address_of, buffer_over, tensor_in};
use super::mapping::{Mapping, PAGE};
use super::window::{Piece, Window};
use crate::buffers::{BufferSet, Buffers};
use crate::lock::lock;
use crate::parts::Parts;
use crate::uploads::count_uploaded;
use crate::{Checkpoint, Result};

/// Tensors of at most so many bytes share a page. Half of the tensors of a network are norms and biases.
const SMALL: usize = PAGE / 2;
/// The alignment of tensors in a shared page. Metal's largest types need 16.
const ALIGNMENT: usize = 256;

/// The memory of the blocks of a network on an Apple GPU.
#[derive(Debug)]
pub(crate) struct MetalBuffers {
    device: MetalDevice,
    window: Arc<Window>,
    /// The tensors of the block that is being read.
    in_use: Mutex<Vec<Tensor>>,
    /// The page of its small tensors, as long as there is room in it.
    shared: Mutex<Option<SharedPage>>,
}

/// A page that small tensors of one block share.
#[derive(Debug)]
struct SharedPage {
    buffer: Arc<Buffer>,
    used: usize,
}

impl MetalBuffers {
    pub(crate) fn new(device: &MetalDevice) -> Self {
        Self {
            device: device.clone(),
            window: Arc::default(),
            in_use: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    fn take(&self, bytes: usize) -> Result<Piece> {
        let drain = || Ok(self.device.flush_and_wait_current()?);
        self.window.take(Mapping::length_of(bytes), drain)
    }

    /// Reads a tensor of `bytes` bytes into pages of its own.
    fn read_alone(&self, parts: &Parts<'_>, bytes: usize) -> Result<Arc<Buffer>> {
        let mut piece = self.take(bytes)?;
        parts.read(0, &mut piece.mapping().bytes()[..bytes])?;
        buffer_over(&self.device, piece)
    }

    /// Reads a tensor of `bytes` bytes into the shared page, or a new one where it does not fit. Returns the
    /// page and the tensor's offset.
    #[allow(unsafe_code)]
    fn read_shared(&self, parts: &Parts<'_>, bytes: usize) -> Result<(Arc<Buffer>, usize)> {
        let mut shared = lock(&self.shared);
        let page = match shared.take() {
            Some(page) if page.used + bytes <= PAGE => page,
            _ => SharedPage {
                buffer: buffer_over(&self.device, self.take(PAGE)?)?,
                used: 0,
            },
        };
        let SharedPage { buffer, used } = shared.insert(page);
        let offset = *used;
        // SAFETY: the page is mapped as long as its buffer is, and this tensor's part of it was checked to lie
        // inside. No tensor is there yet, and the GPU reads the block only after this call.
        let memory = unsafe { std::slice::from_raw_parts_mut(buffer.contents().add(offset), bytes) };
        parts.read(0, memory)?;
        *used = (offset + bytes).next_multiple_of(ALIGNMENT);
        Ok((buffer.clone(), offset))
    }

    /// Reads a tensor for the block that is being read.
    fn read_parts(&self, parts: &Parts<'_>) -> Result<Tensor> {
        let (shape, held_type) = (parts.shape(), parts.held_type());
        let bytes = shape.iter().product::<usize>() * held_type.size_in_bytes();
        let (buffer, offset) = if bytes <= SMALL {
            self.read_shared(parts, bytes)?
        } else {
            (self.read_alone(parts, bytes)?, 0)
        };
        count_uploaded(bytes as u64);
        let tensor = tensor_in(&buffer, offset, &self.device, held_type, &shape)?;
        lock(&self.in_use).push(tensor.clone());
        Ok(tensor)
    }
}

impl Buffers for MetalBuffers {
    fn read(&self, checkpoint: &Checkpoint, name: &str, held_type: Option<DType>) -> Result<Tensor> {
        self.read_parts(&checkpoint.in_parts(name, held_type)?)
    }

    fn read_held_rows(&self, checkpoint: &Checkpoint, name: &str) -> Result<Tensor> {
        self.read_parts(&checkpoint.rows_in_parts(name)?)
    }

    fn finish(&self) -> Result<BufferSet> {
        *lock(&self.shared) = None;
        Ok(BufferSet::ready(std::mem::take(&mut *lock(&self.in_use))))
    }

    /// Lets go of the buffers, and commits the commands that still hold them.
    fn reclaim(&self, buffer_set: BufferSet) -> Result<()> {
        let tensors = buffer_set.into_tensors();
        self.window.retire(tensors.iter().filter_map(address_of));
        drop(tensors);
        Ok(super::commit(&self.device)?)
    }

    fn clear(&self) {
        self.window.clear();
    }
}
