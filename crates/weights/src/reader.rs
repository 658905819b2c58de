//! The thread that reads streamed blocks ahead of their turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use candle_core::Tensor;

use crate::blocks::List;
use crate::buffers::Buffers;
use crate::{Error, PageCache, Result, Weights};

/// A block in memory, with the tensors whose buffers it lies in.
pub(crate) struct Slot<B> {
    pub(crate) block: B,
    pub(crate) tensors: Vec<Tensor>,
}

impl<B> Slot<B> {
    /// Reads block `index` of `list` into buffers.
    pub(crate) fn read(list: &List<B>, index: usize, buffers: &Arc<Buffers>) -> Result<Self> {
        let scope: &Weights = &list.scopes[index];
        scope.check_unchanged()?;
        let block = match (list.build)(index, &scope.with_buffers(buffers)) {
            Ok(block) => block,
            Err(error) => {
                // What was read of it so far.
                buffers.reclaim(buffers.take_lent())?;
                return Err(error);
            }
        };
        if scope.holding().page_cache == PageCache::Release {
            scope.forget();
        }
        Ok(Self {
            block,
            tensors: buffers.take_lent(),
        })
    }

    /// Drops the block and gives its buffers back.
    pub(crate) fn recycle(self, buffers: &Buffers) -> Result<()> {
        let Self { block, tensors } = self;
        drop(block);
        buffers.reclaim(tensors)
    }
}

/// The reading thread and what was asked of it.
pub(crate) struct Reader<B> {
    requests: Option<Sender<usize>>,
    ready: Receiver<Result<Slot<B>>>,
    /// Blocks that were asked for and not yet taken, in the order in which they were.
    in_flight: VecDeque<usize>,
    thread: Option<JoinHandle<()>>,
    buffers: Arc<Buffers>,
}

impl<B: Send + Sync + 'static> Reader<B> {
    pub(crate) fn start(list: &Arc<List<B>>) -> Result<Self> {
        let (requests, to_read) = channel::<usize>();
        let (done, ready) = channel();
        let buffers = Arc::new(Buffers::default());
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

    pub(crate) fn buffers(&self) -> &Arc<Buffers> {
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
            self.receive()?.recycle(&self.buffers)?;
        }
        if self.in_flight.is_empty() {
            self.request(index);
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<Slot<B>> {
        self.in_flight.pop_front();
        self.ready.recv().unwrap_or_else(|_| {
            Err(Error::Reader {
                reason: "the reading thread has ended".to_owned(),
            })
        })
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
    }
}
