//! The pages of the program's own file that are in this process's memory: its code, and files that are built into it.

/// Drops the pages of the program's file from this process's resident memory. They stay in the system's page cache,
/// from which those that are used again come back without a read of the disk. Only pages that nothing has written to
/// are dropped. Other systems than Linux do not count such pages as the process's own, or have no such call.
pub fn release_program_pages() {
    #[cfg(target_os = "linux")]
    linux::release();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::ops::Range;

    /// A mapping of a file into memory, as `/proc/self/smaps` describes it.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(super) struct Mapping {
        pub(super) addresses: Range<usize>,
        pub(super) is_writable: bool,
        /// Kilobytes that are in memory.
        pub(super) resident: u64,
        /// Kilobytes that this process has written to, which are no longer those of the file.
        pub(super) anonymous: u64,
    }

    pub(super) fn release() {
        let unchanged = |mapping: &Mapping| !mapping.is_writable && mapping.anonymous == 0;
        for mapping in mappings().into_iter().filter(unchanged) {
            drop_pages(mapping.addresses);
        }
    }

    /// The mappings of the program's file. None where the system does not describe them.
    pub(super) fn mappings() -> Vec<Mapping> {
        let described = fs::read_link("/proc/self/exe")
            .ok()
            .and_then(|program| Some((program.to_str()?.to_owned(), fs::read("/proc/self/smaps").ok()?)));
        described.map_or(Vec::new(), |(program, smaps)| {
            mappings_of(&program, &String::from_utf8_lossy(&smaps))
        })
    }

    /// The mappings of `file` among those that `smaps` describes.
    pub(super) fn mappings_of(file: &str, smaps: &str) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        let mut is_of_file = false;
        for line in smaps.lines() {
            if let Some((mapping, path)) = first_line(line) {
                is_of_file = path == file;
                if is_of_file {
                    mappings.push(mapping);
                }
            } else if is_of_file
                && let Some(mapping) = mappings.last_mut()
                && let Some((name, value)) = line.split_once(':')
            {
                let kilobytes = value
                    .trim()
                    .strip_suffix(" kB")
                    .and_then(|value| value.parse().ok());
                match (name, kilobytes) {
                    ("Rss", Some(kilobytes)) => mapping.resident = kilobytes,
                    ("Anonymous", Some(kilobytes)) => mapping.anonymous = kilobytes,
                    _ => {}
                }
            }
        }
        mappings
    }

    /// A mapping and the path of its file, of a line such as `5581-55a0 r-xp 00589000 fe:00 77 /usr/bin/program`.
    fn first_line(line: &str) -> Option<(Mapping, &str)> {
        let mut rest = line;
        let mut fields = [""; 5];
        for field in &mut fields {
            rest = rest.trim_start();
            (*field, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        }
        let [addresses, permissions, ..] = fields;
        let (start, end) = addresses.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let mapping = Mapping {
            addresses: address(start)?..address(end)?,
            is_writable: permissions.contains('w'),
            // Until the lines below say otherwise, nothing may be dropped.
            anonymous: u64::MAX,
            resident: 0,
        };
        Some((mapping, rest.trim_start()))
    }

    #[allow(unsafe_code)]
    fn drop_pages(addresses: Range<usize>) {
        let start = std::ptr::with_exposed_provenance_mut(addresses.start);
        // SAFETY: the addresses are those of a private mapping of the program's file that is not writable and that
        // nothing has written to, also not the dynamic linker: after the call the pages have the same bytes, which the
        // system maps again when they are used. The program's file stays mapped as long as the program runs.
        unsafe {
            libc::madvise(start, addresses.len(), libc::MADV_DONTNEED);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::{Mapping, mappings, mappings_of};
    use super::*;

    /// Several megabytes that are part of the program's file.
    static CONTENT: [u8; 8 << 20] = [7; 8 << 20];

    fn sum() -> u64 {
        std::hint::black_box(&CONTENT)
            .iter()
            .map(|&byte| u64::from(byte))
            .sum()
    }

    fn resident() -> u64 {
        mappings().iter().map(|mapping| mapping.resident).sum()
    }

    #[test]
    fn pages_are_dropped_and_come_back() {
        assert_eq!(sum(), 7 * CONTENT.len() as u64);
        let before = resident();
        assert!(before >= 8 << 10, "{before} kB");
        release_program_pages();
        let after = resident();
        assert!(
            after + (7 << 10) < before,
            "{after} kB of {before} kB are still in memory"
        );
        assert_eq!(sum(), 7 * CONTENT.len() as u64);
    }

    #[test]
    fn mappings_are_those_of_the_file() {
        let smaps = "\
1000-3000 r--p 00000000 fe:00 77                           /opt/my program\n\
Size:                  8 kB\nRss:                   4 kB\nAnonymous:             0 kB\nVmFlags: rd mr\n\
3000-4000 rw-p 00002000 fe:00 77                           /opt/my program\n\
Rss:                   4 kB\nAnonymous:             4 kB\n\
5000-6000 r-xp 00000000 fe:00 78                           /usr/lib/libc.so.6\n\
Rss:                   4 kB\nAnonymous:             0 kB\n\
7000-8000 rw-p 00000000 00:00 0\n\
Rss:                   4 kB\nAnonymous:             4 kB\n";
        let mapping = |addresses, is_writable, anonymous| Mapping {
            addresses,
            is_writable,
            resident: 4,
            anonymous,
        };
        assert_eq!(
            mappings_of("/opt/my program", smaps),
            [
                mapping(0x1000..0x3000, false, 0),
                mapping(0x3000..0x4000, true, 4)
            ]
        );
        assert_eq!(mappings_of("/opt/my", smaps), []);
        // A system that does not say what was written to.
        let unsaid = mappings_of("/a", "1000-2000 r-xp 00000000 fe:00 7 /a\nRss: 4 kB\n");
        assert_eq!(unsaid[0].anonymous, u64::MAX);
        assert_eq!(mappings_of("/a", "1000-2000 r-xp\nnonsense\n"), []);
    }
}
