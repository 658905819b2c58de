//! Limits the cache during each phase of a run to what the budget leaves beside the phase.

use sd_memory::Bytes;

use super::Run;
use crate::plan::{Phase, process_bytes};

impl Run<'_> {
    /// Drops cached blocks that do not fit beside `phase` of the current model pass. It is called before the
    /// networks of the previous phase are dropped, whose blocks are then cached as far as they fit.
    pub(super) fn limit_cache_beside(&self, phase: Phase) {
        self.limit_cache(self.pass().plan.peak_of(phase));
    }

    /// Drops cached blocks that do not fit beside the preparation of the current model pass, whose text encoders take
    /// their own blocks out of the cache and read those that are not there.
    pub(super) fn limit_cache_beside_encoding(&self) {
        let Some(cache) = &self.cache else {
            return;
        };
        let pass = self.pass();
        let cached = || -> u64 {
            let names = pass.encoder_names.iter();
            names.map(|name| cache.blocks.bytes_of(name)).sum()
        };
        loop {
            let before = cached();
            let missing = pass.plan.kept_encoder_bytes().saturating_sub(before);
            self.limit_cache(Bytes(pass.plan.peak_of(Phase::Preparation).0 + missing));
            // What was dropped may be theirs, and is then missing too.
            if cached() == before {
                return;
            }
        }
    }

    /// As above, beside the upscaling.
    pub(super) fn limit_cache_beside_upscaling(&self) {
        if let Some(upscaling) = &self.upscaling {
            self.limit_cache(upscaling.plan.predicted_peak);
        }
    }

    /// As above, while no network is in use.
    pub(super) fn limit_cache_between_networks(&self) {
        let pass = self.pass();
        let process = process_bytes(&pass.bundle, &pass.weight_options);
        self.limit_cache(Bytes(process + pass.source_images.held));
    }

    /// Drops the cache.
    pub(crate) fn forget_cached(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    fn limit_cache(&self, peak: Bytes) {
        if let Some(cache) = &self.cache {
            cache.limit_to(self.pass().plan.budget.saturating_sub(peak));
        }
    }
}
