//! The numerics id: the device and instruction set that the last bits of a result depend on.

use candle_core::Device;

use crate::device;

/// A name that two devices share only if they compute the same bits. Kernels are chosen by the CPU's
/// instruction set, so it is part of the name. A GPU counts by its model, not by its index or by an id that
/// changes at boot.
pub(crate) fn name(device: &Device) -> String {
    let cpu = format!("{}{}", std::env::consts::ARCH, extensions());
    of(
        device::name(device),
        sd_weights::gpu_name(device).as_deref(),
        &cpu,
    )
}

/// The numerics id of this machine's CPU. Images that were computed under the same id are equal bit by bit, if the
/// operating system's mathematical library is the same.
pub fn cpu() -> String {
    name(&Device::Cpu)
}

fn of(computes: &str, gpu: Option<&str>, cpu: &str) -> String {
    match gpu {
        Some(gpu) => format!("{computes}: {gpu} ({cpu})"),
        None => format!("{computes} ({cpu})"),
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
    let named = found.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    // Only the kernels know whether the operating system lets them use it.
    let unit = sd_ops::matrix_unit().into_iter().flat_map(|unit| [" ", unit]);
    named.chain(unit).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn extensions() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_known_by_its_model() {
        let cpu = "x86_64 avx2";
        let h100 = of("cuda", Some("NVIDIA H100 80GB HBM3"), cpu);
        assert_eq!(h100, "cuda: NVIDIA H100 80GB HBM3 (x86_64 avx2)");
        assert_ne!(h100, of("cuda", Some("NVIDIA H200"), cpu));
        let m2_max = of("metal", Some("applegpu_g14s"), "aarch64");
        assert_eq!(m2_max, "metal: applegpu_g14s (aarch64)");
        assert!(name(&Device::Cpu).starts_with("cpu ("));
    }
}
