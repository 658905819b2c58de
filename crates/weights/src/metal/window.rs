//! The memory of streamed blocks: pieces of it that are free, and those that the GPU has not given back yet.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use candle_metal_kernels::MetalKernelError;

use super::mapping::Mapping;
use crate::lock::lock;
use crate::{Error, Result};

/// How long pieces are waited for before the GPU is. The commands of one block take less, except on the
/// slowest GPUs with the largest networks.
const TIMEOUT: Duration = Duration::from_secs(5);
/// As long, on a GPU that gives memory back only when it is waited for.
const SHORT_TIMEOUT: Duration = Duration::from_millis(20);
/// As long, after the GPU was waited for. Metal may drop what commands held a moment after their end.
const TIMEOUT_AFTER_DRAIN: Duration = Duration::from_millis(500);
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
            let limit = if has_drained {
                TIMEOUT_AFTER_DRAIN
            } else {
                timeout()
            };
            let (woken, timeout) = self
                .returned
                .wait_timeout(state, limit)
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

fn timeout() -> Duration {
    if GIVES_BACK_WHEN_WAITED_FOR.load(Ordering::Relaxed) {
        SHORT_TIMEOUT
    } else {
        TIMEOUT
    }
}

/// The error of a device without room for a buffer.
pub(super) fn no_buffer(reason: String) -> Error {
    let full = MetalKernelError::FailedToCreateResource("Buffer".to_owned());
    Error::Tensor(candle_core::Error::wrap(full).context(reason))
}

#[cfg(test)]
mod tests {
    use std::thread::{sleep, spawn};

    use super::super::mapping::PAGE;
    use super::*;

    fn never() -> Result<()> {
        panic!("the device was waited for")
    }

    fn take(window: &Arc<Window>, pages: usize) -> Piece {
        window.take(pages * PAGE, never).unwrap()
    }

    fn retire(window: &Window, piece: &Piece) {
        window.retire([address(&piece.mapping)].into_iter());
    }

    /// The pages of free pieces.
    fn free(window: &Window) -> Vec<usize> {
        let state = lock(&window.state);
        state.free.iter().map(|mapping| mapping.length() / PAGE).collect()
    }

    #[test]
    fn a_retired_piece_is_used_again() {
        let window = Arc::default();
        let mut piece = take(&window, 2);
        piece.mapping().bytes().fill(7);
        let place = address(&piece.mapping);
        retire(&window, &piece);
        drop(piece);
        assert_eq!(free(&window), [2]);
        let mut again = take(&window, 2);
        assert_eq!(address(&again.mapping), place);
        assert_eq!(again.mapping().bytes()[0], 7);
        // One that stays with its block is unmapped with it.
        drop(again);
        assert!(free(&window).is_empty());
    }

    #[test]
    fn pieces_of_other_lengths_make_room() {
        let window = Arc::default();
        let pieces = [1, 2, 3, 4].map(|pages| take(&window, pages));
        pieces.iter().for_each(|piece| retire(&window, piece));
        drop(pieces);
        let piece = take(&window, 5);
        // The last of four and three pages.
        assert_eq!(free(&window).len(), 2);
        assert!(free(&window).iter().sum::<usize>() <= 5);
        window.clear();
        assert!(free(&window).is_empty());
        // A piece outlives its window.
        retire(&window, &piece);
        drop(window);
        drop(piece);
    }

    #[test]
    fn nothing_is_mapped_while_a_piece_is_on_its_way() {
        let window = Arc::default();
        let piece = take(&window, 1);
        let place = address(&piece.mapping);
        retire(&window, &piece);
        let device = spawn(move || {
            sleep(Duration::from_millis(50));
            drop(piece);
        });
        let piece = take(&window, 1);
        assert_eq!(address(&piece.mapping), place);
        device.join().unwrap();

        // A device that gives nothing back by itself is waited for.
        GIVES_BACK_WHEN_WAITED_FOR.store(true, Ordering::Relaxed);
        retire(&window, &piece);
        let held = Mutex::new(Some(piece));
        let drained = window.take(PAGE, || {
            drop(lock(&held).take());
            Ok(())
        });
        let piece = drained.unwrap();
        assert_eq!(address(&piece.mapping), place);

        // One that fails is an error, and one that never gives it back does not stop the reader.
        retire(&window, &piece);
        let fails = || Err(no_buffer("it fails".to_owned()));
        assert!(window.take(PAGE, fails).is_err());
        let waits = Mutex::new(0);
        let count = || {
            *lock(&waits) += 1;
            Ok(())
        };
        let other = window.take(PAGE, count).unwrap();
        assert_ne!(address(&other.mapping), place);
        let third = window.take(PAGE, count).unwrap();
        assert_eq!(*lock(&waits), 1);
        drop((piece, other, third));
        assert!(free(&window).is_empty());
    }
}
