//! The download of one file into the cache. A partial download is kept as `.incomplete` and renamed once it
//! is complete and matches the listed hash.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName};

use crate::client::{Want, interrupted};
use crate::digest::Hash;
use crate::download::{Part, Tally};
use crate::pace::Pace;
use crate::retry::{Failure, Retries, wait};
use crate::stoppable::Pieces;
use crate::{Cache, Error, Event, Hub, Listing, Observer, Result};

/// Bytes of a partial download that are hashed at a time.
const PIECE: usize = 256 << 10;

/// The partial download of a file.
struct PartialDownload<'a> {
    part: &'a Part,
    path: PathBuf,
    file: File,
    have: u64,
    hash: Hash,
    /// The length of the file on the server, if it differs from the listed one.
    other_length: Option<u64>,
}

impl<'a> PartialDownload<'a> {
    /// Opens the partial download of `part` that earlier calls left in the file at `path`.
    fn open(path: PathBuf, part: &'a Part, observer: &dyn Observer) -> Result<Self> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&path).map_err(Error::cache(&path))?;
        let mut partial = Self {
            part,
            path,
            file,
            have: 0,
            hash: part.listed.hash(part.size),
            other_length: None,
        };
        let mut piece = vec![0; PIECE];
        loop {
            let read = partial.file.read(&mut piece).map_err(partial.failed())?;
            if read == 0 {
                break;
            }
            if observer.is_stopped() {
                return Err(Error::Stopped);
            }
            partial.hash.update(&piece[..read]);
            partial.have += read as u64;
        }
        if partial.have > part.size {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Discards the bytes received so far.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(self.failed())?;
        self.file.seek(SeekFrom::Start(0)).map_err(self.failed())?;
        self.have = 0;
        self.hash = self.part.listed.hash(self.part.size);
        Ok(())
    }

    fn add(&mut self, piece: &[u8]) -> Result<()> {
        self.file.write_all(piece).map_err(self.failed())?;
        self.hash.update(piece);
        self.have += piece.len() as u64;
        Ok(())
    }

    /// The property that differs from the listing, with its listed and its actual value.
    fn difference(&mut self) -> Option<(&'static str, String, String)> {
        if let Some(length) = self.other_length {
            return Some(("its length", self.part.size.to_string(), length.to_string()));
        }
        let hash = std::mem::replace(&mut self.hash, Hash::Nothing);
        self.part.listed.difference(hash)
    }

    /// Moves the complete file to its final name.
    fn finish(self, name: &Path) -> Result<()> {
        self.file.sync_all().map_err(self.failed())?;
        fs::rename(&self.path, name).map_err(Error::cache(name))?;
        #[cfg(unix)]
        if let Some(folder) = name.parent() {
            // The rename is durable after an fsync of the folder. Where that is not possible, the system
            // writes it later.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::cache(self.path.clone())
    }
}

impl Hub {
    /// Makes sure that the blob of `part` is in the cache.
    pub(crate) fn obtain(
        &self,
        listing: &Listing,
        part: &Part,
        tally: &mut Tally,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let id = &listing.id;
        let name = self.cache.blob(id, &part.blob);
        let folder = name.parent().unwrap_or(&name);
        fs::create_dir_all(folder).map_err(Error::cache(folder))?;
        let mut is_first = true;
        let _lock = self.cache.lock(id, &part.blob, || {
            if std::mem::take(&mut is_first) {
                observer.observe(&Event::Waiting { file: &part.path });
            }
            wait(Duration::from_millis(100), || observer.is_stopped())
        })?;
        let before = tally.done;
        // Another process may have downloaded it meanwhile.
        let is_there = fs::metadata(&name).is_ok_and(|metadata| metadata.len() == part.size);
        if !is_there {
            self.check_online(id.as_str())?;
            let mut was_wrong = false;
            loop {
                let path = name.with_added_extension(Cache::PARTIAL);
                let mut partial = PartialDownload::open(path, part, observer)?;
                self.complete(&mut partial, listing, (before, tally), observer)?;
                let Some((what, wanted, found)) = partial.difference() else {
                    partial.finish(&name)?;
                    break;
                };
                fs::remove_file(&partial.path).map_err(partial.failed())?;
                // The partial download of an earlier call may be damaged, so one mismatch is retried.
                if std::mem::replace(&mut was_wrong, true) {
                    return Err(Error::Mismatch {
                        id: id.clone(),
                        file: part.path.clone(),
                        what,
                        wanted,
                        found,
                    });
                }
            }
        }
        tally.done = before + part.size;
        tally.tell(&part.path, observer);
        Ok(())
    }

    /// Downloads the missing bytes of `part` and retries transient failures. `tally` counts the bytes of all
    /// files; `before` is its value for the files before this one.
    fn complete(
        &self,
        partial: &mut PartialDownload<'_>,
        listing: &Listing,
        (before, tally): (u64, &mut Tally),
        observer: &mut dyn Observer,
    ) -> Result<()> {
        /// An attempt that brings this many new bytes resets the count of retries.
        const WORTH_A_TRY: u64 = 1 << 20;
        let part = partial.part;
        let mut retries = Retries::new();
        let mut most = partial.have;
        while partial.have < part.size && partial.other_length.is_none() {
            let received = self.receive(partial, listing, observer, |have, observer| {
                tally.done = before + have;
                tally.tell(&part.path, observer);
            });
            if let Err(failure) = received {
                if partial.have >= most + WORTH_A_TRY {
                    most = partial.have;
                    retries.restart();
                }
                let pause = retries.after(failure)?;
                observer.observe(&Event::Retrying {
                    file: &part.path,
                    reason: &pause.reason,
                    pause: pause.duration,
                });
                wait(pause.duration, || observer.is_stopped())?;
            }
        }
        Ok(())
    }

    /// Requests the missing bytes once. `tell` is called with the number of bytes present.
    fn receive(
        &self,
        partial: &mut PartialDownload<'_>,
        listing: &Listing,
        observer: &mut dyn Observer,
        mut tell: impl FnMut(u64, &mut dyn Observer),
    ) -> Result<(), Failure> {
        let part = partial.part;
        let url = self.file_address(listing, &part.path);
        tell(partial.have, observer);
        let response = self
            .client
            .request(&url, Want::From(partial.have), &|| observer.is_stopped())?;
        let header = |name: HeaderName| response.headers().get(name)?.to_str().ok();
        let length = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(CONTENT_RANGE).and_then(Range::read);
                if range.is_none_or(|range| range.first != partial.have) {
                    partial.restart()?;
                    return Err(interrupted(&url, "it sent another range than requested"));
                }
                range.and_then(|range| range.length)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                partial.restart()?;
                return Err(interrupted(&url, "it has no such part"));
            }
            // The server ignores the range and sends the whole file.
            status if status.is_success() => {
                if partial.have > 0 {
                    partial.restart()?;
                }
                header(CONTENT_LENGTH).and_then(|length| length.parse().ok())
            }
            _ => {
                return Err(self
                    .client
                    .refusal(&url, &response, listing.subject(&part.path))
                    .into());
            }
        };
        partial.other_length = length.filter(|length| *length != part.size);
        if partial.other_length.is_some() {
            return Ok(());
        }
        let pieces = Pieces::of(response.into_body().into_reader())?;
        let mut pace = Pace::new(Instant::now());
        loop {
            if observer.is_stopped() {
                return Err(Error::Stopped.into());
            }
            let next = pieces.next();
            let count = next.iter().flatten().map(Vec::len).sum::<usize>();
            if pace.is_too_slow(count as u64, Instant::now()) {
                return Err(interrupted(&url, Pace::REASON));
            }
            let Some(piece) = next else {
                continue;
            };
            let piece = piece.map_err(|error| interrupted(&url, &error.to_string()))?;
            let have = partial.have + piece.len() as u64;
            if have > part.size {
                partial.other_length = Some(have);
                return Ok(());
            }
            partial.add(&piece)?;
            tell(have, observer);
            if piece.is_empty() {
                break;
            }
        }
        if partial.have < part.size {
            let reason = format!("it ended after {} of {} bytes", partial.have, part.size);
            return Err(interrupted(&url, &reason));
        }
        Ok(())
    }
}

/// The value of a `Content-Range` header, such as `bytes 5-9/10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    /// The length of the whole file, if the header has it.
    length: Option<u64>,
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let (range, length) = text.trim().strip_prefix("bytes")?.split_once('/')?;
        let (first, _) = range.trim().split_once('-')?;
        Some(Self {
            first: first.parse().ok()?,
            length: length.trim().parse().ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_parsed() {
        let range = |first, length| Some(Range { first, length });
        assert_eq!(Range::read("bytes 5-9/10"), range(5, Some(10)));
        assert_eq!(Range::read("bytes 5-9/*"), range(5, None));
        assert_eq!(Range::read("bytes */10"), None);
        assert_eq!(Range::read("lines 5-9/10"), None);
    }
}
