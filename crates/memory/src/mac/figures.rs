//! The figures, as sysctl gives them. The names are those of xnu's `bsd/vm/vm_unix.c` and
//! `bsd/kern/kern_memorystatus.c`.

use sysctl::{Ctl, CtlValue, Sysctl};

use super::memory::MacMemory;
use crate::{Bytes, Pressure};

impl MacMemory {
    /// Reads the figures; `None` if the kernel does not give one that is needed. Takes some microseconds.
    pub(crate) fn read() -> Option<Self> {
        // The kernel's pages, which are larger than those of a program for Intel chips.
        let page = number("vm.pagesize").or_else(|| number("hw.pagesize"))?;
        let pages = |name| Some(Bytes(number(name)?.saturating_mul(page)));
        Some(Self {
            total: Bytes(number("hw.memsize")?),
            free: pages("vm.page_free_count")?,
            purgeable: pages("vm.page_purgeable_count")?,
            file_backed: pages("vm.page_pageable_external_count")?,
            pageable_percent: number("kern.memorystatus_level").and_then(|percent| percent.try_into().ok()),
            pressure: pressure(),
        })
    }
}

/// The kernel's memory pressure level; calm if it gives none.
fn pressure() -> Pressure {
    // The levels of `NOTE_MEMORYSTATUS_PRESSURE_WARN` and `_CRITICAL` in `sys/event.h`.
    const WARNING: u64 = 2;
    const CRITICAL: u64 = 4;
    match number("kern.memorystatus_vm_pressure_level") {
        Some(level) if level >= CRITICAL => Pressure::Critical,
        Some(level) if level >= WARNING => Pressure::Tight,
        _ => Pressure::Calm,
    }
}

/// The limit on memory that GPUs may wire; `None` if it is 0, the system's default.
pub(super) fn wired_limit() -> Option<Bytes> {
    let megabytes = number("iogpu.wired_limit_mb").filter(|&megabytes| megabytes > 0)?;
    Some(Bytes(megabytes.saturating_mul(1 << 20)))
}

fn number(name: &str) -> Option<u64> {
    match Ctl::new(name).ok()?.value().ok()? {
        CtlValue::Int(value) | CtlValue::S32(value) => u64::try_from(value).ok(),
        CtlValue::Uint(value) | CtlValue::U32(value) => Some(value.into()),
        CtlValue::Long(value) | CtlValue::S64(value) => u64::try_from(value).ok(),
        CtlValue::Ulong(value) | CtlValue::U64(value) => Some(value),
        _ => None,
    }
}
