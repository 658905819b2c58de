//! The beginnings of large files, which hold their headers, without downloading the files.

use std::io::Read;
use std::time::Instant;

use crate::client::{Want, interrupted};
use crate::pace::Pace;
use crate::retry::with_retries;
use crate::stoppable::Pieces;
use crate::{Error, Hub, Listing, Result};

impl Hub {
    /// The first `bytes` bytes of the file of `listing` at `path`, or all of a shorter file. Nothing is stored in the
    /// cache.
    ///
    /// # Errors
    /// The hub cannot be reached, or refuses the file.
    pub fn read_beginning(
        &self,
        listing: &Listing,
        path: &str,
        bytes: u64,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>> {
        self.check_online(listing.id.as_str())?;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let url = self.file_address(listing, path);
        with_retries(is_stopped, || {
            let response = self.client.request(&url, Want::First(bytes), is_stopped)?;
            if !response.status().is_success() {
                return Err(self.client.refusal(&url, &response, listing.subject(path)).into());
            }
            // A server that ignores the range sends the whole file, of which no more is read.
            let pieces = Pieces::of(response.into_body().into_reader().take(bytes))?;
            let mut pace = Pace::new(Instant::now());
            let mut beginning = Vec::new();
            loop {
                if is_stopped() {
                    return Err(Error::Stopped.into());
                }
                let next = pieces.next().transpose();
                let next = next.map_err(|error| interrupted(&url, &error.to_string()))?;
                let count = next.as_ref().map_or(0, Vec::len) as u64;
                if pace.is_too_slow(count, Instant::now()) {
                    return Err(interrupted(&url, Pace::REASON));
                }
                match next {
                    // The end.
                    Some(piece) if piece.is_empty() => break,
                    Some(piece) => beginning.extend(piece),
                    None => {}
                }
            }
            match listing.file(path).ok().and_then(|file| file.size) {
                Some(size) if (beginning.len() as u64) < bytes.min(size) => {
                    Err(interrupted(&url, "it ended early"))
                }
                _ => Ok(beginning),
            }
        })
    }
}
