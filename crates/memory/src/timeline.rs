//! What is known of a run's memory: its readings, its curve and its stages, each with its moment.

use std::fmt;

use serde::Serialize;

use crate::{Bytes, DeviceInfo, MemoryInfo, Sample};

/// One reading of a run's memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The point of the run: `After model load`, say.
    pub label: String,
    /// Seconds since the run began.
    pub seconds: f64,
    /// What was read.
    #[serde(flatten)]
    pub memory: MemoryInfo,
    /// The same of the device that computes; absent where it has no memory of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceInfo>,
    /// Bytes that were allocated, zero where nobody counts.
    pub allocated: Bytes,
    /// What a cleanup just before had given back to the system; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_back: Option<Bytes>,
}

/// `Process=0.9GB, System=35.4GB/64.0GB (55.3%), Device=5.6GB/79.2GB (7.1%)`
impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(formatter)?;
        match self.device {
            Some(device) => write!(formatter, ", {device}"),
            None => Ok(()),
        }
    }
}

/// A stage of a run, and the most that it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// The stage: `denoise`, say.
    pub name: String,
    /// When it began, in seconds since the run did.
    pub start: f64,
    /// When it ended, or was last looked at.
    pub end: f64,
    /// The most bytes that were allocated at a time, zero where nobody counts.
    pub allocated_peak: Bytes,
    /// The most bytes of the process that were resident.
    pub resident_peak: Bytes,
    /// The most bytes that were seen in use on the device, zero where it has no memory of its own.
    pub device_peak: Bytes,
    /// Bytes of weights that it read.
    pub weights_read: Bytes,
}

/// The memory of a run, from its beginning to some moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Timeline {
    /// The readings at the points that a run is watched at, oldest first. Of a long run those in the middle are left out.
    pub readings: Vec<Reading>,
    /// The curve between them, oldest first.
    pub samples: Vec<Sample>,
    /// The stages, oldest first. Of a long run those in the middle are left out.
    pub stages: Vec<Stage>,
    /// The most that was resident.
    pub peak: Bytes,
    /// Seconds from the beginning to this moment.
    pub seconds: f64,
}

impl Timeline {
    /// Bytes of weights that the run read.
    pub fn weights_read(&self) -> Bytes {
        self.samples.last().map_or(Bytes(0), |sample| sample.weights_read)
    }
}
