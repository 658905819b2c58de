//! Where the bytes of a file come from: positioned reads from disk, or the binary itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A file that is read at given places, by any number of threads.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file on disk.
    Disk { path: PathBuf, file: File },
    /// A file that was built into the binary.
    Embedded { path: PathBuf, bytes: &'static [u8] },
}

impl Source {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        match File::open(&path) {
            Ok(file) => Ok(Self::Disk { path, file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::MissingFile { file: path }),
            Err(source) => Err(Error::Read { file: path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Disk { path, .. } | Self::Embedded { path, .. } => path,
        }
    }

    pub(crate) fn length(&self) -> Result<u64> {
        match self {
            Self::Disk { path, file } => {
                file.metadata()
                    .map(|metadata| metadata.len())
                    .map_err(|source| Error::Read {
                        file: path.clone(),
                        source,
                    })
            }
            Self::Embedded { bytes, .. } => Ok(bytes.len() as u64),
        }
    }

    /// Fills `buffer` with the bytes that begin at `offset`.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let result = match self {
            Self::Disk { file, .. } => read_exact_at(file, buffer, offset),
            Self::Embedded { bytes, .. } => usize::try_from(offset)
                .ok()
                .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?))
                .map(|range| buffer.copy_from_slice(range))
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
        };
        result.map_err(|source| Error::Read {
            file: self.path().to_owned(),
            source,
        })
    }
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
