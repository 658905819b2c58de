//! The readings of a run, in order, each with its moment and its label.

use std::time::Instant;

use serde::Serialize;

use crate::{Bytes, MemoryInfo, memory_info};

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
}

/// The readings of a run.
#[derive(Debug)]
pub struct Timeline {
    start: Instant,
    readings: Vec<Reading>,
}

impl Timeline {
    /// A timeline that begins now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            readings: Vec::new(),
        }
    }

    /// Reads the memory now and keeps it under `label`.
    pub fn read(&mut self, label: &str) -> &Reading {
        let seconds = self.start.elapsed().as_secs_f64();
        self.readings.push(Reading {
            label: label.to_owned(),
            seconds,
            memory: memory_info(),
        });
        &self.readings[self.readings.len() - 1]
    }

    /// The readings so far, oldest first.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// The most that was resident: the system's own figure where it keeps one, else the largest reading.
    pub fn peak(&self) -> Bytes {
        self.readings
            .iter()
            .map(|reading| reading.memory.process_peak.unwrap_or(reading.memory.process))
            .max()
            .unwrap_or_default()
    }
}
