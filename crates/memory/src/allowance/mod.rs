//! How much memory this process may use, and which limit decides it.
//!
//! The machine's memory is only one limit: a container is a control group with a limit, and a shell's
//! `ulimit` limits the process itself. The tightest limit counts.

#[cfg(any(target_os = "linux", test))]
mod limits;

use crate::ProcessMemory;
use crate::limit::Allowance;

/// The allowance of this process: the tightest of all limits. 0 on an unsupported system. `process` is its
/// memory, where the system counts more or less against it than the resident size.
pub fn allowance(process: Option<ProcessMemory>) -> Allowance {
    #[cfg(target_os = "linux")]
    if let Some(tightest) = limits::tightest(std::path::Path::new("/")) {
        return tightest;
    }
    let memory = crate::memory_info().with_process(process);
    #[cfg(target_os = "macos")]
    if let Some(mac) = crate::mac::MacMemory::read() {
        return mac.allowance(memory.process);
    }
    Allowance::available(memory.system_available, memory.process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    #[test]
    fn this_process_may_have_more_than_it_has() {
        let _alone = crate::PROCESS.lock();
        let (allowance, memory) = (allowance(None), crate::memory_info());
        assert!(allowance.bytes > Bytes(0), "{allowance:?}");
        assert!(
            allowance.bytes.0 <= memory.system_total.0 + memory.process.0,
            "{allowance:?} {memory:?}"
        );
        assert!(allowance.budget() < allowance.bytes);
    }
}
