//! Systems other than Linux: available memory, and on macOS the kernel's memory pressure level.

use sysinfo::System as Figures;

use super::MemoryDomain;
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
        #[cfg(target_os = "macos")]
        if let Some(mac) = crate::mac::MacMemory::read() {
            return vec![MemoryDomain {
                said: Some(mac.pressure),
                ..domain(mac.total, mac.available())
            }];
        }
        let machine = self.0.as_mut().map(|figures| {
            figures.refresh_memory();
            let total = Bytes(figures.total_memory());
            domain(total, crate::probe::available(figures))
        });
        machine
            .into_iter()
            .filter(|domain| domain.total > Bytes(0))
            .collect()
    }
}

/// A machine that reports no stalls.
fn domain(total: Bytes, available: Bytes) -> MemoryDomain {
    MemoryDomain {
        total,
        available,
        some_stalled: 0.0,
        all_stalled: 0.0,
        said: None,
    }
}
