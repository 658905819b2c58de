//! Limits the size of the cache: the least recently used entries are removed first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{ENTRY, PART};

/// A temporary file older than this belongs to no running process.
const LONGEST_WRITE: Duration = Duration::from_secs(3600);

struct Entry {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// Removes the least recently used entries of `folder` until the rest has at most `limit` bytes, and
/// temporary files of killed processes. Another process may do the same at the same time.
pub(super) fn apply(folder: &Path, limit: u64, now: SystemTime) -> io::Result<()> {
    let mut entries = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        // The file was removed in the meantime.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let used = metadata.modified()?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(ENTRY) => entries.push(Entry {
                path,
                used,
                bytes: metadata.len(),
            }),
            Some(PART) if now.duration_since(used).is_ok_and(|age| age > LONGEST_WRITE) => remove(&path)?,
            _ => {}
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.bytes;
        if bytes > limit {
            remove(&entry.path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_latest_stay_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let write = |name: &str, bytes: usize, minutes: u64| {
            let path = folder.path().join(name);
            fs::write(&path, vec![0; bytes]).unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(now - Duration::from_secs(60 * minutes))
                .unwrap();
        };
        write("old.safetensors", 10, 30);
        write("newest.safetensors", 40, 10);
        write("older.safetensors", 50, 20);
        write("another's.txt", 1000, 1);
        write("at work.part", 1000, 59);
        write("forgotten.part", 1000, 61);
        let left = |limit| {
            apply(folder.path(), limit, now).unwrap();
            let files = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<String> = files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let others = ["another's.txt", "at work.part"];
        assert_eq!(
            left(100),
            [
                &others[..],
                &["newest.safetensors", "old.safetensors", "older.safetensors"]
            ]
            .concat()
        );
        assert_eq!(
            left(99),
            [&others[..], &["newest.safetensors", "older.safetensors"]].concat()
        );
        assert_eq!(left(89), [&others[..], &["newest.safetensors"]].concat());
        assert_eq!(left(39), others);
    }
}
