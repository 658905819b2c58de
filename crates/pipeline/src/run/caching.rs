//! The room of what stays cached while a phase of a run works: what the budget leaves beside the phase.

use sd_memory::Bytes;

use super::Run;
use crate::plan::{Phase, process_bytes};

impl Run<'_> {
    /// Drops what is cached and does not fit beside `phase` of the current model pass. It is called before
    /// the networks of the phase before are dropped, whose blocks are then cached as far as there is room.
    pub(super) fn limit_cache_beside(&self, phase: Phase) {
        self.limit_cache(self.pass().plan.peak_of(phase));
    }

    /// The same beside upscaling.
    pub(super) fn limit_cache_beside_upscaling(&self) {
        if let Some(upscaling) = &self.upscaling {
            self.limit_cache(upscaling.plan.predicted_peak);
        }
    }

    /// The same where no network is in use.
    pub(super) fn limit_cache_between_networks(&self) {
        let pass = self.pass();
        let process = process_bytes(&pass.bundle, &pass.weight_options);
        self.limit_cache(Bytes(process + pass.source_images.held));
    }

    /// Drops everything that is cached.
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
