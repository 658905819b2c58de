//! The prompt cache: results of the text encoders on disk, so that a prompt is encoded only once.
//!
//! An entry holds the exact values of the encoders, and its key is everything that they depend on (see
//! [`PromptKey`]), so the cache never changes an image. Entries are written atomically, and a damaged entry
//! counts as missing; so any number of processes can share the folder, and it can be deleted at any time. A
//! folder that is not writable is no error. Above [`LIMIT`] the least recently used entries are removed.
//!
//! The built-in model has no entries: encoding with it is faster than a lookup.
//!
//! An [`Engine`](crate::Engine) with a cache also holds the prompts of its last request in memory. The prompts of several
//! requests can be encoded ahead of them ([`ahead`]).

mod ahead;
mod key;
mod limit;
mod recent;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use candle_core::Tensor;
use sd_weights::{FileIdentity, WeightOptions};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::checksummed::{self, Durability};
use crate::event::Interrupt;
use crate::family::EncoderWeights;
use crate::identity::ModelIdentity;
use crate::resume::RunName;
use crate::stage::{self, EncodedPrompt};
use crate::user_dirs::UserDirs;
use crate::{Result, device};
pub(crate) use ahead::AheadEntries;
use key::PromptKey;
pub(crate) use recent::RecentPrompts;

/// The most bytes of all entries together.
const LIMIT: u64 = 256 << 20;
const ENTRY: &str = "safetensors";
const PART: &str = "part";
const CONTEXT: &str = "context";
const POOLED: &str = "pooled";

/// The text encoders of a model, with their cache.
#[derive(Debug)]
pub(crate) struct PromptCache {
    /// `None` if nothing is cached.
    folder: Option<PathBuf>,
    /// The files of the encoders.
    files: Vec<FileIdentity>,
    /// The id of the writer, for the names of temporary files: a resumed run replaces those that it left
    /// behind.
    writer: String,
    limit: u64,
    /// The prompts of the last request, if the engine caches them.
    recent: Option<RecentPrompts>,
}

/// The description of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    key: PromptKey,
    #[serde(rename = "cut")]
    truncated: usize,
}

impl PromptCache {
    /// The cache of the text encoders of `bundle` in `user_dirs`, for `run`, with the `recent` prompts of the
    /// last request.
    pub(crate) fn new(
        user_dirs: &UserDirs,
        bundle: &Bundle,
        model: &ModelIdentity,
        run: &RunName,
        recent: Option<RecentPrompts>,
    ) -> Self {
        Self {
            folder: user_dirs.prompts().filter(|_| !bundle.source().is_embedded()),
            files: model.text.clone(),
            writer: run.id().to_owned(),
            limit: LIMIT,
            recent,
        }
    }

    /// As [`stage::encode`], which is called only for prompts that are not cached, with text encoders that are held as
    /// `weights` says.
    ///
    /// # Errors
    /// As [`stage::encode`].
    pub(crate) fn encode(
        &self,
        bundle: &Bundle,
        prompts: &[&str],
        clip_skip: usize,
        weights: EncoderWeights<'_>,
        interrupt: &Interrupt,
    ) -> Result<EncodedPrompt> {
        let encode = |prompts: &[&str]| -> Result<EncodedPrompt> {
            let mut encoded = stage::encode_with(bundle, &[prompts], clip_skip, weights, interrupt)?;
            Ok(encoded.pop().expect("one batch has one result. This is a bug."))
        };
        if !self.keeps() {
            return encode(prompts);
        }
        let key = self.key(bundle, prompts, clip_skip, weights.shared_options())?;
        if let Some(found) = self.recent.as_ref().and_then(|recent| recent.find(&key)) {
            tracing::debug!("the request before had the same prompt");
            return Ok(found);
        }
        let encoded = match self.find_on_disk(&key) {
            Some(found) => found,
            None => {
                let encoded = match self.completed(bundle, prompts, &key, weights, encode)? {
                    Some(completed) => completed,
                    None => encode(prompts)?,
                };
                self.keep_on_disk(&key, &encoded, self.limit);
                encoded
            }
        };
        if let Some(recent) = &self.recent {
            recent.keep(key, &encoded);
        }
        Ok(encoded)
    }

