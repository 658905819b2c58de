//! Network calls that can be stopped. A blocking system call cannot be cancelled, so it runs on its own
//! thread, which is abandoned when the user stops.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::{Error, Result};

/// The interval at which `is_stopped` is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` on a thread and returns its result, unless `is_stopped` returns true first.
///
/// # Errors
/// The user stopped, or the system cannot start a thread.
pub(crate) fn unless_stopped<T: Send + 'static>(
    is_stopped: &dyn Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    start(move || drop(sender.send(work())))?;
    loop {
        if is_stopped() {
            return Err(Error::Stopped);
        }
        match receiver.recv_timeout(POLL_INTERVAL) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::NoThread { source: ended() }),
        }
    }
}

/// The chunks of a stream that a thread reads.
pub(crate) struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
}

impl Pieces {
    /// The maximum length of a chunk.
    const LONGEST: usize = 256 << 10;
    /// The number of chunks that are read ahead.
    const WAITING: usize = 2;

    /// Starts to read `stream`. The last chunk is an error or empty.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn of(mut stream: impl Read + Send + 'static) -> Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(Self::WAITING);
        start(move || {
            loop {
                let mut piece = vec![0; Self::LONGEST];
                let read = stream.read(&mut piece);
                let is_last = !matches!(read, Ok(1..));
                let read = read.map(|count| {
                    piece.truncate(count);
                    piece
                });
                // The receiver is gone once the user has stopped.
                if sender.send(read).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { receiver })
    }

    /// The next chunk, or `None` if none arrived within the polling interval.
    pub(crate) fn next(&self) -> Option<io::Result<Vec<u8>>> {
        match self.receiver.recv_timeout(POLL_INTERVAL) {
            Ok(piece) => Some(piece),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(ended())),
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name("network".to_owned());
    match thread.spawn(work) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::NoThread { source }),
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread of the network ended too soon")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_is_left_behind_where_somebody_stops() {
        assert_eq!(unless_stopped(&|| false, || 7).unwrap(), 7);
        let begun = Instant::now();
        let stopped = unless_stopped(&|| begun.elapsed() > POLL_INTERVAL, || {
            thread::sleep(Duration::from_secs(5))
        });
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_stream_comes_in_pieces_and_ends() {
        let pieces = Pieces::of(io::repeat(3).take(Pieces::LONGEST as u64 + 5)).unwrap();
        let mut lengths = Vec::new();
        while lengths.last() != Some(&0) {
            lengths.extend(pieces.next().map(|piece| piece.unwrap().len()));
        }
        assert_eq!(lengths.iter().sum::<usize>(), Pieces::LONGEST + 5);
    }
}
