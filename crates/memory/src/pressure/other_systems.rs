//! Systems other than Linux: available memory, and on macOS the kernel's memory pressure level.

use sysinfo::System as Figures;

use super::{MemoryDomain, Pressure};
use crate::Bytes;

/// One machine.
#[derive(Debug)]
pub(super) struct System(Option<Figures>);

impl System {
    pub(super) fn open() -> Self {
        Self(Figures::new().ok())
    }

    /// The machine. Empty if nothing can be read.
    pub(super) fn domains(&mut self) -> Vec<MemoryDomain> {
        let machine = self.0.as_mut().map(|figures| {
            figures.refresh_memory();
            MemoryDomain {
                total: Bytes(figures.total_memory()),
                available: crate::probe::available(figures),
                some_stalled: 0.0,
                all_stalled: 0.0,
                said: said(),
            }
        });
        machine
            .into_iter()
            .filter(|domain| domain.total > Bytes(0))
            .collect()
    }
}

/// The kernel's memory pressure level, which Activity Monitor shows as the colour of its graph.
#[cfg(target_os = "macos")]
fn said() -> Pressure {
    use sysctl::{Ctl, CtlValue, Sysctl};
    // From `sys/event.h`: the levels of `NOTE_MEMORYSTATUS_PRESSURE_WARN` and `_CRITICAL`.
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
