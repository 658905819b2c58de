//! What the last bits of a result depend on apart from the model, the request and the program: who computes.

use candle_core::{Device, DeviceLocation};

use crate::request::DeviceChoice;

/// A name that two devices share only if they compute the same bits. Kernels are chosen by what the processor
/// can do, so that is part of its name.
pub(crate) fn name(device: &Device) -> String {
    let processor = format!("{}{}", std::env::consts::ARCH, extensions());
    match device.location() {
        DeviceLocation::Cpu => format!("cpu ({processor})"),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id} ({processor})"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id} ({processor})"),
    }
}

/// The choice that opens `device` again, whatever else a machine has by then.
pub(crate) fn settled(device: &Device) -> DeviceChoice {
    match device.location() {
        DeviceLocation::Cpu => DeviceChoice::Cpu,
        DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id),
        DeviceLocation::Metal { .. } => DeviceChoice::Metal,
    }
}

#[cfg(target_arch = "x86_64")]
fn extensions() -> String {
    let found = [
        (" fma", is_x86_feature_detected!("fma")),
        (" avx2", is_x86_feature_detected!("avx2")),
        (" avx512f", is_x86_feature_detected!("avx512f")),
        (" avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    found
        .iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn extensions() -> String {
    String::new()
}
