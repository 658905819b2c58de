//! What this machine can do: its system, its chip, its memory, and each device with the budget of a run on it,
//! or with the reason why it cannot be used.

use candle_core::{DType, Device, Tensor};
use sd_memory::{Bytes, DeviceInfo, Limit, gpu_wired_limit};
use sd_weights::{MetalGpu, gpu_name, metal_gpu};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use crate::memory::{MemoryInfo, allowance, memory_info};
use crate::request::DeviceChoice;
use crate::{Result, device, device_budget};

/// What this machine can do.
#[derive(Debug)]
pub struct Machine {
    /// The operating system and its version, such as `macOS 15.1`.
    pub system: String,
    /// The CPU architecture that the program was built for, such as `aarch64`.
    pub architecture: &'static str,
    /// The name of the chip, such as `Apple M2 Max`, if the system has one.
    pub chip: Option<String>,
    /// The cores of the CPU, if the system counts them.
    pub cores: Option<usize>,
    /// The threads that the process may run at once.
    pub threads: usize,
    /// The CPU's instruction sets beyond the architecture's first that make networks faster.
    pub instruction_sets: Vec<&'static str>,
    /// The memory now.
    pub memory: MemoryInfo,
    /// All kinds of devices. The first that can be used and is no CPU is the automatic choice, else the CPU.
    pub devices: Vec<DeviceReport>,
}

/// A kind of device on this machine.
#[derive(Debug)]
pub struct DeviceReport {
    /// Its name on the command line: `cuda`, `metal` or `cpu`.
    pub name: &'static str,
    /// What it is; or why it cannot be used.
    pub state: Result<UsableDevice>,
}

/// A device that can be used.
#[derive(Debug)]
pub struct UsableDevice {
    /// The default of `--memory` on it.
    pub budget: Bytes,
    /// What the default comes from.
    pub budget_from: Limit,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The CPU.
    Cpu,
    /// A GPU with memory of its own.
    Discrete {
        /// Its name, if its driver reports one.
        gpu: Option<String>,
        /// Its memory, if its driver reports it.
        memory: Option<DeviceInfo>,
    },
    /// An Apple GPU.
    Metal {
        /// What Metal says about it.
        gpu: MetalGpu,
        /// The limit that the user set on memory that GPUs may wire.
        wired_limit: Option<Bytes>,
    },
}

impl Machine {
    /// Looks at this machine. Every device is opened, and GPUs compute a small product. It does not fail: what
    /// cannot be found out is left out or a reason.
    pub fn look() -> Self {
        let devices = [
            ("cuda", DeviceChoice::Cuda(0)),
            ("metal", DeviceChoice::Metal),
            ("cpu", DeviceChoice::Cpu),
        ];
        Self {
            system: system(),
            architecture: std::env::consts::ARCH,
            chip: chip(),
            cores: System::physical_core_count().ok(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            instruction_sets: instruction_sets(),
            memory: memory_info(),
            devices: devices
                .map(|(name, choice)| DeviceReport {
                    name,
                    state: UsableDevice::of(choice),
                })
                .into(),
        }
    }

    /// The device that a run without `--device` takes, and its budget.
    pub fn default_device(&self) -> Option<(&'static str, &UsableDevice)> {
        let mut devices = self.devices.iter();
        devices.find_map(|report| Some((report.name, report.state.as_ref().ok()?)))
    }
}

impl UsableDevice {
    fn of(choice: DeviceChoice) -> Result<Self> {
        let device = device::open(choice)?.device;
        let kind = match metal_gpu(&device) {
            Some(gpu) => DeviceKind::Metal {
                gpu,
                wired_limit: gpu_wired_limit(),
            },
            None if choice == DeviceChoice::Cpu => DeviceKind::Cpu,
            None => DeviceKind::Discrete {
                gpu: gpu_name(&device),
                memory: device_budget::info(&device),
            },
        };
        if choice != DeviceChoice::Cpu {
            check_product(&device)?;
        }
        let (budget, budget_from) = device_budget::default(&device, &allowance())?;
        Ok(Self {
            budget,
            budget_from,
            kind,
        })
    }
}

/// Multiplies two small matrices on `device` in 32 and in 16 bits, and compares the products with the CPU's.
///
/// # Errors
/// The device fails, or computes something else.
fn check_product(device: &Device) -> Result<()> {
    /// Products and sums of whole numbers this small are exact in bf16.
    const SIDE: usize = 8;
    let whole = |step: usize| -> candle_core::Result<Tensor> {
        let numbers = (0..SIDE * SIDE).map(|index| (index * step % 4) as f32);
        Tensor::from_iter(numbers, &Device::Cpu)?.reshape((SIDE, SIDE))
    };
    let (one, other) = (whole(3)?, whole(5)?);
    let expected = one.matmul(&other)?.to_vec2::<f32>()?;
    for dtype in [DType::F32, DType::BF16] {
        let there = |matrix: &Tensor| matrix.to_dtype(dtype)?.to_device(device);
        let product = device::to_host(&there(&one)?.matmul(&there(&other)?)?)?;
        if product.to_vec2::<f32>()? != expected {
            let message = format!("a product of two matrices in {dtype:?} is wrong");
            return Err(candle_core::Error::msg(message).into());
        }
    }
    Ok(())
}

/// The operating system and its version.
fn system() -> String {
    let known = if cfg!(target_os = "macos") {
        System::os_version().map(|version| format!("macOS {version}"))
    } else {
        System::long_os_version()
    };
    known.unwrap_or_else(|_| std::env::consts::OS.to_owned())
}

/// The name of the CPU.
pub(crate) fn chip() -> Option<String> {
    let kinds = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(kinds).ok()?;
    let brand = system.cpus().first()?.brand().trim();
    (!brand.is_empty()).then(|| brand.to_owned())
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    found([
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("amx_bf16", sd_ops::matrix_unit().is_some()),
    ])
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    found([
        ("neon", is_aarch64_feature_detected!("neon")),
        ("fp16", is_aarch64_feature_detected!("fp16")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("bf16", is_aarch64_feature_detected!("bf16")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
    ])
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn found<const COUNT: usize>(sets: [(&'static str, bool); COUNT]) -> Vec<&'static str> {
    let found = sets.into_iter().filter(|(_, is_there)| *is_there);
    found.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_cpu_and_a_default() {
        let machine = Machine::look();
        assert!(!machine.system.is_empty() && machine.threads > 0);
        assert!(machine.memory.system_total > Bytes(0));
        let names: Vec<&str> = machine.devices.iter().map(|report| report.name).collect();
        assert_eq!(names, ["cuda", "metal", "cpu"]);
        let cpu = machine.devices[2].state.as_ref().unwrap();
        assert!(matches!(cpu.kind, DeviceKind::Cpu));
        let (name, device) = machine.default_device().unwrap();
        let automatic = device::open(DeviceChoice::Automatic).unwrap();
        assert_eq!(name, device::name(&automatic.device));
        assert!(device.budget <= machine.memory.system_total);
    }

    #[test]
    fn products_are_compared() {
        check_product(&Device::Cpu).unwrap();
    }
}
