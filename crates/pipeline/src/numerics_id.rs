//! The numerics id: the device and instruction set that the last bits of a result depend on.

use candle_core::Device;

use crate::device;

/// A name that two devices share only if they compute the same bits. Kernels are chosen by the CPU's
/// instruction set, so it is part of the name. A GPU counts by its model, not by its index or by an id that
/// changes at boot.
pub(crate) fn name(device: &Device) -> String {
    let cpu = cpu_name(std::env::consts::ARCH, &extensions());
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

/// The name of a CPU: its architecture, and those of `extensions` that it has.
fn cpu_name(architecture: &str, extensions: &[(&str, bool)]) -> String {
    let found = extensions.iter().filter(|(_, has)| *has);
    let names: Vec<&str> = std::iter::once(architecture)
        .chain(found.map(|(name, _)| *name))
        .collect();
    names.join(" ")
}

/// The extensions by which kernels are chosen, and whether this machine has them.
#[cfg(target_arch = "x86_64")]
fn extensions() -> [(&'static str, bool); 5] {
    [
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        // Only the kernels know whether the operating system lets them use it.
        ("amx_bf16", sd_ops::matrix_unit().is_some()),
    ]
}

/// The extensions by which kernels are chosen, and whether this machine has them.
#[cfg(target_arch = "aarch64")]
fn extensions() -> [(&'static str, bool); 1] {
    of_arm(std::arch::is_aarch64_feature_detected!("bf16"))
}

/// The extensions of an Arm CPU. NEON, which all have, is not among them. The bf16 dot products of Armv8.6 round
/// activations to bf16.
#[cfg(any(target_arch = "aarch64", test))]
fn of_arm(has_bf16: bool) -> [(&'static str, bool); 1] {
    [("bf16", has_bf16)]
}

/// Other architectures have no kernels of their own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> [(&'static str, bool); 0] {
    []
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

    #[test]
    fn a_cpu_is_known_by_what_chooses_its_kernels() {
        assert_eq!(cpu_name("aarch64", &of_arm(false)), "aarch64");
        assert_eq!(cpu_name("aarch64", &of_arm(true)), "aarch64 bf16");
        let x86 = [("fma", true), ("avx2", true), ("avx512f", false)];
        assert_eq!(cpu_name("x86_64", &x86), "x86_64 fma avx2");
    }
}
