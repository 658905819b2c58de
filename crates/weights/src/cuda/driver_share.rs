//! What the driver takes of a device's memory for this process, measured where its context is made.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{DType, Device, Tensor};

use super::management::Management;
use crate::DeviceMemory;
use crate::lock::lock;

/// What is believed where nothing can be measured: what it took on an H200 with driver 580 once every kernel was loaded.
const ASSUMED: u64 = 640 << 20;
/// No context is smaller: what is measured below this is the doing of other programs.
const LEAST: u64 = 64 << 20;
/// Rows and columns of a product that has cuBLAS load what it needs.
const SIDE: usize = 256;

/// By the device's number.
static SHARES: Mutex<BTreeMap<usize, DriverShare>> = Mutex::new(BTreeMap::new());

/// Who has how much of a device's memory beside tensors, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DriverShare {
    /// Of the driver for this process, when the device was opened.
    pub(super) at_first: u64,
    /// Of other programs then.
    pub(super) others: u64,
}

impl DriverShare {
    /// That of device `ordinal`, nothing where it was never opened.
    pub(super) fn of(ordinal: usize) -> Self {
        lock(&SHARES).get(&ordinal).copied().unwrap_or_default()
    }

    /// Of `beside` bytes that are in use and hold no tensor those that became so by opening the device, as far as that is
    /// known.
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

/// A device before this process has a context there.
#[derive(Debug)]
pub(super) struct Before {
    ordinal: usize,
    /// Whether the process has one already.
    is_open: bool,
    /// The driver's own view of the device, and what was free in it.
    view: Option<(Management, u64)>,
}

impl Before {
    /// Looks at device `ordinal`. Nothing here fails: where there is no device whoever opens it says so.
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

/// Has the products' library load what it needs and take its scratch, which it would do in the middle of a run. In every type
/// that weights are held in and that the device multiplies.
pub(super) fn multiply_once(device: &CudaDevice) {
    let device = Device::Cuda(device.clone());
    let multiply = |kind| {
        let x = Tensor::zeros((SIDE, SIDE), kind, &device)?;
        x.matmul(&x.t()?)
    };
    for kind in [DType::F32, DType::F16, DType::BF16] {
        // Older devices have no products of bf16, and whoever asks for one is told.
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
    // SAFETY: the driver writes two numbers.
    let asked = unsafe { sys::cuDevicePrimaryCtxGetState(device, &mut flags, &mut active) };
    asked.result().is_ok() && active != 0
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
        // Another program went away meanwhile, or nobody could look.
        assert_eq!(share(9 * GB, Some(0)), (ASSUMED, 9 * GB - ASSUMED));
        assert_eq!(share(GB / 2, None), (GB / 2, 0));
        assert_eq!(share(GB / 2, Some(GB)), (GB / 2, 0));
    }
}
