//! The blocks of a network: which are resident, and how the others are streamed ahead of their turns.

mod list;
mod pass;
mod reader;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::*;

pub use pass::{BlockGuard, Pass};

use self::list::{BlockList, LoadedBlock};
use self::reader::Reader;
use self::state::{BlockState, ResidentBlock};
#[cfg(doc)]
use crate::Error;
use crate::buffers::{Buffers, HostBuffers};
use crate::lock::lock;
use crate::{Residency, Result, Weights};

/// An ordered list of blocks, each made from a scope of a checkpoint.
///
/// A forward pass is a plain loop, which does not know where a block was before its turn or will be after:
///
/// ```ignore
/// for block in self.blocks.pass()? {
///     x = block?.forward(&x, &conditioning)?;
/// }
/// ```
///
/// A block's tensors lie in buffers that the next block will be read into: a block must not hand out a tensor of
/// its own, only what it computes from them.
pub struct Blocks<B> {
    list: Arc<BlockList<B>>,
    states: Mutex<Vec<BlockState<B>>>,
    reader: Mutex<Option<Reader<B>>>,
    passes: Mutex<u64>,
}

impl<B: Send + Sync + 'static> Blocks<B> {
    /// Blocks that `build` makes, the `i`-th from `scopes[i]`. No weight is read yet, but every block is built once with
    /// zeros, by which each tensor that it will read is looked up: see `inspection.rs`. `build` must depend on
    /// nothing but its arguments: it may run again for every pass, and on another thread. It must not compute with the
    /// tensors of a block that a pass streams: on a GPU their values are still on their way.
    ///
    /// # Errors
    /// A tensor that a block will read is missing, or has another shape or a type that cannot be computed with. Where there
    /// are several, it is the first with the number of the others ([`Error::Unfit`]).
    pub fn new(
        scopes: impl IntoIterator<Item = Weights>,
        build: impl Fn(usize, &Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let scopes: Vec<Weights> = scopes.into_iter().collect();
        let list = BlockList::new(scopes, build)?;
        let length = list.scopes.len();
        let states = list.scopes.iter().enumerate().map(|(index, scope)| {
            if scope.options().residency.keeps(index, length) {
                BlockState::Unread
            } else {
                BlockState::Streamed
            }
        });
        Ok(Self {
            states: Mutex::new(states.collect()),
            list: Arc::new(list),
            reader: Mutex::new(None),
            passes: Mutex::new(0),
        })
    }

    /// A single block, for a part of a network that has no like.
    ///
    /// # Errors
    /// As [`Blocks::new`].
    pub fn single(
        scope: Weights,
        build: impl Fn(&Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::new([scope], move |_, weights| build(weights))
    }

    /// Reads every block that is to stay in memory, so that the first pass finds it there: without this, it reads them
    /// ahead of their turn for a processor, and at their turn for other devices. For a processor all threads read, each a
    /// block.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn load(&self) -> Result<()> {
        let mut staying = (0..self.len()).filter(|&index| !self.is_streamed(index));
        if !self.is_empty() && self.is_for_processor(0) {
            let staying: Vec<usize> = staying.collect();
            staying
                .into_par_iter()
                .with_max_len(1)
                .try_for_each(|index| self.block(index).map(drop))?;
        } else {
            staying.try_for_each(|index| self.block(index).map(drop))?;
        }
        self.make_room()
    }

    /// Makes the buffers of the window on a device that has memory of its own, before anything is computed there: made
    /// later they would lie here and there among what is computed, and the gaps between would be lost.
    fn make_room(&self) -> Result<()> {
        let streamed: Vec<usize> = (0..self.len())
            .filter(|&index| self.is_streamed(index))
            .take(Residency::WINDOW)
            .collect();
        let Some(&first) = streamed.first() else {
            return Ok(());
        };
        if self.list.scopes[first].options().device.is_cpu() || lock(&self.reader).is_some() {
            return Ok(());
        }
        let mut reader = Reader::start(&self.list)?;
        streamed.iter().for_each(|&index| reader.request(index));
        let loaded: Vec<LoadedBlock<B>> = streamed
            .iter()
            .map(|&index| reader.take(index))
            .collect::<Result<_>>()?;
        for block in loaded {
            block.recycle(&**reader.buffers())?;
        }
        *lock(&self.reader) = Some(reader);
        Ok(())
    }

    /// One walk over the blocks in order. While a block is computed with, the next streamed one is read.
    ///
    /// # Errors
    /// The walk cannot begin: what reads ahead of it could not be started.
    pub fn pass(&self) -> Result<Pass<'_, B>> {
        let earlier = {
            let mut passes = lock(&self.passes);
            *passes += 1;
            *passes - 1
        };
        Pass::begin(self, earlier > 0)
    }

    /// The block at `index`, for parts of a network that are wanted out of order.
    ///
    /// # Errors
    /// It cannot be read.
    ///
    /// # Panics
    /// There is no block at `index`.
    pub fn block(&self, index: usize) -> Result<Arc<B>> {
        if let BlockState::Resident(resident) = &lock(&self.states)[index] {
            return Ok(resident.block.clone());
        }
        let device = self.list.scopes[index].options().device.clone();
        let buffers: Arc<dyn Buffers> = Arc::new(HostBuffers::new(device));
        match self.keep(index, self.list.read(index, &buffers)?) {
            Ok(resident) => Ok(resident),
            Err(loaded) => Ok(Arc::new(loaded.block)),
        }
    }

    /// Makes a block that was read resident, or hands it back if the block is streamed.
    fn keep(&self, index: usize, loaded: LoadedBlock<B>) -> std::result::Result<Arc<B>, LoadedBlock<B>> {
        let state = &mut lock(&self.states)[index];
        if !matches!(state, BlockState::Unread) {
            return Err(loaded);
        }
        let LoadedBlock { block, buffer_set } = loaded;
        let block = Arc::new(block);
        *state = BlockState::Resident(ResidentBlock {
            block: block.clone(),
            bytes: buffer_set.bytes(),
        });
        Ok(block)
    }

    /// Gives back what the reading ahead holds, where no further pass is near. Kept blocks stay.
    pub fn rest(&self) {
        *lock(&self.passes) = 0;
        self.end_reading();
    }

    fn list(&self) -> &Arc<BlockList<B>> {
        &self.list
    }

    /// Uses the reader, which is started where there is none yet.
    fn with_reader<T>(&self, use_it: impl FnOnce(&mut Reader<B>) -> Result<T>) -> Result<T> {
        let mut slot = lock(&self.reader);
        let reader = match slot.take() {
            Some(reader) => reader,
            None => Reader::start(&self.list)?,
        };
        use_it(slot.insert(reader))
    }

    fn states(&self) -> MutexGuard<'_, Vec<BlockState<B>>> {
        lock(&self.states)
    }

    fn is_streamed(&self, index: usize) -> bool {
        matches!(lock(&self.states)[index], BlockState::Streamed)
    }

    fn is_for_processor(&self, index: usize) -> bool {
        self.list.scopes[index].options().device.is_cpu()
    }

    /// Ends the reader where it has nothing left to do.
    fn end_reading_where_all_stay(&self) {
        if lock(&self.states)
            .iter()
            .all(|state| matches!(state, BlockState::Resident(_)))
        {
            drop(lock(&self.reader).take());
        }
    }
}

impl<B> Blocks<B> {
    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.list.scopes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.scopes.is_empty()
    }

    /// Ends the reader, if there is one, and tells the system that the files' bytes of which every pass reads need not be
    /// kept at hand.
    fn end_reading(&self) {
        if let Some(reader) = lock(&self.reader).take() {
            drop(reader);
            let states = lock(&self.states);
            let streamed = self.list.scopes.iter().zip(states.iter());
            streamed
                .filter(|(_, state)| matches!(state, BlockState::Streamed))
                .for_each(|(scope, _)| scope.forget());
        }
    }
}

impl<B> Drop for Blocks<B> {
    fn drop(&mut self) {
        self.end_reading();
    }
}

impl<B> fmt::Debug for Blocks<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = lock(&self.states);
        let kept = states
            .iter()
            .filter(|state| matches!(state, BlockState::Resident(_)))
            .count();
        write!(formatter, "Blocks({kept} of {} resident)", states.len())
    }
}
