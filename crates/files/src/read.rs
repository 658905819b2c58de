//! Opens and reads one file.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// The reason why this program refuses to read a file. It is the inner error of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// The path is not a regular file. Reading it could block or have side effects.
    #[error("it is {found} and not a file")]
    NotAFile {
        /// The kind of the file, such as `a folder`.
        found: &'static str,
    },
    /// The file is longer than the limit for files of its kind.
    #[error("it is longer than the {limit} bytes that are read of such a file")]
    TooLong {
        /// The limit in bytes.
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

/// Opens the file at `path` for reading. Pipes, devices, sockets and folders are refused without blocking.
///
/// # Errors
/// The file does not exist, is not a regular file ([`Unreadable::NotAFile`]), or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a device can have side effects, so the kind is checked before. The path can be replaced
    // meanwhile, so the kind is checked again after.
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

/// Reads the file at `path`, of at most `limit` bytes. The buffer is not larger than the file.
///
/// # Errors
/// The errors of [`open`], or the file is longer ([`Unreadable::TooLong`]).
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_long = || io::Error::from(Unreadable::TooLong { limit });
    if length > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| too_long())?);
    // The file may grow meanwhile, and files of `/proc` report no length.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_long());
    }
    Ok(bytes)
}

/// Reads the file at `path` as text, of at most `limit` bytes.
///
/// # Errors
/// The errors of [`read_at_most`], or the file is not UTF-8.
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
