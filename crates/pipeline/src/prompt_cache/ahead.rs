//! Prompts that are encoded ahead of the requests that need them, so that each text encoder is read once for all.

use std::path::PathBuf;
use std::time::SystemTime;

use sd_weights::WeightOptions;

use super::key::PromptKey;
use super::{LIMIT, PromptCache, RecentPrompts, limit};
use crate::Result;
use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::stage;

/// Prompts that are encoded together and are not in the cache yet.
#[derive(Debug)]
pub(crate) struct MissingPrompts<'p> {
    key: PromptKey,
    /// The prompts, which share a context.
    pub(crate) prompts: Vec<&'p str>,
    /// How many requests need them.
    uses: usize,
}

/// Entries of prompts that were encoded ahead, which may take more than the limit of the cache. When this is dropped,
/// the oldest entries above the limit are removed.
#[derive(Debug)]
pub(crate) struct AheadEntries {
    folder: PathBuf,
}

impl Drop for AheadEntries {
    fn drop(&mut self) {
        if let Err(error) = limit::apply(&self.folder, LIMIT, SystemTime::now()) {
            tracing::debug!("cannot shorten `{}`: {error}", self.folder.display());
        }
    }
}

impl PromptCache {
    /// Whether it keeps anything.
    pub(crate) fn keeps(&self) -> bool {
        self.folder.is_some() || self.recent.is_some()
    }

    /// Those of `batches` that are not cached, each once.
    ///
    /// # Errors
    /// A tokenizer cannot encode a prompt.
    pub(crate) fn missing<'p>(
        &self,
        bundle: &Bundle,
        batches: &[Vec<&'p str>],
        clip_skip: usize,
        weight_options: &WeightOptions,
    ) -> Result<Vec<MissingPrompts<'p>>> {
        let mut missing: Vec<MissingPrompts<'p>> = Vec::new();
        for prompts in batches {
            let key = self.key(bundle, prompts, clip_skip, weight_options)?;
            if let Some(known) = missing.iter_mut().find(|other| other.key == key) {
                known.uses += 1;
                continue;
            }
            let is_recent = || self.recent.as_ref().is_some_and(|recent| recent.has(&key));
            if !is_recent() && self.find_on_disk(&key).is_none() {
                let prompts = prompts.clone();
                let uses = 1;
                missing.push(MissingPrompts { key, prompts, uses });
            }
        }
        Ok(missing)
    }

    /// Encodes `batches` and keeps them on disk, or in memory where that is not possible, as far as they fit into
    /// `memory` bytes. All that are encoded ahead have `bytes` together at the most.
    ///
    /// # Errors
    /// As [`stage::encode`].
    pub(crate) fn encode_ahead(
        &self,
        bundle: &Bundle,
        batches: &[MissingPrompts<'_>],
        (bytes, memory): (u64, u64),
        clip_skip: usize,
        weight_options: &WeightOptions,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let prompts: Vec<&[&str]> = batches.iter().map(|batch| &batch.prompts[..]).collect();
        let encoded = stage::encode_each(bundle, &prompts, clip_skip, weight_options, interrupt)?;
        // None of them may remove another.
        let limit = LIMIT.saturating_add(bytes);
        for (batch, encoded) in batches.iter().zip(encoded) {
            let is_on_disk = self.keep_on_disk(&batch.key, &encoded, limit);
            let fits = |recent: &&RecentPrompts| recent.bytes() + encoded.bytes() <= memory;
            if let Some(recent) = self.recent.as_ref().filter(|_| !is_on_disk).filter(fits) {
                recent.keep_ahead(batch.key.clone(), &encoded, batch.uses);
            }
        }
        Ok(())
    }

    /// The entries on disk, until it is dropped.
    pub(crate) fn ahead_entries(&self) -> Option<AheadEntries> {
        let folder = self.folder.clone()?;
        Some(AheadEntries { folder })
    }
}
