//! NVIDIA's management library (NVML), which reports the free memory of a device before a context exists.
//!
//! It comes with the driver and is loaded at run time. Without it only this figure is missing. The functions
//! and their types are those of `nvml.h`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use candle_core::cuda_backend::cudarc::driver::sys;
use libloading::Library;

/// The file name of the library.
const NAME: &str = if cfg!(windows) {
    "nvml.dll"
} else {
    "libnvidia-ml.so.1"
};
/// The status of success, `NVML_SUCCESS`.
const SUCCESS: c_uint = 0;
/// The length of a PCI bus id with its terminating zero, `NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE`.
const BUS_NAME: usize = 32;

type Handle = *mut c_void;

/// `nvmlMemory_t`, in bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// A device in NVML.
#[derive(Debug)]
pub(super) struct Management {
    library: Library,
    device: Handle,
}

impl Management {
    /// The NVML device of a driver device, if NVML knows it.
    #[allow(unsafe_code)]
    pub(super) fn of(device: sys::CUdevice) -> Option<Self> {
        let mut name = [0 as c_char; BUS_NAME];
        // SAFETY: the driver writes at most so many characters, a zero at their end. The library is NVIDIA's,
        // whose initialisation has no conditions, and the functions have these types.
        unsafe {
            sys::cuDeviceGetPCIBusId(name.as_mut_ptr(), BUS_NAME as c_int, device)
                .result()
                .ok()?;
            let library = Library::new(NAME).ok()?;
            let init = library
                .get::<unsafe extern "C" fn() -> c_uint>("nvmlInit_v2")
                .ok()?;
            if init() != SUCCESS {
                return None;
            }
            let mut view = Self {
                library,
                device: ptr::null_mut(),
            };
            let by_name = view
                .library
                .get::<unsafe extern "C" fn(*const c_char, *mut Handle) -> c_uint>(
                    "nvmlDeviceGetHandleByPciBusId_v2",
                )
                .ok()?;
            let name = CStr::from_ptr(name.as_ptr());
            let mut device = ptr::null_mut();
            if by_name(name.as_ptr(), &mut device) != SUCCESS {
                return None;
            }
            view.device = device;
            Some(view)
        }
    }

    /// The free bytes of the device.
    #[allow(unsafe_code)]
    pub(super) fn free(&self) -> Option<u64> {
        let mut memory = Memory::default();
        // SAFETY: the function has this type, the handle is the library's, and it fills the structure.
        let answer = unsafe {
            let read = self
                .library
                .get::<unsafe extern "C" fn(Handle, *mut Memory) -> c_uint>("nvmlDeviceGetMemoryInfo")
                .ok()?;
            read(self.device, &mut memory)
        };
        (answer == SUCCESS).then_some(memory.free)
    }
}

impl Drop for Management {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the library was initialised once for this view. Errors of the shutdown are ignored.
        unsafe {
            if let Ok(shutdown) = self
                .library
                .get::<unsafe extern "C" fn() -> c_uint>("nvmlShutdown")
            {
                shutdown();
            }
        }
    }
}
