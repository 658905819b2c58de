//! The blocks of a network: which are resident, and how the others are streamed ahead of their turns.

mod count;
mod list;
mod pass;
mod reader;
mod slots;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::prelude::*;

pub use count::BlockCount;
pub use pass::{BlockGuard, Pass};

use self::list::{BlockList, LoadedBlock};
use self::reader::Reader;
use self::slots::CacheSlots;
use self::state::{BlockState, ResidentBlock};
#[cfg(doc)]
use crate::Error;
use crate::device::{computes_in_host_memory, unshared_buffers};
use crate::lock::lock;
use crate::{Residency, Result, Weights};

/// The blocks of a network in the order of its forward pass, each built from a scope of a checkpoint.
///
/// A forward pass is a plain loop. It does not know whether a block is resident or streamed:
///
/// ```ignore
/// for block in self.blocks.pass()? {
///     x = block?.forward(&x, &conditioning)?;
/// }
/// ```
///
/// The tensors of a streamed block are in buffers that the next block reuses. So a block must not return one
/// of its own tensors, only results computed from them.
pub struct Blocks<B> {
    list: Arc<BlockList<B>>,
    states: Mutex<Vec<BlockState<B>>>,
    reader: Mutex<Option<Reader<B>>>,
    passes: Mutex<u64>,
    /// Where resident blocks come from and go to, if their weights are cached.
    slots: Option<CacheSlots<B>>,
}

impl<B: Send + Sync + 'static> Blocks<B> {
    /// Blocks that `build` builds, block `i` from `scopes[i]`. No weight is read yet. Resident blocks are taken
    /// from the [cache](crate::BlockCache) of the scopes, if they are there. Every block is built once from
    /// zeros, to check the headers of the tensors that it reads. `build` must depend on nothing but
    /// its arguments, because it runs again in every pass and on another thread. It must not compute with the
    /// tensors, because on a GPU they are still being copied.
    ///
    /// # Errors
    /// A tensor is missing, or has another shape or an unsupported type. Of several errors, the first is
    /// returned with the number of the others ([`Error::Unfit`]).
    pub fn new(
        scopes: impl IntoIterator<Item = Weights>,
        build: impl Fn(usize, &Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let scopes: Vec<Weights> = scopes.into_iter().collect();
        let list = BlockList::new(scopes, build)?;
        let length = list.scopes.len();
        let slots = CacheSlots::of(&list.scopes);
        let cached = |index: usize| slots.as_ref().and_then(|slots| slots.take(index));
        let states = list.scopes.iter().enumerate().map(|(index, scope)| {
            if !scope.options().residency.keeps(index, length) {
                return BlockState::Streamed;
            }
            cached(index).map_or(BlockState::Unread, BlockState::Resident)
        });
        Ok(Self {
            states: Mutex::new(states.collect()),
            list: Arc::new(list),
            reader: Mutex::new(None),
            passes: Mutex::new(0),
            slots,
        })
    }

    /// A list of one block, for a part of a network that is not repeated.
    ///
    /// # Errors
    /// The errors of [`Blocks::new`].
    pub fn single(
        scope: Weights,
        build: impl Fn(&Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::new([scope], move |_, weights| build(weights))
    }

    /// Reads all resident blocks now, so that the first pass finds them in memory. Without this call, the
    /// first pass reads them: ahead of their turns for a CPU or an Apple GPU, at their turns for other devices.
    /// The threads read blocks in parallel.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn load(&self) -> Result<()> {
        let staying: Vec<usize> = (0..self.len())
            .filter(|&index| !self.is_streamed(index))
            .collect();
        staying
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|index| self.block(index).map(drop))?;
        self.make_room()
    }

    /// Allocates the buffers of the streaming window on a device with memory of its own before anything is
    /// computed there. Allocated later, they would fragment the memory of the activations.
    fn make_room(&self) -> Result<()> {
        let streamed: Vec<usize> = (0..self.len())
            .filter(|&index| self.is_streamed(index))
            .take(Residency::WINDOW)
            .collect();
        let Some(&first) = streamed.first() else {
            return Ok(());
        };
        if self.is_in_host_memory(first) || lock(&self.reader).is_some() {
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

    /// Begins a forward pass over the blocks. While one block computes, the next streamed block is read.
    ///
    /// # Errors
    /// The thread that reads ahead cannot be started.
    pub fn pass(&self) -> Result<Pass<'_, B>> {
        self.pass_of_first(self.len())
    }

    /// As [`pass`](Self::pass), over the first `count` blocks: none of the others is read.
    ///
    /// # Errors
    /// As [`pass`](Self::pass).
    pub fn pass_of_first(&self, count: usize) -> Result<Pass<'_, B>> {
        let earlier = {
            let mut passes = lock(&self.passes);
            *passes += 1;
            *passes - 1
        };
        Pass::begin(self, count.min(self.len()), earlier > 0)
    }

    /// The block at `index`, for use outside of the order of the forward pass.
    ///
    /// # Errors
    /// The block cannot be read.
    ///
    /// # Panics
    /// There is no block at `index`.
    pub fn block(&self, index: usize) -> Result<Arc<B>> {
        if let BlockState::Resident(resident) = &lock(&self.states)[index] {
            return Ok(resident.block.clone());
        }
        let buffers = unshared_buffers(&self.list.scopes[index].options().device);
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

    /// Releases the streaming buffers when no further pass follows soon. Resident blocks stay.
    pub fn rest(&self) {
        *lock(&self.passes) = 0;
        self.end_reading();
    }

    fn list(&self) -> &Arc<BlockList<B>> {
        &self.list
    }

    /// Runs `use_it` with the reader, which is started if necessary.
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

    fn is_in_host_memory(&self, index: usize) -> bool {
        computes_in_host_memory(&self.list.scopes[index].options().device)
    }

    /// Ends the reader if all blocks are resident.
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
    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.list.scopes.len()
    }

    /// Whether there are no blocks.
    pub fn is_empty(&self) -> bool {
        self.list.scopes.is_empty()
    }

    /// Ends the reader, if there is one, and drops the streamed blocks from the page cache.
    fn end_reading(&self) {
        if let Some(reader) = lock(&self.reader).take() {
            drop(reader);
            let states = lock(&self.states);
            let streamed = states.iter().enumerate();
            streamed
                .filter(|(_, state)| matches!(state, BlockState::Streamed))
                .for_each(|(index, _)| self.list.forget(index));
        }
    }
}

impl<B> Drop for Blocks<B> {
    fn drop(&mut self) {
        self.end_reading();
        let Some(slots) = &self.slots else {
            return;
        };
        let states = std::mem::take(&mut *lock(&self.states));
        for (index, state) in states.into_iter().enumerate() {
            if let BlockState::Resident(resident) = state {
                slots.put(index, resident);
            }
        }
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