    /// The prompts of `key`, of which those that the request before had too, such as its negative prompt, are not
    /// encoded again. `None` if it had none of them, or where that could change a bit.
    fn completed(
        &self,
        bundle: &Bundle,
        prompts: &[&str],
        key: &PromptKey,
        weights: EncoderWeights<'_>,
        encode: impl Fn(&[&str]) -> Result<EncodedPrompt>,
    ) -> Result<Option<EncodedPrompt>> {
        let Some(recent) = self
            .recent
            .as_ref()
            .filter(|_| device::rows_are_independent(&weights.shared_options().device))
        else {
            return Ok(None);
        };
        let mut parts = recent.find_each(key)?;
        let missing = prompts.iter().zip(&parts).filter(|(_, part)| part.is_none());
        let missing: Vec<&str> = missing.map(|(prompt, _)| *prompt).collect();
        if missing.len() == prompts.len() {
            return Ok(None);
        }
        if !missing.is_empty() {
            // Shorter ones alone would have a shorter context.
            if bundle.family.text_encoders().tokens(&missing)? != key.tokens() {
                return Ok(None);
            }
            tracing::debug!(
                "the request before had {} of the prompts",
                prompts.len() - missing.len()
            );
            let encoded = encode(&missing)?;
            let places = parts.iter_mut().filter(|part| part.is_none());
            for (index, place) in places.enumerate() {
                *place = Some(encoded.of(index)?);
            }
        }
        let parts: Vec<EncodedPrompt> = parts.into_iter().flatten().collect();
        EncodedPrompt::joined(&parts).map(Some)
    }

    /// The key of `prompts`.
    fn key(
        &self,
        bundle: &Bundle,
        prompts: &[&str],
        clip_skip: usize,
        weight_options: &WeightOptions,
    ) -> Result<PromptKey> {
        let (device, weight_type) = (&weight_options.device, weight_options.weight_type);
        let tokens = bundle.family.text_encoders().tokens(prompts)?;
        Ok(PromptKey::new(
            &self.files,
            bundle,
            prompts,
            tokens,
            clip_skip,
            device,
            weight_type,
        ))
    }

    /// The entry of `key`, if there is one.
    fn find_on_disk(&self, key: &PromptKey) -> Option<EncodedPrompt> {
        let path = entry(self.folder.as_deref()?, key);
        let found = find(&path, key)?;
        tracing::debug!("the prompt was encoded before: `{}`", path.display());
        Some(found)
    }

    /// Makes `encoded` the entry of `key`, and removes old entries above `limit` bytes. Whether it is on disk now.
    fn keep_on_disk(&self, key: &PromptKey, encoded: &EncodedPrompt, limit: u64) -> bool {
        let Some(folder) = &self.folder else {
            return false;
        };
        let path = entry(folder, key);
        let kept = self.keep(folder, &path, key.clone(), encoded, limit);
        if let Err(error) = &kept {
            tracing::debug!("cannot keep the encoded prompt in `{}`: {error}", path.display());
        }
        kept.is_ok()
    }

    fn keep(
        &self,
        folder: &Path,
        path: &Path,
        key: PromptKey,
        encoded: &EncodedPrompt,
        limit: u64,
    ) -> std::io::Result<()> {
        checksummed::make_private_folder(folder)?;
        let temporary = path.with_extension(format!("{}.{PART}", self.writer));
        let context = (CONTEXT.to_owned(), &encoded.context);
        let pooled = encoded.pooled.iter().map(|pooled| (POOLED.to_owned(), pooled));
        let tensors: Vec<(String, &Tensor)> = std::iter::once(context).chain(pooled).collect();
        let truncated = encoded.truncated;
        checksummed::replace(
            path,
            &temporary,
            Durability::Process,
            &Description { key, truncated },
            &tensors,
        )?;
        limit::apply(folder, limit, SystemTime::now())
    }
}

/// The path of the entry of `key` in `folder`.
fn entry(folder: &Path, key: &PromptKey) -> PathBuf {
    folder.join(key.digest()).with_extension(ENTRY)
}

/// The entry at `path`, if it exists, is undamaged, and has this key.
fn find(path: &Path, key: &PromptKey) -> Option<EncodedPrompt> {
    if !path.exists() {
        return None;
    }
    let entry = match checksummed::read::<Description>(path) {
        Ok(entry) if entry.description.key == *key => entry,
        Ok(_) => return None,
        Err(unreadable) => {
            tracing::debug!("`{}` is left aside: {unreadable}", path.display());
            return None;
        }
    };
    let tensor = |name: &str, shape: &[usize]| -> Option<Tensor> {
        let tensor = entry.tensors.get(name)?;
        (tensor.dims() == shape).then(|| tensor.clone())
    };
    let found = EncodedPrompt {
        context: tensor(CONTEXT, &key.context_shape())?,
        pooled: match key.pooled_shape() {
            Some(shape) => Some(tensor(POOLED, &shape)?),
            None => None,
        },
        truncated: entry.description.truncated,
    };
    // The modification time records the last use.
    if let Err(error) = File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
    {
        tracing::debug!("cannot mark `{}` as used: {error}", path.display());
    }
    Some(found)
}
