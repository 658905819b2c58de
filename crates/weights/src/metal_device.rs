//! Opening the GPU of a Mac, and what Metal says about it.
//!
//! candle panics where Metal lacks something that it needs: on macOS 14 and older, which have no residency
//! sets, and on a machine without a GPU. What it needs is therefore checked first, and a panic that comes all
//! the same is caught.

use candle_core::Device;

#[cfg(metal)]
use crate::caught_panic::caught_panic;

/// Why the GPU of a Mac cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetalUnavailable {
    /// The program was built for another system.
    #[error("this build has no support for it")]
    NotBuilt,
    /// The program was built for Macs with Intel chips.
    #[error("this build is for Macs with Intel chips, whose GPUs are not supported")]
    IntelBuild,
    /// The version of macOS lacks what candle uses of Metal.
    #[error("macOS {version} is too old, it needs macOS {OLDEST_MACOS} or later")]
    OldSystem {
        /// The version of this machine, such as `14.5`.
        version: String,
    },
    /// Metal finds no GPU.
    #[error("Metal finds no GPU on this machine")]
    NoGpu,
    /// The device could not be opened.
    #[error("it could not be opened: {reason}")]
    Failed {
        /// What candle or the driver reports.
        reason: String,
    },
}

/// The first version of macOS with residency sets, without which candle opens no device.
const OLDEST_MACOS: u32 = 15;

/// What Metal says about a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetalGpu {
    /// Its name, such as `Apple M2 Max`.
    pub name: String,
    /// Its architecture, such as `applegpu_g14s`.
    pub architecture: String,
    /// The bytes of all buffers together within which Metal recommends that it be used.
    pub working_set: u64,
    /// The most bytes of one buffer.
    pub longest_buffer: u64,
}

impl MetalGpu {
    /// Whether it computes with bf16 in hardware: M3 and later do. Earlier ones widen it. `None` if the
    /// architecture is unknown.
    pub fn has_native_bf16(&self) -> Option<bool> {
        /// The generation of the M3.
        const M3: u32 = 15;
        Some(generation(&self.architecture)? >= M3)
    }
}

/// The generation of an Apple GPU, 14 for `applegpu_g14s`. The M1 is 13, the M2 14, the M3 15, the M4 16.
fn generation(architecture: &str) -> Option<u32> {
    let rest = architecture.strip_prefix("applegpu_g")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

/// Opens the GPU of this Mac.
///
/// # Errors
/// This build, this version of macOS or this machine cannot do it, or its driver fails. It does not panic.
pub fn open_metal() -> Result<Device, MetalUnavailable> {
    #[cfg(not(metal))]
    return Err(MetalUnavailable::NotBuilt);
    #[cfg(metal)]
    {
        Prerequisites::of_this_machine()?.check()?;
        match caught_panic(|| Device::new_metal(0)) {
            Ok(Ok(device)) => Ok(device),
            Ok(Err(error)) => Err(MetalUnavailable::Failed {
                // candle appends a backtrace to some.
                reason: error.to_string().lines().next().unwrap_or_default().to_owned(),
            }),
            Err(reason) => Err(MetalUnavailable::Failed { reason }),
        }
    }
}

/// What Metal says about `device`; `None` for other devices.
pub fn metal_gpu(device: &Device) -> Option<MetalGpu> {
    match device {
        #[cfg(metal)]
        Device::Metal(device) => {
            use objc2_metal::MTLDevice as _;
            let gpu = device.metal_device();
            Some(MetalGpu {
                name: gpu.as_ref().name().to_string(),
                architecture: gpu.architecture_name(),
                working_set: gpu.recommended_max_working_set_size() as u64,
                longest_buffer: gpu.as_ref().maxBufferLength() as u64,
            })
        }
        _ => None,
    }
}

/// What has to be there before candle is asked for a device.
#[cfg(any(metal, test))]
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prerequisites {
    is_intel_build: bool,
    /// The version of macOS, such as `14.5`, if it can be read.
    macos: Option<String>,
    has_residency_sets: bool,
    gpus: usize,
}

#[cfg(any(metal, test))]
impl Prerequisites {
    #[cfg(metal)]
    fn of_this_machine() -> Result<Self, MetalUnavailable> {
        let gpus = caught_panic(|| candle_metal_kernels::metal::Device::all().len());
        Ok(Self {
            is_intel_build: cfg!(all(target_os = "macos", target_arch = "x86_64")),
            macos: macos_version(),
            has_residency_sets: has_residency_sets(),
            gpus: gpus.map_err(|reason| MetalUnavailable::Failed { reason })?,
        })
    }

    fn check(&self) -> Result<(), MetalUnavailable> {
        if self.is_intel_build {
            return Err(MetalUnavailable::IntelBuild);
        }
        let major = self.macos.as_deref().and_then(major);
        if major.is_some_and(|major| major < OLDEST_MACOS) || !self.has_residency_sets {
            let version = self.macos.clone().unwrap_or_else(|| "of this version".to_owned());
            return Err(MetalUnavailable::OldSystem { version });
        }
        if self.gpus == 0 {
            return Err(MetalUnavailable::NoGpu);
        }
        Ok(())
    }
}

/// The first number of a version.
#[cfg(any(metal, test))]
fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(target_os = "macos")]
fn macos_version() -> Option<String> {
    use sysctl::{Ctl, Sysctl};
    Ctl::new("kern.osproductversion").ok()?.value_string().ok()
}

