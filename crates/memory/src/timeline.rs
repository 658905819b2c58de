//! The memory record of a run: readings, curve and stages, each with its time.

use std::fmt;

use serde::Serialize;

use crate::{Bytes, DeviceInfo, MemoryInfo, Sample};

/// One reading of a run's memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The point of the run, such as `After model load`.
    pub label: String,
    /// Seconds since the run began.
    pub seconds: f64,
    /// The reading of the machine and the process.
    #[serde(flatten)]
    pub memory: MemoryInfo,
    /// The reading of the GPU; absent if it has no memory of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceInfo>,
    /// Allocated bytes; 0 without a counting allocator.
    pub allocated: Bytes,
    /// Bytes that a cleanup just before had returned to the system; absent if there was none.
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

/// A stage of a run and its peaks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// The name of the stage, such as `denoise`.
    pub name: String,
    /// Start, in seconds since the start of the run.
    pub start: f64,
    /// End, or the time of the last reading.
    pub end: f64,
    /// The peak of allocated bytes; 0 without a counting allocator.
    pub allocated_peak: Bytes,
    /// The peak of the process's resident size.
    pub resident_peak: Bytes,
    /// The highest memory in use on the GPU; 0 if it has no memory of its own.
    pub device_peak: Bytes,
    /// Bytes of weights that the stage read.
    pub weights_read: Bytes,
}

/// The memory record of a run so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Timeline {
    /// The readings that the run took, oldest first. Those in the middle of a long run are left out.
    pub readings: Vec<Reading>,
    /// The memory curve, oldest first.
    pub samples: Vec<Sample>,
    /// The stages, oldest first. Those in the middle of a long run are left out.
    pub stages: Vec<Stage>,
    /// The peak of the process's resident size.
    pub peak: Bytes,
    /// Seconds since the start of the run.
    pub seconds: f64,
}

impl Timeline {
    /// Bytes of weights that the run read.
    pub fn weights_read(&self) -> Bytes {
        self.samples.last().map_or(Bytes(0), |sample| sample.weights_read)
    }
}
