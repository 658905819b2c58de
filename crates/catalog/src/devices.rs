//! [`Devices`]: the devices that the images of a run are shared out among.

use sd_pipeline::DeviceChoice;
use sd_pipeline::device::cuda_devices;

/// The devices of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// One.
    One(DeviceChoice),
    /// Several of one kind.
    Several(Vec<DeviceChoice>),
    /// Every NVIDIA GPU of the machine.
    EveryCuda,
}

impl Default for Devices {
    fn default() -> Self {
        Self::One(DeviceChoice::default())
    }
}

impl Devices {
    /// The first of them, for what needs one.
    pub fn first(&self) -> DeviceChoice {
        match self {
            Self::One(device) => *device,
            Self::Several(devices) => devices.first().copied().unwrap_or_default(),
            Self::EveryCuda => DeviceChoice::Cuda(0),
        }
    }

    /// All of them, as this machine has them. At least one, which may turn out not to exist when it is opened.
    pub fn all(&self) -> Vec<DeviceChoice> {
        match self {
            Self::One(device) => vec![*device],
            Self::Several(devices) => devices.clone(),
            Self::EveryCuda => (0..cuda_devices().max(1)).map(DeviceChoice::Cuda).collect(),
        }
    }
}
