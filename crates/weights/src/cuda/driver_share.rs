//! The device memory that the driver takes for this process, measured when the context is created.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{DType, Device, Tensor};

use super::management::Management;
use crate::DeviceMemory;
use crate::lock::lock;

/// The assumed value where nothing can be measured: that of an H200 with driver 580 after all kernels were
/// loaded.
const ASSUMED: u64 = 640 << 20;
/// The minimum size of a context. A smaller measurement is distorted by other processes.
const LEAST: u64 = 64 << 20;
/// The rows and columns of the matrix product that initialises cuBLAS.
const SIDE: usize = 256;

/// The shares by device ordinal.
static SHARES: Mutex<BTreeMap<usize, DriverShare>> = Mutex::new(BTreeMap::new());

/// The device memory outside of tensors, by owner, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DriverShare {
    /// The memory of the driver for this process when the device was opened.
    pub(super) at_first: u64,
    /// The memory of other processes at that time.
    pub(super) others: u64,
}

impl DriverShare {
    /// The share of device `ordinal`, zero if it was never opened.
    pub(super) fn of(ordinal: usize) -> Self {
        lock(&SHARES).get(&ordinal).copied().unwrap_or_default()
    }

    /// Splits `beside` bytes in use outside of tensors into those of the driver and of other processes.
    /// `taken` is the measured growth by opening the device.
    fn new(beside: u64, taken: Option<u64>) -> Self {
        let at_first = taken
            .filter(|&taken| taken >= LEAST)
            .unwrap_or(ASSUMED)
            .min(beside);
        Self {
            at_first,
            others: beside - at_first,
        }
    }
}

/// The state of a device before this process creates a context.
#[derive(Debug)]
pub(super) struct Before {
    ordinal: usize,
    /// Whether the process already has a context.
    is_open: bool,
    /// The NVML view of the device and the free memory in it.
    view: Option<(Management, u64)>,
}

impl Before {
    /// Measures device `ordinal`. A missing device is reported when it is opened.
    pub(super) fn look(ordinal: usize) -> Self {
        let device = device(ordinal);
        let is_open = device.is_some_and(has_context) && lock(&SHARES).contains_key(&ordinal);
        let view = device.filter(|_| !is_open).and_then(|device| {
            let view = Management::of(device)?;
            let free = view.free()?;
            Some((view, free))
        });
        Self {
            ordinal,
            is_open,
            view,
        }
    }

    /// Whether the process had opened the device before.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Records how much memory opening the device has taken, `now` being the figures after it.
    pub(super) fn note(self, now: &DeviceMemory) {
        let beside = now.total.saturating_sub(now.free + now.held);
        let taken = self
            .view
            .and_then(|(view, before)| before.checked_sub(view.free()?.saturating_add(now.held)));
        lock(&SHARES).insert(self.ordinal, DriverShare::new(beside, taken));
    }
}

/// Initialises cuBLAS and its workspace in every held type, which it would otherwise do in the middle of a
/// run.
pub(super) fn multiply_once(device: &CudaDevice) {
    let device = Device::Cuda(device.clone());
    let multiply = |kind| {
        let x = Tensor::zeros((SIDE, SIDE), kind, &device)?;
        x.matmul(&x.t()?)
    };
    for kind in [DType::F32, DType::F16, DType::BF16] {
        // Older devices have no bf16 products. Their use fails later with an error.
        let _ = multiply(kind);
    }
}

fn device(ordinal: usize) -> Option<sys::CUdevice> {
    result::init().ok()?;
    result::device::get(i32::try_from(ordinal).ok()?).ok()
}

/// Whether this process has a context on the device.
#[allow(unsafe_code)]
fn has_context(device: sys::CUdevice) -> bool {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: the driver writes two integers.
    let queried = unsafe { sys::cuDevicePrimaryCtxGetState(device, &mut flags, &mut active) };
    queried.result().is_ok() && active != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_is_not_the_driver_s() {
        const GB: u64 = 1 << 30;
        let share = |beside, taken| {
            let DriverShare { at_first, others } = DriverShare::new(beside, taken);
            (at_first, others)
        };
        assert_eq!(share(9 * GB, Some(GB / 2)), (GB / 2, 9 * GB - GB / 2));
        // Another process ended meanwhile, or nothing could be measured.
        assert_eq!(share(9 * GB, Some(0)), (ASSUMED, 9 * GB - ASSUMED));
        assert_eq!(share(GB / 2, None), (GB / 2, 0));
        assert_eq!(share(GB / 2, Some(GB)), (GB / 2, 0));
    }
}
