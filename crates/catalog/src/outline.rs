//! Outlines of repositories for plans: their small files and the headers of their weights, without the weights.
//!
//! A plan reads headers only, so that a model can be planned before its gigabytes are downloaded. The weights of an
//! outline are sparse files of the right length.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sd_hub::Listing;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::wanted::Wanted;

/// What is read of a file of weights first, in bytes: the header of most.
const FIRST: u64 = 256 << 10;
/// The longest header of a safetensors file.
const LONGEST_HEADER: u64 = 100 << 20;
/// The length of a safetensors header's own length.
const LENGTH: usize = 8;
/// What is read of a GGUF file, whose header does not say how long it is: vocabularies may be in it.
const GGUF: u64 = 24 << 20;

impl Catalog {
    /// Writes the outline of `wanted` into `folder`. Returns the path of what it names there, and the bytes of its files
    /// on the hub.
    ///
    /// # Errors
    /// The hub fails or has no such repository, the repository lacks required files or has weights whose header is not
    /// at their beginning, or the folder cannot be written.
    pub(crate) fn outline(
        &self,
        wanted: &Wanted,
        folder: &Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(PathBuf, u64)> {
        let Wanted { reference, kind } = wanted;
        let listing = self.hub.list(reference, is_stopped)?;
        let mut bytes = 0;
        for path in self.used_files(&listing, reference, *kind, is_stopped)? {
            let (beginning, size) = self.beginning(&listing, &path, is_stopped)?;
            bytes += size;
            let file = folder.join(&path);
            write(&file, &beginning, size).map_err(|source| Error::Outline { path: file, source })?;
        }
        let path = match &reference.file {
            Some(file) => folder.join(file),
            None => folder.to_owned(),
        };
        Ok((path, bytes))
    }

    /// What is read of the file at `path`, and the length of the whole file.
    fn beginning(
        &self,
        listing: &Listing,
        path: &str,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(Vec<u8>, u64)> {
        let read = |bytes: u64| self.hub.read_beginning(listing, path, bytes, is_stopped);
        let size = listing.file(path)?.size;
        let beginning = match Path::new(path)
            .extension()
            .and_then(|extension| extension.to_str())
        {
            Some("safetensors") => {
                let first = read(FIRST)?;
                match header_end(&first) {
                    Some(end) if end > first.len() as u64 && size.is_none_or(|size| end <= size) => {
                        read(end)?
                    }
                    _ => first,
                }
            }
            Some("gguf") => read(GGUF)?,
            _ => self.hub.read(listing, path, is_stopped)?,
        };
        let size = size.unwrap_or(beginning.len() as u64);
        Ok((beginning, size))
    }
}

/// Where the header of a safetensors file ends that begins with `first`, unless it is too long.
fn header_end(first: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(*first.first_chunk::<LENGTH>()?);
    (length <= LONGEST_HEADER).then(|| length + LENGTH as u64)
}

/// Writes a file of `size` bytes that begins with `beginning`.
fn write(file: &Path, beginning: &[u8], size: u64) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create(file)?;
    file.write_all(beginning)?;
    file.set_len(size.max(beginning.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_too_long_has_no_end() {
        for length in [LONGEST_HEADER + 1, 1 << 63, u64::MAX] {
            assert_eq!(header_end(&length.to_le_bytes()), None);
        }
        assert_eq!(header_end(&5_u64.to_le_bytes()), Some(13));
        assert_eq!(header_end(&[1, 2, 3]), None);
    }
}
