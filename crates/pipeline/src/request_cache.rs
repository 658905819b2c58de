//! What stays of one request for the next: resident blocks of networks, encoded prompts.

use sd_memory::Bytes;
use sd_weights::BlockCache;

use crate::prompt_cache::RecentPrompts;

/// What stays of one request for the next. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestCache {
    /// Resident blocks of networks that were dropped.
    pub(crate) blocks: BlockCache,
    /// The prompts of the last request.
    pub(crate) prompts: RecentPrompts,
}

impl RequestCache {
    /// Bytes of everything.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes(self.blocks.bytes() + self.prompts.bytes())
    }

    /// Limits everything to `room`: drops the prompts if there is no room for all of them, and blocks that do
    /// not fit beside them.
    pub(crate) fn limit_to(&self, room: Bytes) {
        if self.prompts.bytes() > room.0 {
            self.prompts.clear();
        }
        self.blocks.limit_to(room.0 - self.prompts.bytes());
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.limit_to(Bytes(0));
    }
}
