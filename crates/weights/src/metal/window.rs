//! The memory of streamed blocks: pieces of it that are free, and those that the GPU has not given back yet.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::buffer::no_buffer;
use super::mapping::Mapping;
use crate::Result;
use crate::lock::lock;

/// How long pieces are waited for before the GPU is. The commands of one block take less, except on the
/// slowest GPUs with the largest networks.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long, on a GPU that gives memory back only when it is waited for.
const LITTLE_PATIENCE: Duration = Duration::from_millis(20);
/// As long, after the GPU was waited for. Metal may drop what commands held a moment after their end.
const PATIENCE_AFTER: Duration = Duration::from_millis(500);
/// A GPU that is waited for in less time had nothing to do.
const IDLE: Duration = Duration::from_millis(100);

/// The bytes of free pieces in all windows.
static FREE: AtomicU64 = AtomicU64::new(0);
/// Whether the GPU had nothing to do when pieces were waited for in vain.
static GIVES_BACK_WHEN_WAITED_FOR: AtomicBool = AtomicBool::new(false);

/// The bytes that wait for the next streamed blocks, of all networks.
pub(super) fn free_bytes() -> u64 {
    FREE.load(Ordering::Relaxed)
}

/// The pieces of memory that the streamed blocks of a network share.
#[derive(Debug, Default)]
pub(super) struct Window {
    state: Mutex<State>,
    /// Notified when a retired piece has come back.
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Mapping>,
    /// The addresses of pieces whose blocks have had their turns, and which commands may still read.
    retired: HashSet<usize>,
}

impl Window {
    /// A piece of `length` bytes, which are whole pages: a free one of exactly this length, or a new one.
    ///
    /// As long as retired pieces are expected, they are waited for, and before a new one is mapped, at least
    /// as many bytes of free ones are unmapped, so that the window never grows. `drain` waits for the GPU. It
    /// is called once where no piece comes back for long. What does not come back then either is no longer
    /// waited for.
    pub(super) fn take(self: &Arc<Self>, length: usize, drain: impl Fn() -> Result<()>) -> Result<Piece> {
        let mut has_drained = false;
        let mut state = lock(&self.state);
        loop {
            if let Some(mapping) = state.take_free(length) {
                return Ok(self.piece(mapping));
            }
            if state.retired.is_empty() {
                break;
            }
            let patience = if has_drained { PATIENCE_AFTER } else { patience() };
            let (woken, timeout) = self
                .returned
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if !timeout.timed_out() {
                continue;
            }
            if has_drained {
                state.retired.clear();
                break;
            }
            drop(state);
            let begin = Instant::now();
            drain()?;
            GIVES_BACK_WHEN_WAITED_FOR.store(begin.elapsed() < IDLE, Ordering::Relaxed);
            has_drained = true;
            state = lock(&self.state);
        }
        let unmapped = state.make_room(length);
        drop(state);
        drop(unmapped);
        match Mapping::new(length) {
            Ok(mapping) => Ok(self.piece(mapping)),
            Err(error) => Err(no_buffer(format!("{length} bytes cannot be mapped: {error}"))),
        }
    }

    /// Expects the pieces at `addresses` back, to be used again. Others are unmapped once the GPU is done with
    /// them.
    pub(super) fn retire(&self, addresses: impl Iterator<Item = usize>) {
        lock(&self.state).retired.extend(addresses);
    }

    /// Unmaps the free pieces.
    pub(super) fn clear(&self) {
        let unmapped = lock(&self.state).make_room(usize::MAX);
        drop(unmapped);
    }

    fn piece(self: &Arc<Self>, mapping: Mapping) -> Piece {
        Piece {
            mapping,
            window: Arc::downgrade(self),
        }
    }

    /// Keeps the memory of a piece that was retired. Other memory is unmapped.
    fn take_back(&self, mapping: Mapping) {
        let mut state = lock(&self.state);
        if state.retired.remove(&address(&mapping)) {
            state.put_free(mapping);
            self.returned.notify_all();
        } else {
            drop(state);
            drop(mapping);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.clear();
    }
}

impl State {
    fn put_free(&mut self, mapping: Mapping) {
        FREE.fetch_add(mapping.length() as u64, Ordering::Relaxed);
        self.free.push(mapping);
    }

    /// Takes a free piece of exactly `length` bytes.
    fn take_free(&mut self, length: usize) -> Option<Mapping> {
        let index = self.free.iter().position(|mapping| mapping.length() == length)?;
        let mapping = self.free.swap_remove(index);
        FREE.fetch_sub(mapping.length() as u64, Ordering::Relaxed);
        Some(mapping)
    }

    /// Takes free pieces of together at least `length` bytes, or all of them.
    fn make_room(&mut self, length: usize) -> Vec<Mapping> {
        let mut taken = Vec::new();
        let mut missing = length;
        while missing > 0
            && let Some(mapping) = self.free.pop()
        {
            missing = missing.saturating_sub(mapping.length());
            FREE.fetch_sub(mapping.length() as u64, Ordering::Relaxed);
            taken.push(mapping);
        }
        taken
    }
}

/// Memory of a window. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Piece {
    mapping: Mapping,
    window: Weak<Window>,
}

impl Piece {
    pub(super) fn mapping(&mut self) -> &mut Mapping {
        &mut self.mapping
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // What belongs to no window any more is unmapped.
        if let Some(window) = self.window.upgrade() {
            window.take_back(std::mem::take(&mut self.mapping));
        }
    }
}

/// The address that a piece is known by.
fn address(mapping: &Mapping) -> usize {
    mapping.start().as_ptr() as usize
}

fn patience() -> Duration {
    if GIVES_BACK_WHEN_WAITED_FOR.load(Ordering::Relaxed) {
        LITTLE_PATIENCE
    } else {
        PATIENCE
    }
}
