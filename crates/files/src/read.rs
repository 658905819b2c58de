//! Opening and reading one file.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Why the system could read a file and this program does not. It is the inner error of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// Reading could wait for ever, or have effects.
    #[error("it is {found} and not a file")]
    NotAFile {
        /// What it is: `a folder`, say.
        found: &'static str,
    },
    /// It is longer than what is read of such files.
    #[error("it is longer than the {limit} bytes that are read of such a file")]
    TooLong {
        /// Bytes that would have been read.
        limit: u64,
    },
}

impl From<Unreadable> for io::Error {
    fn from(reason: Unreadable) -> Self {
        let kind = match reason {
            Unreadable::NotAFile { .. } => io::ErrorKind::InvalidInput,
            Unreadable::TooLong { .. } => io::ErrorKind::FileTooLarge,
        };
        Self::new(kind, reason)
    }
}

/// Opens the file at `path` for reading. Pipes, devices, sockets and folders are refused; none is waited for.
///
/// # Errors
/// There is none, it is no regular file ([`Unreadable::NotAFile`]), or the system refuses.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a device can have effects of its own, so it is looked at before and, as it may be replaced, after.
    check(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Unreadable::NotAFile {
        found: kind_of(metadata.file_type()),
    }
    .into())
}

fn kind_of(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() {
        "a folder"
    } else {
        "something else"
    }
}

/// The whole of the file at `path`, which has at most `limit` bytes. No more memory is taken than it has bytes.
///
/// # Errors
/// As of [`open`], or it is longer ([`Unreadable::TooLong`]).
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_long = || io::Error::from(Unreadable::TooLong { limit });
    if length > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| too_long())?);
    // It may grow in the meantime; files of `/proc` have no length at all.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_long());
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As of [`read_at_most`], or it is not UTF-8.
pub fn read_text_at_most(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read_at_most(path, limit)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: &io::Error) -> Option<&Unreadable> {
        error.get_ref()?.downcast_ref()
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_at_most(&path, 4).unwrap(), b"four");
        let error = read_at_most(&path, 3).unwrap_err();
        assert_eq!(reason(&error), Some(&Unreadable::TooLong { limit: 3 }));
        std::fs::write(&path, [0xff]).unwrap();
        let error = read_text_at_most(&path, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_length_that_is_claimed_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read_at_most(&path, 1 << 20).unwrap_err();
        assert_eq!(reason(&error), Some(&Unreadable::TooLong { limit: 1 << 20 }));
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_folders_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for (path, found) in [
            (pipe.as_path(), "a pipe"),
            (Path::new("/dev/zero"), "a device"),
            (folder.path(), "a folder"),
        ] {
            let error = read_at_most(path, 10).unwrap_err();
            assert_eq!(reason(&error), Some(&Unreadable::NotAFile { found }), "{found}");
        }
    }
}
