//! Takes resident blocks from the cache and returns them to it.

use std::sync::Arc;

use super::state::ResidentBlock;
use crate::block_cache::{AnyBlock, BlockKey};
use crate::{BlockCache, Weights};

/// The slots of a list of blocks in the cache.
pub(super) struct CacheSlots<B> {
    cache: BlockCache,
    /// The key of each block.
    keys: Vec<BlockKey>,
    /// Removes the type of a block.
    erased: fn(Arc<B>) -> AnyBlock,
}

impl<B: Send + Sync + 'static> CacheSlots<B> {
    /// The slots of the blocks of `scopes`, if their options have a cache and their weights a name in it.
    pub(super) fn of(scopes: &[Weights]) -> Option<Self> {
        let cache = scopes.first()?.options().block_cache.clone()?;
        let keys = scopes.iter().enumerate();
        Some(Self {
            cache,
            keys: keys
                .map(|(index, scope)| scope.block_key::<B>(index))
                .collect::<Option<_>>()?,
            erased: |block| block,
        })
    }

    /// Takes block `index` out of the cache.
    pub(super) fn take(&self, index: usize) -> Option<ResidentBlock<B>> {
        let (block, bytes) = self.cache.take(&self.keys[index])?;
        Some(ResidentBlock {
            block: block.downcast().ok()?,
            bytes,
        })
    }
}

impl<B> CacheSlots<B> {
    /// Puts block `index` into the cache.
    pub(super) fn put(&self, index: usize, resident: ResidentBlock<B>) {
        let ResidentBlock { block, bytes } = resident;
        self.cache.put(&self.keys[index], (self.erased)(block), bytes);
    }
}
