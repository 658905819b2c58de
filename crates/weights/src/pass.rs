//! One walk over the blocks of a network.

use std::ops::Deref;
use std::sync::Arc;

use crate::blocks::{Blocks, Place};
use crate::buffers::Buffers;
use crate::reader::Slot;
use crate::{Residency, Result};

/// One walk over the blocks of a network, in order.
pub struct Pass<'a, B: Send + Sync + 'static> {
    blocks: &'a Blocks<B>,
    next: usize,
    /// Whether another pass will follow, as far as one can tell: one did before.
    repeats: bool,
}

impl<'a, B: Send + Sync + 'static> Pass<'a, B> {
    pub(crate) fn begin(blocks: &'a Blocks<B>, repeats: bool) -> Result<Self> {
        let this = Self {
            blocks,
            next: 0,
            repeats,
        };
        this.read_ahead(0)?;
        Ok(this)
    }

    /// Asks the reader for the blocks that come from `index` on and are not in memory: those that stay from then on, and
    /// as many streamed ones as the window has room for beside the one that is computed with.
    fn read_ahead(&self, index: usize) -> Result<()> {
        let length = self.blocks.len();
        let round = if self.repeats { index + length } else { length };
        let mut room = Residency::WINDOW - 1;
        let mut coming = Vec::new();
        {
            let places = self.blocks.places();
            for index in (index..round).map(|index| index % length) {
                match &places[index] {
                    Place::Kept(_) => continue,
                    Place::Unread if !self.blocks.is_for_processor(index) => continue,
                    Place::Unread => {}
                    Place::Streamed if room == 0 => break,
                    Place::Streamed => room -= 1,
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

    fn turn_of(&self, index: usize) -> Result<Lent<B>> {
        self.give_up_what_is_wanted(index);
        let is_read_ahead = match self.blocks.places()[index] {
            Place::Streamed => true,
            Place::Unread => self.blocks.is_for_processor(index),
            Place::Kept(_) => false,
        };
        if !is_read_ahead {
            return Ok(Lent(State::Kept(self.blocks.block(index)?)));
        }
        let (slot, buffers) = self
            .blocks
            .with_reader(|reader| Ok((reader.take(index)?, reader.buffers().clone())))?;
        let state = match self.blocks.keep(index, slot) {
            Ok(block) => State::Kept(block),
            Err(slot) => State::Streamed {
                slot: Some(slot),
                buffers,
            },
        };
        self.read_ahead(index + 1)?;
        Ok(Lent(state))
    }

    /// Gives up kept blocks where that was asked for: those first whose next turn is farthest away.
    fn give_up_what_is_wanted(&self, index: usize) {
        let list = self.blocks.list();
        let relief = &list.scopes[index].holding().relief;
        let wanted = relief.take_wanted();
        if wanted == 0 {
            return;
        }
        let mut places = self.blocks.places();
        let mut given = 0;
        let length = places.len();
        for distance in 1..=length {
            if given >= wanted {
                break;
            }
            let place = &mut places[(index + length - distance) % length];
            match place {
                Place::Kept(kept) => {
                    given += kept.bytes;
                    *place = Place::Streamed;
                }
                // It would take memory when it is read.
                Place::Unread => *place = Place::Streamed,
                Place::Streamed => {}
            }
        }
        relief.give(given);
    }
}

impl<B: Send + Sync + 'static> Iterator for Pass<'_, B> {
    type Item = Result<Lent<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        (index < self.blocks.len()).then(|| {
            self.next += 1;
            self.turn_of(index)
        })
    }
}

impl<B: Send + Sync + 'static> Drop for Pass<'_, B> {
    fn drop(&mut self) {
        self.blocks.end_reading_where_all_stay();
    }
}

/// A block for the time of its turn. What it was read into is used again when this is dropped.
pub struct Lent<B>(State<B>);

enum State<B> {
    Kept(Arc<B>),
    Streamed {
        /// There until this is dropped.
        slot: Option<Slot<B>>,
        buffers: Arc<dyn Buffers>,
    },
}

impl<B> Deref for Lent<B> {
    type Target = B;

    fn deref(&self) -> &B {
        match &self.0 {
            State::Kept(block) => block,
            State::Streamed { slot: Some(slot), .. } => &slot.block,
            State::Streamed { slot: None, .. } => {
                unreachable!("a block is used after its turn. This is a bug.")
            }
        }
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let State::Streamed { slot, buffers } = &mut self.0
            && let Some(slot) = slot.take()
            // A buffer that cannot be had back is made anew.
            && slot.recycle(&**buffers).is_err()
        {
            buffers.clear();
        }
    }
}
