//! Parsers of Linux's `/proc` files. No file is opened here.

use crate::Bytes;

/// The field `name` of a text of lines like `MemAvailable:   20123 kB`.
pub(crate) fn field(text: &str, name: &str) -> Option<Bytes> {
    let of_field = |line: &str| -> Option<Bytes> {
        let value = line.strip_prefix(name)?.strip_prefix(':')?.trim();
        let kilobytes: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1 << 10).map(Bytes)
    };
    text.lines().find_map(of_field)
}

/// The resident pages of a `/proc/self/statm`: its second number.
pub(crate) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The bytes of a page, out of a `/proc/self/auxv`: pairs of machine words, a key and its value.
pub(crate) fn page_bytes(auxv: &[u8]) -> Option<u64> {
    /// `AT_PAGESZ` of elf.h.
    const PAGE_SIZE: usize = 6;
    const WORD: usize = size_of::<usize>();
    let mut words = auxv
        .as_chunks::<WORD>()
        .0
        .iter()
        .copied()
        .map(usize::from_ne_bytes);
    loop {
        let (key, value) = (words.next()?, words.next()?);
        if key == PAGE_SIZE {
            return Some(value as u64);
        }
    }
}

/// The share of the last ten seconds, in percent, in which tasks were stalled on memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Stalls {
    /// Some tasks.
    pub(crate) some: f64,
    /// All tasks.
    pub(crate) full: f64,
}

/// Parses `/proc/pressure/memory`; zeros if it cannot be parsed.
pub(crate) fn stalls(pressure: &str) -> Stalls {
    let average = |kind: &str| -> Option<f64> {
        let words = pressure.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = words
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("avg10="))?;
        value.parse().ok().filter(|percent: &f64| percent.is_finite())
    };
    Stalls {
        some: average("some ").unwrap_or_default(),
        full: average("full ").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:       24684092 kB\nMemFree:         6361088 kB\nMemAvailable:   21346304 kB\nHugePages_Total:       0\n";
        assert_eq!(field(text, "MemAvailable"), Some(Bytes(21_346_304 << 10)));
        assert_eq!(field(text, "MemTotal"), Some(Bytes(24_684_092 << 10)));
        for name in ["Mem", "Available", "HugePages_Total", ""] {
            assert_eq!(field(text, name), None, "{name}");
        }
        assert_eq!(field("MemTotal: 99999999999999999999 kB", "MemTotal"), None);
        assert_eq!(field(&format!("MemTotal: {} kB", u64::MAX), "MemTotal"), None);
    }

    #[test]
    fn pages_are_counted() {
        assert_eq!(resident_pages("2219 1024 883 190 0 1234 0\n"), Some(1024));
        assert_eq!(resident_pages("2219"), None);
        let auxv: Vec<u8> = [33_usize, 7, 6, 16_384, 0, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(page_bytes(&auxv), Some(16_384));
        assert_eq!(page_bytes(&auxv[..2 * size_of::<usize>() + 3]), None);
        assert_eq!(page_bytes(&[]), None);
    }

    #[test]
    fn stalls_are_read_and_their_absence_is_calm() {
        let text = "some avg10=12.50 avg60=3.00 avg300=0.50 total=1053819\nfull avg10=4.25 avg60=1.00 avg300=0.10 total=9\n";
        assert_eq!(
            stalls(text),
            Stalls {
                some: 12.5,
                full: 4.25
            }
        );
        for text in ["", "some", "some avg10=x\nfull avg10=NaN", "something else\n"] {
            assert_eq!(stalls(text), Stalls::default(), "{text}");
        }
    }
}
