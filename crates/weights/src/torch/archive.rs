//! The entries of the zip archive and their byte ranges.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::bad;
use crate::Result;
use crate::header::MAXIMUM_TENSORS;
use crate::source::Source;

/// The maximum size of a pickle. That of a large model is smaller than 1 MB.
const MAXIMUM_PICKLE_BYTES: u64 = 16 << 20;

/// The maximum number of bytes that are read to find the entries. The central directory has about 100 for
/// each.
const MAXIMUM_LIST_BYTES: u64 = 8 << 20;
/// The maximum number of entries, one for each tensor.
const MAXIMUM_ENTRIES: usize = MAXIMUM_TENSORS + 16;

/// The byte ranges of the entries, by their names below the only folder of the archive.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, Range>,
}

/// A byte range of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Archive {
    pub(super) fn open(source: &Source) -> Result<Self> {
        let damaged = |error: zip::result::ZipError| bad(source, format!("its archive is damaged ({error})"));
        let left = Cell::new(MAXIMUM_LIST_BYTES);
        let reader = BufReader::new(Reader {
            source,
            at: 0,
            left: &left,
        });
        let mut archive = ZipArchive::new(reader).map_err(damaged)?;
        if archive.len() > MAXIMUM_ENTRIES {
            let reason = format!(
                "it has {} entries, more than any network has tensors",
                archive.len()
            );
            return Err(bad(source, reason));
        }
        // The beginnings of entries are read from here on, of which there are not too many.
        left.set(u64::MAX);
        let mut entries = HashMap::new();
        let mut folder = None;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(damaged)?;
            let name = entry.name().map_err(damaged)?.into_owned();
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                return Err(bad(source, format!("its entry `{name}` is compressed")));
            }
            let range = Range {
                offset: entry.data_start().unwrap_or(u64::MAX),
                length: entry.size(),
            };
            let end = range.offset.checked_add(range.length);
            if end.is_none_or(|end| end > source.length()) {
                return Err(bad(
                    source,
                    format!("its entry `{name}` ends behind the file's end"),
                ));
            }
            if let Some(before) = name.strip_suffix("data.pkl")
                && (before.is_empty() || before.ends_with('/'))
            {
                folder = Some(before.to_owned());
            }
            entries.insert(name, range);
        }
        let Some(folder) = folder else {
            return Err(bad(source, "it is an archive without `data.pkl`"));
        };
        let entries = entries
            .into_iter()
            .filter_map(|(name, range)| Some((name.strip_prefix(&folder)?.to_owned(), range)))
            .collect();
        let archive = Self { entries };
        if archive
            .small(source, "byteorder")?
            .is_some_and(|order| order != b"little")
        {
            return Err(bad(
                source,
                "it was written on a machine with another order of bytes",
            ));
        }
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&self, source: &Source) -> Result<Vec<u8>> {
        let pickle = self.small(source, "data.pkl")?;
        pickle.ok_or_else(|| bad(source, "it is an archive without `data.pkl`"))
    }

    /// The bytes of the storage `key`.
    pub(super) fn storage(&self, key: &str) -> Option<Range> {
        self.entries.get(&format!("data/{key}")).copied()
    }

    /// The content of a small entry, if it exists.
    fn small(&self, source: &Source, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(&Range { offset, length }) = self.entries.get(name) else {
            return Ok(None);
        };
        if length > MAXIMUM_PICKLE_BYTES {
            return Err(bad(source, format!("its entry `{name}` is {length} bytes long")));
        }
        let mut bytes = vec![0; length as usize];
        source.read_at(offset, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A source as a stream.
struct Reader<'a> {
    source: &'a Source,
    at: u64,
    /// The number of bytes that may still be read.
    left: &'a Cell<u64>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.source.length().saturating_sub(self.at);
        let count = rest.min(buffer.len() as u64) as usize;
        let left = self.left.get().checked_sub(count as u64);
        self.left
            .set(left.ok_or_else(|| io::Error::other("its list of entries is too long"))?);
        self.source
            .read_at(self.at, &mut buffer[..count])
            .map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(step) => self.source.length().checked_add_signed(step),
            SeekFrom::Current(step) => self.at.checked_add_signed(step),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
