//! The memory of an NVIDIA GPU.

use candle_core::{DType, Device, Tensor};
use sd_weights::{bound_device_memory, device_memory, open_cuda, release_device_memory, restart_device_peak};

use crate::network::block_bytes;
use crate::{MIB, alone};

pub(crate) const SIDE: usize = 3072;
/// Rows, uses of a block, milliseconds of delay.
pub(crate) const PACES: [(usize, usize, u64); 2] = [(8, 1, 0), (4096, 8, 0)];
/// What is taken beside blocks and activations.
pub(crate) const SLACK: u64 = MIB;

pub(crate) fn open() -> Device {
    open_cuda(0).unwrap()
}

pub(crate) fn taken_by_block() -> u64 {
    block_bytes(SIDE)
}

/// The host memory that caches blocks, where so many bytes may be.
pub(crate) fn cached_in_host_memory(bytes: u64) -> u64 {
    bytes
}

/// A measurement of the memory of tensors.
pub(crate) struct Measured {
    device: Device,
    before: u64,
}

impl Measured {
    pub(crate) fn start(device: &Device) -> Self {
        restart_device_peak(device).unwrap();
        Self {
            device: device.clone(),
            before: device_memory(device).unwrap().unwrap().used,
        }
    }

    /// The most bytes since the start, beside those before.
    pub(crate) fn peak(&self) -> u64 {
        let memory = device_memory(&self.device).unwrap().unwrap();
        eprintln!("{memory:?}");
        memory.used_peak - self.before
    }

    /// The bytes that are left of those since the start.
    pub(crate) fn left(&self) -> u64 {
        release_device_memory(&self.device).unwrap();
        device_memory(&self.device).unwrap().unwrap().used - self.before
    }
}

#[test]
fn a_bound_holds_and_a_failed_allocation_is_an_error() {
    let _alone = alone();
    let device = open();
    bound_device_memory(&device, Some(256 * MIB)).unwrap();
    let fits = Tensor::zeros(128 << 20, DType::U8, &device).unwrap();
    let error = Tensor::zeros(512 << 20, DType::U8, &device).unwrap_err();
    eprintln!("{error}");
    drop(fits);
    let other = Tensor::zeros(200 << 20, DType::U8, &device).unwrap();
    let memory = device_memory(&device).unwrap().unwrap();
    eprintln!("{memory:?}");
    assert!(memory.held_peak <= 256 * MIB);
    drop(other);
    release_device_memory(&device).unwrap();
    assert_eq!(device_memory(&device).unwrap().unwrap().held, 0);
    bound_device_memory(&device, None).unwrap();
    drop(Tensor::zeros(512 << 20, DType::U8, &device).unwrap());
}
