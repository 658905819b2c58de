//! One forward pass over the blocks of a network.

use std::ops::Deref;
use std::sync::Arc;

use super::Blocks;
use super::count;
use super::list::LoadedBlock;
use super::state::BlockState;
use crate::buffers::Buffers;
use crate::{Residency, Result};

/// An iterator over the blocks of a network in the order of the forward pass.
pub struct Pass<'a, B: Send + Sync + 'static> {
    blocks: &'a Blocks<B>,
    /// Blocks of the pass, which are the first ones.
    count: usize,
    next: usize,
    /// Blocks whose turn is over.
    done: usize,
    /// Whether another pass probably follows, because one came before.
    repeats: bool,
}

impl<'a, B: Send + Sync + 'static> Pass<'a, B> {
    pub(super) fn begin(blocks: &'a Blocks<B>, count: usize, repeats: bool) -> Result<Self> {
        let this = Self {
            blocks,
            count,
            next: 0,
            done: 0,
            repeats,
        };
        count::begin(count);
        this.read_ahead(0)?;
        Ok(this)
    }

    /// Requests the blocks from `index` on that are not in memory: those that become resident, and as many
    /// streamed ones as fit into the window beside the block in use.
    fn read_ahead(&self, index: usize) -> Result<()> {
        let length = self.count;
        let round = if self.repeats { index + length } else { length };
        let mut free_slots = Residency::WINDOW - 1;
        let mut coming = Vec::new();
        {
            let states = self.blocks.states();
            for index in (index..round).map(|index| index % length) {
                match &states[index] {
                    BlockState::Resident(_) => continue,
                    BlockState::Unread if !self.blocks.is_in_host_memory(index) => continue,
                    BlockState::Unread => {}
                    BlockState::Streamed if free_slots == 0 => break,
                    BlockState::Streamed => free_slots -= 1,
                }
                coming.push(index);
            }
        }
        if coming.is_empty() {
            return Ok(());
        }
        self.blocks.with_reader(|reader| {
            let already = reader.in_flight();
            coming
                .into_iter()
                .skip(already)
                .for_each(|index| reader.request(index));
            Ok(())
        })
    }

    fn turn_of(&self, index: usize) -> Result<BlockGuard<B>> {
        self.release_under_pressure(index);
        let is_read_ahead = match self.blocks.states()[index] {
            BlockState::Streamed => true,
            BlockState::Unread => self.blocks.is_in_host_memory(index),
            BlockState::Resident(_) => false,
        };
        if !is_read_ahead {
            return Ok(BlockGuard(State::Resident(self.blocks.block(index)?)));
        }
        let (loaded, buffers) = self
            .blocks
            .with_reader(|reader| Ok((reader.take(index)?, reader.buffers().clone())))?;
        let state = match self.blocks.keep(index, loaded) {
            Ok(block) => State::Resident(block),
            Err(loaded) => State::Streamed {
                loaded: Some(loaded),
                buffers,
            },
        };
        self.read_ahead(index + 1)?;
        Ok(BlockGuard(state))
    }

    /// Counts the blocks before `index` as done.
    fn finish_until(&mut self, index: usize) {
        (self.done..index).for_each(|_| count::finish());
        self.done = self.done.max(index);
    }

    /// Frees resident blocks where memory pressure requests it, those first whose next turn is farthest away.
    fn release_under_pressure(&self, index: usize) {
        let list = self.blocks.list();
        let memory_pressure = &list.scopes[index].options().memory_pressure;
        let requested = memory_pressure.take_requested();
        if requested == 0 {
            return;
        }
        let mut states = self.blocks.states();
        let mut released = 0;
        let length = states.len();
        for distance in 1..=length {
            if released >= requested {
                break;
            }
            let state = &mut states[(index + length - distance) % length];
            match state {
                BlockState::Resident(block) => {
                    released += block.bytes;
                    *state = BlockState::Streamed;
                }
                // A block that is not read yet would take memory.
                BlockState::Unread => *state = BlockState::Streamed,
                BlockState::Streamed => {}
            }
        }
        memory_pressure.add_released(released);
    }
}

impl<B: Send + Sync + 'static> Iterator for Pass<'_, B> {
    type Item = Result<BlockGuard<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        // Whoever asks for a block has finished the one before.
        self.finish_until(index);
        (index < self.count).then(|| {
            self.next += 1;
            self.turn_of(index)
        })
    }
}

impl<B: Send + Sync + 'static> Drop for Pass<'_, B> {
    fn drop(&mut self) {
        self.finish_until(self.next);
        count::leave_out(self.count - self.done);
        self.blocks.end_reading_where_all_stay();
    }
}

/// A block for the duration of its turn. Dropping the guard returns the buffers of a streamed block for
/// reuse.
pub struct BlockGuard<B>(State<B>);

enum State<B> {
    Resident(Arc<B>),
    Streamed {
        /// `Some` until the guard is dropped.
        loaded: Option<LoadedBlock<B>>,
        buffers: Arc<dyn Buffers>,
    },
}

impl<B> Deref for BlockGuard<B> {
    type Target = B;

    fn deref(&self) -> &B {
        match &self.0 {
            State::Resident(block) => block,
            State::Streamed {
                loaded: Some(loaded), ..
            } => &loaded.block,
            State::Streamed { loaded: None, .. } => {
                unreachable!("a block is used after its turn. This is a bug.")
            }
        }
    }
}

impl<B> Drop for BlockGuard<B> {
    fn drop(&mut self) {
        if let State::Streamed { loaded, buffers } = &mut self.0
            && let Some(loaded) = loaded.take()
            // Buffers that cannot be reclaimed are allocated anew.
            && loaded.recycle(&**buffers).is_err()
        {
            buffers.clear();
        }
    }
}
