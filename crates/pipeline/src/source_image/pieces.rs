//! Some byte ranges of a file as one reader, so that a decoder sees nothing else.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

/// The byte ranges of a file that a decoder sees.
#[derive(Debug, Clone, Default)]
pub(super) struct ByteRanges(Vec<Range<u64>>);

/// A reader of some byte ranges of a file, one after the other.
#[derive(Debug)]
pub(super) struct Pieces {
    file: BufReader<File>,
    ranges: Vec<Range<u64>>,
    /// The current range, and the position in it.
    at: usize,
    offset: u64,
}

impl ByteRanges {
    /// Appends a range.
    pub(super) fn push(&mut self, piece: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == piece.start => last.end = piece.end,
            _ if piece.is_empty() => {}
            _ => self.0.push(piece),
        }
    }

    /// The number of ranges.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Pieces {
    /// A reader of the ranges `ranges` of `file`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn new(mut file: BufReader<File>, ranges: &ByteRanges) -> io::Result<Self> {
        file.seek(SeekFrom::Start(ranges.0.first().map_or(0, |piece| piece.start)))?;
        Ok(Self {
            file,
            ranges: ranges.0.clone(),
            at: 0,
            offset: 0,
        })
    }

    /// Bytes from here to the end of the current range; 0 only at the very end.
    fn left(&mut self) -> io::Result<u64> {
        while let Some(piece) = self.ranges.get(self.at) {
            let left = piece.end - piece.start - self.offset;
            if left > 0 {
                return Ok(left);
            }
            self.at += 1;
            self.offset = 0;
            if let Some(next) = self.ranges.get(self.at) {
                self.file.seek(SeekFrom::Start(next.start))?;
            }
        }
        Ok(0)
    }

    fn position(&self) -> u64 {
        let before = self.ranges[..self.at].iter();
        before.map(|piece| piece.end - piece.start).sum::<u64>() + self.offset
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.left()?;
        if left == 0 {
            return Ok(&[]);
        }
        let bytes = self.file.fill_buf()?;
        Ok(&bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, amount: usize) {
        self.file.consume(amount);
        self.offset += amount as u64;
    }
}

impl Read for Pieces {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(target.len());
        target[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Seek for Pieces {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = || {
            self.ranges
                .iter()
                .map(|piece| piece.end - piece.start)
                .sum::<u64>()
        };
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(step) => self.position().checked_add_signed(step),
            SeekFrom::End(step) => length().checked_add_signed(step),
        };
        let before_start = || io::Error::from(io::ErrorKind::InvalidInput);
        let position = position.ok_or_else(before_start)?;
        (self.at, self.offset) = (0, position);
        while let Some(piece) = self.ranges.get(self.at) {
            let length = piece.end - piece.start;
            if self.offset < length {
                self.file.seek(SeekFrom::Start(piece.start + self.offset))?;
                return Ok(position);
            }
            self.offset -= length;
            self.at += 1;
        }
        self.offset = 0;
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_decoder_sees_the_pieces_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789abcdef").unwrap();
        let mut ranges = ByteRanges::default();
        for piece in [1..3, 3..4, 4..4, 8..12, 15..16] {
            ranges.push(piece);
        }
        assert_eq!(ranges.len(), 3);
        let mut pieces = Pieces::new(BufReader::with_capacity(3, file), &ranges).unwrap();
        let mut text = String::new();
        pieces.read_to_string(&mut text).unwrap();
        assert_eq!(text, "12389abf");
        assert_eq!(pieces.seek(SeekFrom::Start(4)).unwrap(), 4);
        assert_eq!(pieces.seek(SeekFrom::Current(-2)).unwrap(), 2);
        text.clear();
        pieces.read_to_string(&mut text).unwrap();
        assert_eq!(text, "389abf");
        assert!(pieces.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(pieces.seek(SeekFrom::Start(20)).unwrap(), 20);
        assert_eq!(pieces.read(&mut [0; 4]).unwrap(), 0);
    }
}
