//! Tensors as kernels see them: an address and strides.

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Storage, Tensor, bail};
use half::{bf16, f16};

use crate::Result;

/// The address of a value on a device.
pub(super) type Address = u64;

/// No address, for what an operation leaves out.
pub(super) const NONE: Address = 0;

/// The address of the first value of a tensor. It is valid as long as the tensor lives, and in the order of the stream.
///
/// # Errors
/// The tensor is not on an NVIDIA GPU.
pub(super) fn address(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("a tensor of {:?} among tensors of an NVIDIA GPU", tensor.device());
    };
    let stream = storage.device.cuda_stream();
    macro_rules! first {
        ($($kind:ident)*) => {
            match &storage.slice {
                $(CudaStorageSlice::$kind(values) => values.device_ptr(&stream).0,)*
                _ => bail!("values of {:?} on an NVIDIA GPU", tensor.dtype()),
            }
        };
    }
    let first = first!(F32 F16 BF16 U8 U32 I64);
    Ok(first + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

/// The address of a tensor that may be left out.
///
/// # Errors
/// As [`address`].
pub(super) fn optional_address(tensor: Option<&Tensor>) -> Result<Address> {
    tensor.map_or(Ok(NONE), address)
}

/// A contiguous tensor of undefined values.
///
/// # Errors
/// The device has no room.
pub(crate) fn undefined(device: &Device, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let device = device.as_cuda_device()?;
    let count = shape.iter().product();
    macro_rules! storage {
        ($kind:ty) => {{
            // SAFETY: kernels write every value of a result before anything reads it.
            #[allow(unsafe_code)]
            let values = unsafe { device.alloc::<$kind>(count)? };
            CudaStorage::wrap_cuda_slice(values, device.clone())
        }};
    }
    let storage = match dtype {
        DType::F32 => storage!(f32),
        DType::F16 => storage!(f16),
        DType::BF16 => storage!(bf16),
        DType::U8 => storage!(u8),
        DType::U32 => storage!(u32),
        other => bail!("a tensor of {other:?} for kernels of an NVIDIA GPU"),
    };
    let shape = shape.to_vec();
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// The device of a tensor.
///
/// # Errors
/// It is not an NVIDIA GPU.
pub(super) fn device_of(tensor: &Tensor) -> Result<CudaDevice> {
    tensor.device().as_cuda_device().cloned()
}

/// Whether vectors of 16 bytes can be read at all of these addresses and distances, which are in values.
pub(super) fn aligned(held_type: DType, addresses: &[Address], distances: &[usize]) -> bool {
    addresses.iter().all(|address| address % 16 == 0)
        && distances
            .iter()
            .all(|distance| distance * held_type.size_in_bytes() % 16 == 0)
}
