//! The memory of this process as its operating system accounts for it, where that is not the resident size.

/// The memory that counts against this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Now.
    pub now: u64,
    /// The peak since the process began.
    pub peak: u64,
}

/// The physical footprint of this process and its lifetime peak (macOS), which Activity Monitor and the tool
/// `footprint` show. It has the pages that the process wrote, in memory or compressed, and the buffers of its
/// GPU; not the clean pages of files that it maps, which the resident size has. `None` on other systems, and
/// where the kernel refuses it.
pub fn process_memory() -> Option<ProcessMemory> {
    #[cfg(target_os = "macos")]
    return of_macos();
    #[cfg(not(target_os = "macos"))]
    return None;
}

#[cfg(target_os = "macos")]
#[allow(unsafe_code)]
fn of_macos() -> Option<ProcessMemory> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage_info_v4>::zeroed();
    let id = libc::c_int::try_from(std::process::id()).ok()?;
    // SAFETY: with RUSAGE_INFO_V4 the kernel writes one `rusage_info_v4`, for which there is room, and keeps no
    // pointer to it. All its fields are integers, for which zeroed memory is valid, so `usage` is initialised
    // also if nothing was written.
    let (outcome, usage) = unsafe {
        let outcome = libc::proc_pid_rusage(id, libc::RUSAGE_INFO_V4, usage.as_mut_ptr().cast());
        (outcome, usage.assume_init())
    };
    (outcome == 0).then_some(ProcessMemory {
        now: usage.ri_phys_footprint,
        peak: usage.ri_lifetime_max_phys_footprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_what_there_is_now() {
        let memory = process_memory();
        assert_eq!(memory.is_some(), cfg!(target_os = "macos"));
        assert!(
            memory.is_none_or(|memory| memory.now > 0 && memory.peak >= memory.now),
            "{memory:?}"
        );
    }
}
