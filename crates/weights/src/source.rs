//! Positioned reads of model files, on disk or built into the binary.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::{Error, Result, wrong_file};

/// The bytes of one read call. Reads are aligned to multiples of it in the file.
const PIECE: u64 = 4 << 20;
/// The number of threads that read one tensor, enough to saturate an SSD.
const READERS: usize = 4;

static BYTES_READ: AtomicU64 = AtomicU64::new(0);

/// The bytes of weights that this process has read so far.
pub fn bytes_read() -> u64 {
    BYTES_READ.load(Ordering::Relaxed)
}

/// A file that any number of threads read at given offsets.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file on disk, with its length and modification time at opening.
    Disk {
        path: PathBuf,
        file: File,
        length: u64,
        modified: Option<SystemTime>,
    },
    /// A file that is built into the binary.
    Embedded {
        path: PathBuf,
        bytes: &'static [u8],
        digest: &'static str,
    },
    /// A file on a disk that fails after a number of reads.
    #[cfg(test)]
    Failing {
        path: PathBuf,
        whole: &'static [u8],
        reads: AtomicUsize,
    },
}

impl Source {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let opened = sd_files::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) => {
                read_no_more_than_asked(&file);
                if let Some(error) = what_it_is_instead(&file, metadata.len(), &path) {
                    return Err(error);
                }
                Ok(Self::Disk {
                    path,
                    file,
                    length: metadata.len(),
                    modified: metadata.modified().ok(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::MissingFile { file: path }),
            Err(source) => Err(Error::Read { file: path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Disk { path, .. } | Self::Embedded { path, .. } => path,
            #[cfg(test)]
            Self::Failing { path, .. } => path,
        }
    }

    /// The length of the file at opening.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Disk { length, .. } => *length,
            Self::Embedded { bytes, .. } => bytes.len() as u64,
            #[cfg(test)]
            Self::Failing { whole, .. } => whole.len() as u64,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on. Several threads share a large read.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = buffer.len() as u64;
        let result = match self {
            Self::Disk { file, .. } if bytes >= 2 * PIECE => read_in_pieces(file, offset, buffer),
            Self::Disk { file, .. } => read_exact_at(file, buffer, offset),
            Self::Embedded { bytes, .. } => copy_from(bytes, offset, buffer),
            #[cfg(test)]
            Self::Failing { whole, reads, .. } => {
                if reads.fetch_sub(1, Ordering::Relaxed) == 0 {
                    Err(io::Error::other("input/output error"))
                } else {
                    copy_from(whole, offset, buffer)
                }
            }
        };
        BYTES_READ.fetch_add(bytes, Ordering::Relaxed);
        result.map_err(|source| match source.kind() {
            // The header was checked against the length when the file was opened.
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::Read {
                file: self.path().to_owned(),
                source,
            },
        })
    }

    /// Refuses a file that was modified since it was opened, because tensors read before and after would not
    /// belong together.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let Self::Disk {
            path,
            file,
            length,
            modified,
        } = self
        else {
            return Ok(());
        };
        let metadata = file.metadata().map_err(|source| Error::Read {
            file: path.clone(),
            source,
        })?;
        if metadata.len() == *length && metadata.modified().ok() == *modified {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    /// Drops a range of the file from the page cache, where the system has a call for that.
    pub(crate) fn forget(&self, offset: u64, bytes: u64) {
        if let Self::Disk { file, .. } = self {
            forget(file, offset, bytes);
        }
    }

    fn changed(&self) -> Error {
        Error::Changed {
            file: self.path().to_owned(),
        }
    }
}

/// Recognises git-lfs pointers and web pages. A file that cannot be read fails later, when it is read.
fn what_it_is_instead(file: &File, length: u64, path: &Path) -> Option<Error> {
    let mut start = [0; wrong_file::LOOKED_AT];
    let start = &mut start[..length.min(wrong_file::LOOKED_AT as u64) as usize];
    read_exact_at(file, start, 0).ok()?;
    wrong_file::recognise(path, start, length)
}

fn copy_from(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?))
        .map(|range| buffer.copy_from_slice(range))
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads a long range with several threads, each of which takes the next unread piece.
fn read_in_pieces(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let to_boundary = ((PIECE - offset % PIECE) as usize).min(buffer.len());
    let (first, rest) = buffer.split_at_mut(to_boundary);
    let mut at = offset;
    let mut pieces = Vec::with_capacity(2 + rest.len() / PIECE as usize);
    for piece in std::iter::once(first).chain(rest.chunks_mut(PIECE as usize)) {
        let length = piece.len() as u64;
        pieces.push(std::sync::Mutex::new(Some((at, piece))));
        at += length;
    }
    let next = AtomicUsize::new(0);
    let read_some = || -> io::Result<()> {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let taken = piece.lock().ok().and_then(|mut piece| piece.take());
            if let Some((at, piece)) = taken {
                read_exact_at(file, piece, at)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // Where the system starts no further thread, the existing ones read everything.
        let others: Vec<_> = (1..READERS)
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, read_some).ok())
            .collect();
        let mut result = read_some();
        for other in others {
            let theirs = other
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a reading thread panicked")));
            result = result.and(theirs);
        }
        result
    })
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// Turns off read-ahead. The kernel takes several threads in one file for one sequential reader and would
/// read ahead into tensors that are not wanted.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn read_no_more_than_asked(file: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: as in `forget`.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM);
    }
}

