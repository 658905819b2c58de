//! Reads a header from start to end through a small buffer.

use super::bad;
use crate::source::Source;
use crate::{Error, Result};

/// The bytes that are read at a time.
const BUFFER: u64 = 64 << 10;
/// The longest header. Vocabularies of large language models have a tenth.
const MAXIMUM_HEADER_BYTES: u64 = 256 << 20;

/// A place in a file.
pub(super) struct Cursor<'a> {
    source: &'a Source,
    /// The offset of the first byte of the buffer.
    start: u64,
    buffer: Vec<u8>,
    /// The number of bytes of the buffer before the place.
    used: usize,
}

impl<'a> Cursor<'a> {
    /// The place at `offset`.
    pub(super) fn new(source: &'a Source, offset: u64) -> Self {
        Self {
            source,
            start: offset,
            buffer: Vec::new(),
            used: 0,
        }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// The offset of the place.
    pub(super) fn offset(&self) -> u64 {
        self.start + self.used as u64
    }

    /// Fails unless the file has `bytes` more.
    fn expect(&self, bytes: u64) -> Result<()> {
        let end = self.offset().saturating_add(bytes);
        if end > self.source.length() {
            return Err(Error::Truncated {
                file: self.source.path().to_owned(),
                promised: end,
                found: self.source.length(),
            });
        }
        if end > MAXIMUM_HEADER_BYTES {
            let reason = format!("its header is longer than {MAXIMUM_HEADER_BYTES} bytes");
            return Err(bad(self.source, reason));
        }
        Ok(())
    }

    fn take(&mut self, target: &mut [u8]) -> Result<()> {
        self.expect(target.len() as u64)?;
        let mut filled = 0;
        while filled < target.len() {
            if self.used == self.buffer.len() {
                self.start = self.offset();
                self.used = 0;
                let bytes = BUFFER.min(self.source.length() - self.start);
                self.buffer.resize(bytes as usize, 0);
                self.source.read_at(self.start, &mut self.buffer)?;
            }
            let available = &self.buffer[self.used..];
            let count = available.len().min(target.len() - filled);
            target[filled..filled + count].copy_from_slice(&available[..count]);
            filled += count;
            self.used += count;
        }
        Ok(())
    }

    /// Moves on by `bytes`.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<()> {
        self.expect(bytes)?;
        let rest = (self.buffer.len() - self.used) as u64;
        if bytes <= rest {
            self.used += bytes as usize;
        } else {
            self.start = self.offset() + bytes;
            self.used = 0;
            self.buffer.clear();
        }
        Ok(())
    }

    pub(super) fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES]> {
        let mut bytes = [0; BYTES];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text of at most `limit` bytes, which messages call `what`. Bytes that are not UTF-8 are replaced.
    pub(super) fn text(&mut self, limit: u64, what: &str) -> Result<String> {
        let length = self.u64()?;
        if length > limit {
            let reason = format!("it has {what} of {length} bytes, and at most {limit} are read");
            return Err(bad(self.source, reason));
        }
        self.text_of(length)
    }

    /// A text of `length` bytes, as [`Cursor::text`].
    pub(super) fn text_of(&mut self, length: u64) -> Result<String> {
        self.expect(length)?;
        let mut bytes = vec![0; length as usize];
        self.take(&mut bytes)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}
