//! The encoded prompts of the last request, in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::PromptKey;
use crate::Result;
use crate::family::EncodedPrompt;

/// The encoded prompts of the last request. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecentPrompts(Arc<Mutex<Vec<Recent>>>);

#[derive(Debug)]
struct Recent {
    key: PromptKey,
    encoded: EncodedPrompt,
    /// Whether the current request has used it.
    is_used: bool,
    /// How many later requests will use it.
    uses_ahead: usize,
}

impl RecentPrompts {
    /// The prompt of `key`, if this request or the one before has encoded it.
    pub(super) fn find(&self, key: &PromptKey) -> Option<EncodedPrompt> {
        let mut recent = self.lock();
        let found = recent.iter_mut().find(|recent| recent.key == *key)?;
        found.is_used = true;
        found.uses_ahead = found.uses_ahead.saturating_sub(1);
        Some(found.encoded.clone())
    }

    /// Each prompt of `key` that was encoded together with others for this request or the one before.
    pub(super) fn find_each(&self, key: &PromptKey) -> Result<Vec<Option<EncodedPrompt>>> {
        let recent = self.lock();
        // Of truncated prompts it is not known which were.
        let is_whole = |recent: &&Recent| recent.encoded.truncated == 0;
        let usable = || {
            recent
                .iter()
                .filter(is_whole)
                .filter(|recent| recent.key.differs_in_prompts_only(key))
        };
        let find = |wanted: &String| {
            usable().find_map(|recent| {
                let index = recent.key.prompts().iter().position(|prompt| prompt == wanted)?;
                Some(recent.encoded.of(index))
            })
        };
        key.prompts()
            .iter()
            .map(|prompt| find(prompt).transpose())
            .collect()
    }

    /// Whether it has the prompt of `key`.
    pub(super) fn has(&self, key: &PromptKey) -> bool {
        self.lock().iter().any(|recent| recent.key == *key)
    }

    /// Stores the prompt of `key`, which the current request has encoded.
    pub(super) fn keep(&self, key: PromptKey, encoded: &EncodedPrompt) {
        self.store(key, encoded, 0);
    }

    /// Stores the prompt of `key`, which was encoded for so many later requests, until they have used it.
    pub(super) fn keep_ahead(&self, key: PromptKey, encoded: &EncodedPrompt, uses: usize) {
        self.store(key, encoded, uses);
    }

    fn store(&self, key: PromptKey, encoded: &EncodedPrompt, uses_ahead: usize) {
        let mut recent = self.lock();
        recent.retain(|recent| recent.key != key);
        recent.push(Recent {
            key,
            encoded: encoded.clone(),
            is_used: uses_ahead == 0,
            uses_ahead,
        });
    }

    /// Ends a request: drops the prompts that neither it has used nor a later one will use.
    pub(crate) fn end_request(&self) {
        let mut recent = self.lock();
        recent.retain(|recent| recent.is_used || recent.uses_ahead > 0);
        recent.iter_mut().for_each(|recent| recent.is_used = false);
    }

    /// Bytes of all prompts.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().iter().map(|recent| recent.encoded.bytes()).sum()
    }

    /// Drops all prompts.
    pub(crate) fn clear(&self) {
        *self.lock() = Vec::new();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Recent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
