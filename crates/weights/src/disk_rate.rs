//! How fast weights can be read from a disk.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::source::Source;

/// Bytes of one read: several pieces, as large tensors are read.
const READ: usize = 16 << 20;
/// The most bytes that are read.
const MOST: u64 = 256 << 20;
/// How long is read.
const LONGEST: Duration = Duration::from_millis(250);

/// The bytes a second at which the file at `path` is read from its disk, measured for a quarter of a second. Where the
/// system allows it, nothing comes from its cache. None if the file is too small or cannot be read.
pub fn disk_rate(path: &Path) -> Option<f64> {
    let source = Source::open(path.to_owned()).ok()?;
    source.forget(0, MOST);
    let mut buffer = vec![0; READ];
    let mut read = 0;
    let start = Instant::now();
    while read + READ as u64 <= source.length().min(MOST) && start.elapsed() < LONGEST {
        source.read_at(read, &mut buffer).ok()?;
        read += READ as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    (read > 0 && seconds > 0.0).then(|| read as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; READ + 1]).unwrap();
        assert!(disk_rate(&path).unwrap() > 0.0);
        std::fs::write(&path, "small").unwrap();
        assert_eq!(disk_rate(&path), None);
        assert_eq!(disk_rate(folder.path()), None);
    }
}