#[cfg(not(target_os = "linux"))]
fn read_no_more_than_asked(_file: &File) {}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn forget(file: &File, offset: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(bytes)) = (libc::off_t::try_from(offset), libc::off_t::try_from(bytes)) else {
        return;
    };
    // SAFETY: the descriptor is open as long as the file is borrowed, and the call touches no memory of this
    // process. A failure only means that the advice is ignored.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), offset, bytes, libc::POSIX_FADV_DONTNEED);
    }
}

/// macOS has no call to drop pages, so caching is turned off for all further reads of the file.
#[cfg(target_os = "macos")]
#[allow(unsafe_code)]
fn forget(file: &File, _offset: u64, _bytes: u64) {
    use std::os::fd::AsRawFd;
    const ON: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as the file is borrowed, and the call touches no memory of this
    // process. A failure only means that the advice is ignored.
    unsafe {
        libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, ON);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn forget(_file: &File, _offset: u64, _bytes: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stretch_is_read_whole_from_any_offset() {
        let bytes: Vec<u8> = (0..3 * PIECE as u32 + 77)
            .map(|index| (index / 251) as u8)
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let source = Source::open(path).unwrap();
        for offset in [0, 5, PIECE as usize - 1] {
            let mut buffer = vec![0; bytes.len() - offset];
            source.read_at(offset as u64, &mut buffer).unwrap();
            assert!(buffer == bytes[offset..]);
            source.forget(0, 0);
        }
    }

    #[test]
    fn a_file_that_changes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [1; 100]).unwrap();
        let source = Source::open(path.clone()).unwrap();
        source.check_unchanged().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(matches!(source.check_unchanged(), Err(Error::Changed { .. })));
        file.set_len(50).unwrap();
        assert!(matches!(
            source.read_at(0, &mut [0; 100]),
            Err(Error::Changed { .. })
        ));
    }

    #[test]
    fn a_disk_that_fails_is_named_with_the_systems_reason() {
        let source = Source::Failing {
            path: "broken".into(),
            whole: &[7; 64],
            reads: AtomicUsize::new(1),
        };
        source.read_at(0, &mut [0; 64]).unwrap();
        match source.read_at(0, &mut [0; 64]) {
            Err(Error::Read { file, source }) => {
                assert_eq!(file, Path::new("broken"));
                assert_eq!(source.to_string(), "input/output error");
            }
            other => panic!("{other:?}"),
        }
    }
}
