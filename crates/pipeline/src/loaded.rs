//! What is loaded in a process: the device, and what stays of one request for the next.

use std::path::PathBuf;

use candle_core::Device;
use sd_memory::Bytes;
use sd_ops::{Capabilities, Memory};
use sd_weights::ModelSource;

use crate::request::{DeviceChoice, ModelChoice};
use crate::request_cache::RequestCache;
use crate::{Result, device};

/// What is loaded in a process.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    device: Option<(DeviceChoice, Device)>,
    /// `None` where nothing stays of a request.
    cache: Option<RequestCache>,
    /// Where the base model of the last request is.
    model: Option<PathBuf>,
    /// What the process took in the last request beside networks and activations.
    process: Bytes,
}

impl Loaded {
    /// Nothing yet. What is loaded later stays for the next request.
    pub(crate) fn keeping() -> Self {
        Self {
            cache: Some(RequestCache::default()),
            ..Self::default()
        }
    }

    /// The device of `choice`, which is opened once. Nothing stays on another one.
    ///
    /// # Errors
    /// This build or this machine does not have the device.
    pub(crate) fn device(&mut self, choice: DeviceChoice) -> Result<Device> {
        if let Some((_, device)) = self.device.as_ref().filter(|(opened, _)| *opened == choice) {
            return Ok(device.clone());
        }
        self.release();
        let device = device::open(choice)?;
        self.device = Some((choice, device.clone()));
        Ok(device)
    }

    /// What stays of one request for the next, if anything does. Nothing stays on a device with its own
    /// memory, whose memory pool is created anew for each request.
    pub(crate) fn cache(&self) -> Option<&RequestCache> {
        let (_, device) = self.device.as_ref()?;
        let has_own_memory = Capabilities::of(device).memory == Memory::Discrete;
        self.cache.as_ref().filter(|_| !has_own_memory)
    }

    /// Begins a request for `model` within `budget`, before anything of the model is opened: drops what
    /// stayed of another model, and what a smaller budget has no room for.
    pub(crate) fn begin(&mut self, model: &ModelChoice, budget: Bytes) {
        // A model that is not there is an error, after which the one that is loaded may be asked for again.
        if self.cache.is_none() || !model.folder.exists() {
            return;
        }
        if self.model.as_deref() != Some(model.folder.path()) {
            self.release();
            self.model = Some(model.folder.path().to_owned());
        }
        self.limit_to(budget.saturating_sub(self.process));
    }

    /// Remembers what the process takes in this request beside networks and activations.
    pub(crate) fn note_process(&mut self, process: Bytes) {
        self.process = process;
    }

    /// Drops everything that stays but the device.
    pub(crate) fn release(&mut self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
        self.model = None;
    }

    /// Bytes of everything that stays.
    pub(crate) fn bytes(&self) -> Bytes {
        self.cache.as_ref().map_or(Bytes(0), RequestCache::bytes)
    }

    fn limit_to(&self, room: Bytes) {
        if let Some(cache) = &self.cache {
            cache.limit_to(room);
        }
    }
}
