//! macOS: memory that is available without taking any from a program.

use sysctl::{Ctl, CtlValue, Sysctl};

use crate::Bytes;

/// Free pages, purgeable pages and the page cache. Pages that programs used recently do not count, unlike in
/// other tools.
pub(crate) fn available() -> Option<Bytes> {
    const PAGES: [&str; 3] = [
        "vm.page_free_count",
        "vm.page_purgeable_count",
        "vm.page_pageable_external_count",
    ];
    let pages: Option<Vec<u64>> = PAGES.iter().map(|name| number(name)).collect();
    let pages = pages?.into_iter().fold(0, u64::saturating_add);
    Some(Bytes(pages.saturating_mul(number("hw.pagesize")?)))
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
