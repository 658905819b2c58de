//! The thread that reads blocks ahead of their turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::list::{BlockList, LoadedBlock};
use crate::buffers::Buffers;
use crate::device::streaming_buffers;
use crate::{Error, Result};

/// The reading thread and the blocks that were requested of it.
pub(super) struct Reader<B> {
    requests: Option<Sender<usize>>,
    ready: Receiver<Result<LoadedBlock<B>>>,
    /// Blocks that were requested and not yet taken, in the order of the requests.
    in_flight: VecDeque<usize>,
    thread: Option<JoinHandle<()>>,
    buffers: Arc<dyn Buffers>,
}

impl<B: Send + Sync + 'static> Reader<B> {
    pub(super) fn start(list: &Arc<BlockList<B>>) -> Result<Self> {
        let (requests, to_read) = channel::<usize>();
        let (done, ready) = channel();
        let options = list.scopes[0].options();
        let buffers = streaming_buffers(&options.device, &options.host_memory)?;
        let (list, theirs) = (list.clone(), buffers.clone());
        let thread = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                for index in to_read {
                    if done.send(list.read(index, &theirs)).is_err() {
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

    pub(super) fn buffers(&self) -> &Arc<dyn Buffers> {
        &self.buffers
    }

    /// The number of blocks that were requested and not yet taken.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Requests that block `index` be read, after all earlier requests.
    pub(super) fn request(&mut self, index: usize) {
        // A thread that has ended is noticed when its answer is awaited.
        if let Some(requests) = &self.requests {
            let _ = requests.send(index);
        }
        self.in_flight.push_back(index);
    }

    /// Waits for block `index`. Blocks that were requested earlier and never taken are recycled.
    pub(super) fn take(&mut self, index: usize) -> Result<LoadedBlock<B>> {
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

    fn receive(&mut self) -> Result<LoadedBlock<B>> {
        self.in_flight.pop_front();
        let mut loaded = self.ready.recv().unwrap_or_else(|_| {
            Err(Error::Reader {
                reason: "the reading thread has ended".to_owned(),
            })
        })?;
        loaded.buffer_set.join_copies()?;
        Ok(loaded)
    }
}

impl<B> Drop for Reader<B> {
    /// Waits for the thread, so that it holds no memory afterwards.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
        for mut loaded in self.ready.try_iter().flatten() {
            // A device that fails here fails again where the error is returned.
            let _ = loaded.buffer_set.join_copies();
        }
    }
}