/// A stand-in for Metal runs on a system without a version of macOS.
#[cfg(all(metal, not(target_os = "macos")))]
fn macos_version() -> Option<String> {
    None
}

/// Whether the class exists that candle asks for without a check.
#[cfg(target_os = "macos")]
fn has_residency_sets() -> bool {
    objc2::runtime::AnyClass::get(c"MTLResidencySetDescriptor").is_some()
}

#[cfg(all(metal, not(target_os = "macos")))]
fn has_residency_sets() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(macos: &str) -> Prerequisites {
        Prerequisites {
            is_intel_build: false,
            macos: Some(macos.to_owned()),
            has_residency_sets: major(macos).is_none_or(|major| major >= OLDEST_MACOS),
            gpus: 1,
        }
    }

    #[test]
    fn candle_is_asked_only_where_it_does_not_panic() {
        for version in ["15.0", "15.7.1", "26.0", "26"] {
            assert_eq!(mac(version).check(), Ok(()), "{version}");
        }
        for version in ["14.5", "13.7.2", "12", "11.0.1"] {
            let old = mac(version).check().unwrap_err();
            let text = format!("macOS {version} is too old, it needs macOS 15 or later");
            assert_eq!(old.to_string(), text);
        }
        // The class decides where the version cannot be read, or is not to be trusted.
        let unread = Prerequisites {
            macos: None,
            ..mac("15.0")
        };
        assert_eq!(unread.check(), Ok(()));
        for macos in [None, Some("15.0".to_owned())] {
            let without = Prerequisites {
                macos,
                has_residency_sets: false,
                ..mac("15.0")
            };
            assert!(matches!(without.check(), Err(MetalUnavailable::OldSystem { .. })));
        }
        let virtual_machine = Prerequisites {
            gpus: 0,
            ..mac("15.0")
        };
        assert_eq!(virtual_machine.check(), Err(MetalUnavailable::NoGpu));
        let intel = Prerequisites {
            is_intel_build: true,
            ..mac("15.0")
        };
        assert_eq!(intel.check(), Err(MetalUnavailable::IntelBuild));
    }

    #[test]
    fn generations_are_read_from_the_architecture() {
        let gpu = |architecture: &str| MetalGpu {
            name: "Apple".to_owned(),
            architecture: architecture.to_owned(),
            working_set: 0,
            longest_buffer: 0,
        };
        for (architecture, native) in [
            ("applegpu_g13g", Some(false)),
            ("applegpu_g14s", Some(false)),
            ("applegpu_g15d", Some(true)),
            ("applegpu_g16p", Some(true)),
            ("applegpu_g17", Some(true)),
            ("applegpu_gx", None),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(gpu(architecture).has_native_bf16(), native, "{architecture}");
        }
    }

    #[cfg(not(metal))]
    #[test]
    fn a_build_without_metal_says_so() {
        assert_eq!(open_metal().err(), Some(MetalUnavailable::NotBuilt));
        assert_eq!(metal_gpu(&Device::Cpu), None);
    }
}
