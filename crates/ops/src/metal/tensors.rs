//! Tensors as kernels see them: a buffer, an offset, and strides.

use std::sync::Arc;

use candle_core::op::BackpropOp;
use candle_core::{DType, Device, MetalDevice, MetalStorage, Storage, Tensor, bail};
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder};

use super::buffers::allocate;
use crate::Result;

/// A tensor that kernels read.
pub(super) struct Input<'a> {
    buffer: Buffer,
    /// Where its first value is, in bytes.
    offset: usize,
    /// In values.
    strides: &'a [usize],
}

impl<'a> Input<'a> {
    /// # Errors
    /// The tensor is not on an Apple GPU.
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Metal(storage) = &*storage else {
            bail!("a tensor of {:?} among tensors of an Apple GPU", tensor.device());
        };
        Ok(Self {
            buffer: storage.buffer().clone(),
            offset: layout.start_offset() * tensor.dtype().size_in_bytes(),
            strides: layout.stride(),
        })
    }

    /// The inputs of tensors, where there are any.
    ///
    /// # Errors
    /// As [`Input::new`].
    pub(super) fn optional(tensor: Option<&'a Tensor>) -> Result<Option<Self>> {
        tensor.map(Self::new).transpose()
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn strides(&self) -> &[usize] {
        self.strides
    }

    pub(super) fn bind(&self, encoder: &ComputeCommandEncoder, index: usize) {
        encoder.set_input_buffer(index, Some(&self.buffer), self.offset);
    }
}

/// A tensor that a kernel writes.
pub(super) struct Output {
    buffer: Arc<Buffer>,
    device: MetalDevice,
    dtype: DType,
    shape: Vec<usize>,
}

impl Output {
    /// A contiguous tensor of undefined values.
    ///
    /// # Errors
    /// The device has no room.
    pub(super) fn new(device: &MetalDevice, shape: &[usize], dtype: DType) -> Result<Self> {
        let bytes = shape.iter().product::<usize>() * dtype.size_in_bytes();
        Ok(Self {
            buffer: allocate(device, bytes)?,
            device: device.clone(),
            dtype,
            shape: shape.to_vec(),
        })
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    pub(super) fn bind(&self, encoder: &ComputeCommandEncoder, index: usize) {
        encoder.set_output_buffer(index, Some(&self.buffer), 0);
    }

    /// The tensor, once what writes it has been queued.
    pub(super) fn into_tensor(self) -> Tensor {
        let count = self.shape.iter().product();
        let storage = MetalStorage::new(self.buffer, self.device, count, self.dtype);
        Tensor::from_storage(Storage::Metal(storage), self.shape, BackpropOp::none(), false)
    }
}

/// A contiguous tensor of undefined values.
///
/// # Errors
/// The device has no room.
pub(crate) fn undefined(device: &Device, shape: &[usize], dtype: DType) -> Result<Tensor> {
    Ok(Output::new(device.as_metal_device()?, shape, dtype)?.into_tensor())
}

/// The device of a tensor.
///
/// # Errors
/// It is not an Apple GPU.
pub(super) fn device_of(tensor: &Tensor) -> Result<MetalDevice> {
    tensor.device().as_metal_device().cloned()
}
