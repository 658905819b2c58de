//! The store of a run's state on disk.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::Tensor;

use super::commit::{Commit, Committed};
use super::commit_interval::CommitInterval;
use super::lock::RunLock;
use super::runs::RunFiles;
use super::state::Description;
use crate::checksummed::{self, Durability};

/// The state of a run at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) description: Description,
    /// Latents by name. They share their storage with those of the run.
    pub(super) tensors: Vec<(String, Tensor)>,
}

/// The least work worth a commit. Otherwise many quick images would write all their latents.
const LEAST_WORK: Duration = Duration::from_millis(500);

/// The state files of a run, with the lock that makes this process their only writer.
#[derive(Debug)]
pub(super) struct StateStore {
    files: RunFiles,
    lock: RunLock,
    commit_interval: CommitInterval,
    /// The time of the last commit.
    last: Instant,
    under_way: Option<Commit>,
}

impl StateStore {
    pub(super) fn new(files: RunFiles, lock: RunLock) -> Self {
        Self {
            files,
            lock,
            commit_interval: CommitInterval::new(Instant::now()),
            last: Instant::now(),
            under_way: None,
        }
    }

    /// The path of the state file.
    pub(super) fn path(&self) -> &Path {
        &self.files.state
    }

    /// The outcome of the last commit, if it has finished since the last call.
    pub(super) fn outcome(&mut self) -> Option<io::Result<()>> {
        let ended = self.under_way.take_if(|commit| commit.has_ended())?;
        Some(self.end(ended.wait()))
    }

    /// Whether another commit is due and the previous one is finished; see [`CommitInterval`].
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let is_worth_it = now.saturating_duration_since(self.last) >= LEAST_WORK;
        self.under_way.is_none() && is_worth_it && self.commit_interval.is_due(now)
    }

    /// Starts to commit `snapshot` in the background.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn begin(&mut self, snapshot: Snapshot) -> io::Result<()> {
        let files = self.files.clone();
        self.last = Instant::now();
        self.under_way = Some(Commit::begin(move || write(&files, &snapshot))?);
        Ok(())
    }

    /// Commits `snapshot`, after any commit in progress.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn commit(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.wait();
        let begin = Instant::now();
        self.last = begin;
        let result = write(&self.files, snapshot);
        self.end(Committed {
            begin,
            end: Instant::now(),
            result,
        })
    }

    /// Removes the files from the disk.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.wait();
        self.files.remove(self.lock)
    }

    /// Waits for the commit in progress. Its error is ignored: the next commit meets it too.
    fn wait(&mut self) {
        if let Some(commit) = self.under_way.take() {
            let _ = self.end(commit.wait());
        }
    }

    fn end(&mut self, committed: Committed) -> io::Result<()> {
        self.commit_interval.note(committed.begin, committed.end);
        let bytes = fs::metadata(&self.files.state).map_or(0, |metadata| metadata.len());
        tracing::debug!(bytes, commit_interval = ?self.commit_interval, "the state of the run was committed");
        committed.result
    }
}

fn write(files: &RunFiles, snapshot: &Snapshot) -> io::Result<()> {
    let Snapshot { description, tensors } = snapshot;
    let tensors: Vec<(String, &Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor))
        .collect();
    checksummed::replace(
        &files.state,
        &files.part,
        Durability::Power,
        description,
        &tensors,
    )
}
