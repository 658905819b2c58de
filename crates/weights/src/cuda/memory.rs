//! The memory of the device and of the CUDA memory pool that candle allocates from.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use candle_core::cuda_backend::cudarc::driver::result::{device, mem_get_info, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice, CUmemAllocationType, CUmemLocationType, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool,
};
use candle_core::cuda_backend::{CudaDevice, cudarc::driver::DriverError};

use super::driver_share::DriverShare;
use crate::DeviceMemory;

/// The current figures of the driver and the pool.
pub(crate) fn memory(device: &CudaDevice) -> candle_core::Result<DeviceMemory> {
    let read = || {
        let pool = pool(device)?;
        let (free, total) = mem_get_info()?;
        let held = attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let beside = (total as u64).saturating_sub(free as u64 + held);
        let share = DriverShare::of(device.cuda_stream().context().ordinal());
        Ok(DeviceMemory {
            total: total as u64,
            free: free as u64,
            driver: beside.saturating_sub(share.others),
            driver_at_first: share.at_first,
            used: attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            used_peak: attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            held,
            held_peak: attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    };
    read().map_err(wrapped)
}

/// Resets the peaks.
pub(crate) fn restart_peak(device: &CudaDevice) -> candle_core::Result<()> {
    let restart = || {
        let pool = pool(device)?;
        set_attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)?;
        set_attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, 0)
    };
    restart().map_err(wrapped)
}

/// Makes the pool keep freed memory. By default it returns the memory to the driver at every synchronisation.
pub(super) fn keep_freed(device: &CudaDevice) -> candle_core::Result<()> {
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    pool(device)
        .and_then(|pool| set_attribute(pool, threshold, u64::MAX))
        .map_err(wrapped)
}

/// Waits for all queued work and releases the free memory of the pool.
#[allow(unsafe_code)]
pub(crate) fn release(device: &CudaDevice) -> candle_core::Result<()> {
    let release = || {
        let pool = pool(device)?;
        device.cuda_stream().synchronize()?;
        // SAFETY: the pool is the current one of the device, which is never destroyed. Only free memory is
        // released.
        unsafe { mem_pool::trim_to(pool, 0) }
    };
    release().map_err(wrapped)
}

/// Makes a new pool, limited to `bytes` if there is a limit, the current pool of the device.
#[allow(unsafe_code)]
pub(crate) fn bound(device: &CudaDevice, bytes: Option<u64>) -> candle_core::Result<()> {
    release(device)?;
    let bound = || {
        let context = device.cuda_stream().context().clone();
        let ordinal = context.ordinal();
        let mut properties = MaybeUninit::<CUmemPoolProps>::zeroed();
        let pointer = properties.as_mut_ptr();
        // SAFETY: all of the properties are plain numbers and a null pointer, for which zero means the
        // default; those that matter are set. The driver reads them during the call. The pool that it makes
        // is never destroyed, since tensors may lie in it as long as the program runs. `cu_device` is a
        // device of the driver's.
        unsafe {
            (*pointer).allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
            (*pointer).location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
            (*pointer).location.id = ordinal as i32;
            // Zero means no limit.
            (*pointer).maxSize = bytes.map_or(0, |bytes| (bytes as usize).max(1));
            device::set_mem_pool(context.cu_device(), mem_pool::create(pointer)?)
        }
    };
    bound().map_err(wrapped)?;
    keep_freed(device)
}

/// The current pool of the device, whose context is made current on this thread.
#[allow(unsafe_code)]
fn pool(device: &CudaDevice) -> Result<CUmemoryPool, DriverError> {
    let context = device.cuda_stream().context().clone();
    context.bind_to_thread()?;
    let ordinal: CUdevice = context.cu_device();
    // SAFETY: the device is one of the driver's, as its context is.
    unsafe { device::get_mem_pool(ordinal) }
}

#[allow(unsafe_code)]
fn attribute(pool: CUmemoryPool, name: CUmemPool_attribute) -> Result<u64, DriverError> {
    let mut value = 0_u64;
    let pointer: *mut u64 = &mut value;
    // SAFETY: the pool is one of the driver's, and the requested attributes have 64 bits.
    unsafe { mem_pool::get_attribute(pool, name, pointer.cast::<c_void>())? };
    Ok(value)
}

#[allow(unsafe_code)]
fn set_attribute(pool: CUmemoryPool, name: CUmemPool_attribute, mut value: u64) -> Result<(), DriverError> {
    let pointer: *mut u64 = &mut value;
    // SAFETY: as in `attribute`; the driver reads the value during the call.
    unsafe { mem_pool::set_attribute(pool, name, pointer.cast::<c_void>()) }
}

fn wrapped(error: DriverError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}
