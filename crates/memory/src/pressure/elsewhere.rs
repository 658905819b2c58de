//! Systems other than Linux: what they say is available, and on macOS how short of memory the kernel says it is.

use sysinfo::System as Figures;

use super::{Pressure, Room};
use crate::Bytes;

/// One machine.
#[derive(Debug)]
pub(super) struct System(Option<Figures>);

impl System {
    pub(super) fn open() -> Self {
        Self(Figures::new().ok())
    }

    /// The machine. Empty where nothing can be read.
    pub(super) fn rooms(&mut self) -> Vec<Room> {
        let machine = self.0.as_mut().map(|figures| {
            figures.refresh_memory();
            Room {
                total: Bytes(figures.total_memory()),
                available: crate::probe::available(figures),
                some_stalled: 0.0,
                all_stalled: 0.0,
                said: said(),
            }
        });
        machine.into_iter().filter(|room| room.total > Bytes(0)).collect()
    }
}

/// The kernel's memory-pressure level, the one that Activity Monitor colours its curve by.
#[cfg(target_os = "macos")]
fn said() -> Pressure {
    use sysctl::{Ctl, CtlValue, Sysctl};
    // Of `sys/event.h`: the levels of `NOTE_MEMORYSTATUS_PRESSURE_WARN` and `_CRITICAL`.
    const WARNING: i64 = 2;
    const CRITICAL: i64 = 4;
    let level = Ctl::new("kern.memorystatus_vm_pressure_level").and_then(|level| level.value());
    let level = match level {
        Ok(CtlValue::Int(level)) => i64::from(level),
        Ok(CtlValue::Uint(level)) => i64::from(level),
        _ => return Pressure::Calm,
    };
    if level >= CRITICAL {
        Pressure::Critical
    } else if level >= WARNING {
        Pressure::Tight
    } else {
        Pressure::Calm
    }
}

#[cfg(not(target_os = "macos"))]
fn said() -> Pressure {
    Pressure::Calm
}
