//! The store of a run's state on disk, and the commits to it.

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
    /// Latents, by name. They share their values with the run's.
    pub(super) tensors: Vec<(String, Tensor)>,
}

/// Less work than this is done again sooner than it is missed: many quick images would else have all of their latents
/// written.
const LEAST_WORK: Duration = Duration::from_millis(500);

/// The state files of a run, with the lock that makes this process their only writer.
#[derive(Debug)]
pub(super) struct StateStore {
    files: RunFiles,
    lock: RunLock,
    commit_interval: CommitInterval,
    /// When the state was last taken down.
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

    /// The file that the state is in.
    pub(super) fn path(&self) -> &Path {
        &self.files.state
    }

    /// How the commit went that was begun last, if it has ended since this was last asked.
    pub(super) fn outcome(&mut self) -> Option<io::Result<()>> {
        let ended = self.under_way.take_if(|commit| commit.has_ended())?;
        Some(self.end(ended.wait()))
    }

    /// Whether it is time for another commit, and the one before is over; see [`CommitInterval`].
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let is_worth_it = now.saturating_duration_since(self.last) >= LEAST_WORK;
        self.under_way.is_none() && is_worth_it && self.commit_interval.is_due(now)
    }

    /// Begins to put `snapshot` on disk; nobody waits for it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn begin(&mut self, snapshot: Snapshot) -> io::Result<()> {
        let files = self.files.clone();
        self.last = Instant::now();
        self.under_way = Some(Commit::begin(move || write(&files, &snapshot))?);
        Ok(())
    }

    /// Puts `snapshot` on disk, after what was begun before.
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

    /// Leaves nothing on disk.
    ///
    /// # Errors
    /// What is there cannot be removed.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.wait();
        self.files.remove(self.lock)
    }

    /// Waits for what was begun. What it failed with, if it did, is the fate of what comes after it too.
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
