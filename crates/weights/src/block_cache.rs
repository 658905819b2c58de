//! A cache of the resident blocks of networks that were dropped, for the next network of the same weights.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// Resident blocks that outlive their network. A network whose [`WeightOptions`](crate::WeightOptions) have a
/// cache, and whose [`Weights`](crate::Weights) have a [name](crate::Weights::cached_as) in it, takes its
/// resident blocks from the cache when it is created and returns them when it is dropped. Clones share the
/// blocks.
///
/// The blocks count against the limit that [`limit_to`](Self::limit_to) sets, which is 0 at first. A block
/// beyond it is dropped. The blocks that came last go first, because those are the last of their networks,
/// which can be read again while the first ones compute.
#[doc(alias = "keep_alive")]
#[derive(Clone, Default)]
pub struct BlockCache(Arc<Mutex<Cached>>);

/// A block of any type.
pub(crate) type AnyBlock = Arc<dyn Any + Send + Sync>;

/// The key of a block: its network and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockKey {
    /// The name of the network's weights.
    pub(crate) weights: Arc<str>,
    /// The type of the block.
    pub(crate) kind: TypeId,
    /// The scope of the block inside the weights.
    pub(crate) scope: String,
    /// The index in its list.
    pub(crate) index: usize,
}

#[derive(Default)]
struct Cached {
    limit: u64,
    /// In the order of their insertion.
    blocks: Vec<CachedBlock>,
}

struct CachedBlock {
    key: BlockKey,
    block: AnyBlock,
    bytes: u64,
}

impl Cached {
    fn bytes(&self) -> u64 {
        self.blocks.iter().map(|cached| cached.bytes).sum()
    }

    /// Drops blocks until at most `bytes` are left, and returns how many bytes that freed.
    fn shrink_to(&mut self, bytes: u64) -> u64 {
        let before = self.bytes();
        let mut left = before;
        while left > bytes
            && let Some(last) = self.blocks.pop()
        {
            left -= last.bytes;
        }
        self.blocks.shrink_to_fit();
        before - left
    }
}

impl BlockCache {
    /// The bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        lock(&self.0).bytes()
    }

    /// The bytes of the blocks of the weights named `weights`.
    pub fn bytes_of(&self, weights: &str) -> u64 {
        let cached = lock(&self.0);
        let of_weights = cached
            .blocks
            .iter()
            .filter(|cached| &*cached.key.weights == weights);
        of_weights.map(|cached| cached.bytes).sum()
    }

    /// Limits the cache to `bytes` from now on.
    pub fn limit_to(&self, bytes: u64) {
        let mut cached = lock(&self.0);
        cached.limit = bytes;
        cached.shrink_to(bytes);
    }

    /// Frees at least `bytes`, or the whole cache. Returns the bytes that were freed.
    pub fn release(&self, bytes: u64) -> u64 {
        let mut cached = lock(&self.0);
        let left = cached.bytes().saturating_sub(bytes);
        cached.shrink_to(left)
    }

    /// Drops the blocks of all weights whose names are not among `weights`.
    pub fn retain(&self, weights: &[String]) {
        let mut cached = lock(&self.0);
        cached
            .blocks
            .retain(|cached| weights.iter().any(|name| **name == *cached.key.weights));
    }

    /// Takes the block of `key` and its bytes out of the cache.
    pub(crate) fn take(&self, key: &BlockKey) -> Option<(AnyBlock, u64)> {
        let mut cached = lock(&self.0);
        let index = cached.blocks.iter().position(|cached| cached.key == *key)?;
        let CachedBlock { block, bytes, .. } = cached.blocks.remove(index);
        Some((block, bytes))
    }

    /// Puts a block of `bytes` into the cache, replacing one with the same key, if the limit allows it.
    pub(crate) fn put(&self, key: &BlockKey, block: AnyBlock, bytes: u64) {
        let mut cached = lock(&self.0);
        cached.blocks.retain(|cached| cached.key != *key);
        if cached.bytes() + bytes <= cached.limit {
            cached.blocks.push(CachedBlock {
                key: key.clone(),
                block,
                bytes,
            });
        }
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cached = lock(&self.0);
        write!(
            formatter,
            "BlockCache({} blocks, {} of {} bytes)",
            cached.blocks.len(),
            cached.bytes(),
            cached.limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(weights: &str, index: usize) -> BlockKey {
        BlockKey {
            weights: weights.into(),
            kind: TypeId::of::<u32>(),
            scope: String::new(),
            index,
        }
    }

    fn filled() -> BlockCache {
        let cache = BlockCache::default();
        cache.limit_to(100);
        for index in 0..5 {
            cache.put(&key("a", index), Arc::new(index as u32), 20);
        }
        cache
    }

    #[test]
    fn blocks_within_the_limit_are_found_once() {
        let cache = filled();
        // The cache is full.
        cache.put(&key("b", 0), Arc::new(7_u32), 1);
        assert_eq!(
            (cache.bytes(), cache.bytes_of("a"), cache.bytes_of("b")),
            (100, 100, 0)
        );
        let (block, bytes) = cache.take(&key("a", 3)).unwrap();
        assert_eq!((block.downcast_ref::<u32>(), bytes), (Some(&3), 20));
        assert!(cache.take(&key("a", 3)).is_none());
        cache.put(&key("b", 0), Arc::new(7_u32), 1);
        assert_eq!(cache.bytes(), 81);
        // It replaces the cached block.
        cache.put(&key("b", 0), Arc::new(8_u32), 2);
        assert_eq!(cache.bytes_of("b"), 2);
        cache.retain(&["b".to_owned()]);
        assert_eq!(cache.bytes(), 2);
    }

    #[test]
    fn the_last_blocks_go_first() {
        let cache = filled();
        assert_eq!(cache.release(21), 40);
        assert!(cache.take(&key("a", 2)).is_some() && cache.take(&key("a", 3)).is_none());
        cache.limit_to(20);
        assert!(cache.take(&key("a", 1)).is_none() && cache.take(&key("a", 0)).is_some());
        assert_eq!(cache.release(5), 0);
        // The limit of a new cache is 0.
        let new = BlockCache::default();
        new.put(&key("a", 0), Arc::new(0_u32), 1);
        assert_eq!(new.bytes(), 0);
    }
}
