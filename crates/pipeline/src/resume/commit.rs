//! Commits on a separate thread, so that no step waits for the disk.

use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

/// A commit in progress.
#[derive(Debug)]
pub(super) struct Commit {
    begin: Instant,
    thread: JoinHandle<(Instant, io::Result<()>)>,
}

/// A finished commit, successful or not.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) result: io::Result<()>,
}

impl Commit {
    /// Starts `work`, which writes the state.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn begin(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let begin = Instant::now();
        let thread = std::thread::Builder::new().name("commit".to_owned()).spawn(|| {
            let result = work();
            (Instant::now(), result)
        })?;
        Ok(Self { begin, thread })
    }

    /// Whether it is finished, so that [`Commit::wait`] returns at once.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it is finished.
    pub(super) fn wait(self) -> Committed {
        let begin = self.begin;
        let panicked = |_| {
            (
                Instant::now(),
                Err(io::Error::other("the committing thread panicked")),
            )
        };
        let (end, result) = self.thread.join().unwrap_or_else(panicked);
        Committed { begin, end, result }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn nobody_waits_for_it_who_need_not() {
        let (go_on, gate) = channel::<()>();
        let commit = Commit::begin(move || gate.recv().map_err(io::Error::other)).unwrap();
        assert!(!commit.has_ended());
        go_on.send(()).unwrap();
        let committed = commit.wait();
        assert!(committed.result.is_ok() && committed.end >= committed.begin);
    }

    #[test]
    fn a_failure_is_reported() {
        let full = || Err(io::ErrorKind::StorageFull.into());
        let error = Commit::begin(full).unwrap().wait().result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
