//! The blocks of a network as they are described: from which tensors each is built, and by what function.

use std::sync::Arc;

use crate::buffers::{BufferSet, Buffers};
use crate::inspection::Inspection;
use crate::{PageCache, Result, Weights, with_autorelease_pool};

/// Builds block `i` of a network from its scope of the checkpoint.
type BuildBlock<B> = dyn Fn(usize, &Weights) -> Result<B> + Send + Sync;

/// What blocks are built from, shared with the thread that reads ahead.
pub(super) struct BlockList<B> {
    pub(super) scopes: Vec<Weights>,
    build: Box<BuildBlock<B>>,
    /// The names of the tensors that each block reads.
    read: Vec<Vec<String>>,
}

impl<B> BlockList<B> {
    /// A list whose block `i` is built from `scopes[i]`. Every block is built once without weights, to check
    /// its tensors against the headers.
    ///
    /// # Errors
    /// A tensor is missing, or has another shape or type.
    pub(super) fn new(
        scopes: Vec<Weights>,
        build: impl Fn(usize, &Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let inspection = Arc::new(Inspection::default());
        let mut read = Vec::with_capacity(scopes.len());
        for (index, scope) in scopes.iter().enumerate() {
            if let Err(error) = build(index, &scope.inspected(&inspection)) {
                inspection.add(error);
            }
            read.push(inspection.end_block());
        }
        inspection.end()?;
        Ok(Self {
            scopes,
            build: Box::new(build),
            read,
        })
    }

    /// Drops the tensors of block `index` from the page cache. A block may read a few tensors of a large scope; the
    /// others are those of other blocks, which may be read next.
    pub(super) fn forget(&self, index: usize) {
        self.scopes[index].forget(&self.read[index]);
    }

    /// Reads block `index` into `buffers`.
    pub(super) fn read(&self, index: usize, buffers: &Arc<dyn Buffers>) -> Result<LoadedBlock<B>> {
        with_autorelease_pool(|| self.read_in_pool(index, buffers))
    }

    fn read_in_pool(&self, index: usize, buffers: &Arc<dyn Buffers>) -> Result<LoadedBlock<B>> {
        let scope = &self.scopes[index];
        scope.check_unchanged()?;
        let block = match (self.build)(index, &scope.with_buffers(buffers)) {
            Ok(block) => block,
            Err(error) => {
                // The tensors that were read before the error.
                let mut buffer_set = buffers.finish()?;
                buffer_set.join_copies()?;
                buffers.reclaim(buffer_set)?;
                return Err(error);
            }
        };
        if scope.options().page_cache == PageCache::Release {
            self.forget(index);
        }
        Ok(LoadedBlock {
            block,
            buffer_set: buffers.finish()?,
        })
    }
}

/// A block in memory and the buffers that its tensors are in.
pub(super) struct LoadedBlock<B> {
    pub(super) block: B,
    pub(super) buffer_set: BufferSet,
}

impl<B> LoadedBlock<B> {
    /// Drops the block and returns its buffers to the pool.
    pub(super) fn recycle(self, buffers: &dyn Buffers) -> Result<()> {
        let Self { block, buffer_set } = self;
        drop(block);
        buffers.reclaim(buffer_set)
    }
}
