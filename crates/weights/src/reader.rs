//! The thread that reads streamed blocks ahead of their turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::blocks::List;
use crate::buffers::{self, BufferSet, Buffers};
use crate::{Error, PageCache, Result, Weights};

/// A block in memory, with what it lies in.
pub(crate) struct Slot<B> {
    pub(crate) block: B,
    pub(crate) buffer_set: BufferSet,
}

impl<B> Slot<B> {
    /// Reads block `index` of `list` into buffers.
    pub(crate) fn read(list: &List<B>, index: usize, buffers: &Arc<dyn Buffers>) -> Result<Self> {
        let scope: &Weights = &list.scopes[index];
        scope.check_unchanged()?;
        let block = match (list.build)(index, &scope.with_buffers(buffers)) {
            Ok(block) => block,
            Err(error) => {
                // What was read of it so far.
                let mut buffer_set = buffers.finish()?;
                buffer_set.arrive()?;
                buffers.reclaim(buffer_set)?;
                return Err(error);
            }
        };
        if scope.options().page_cache == PageCache::Release {
            scope.forget();
        }
        Ok(Self {
            block,
            buffer_set: buffers.finish()?,
        })
    }

    /// Drops the block and gives its buffers back.
    pub(crate) fn recycle(self, buffers: &dyn Buffers) -> Result<()> {
        let Self { block, buffer_set } = self;
        drop(block);
        buffers.reclaim(buffer_set)
    }
}

/// The reading thread and what was asked of it.
pub(crate) struct Reader<B> {
    requests: Option<Sender<usize>>,
    ready: Receiver<Result<Slot<B>>>,
    /// Blocks that were asked for and not yet taken, in the order in which they were.
    in_flight: VecDeque<usize>,
    thread: Option<JoinHandle<()>>,
    buffers: Arc<dyn Buffers>,
}

impl<B: Send + Sync + 'static> Reader<B> {
    pub(crate) fn start(list: &Arc<List<B>>) -> Result<Self> {
        let (requests, to_read) = channel::<usize>();
        let (done, ready) = channel();
        let buffers = buffers::ahead(list.scopes[0].options())?;
        let (list, theirs) = (list.clone(), buffers.clone());
        let thread = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                for index in to_read {
                    if done.send(Slot::read(&list, index, &theirs)).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Error::Reader {
                reason: error.to_string(),
            })?;
        Ok(Self {
            requests: Some(requests),
            ready,
            in_flight: VecDeque::new(),
            thread: Some(thread),
            buffers,
        })
    }

    pub(crate) fn buffers(&self) -> &Arc<dyn Buffers> {
        &self.buffers
    }

    /// How many blocks were asked for and not yet taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Asks for block `index` to be read after those that were asked for before.
    pub(crate) fn request(&mut self, index: usize) {
        // A thread that is gone is found out about when its answer is waited for.
        if let Some(requests) = &self.requests {
            let _ = requests.send(index);
        }
        self.in_flight.push_back(index);
    }

    /// Waits for block `index`. What was asked for before it and never taken is given back.
    pub(crate) fn take(&mut self, index: usize) -> Result<Slot<B>> {
        while let Some(first) = self.in_flight.front() {
            if *first == index {
                break;
            }
            self.receive()?.recycle(&*self.buffers)?;
        }
        if self.in_flight.is_empty() {
            self.request(index);
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<Slot<B>> {
        self.in_flight.pop_front();
        let mut slot = self.ready.recv().unwrap_or_else(|_| {
            Err(Error::Reader {
                reason: "the reading thread has ended".to_owned(),
            })
        })?;
        slot.buffer_set.arrive()?;
        Ok(slot)
    }
}

impl<B> Drop for Reader<B> {
    /// Waits for the thread, so that nothing of it is in memory afterwards.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked with was shown when it did.
            let _ = thread.join();
        }
        for mut slot in self.ready.try_iter().flatten() {
            // A device that fails here fails again where somebody is told.
            let _ = slot.buffer_set.arrive();
        }
    }
}
