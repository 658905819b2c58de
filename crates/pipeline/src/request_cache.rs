//! The cache between two requests: resident blocks of networks, and encoded prompts.

use sd_memory::Bytes;
use sd_weights::BlockCache;

use crate::prompt_cache::RecentPrompts;

/// The cache between two requests. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestCache {
    /// Resident blocks of networks that were dropped.
    pub(crate) blocks: BlockCache,
    /// The prompts of the last request.
    pub(crate) prompts: RecentPrompts,
}

impl RequestCache {
    /// Bytes of the whole cache.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes(self.blocks.bytes() + self.prompts.bytes())
    }

    /// Limits the cache to `limit`: drops the prompts if they do not fit, and the blocks that do not fit
    /// beside them.
    pub(crate) fn limit_to(&self, limit: Bytes) {
        if self.prompts.bytes() > limit.0 {
            self.prompts.clear();
        }
        self.blocks.limit_to(limit.0 - self.prompts.bytes());
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.limit_to(Bytes(0));
    }
}
