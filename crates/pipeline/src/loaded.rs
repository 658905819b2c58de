//! What is loaded in a process: the device, the tokenizers, and the cache for the next request.

use std::path::PathBuf;

use candle_core::Device;
use sd_memory::{Bytes, DeviceInfo};
use sd_ops::{Capabilities, Memory};
use sd_weights::gpu_name;

use crate::device::{self, Opened};
use crate::request::{DeviceChoice, ModelChoice};
use crate::request_cache::RequestCache;
use crate::tokenizer::Tokenizers;
use crate::{Result, device_budget};

/// The memory of a device that has its own.
#[derive(Debug, Clone)]
pub struct DeviceMemory {
    /// The name of the GPU, if its driver reports one.
    pub gpu: Option<String>,
    /// What is in use, and how much there is.
    pub memory: DeviceInfo,
}

/// What is loaded in a process.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    device: Option<(DeviceChoice, Opened)>,
    /// `None` if nothing is cached between requests.
    cache: Option<RequestCache>,
    /// The base model of the last request.
    model: Option<PathBuf>,
    /// The tokenizers for the next request.
    tokenizers: Tokenizers,
    /// Memory of the process in the last request without networks and activations.
    process: Bytes,
}

impl Loaded {
    /// Nothing loaded yet, with a cache for the next request.
    pub(crate) fn with_cache() -> Self {
        Self {
            cache: Some(RequestCache::default()),
            tokenizers: Tokenizers::keeping(),
            ..Self::default()
        }
    }

    /// Nothing loaded yet, and nothing cached for the next request but `tokenizers`.
    pub(crate) fn with_tokenizers(tokenizers: Tokenizers) -> Self {
        Self {
            tokenizers,
            ..Self::default()
        }
    }

    /// Shares the tokenizers that others keep.
    pub(crate) fn share_tokenizers(&mut self, tokenizers: Tokenizers) {
        self.tokenizers = tokenizers;
    }

    /// The tokenizers for the next request.
    pub(crate) fn tokenizers(&self) -> &Tokenizers {
        &self.tokenizers
    }

    /// The device of `choice`, which is opened once. The cache of another device is released.
    ///
    /// # Errors
    /// This build or this machine does not have the device.
    pub(crate) fn device(&mut self, choice: DeviceChoice) -> Result<Device> {
        if let Some((_, opened)) = self.device.as_ref().filter(|(chosen, _)| *chosen == choice) {
            return Ok(opened.device.clone());
        }
        self.release_cache();
        let opened = device::open(choice)?;
        let device = opened.device.clone();
        self.device = Some((choice, opened));
        Ok(device)
    }

    /// Why the device is the CPU although this build supports GPUs, if one was looked for.
    pub(crate) fn fallback(&self) -> Option<&str> {
        let (_, opened) = self.device.as_ref()?;
        opened.fallback.as_deref()
    }

    /// The device that is open, and its memory, if it has memory of its own.
    pub(crate) fn device_memory(&self) -> Option<DeviceMemory> {
        let (_, opened) = self.device.as_ref()?;
        Some(DeviceMemory {
            memory: device_budget::info(&opened.device)?,
            gpu: gpu_name(&opened.device),
        })
    }

    /// The cache for the next request, if there is one. A device with its own memory has none, because its
    /// memory pool is created anew for each request.
    pub(crate) fn cache(&self) -> Option<&RequestCache> {
        let (_, opened) = self.device.as_ref()?;
        let has_own_memory = Capabilities::of(&opened.device).memory == Memory::Discrete;
        self.cache.as_ref().filter(|_| !has_own_memory)
    }

    /// Starts a request for `model` within `budget`, before its files are opened: drops what is cached of
    /// another model, and what does not fit into a smaller budget.
    pub(crate) fn begin(&mut self, model: &ModelChoice, budget: Bytes) {
        // A missing model is an error, and the next request may be for the loaded one again.
        if self.cache.is_none() || !model.files.exists() {
            return;
        }
        if self.model.as_deref() != Some(model.files.path()) {
            self.release_cache();
            self.model = Some(model.files.path().to_owned());
        }
        self.limit_to(budget.saturating_sub(self.process));
    }

    /// Records the memory of the process in this request without networks and activations.
    pub(crate) fn note_process(&mut self, process: Bytes) {
        self.process = process;
    }

    /// Drops everything but the device.
    pub(crate) fn release(&mut self) {
        self.tokenizers.clear();
        self.release_cache();
    }

    fn release_cache(&mut self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
        self.model = None;
    }

    /// Bytes of the cache.
    pub(crate) fn bytes(&self) -> Bytes {
        self.cache.as_ref().map_or(Bytes(0), RequestCache::bytes)
    }

    fn limit_to(&self, limit: Bytes) {
        if let Some(cache) = &self.cache {
            cache.limit_to(limit);
        }
    }
}
