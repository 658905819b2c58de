//! The cache beside the stages of a plan: blocks of networks and encoded prompts of earlier stages and
//! requests.
//!
//! The cache never takes memory from a stage. Before a phase of a run starts, it is limited to what the
//! budget leaves beside the phase's predicted peak. So a plan is chosen as if there were no cache, and the
//! prediction is at most the budget.

use sd_memory::Bytes;

use super::{DECODE, DENOISE, ENCODE_CONTROL, ENCODE_IMAGE, Plan, StagePlan};

/// A phase of a model pass, with its own networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything before the denoising: encoding of prompts and images, conditioning of the networks.
    Preparation,
    /// The denoising steps.
    Denoising,
    /// The VAE decode.
    Decoding,
}

impl Phase {
    fn of(stage: &StagePlan) -> Self {
        match stage.name.as_str() {
            DENOISE => Self::Denoising,
            DECODE => Self::Decoding,
            _ => Self::Preparation,
        }
    }
}

/// The bytes that are cached when a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CachedBytes {
    /// Blocks of the denoising network and of its ControlNets.
    pub(crate) denoiser: u64,
    /// Everything else, without the text encoders that the plan keeps.
    pub(crate) others: u64,
}

impl Plan {
    /// The predicted peak of `phase` without the cache, and without the weights of text encoders that are kept there.
    pub(crate) fn peak_of(&self, phase: Phase) -> Bytes {
        let stages = self.stages.iter().filter(|stage| Phase::of(stage) == phase);
        let peaks = stages.map(|stage| match self.keeps_encoder(stage) {
            true => stage.predicted_peak.saturating_sub(stage.resident),
            false => stage.predicted_peak,
        });
        peaks.max().unwrap_or_default()
    }

    /// The same plan, whose text encoders `kept` are read as a whole and stay in the cache for the next request.
    #[must_use]
    pub(crate) fn keeping_encoders(mut self, kept: &[&'static str]) -> Self {
        for stage in &mut self.stages {
            if kept.contains(&stage.name.as_str()) {
                stage.resident = Bytes(stage.resident.0 + stage.streamed.0);
                stage.predicted_peak.0 += stage.streaming_saves.0;
                (stage.streamed, stage.read_each_pass) = (Bytes(0), Bytes(0));
                stage.streaming_saves = Bytes(0);
            }
        }
        self.kept_encoders = kept.to_vec();
        self
    }

    /// Whether `stage` is that of a text encoder that is kept.
    fn keeps_encoder(&self, stage: &StagePlan) -> bool {
        self.kept_encoders.contains(&stage.name.as_str())
    }

    /// Bytes of the text encoders that are kept.
    pub(crate) fn kept_encoder_bytes(&self) -> u64 {
        let kept = self.stages.iter().filter(|stage| self.keeps_encoder(stage));
        kept.map(|stage| stage.resident.0).sum()
    }

    /// The most bytes of weights that the networks of this plan leave in the cache.
    pub(crate) fn leaves_cached(&self) -> u64 {
        let resident = |phase: Phase| self.resident_of(|stage| Phase::of(stage) == phase);
        resident(Phase::Denoising)
            + resident(Phase::Decoding)
            + self.encoder_bytes()
            + self.kept_encoder_bytes()
    }

    /// What is cached of this plan's own networks when the next run of the same plan starts.
    pub(crate) fn cached_by_itself(&self) -> CachedBytes {
        let resident = |phase: Phase| self.resident_of(|stage| Phase::of(stage) == phase);
        CachedBytes {
            denoiser: resident(Phase::Denoising),
            others: resident(Phase::Decoding),
        }
    }

    /// Adds the cache, which holds `cached` at the start of the run, to the plan.
    #[must_use]
    pub(crate) fn with_cached(mut self, cached: CachedBytes) -> Self {
        let denoiser = self.resident_of(|stage| Phase::of(stage) == Phase::Denoising);
        let decoder = self.resident_of(|stage| Phase::of(stage) == Phase::Decoding);
        let encoder = self.encoder_bytes();
        // The second group of images uses what the first has cached.
        let networks_stay = self.groups.networks_stay;
        let has_groups = self.groups.groups > 1 && !networks_stay;
        let (denoiser_before, decoder_before) = if has_groups { (denoiser, decoder) } else { (0, 0) };
        let unused = cached.denoiser.saturating_sub(denoiser);
        let text = self.kept_encoder_bytes();
        let is_text: Vec<bool> = self
            .stages
            .iter()
            .map(|stage| self.keeps_encoder(stage))
            .collect();
        let budget = self.budget.0;
        for (stage, is_text) in self.stages.iter_mut().zip(is_text) {
            // A stage includes its own encoder.
            let text = if is_text { text - stage.resident.0 } else { text };
            let beside = match Phase::of(stage) {
                Phase::Preparation => cached.denoiser.max(denoiser_before) + decoder_before + encoder,
                Phase::Denoising => unused + decoder_before + encoder,
                // The stage includes the denoising network already.
                Phase::Decoding if networks_stay => unused + encoder,
                Phase::Decoding => cached.denoiser.max(denoiser) + encoder,
            };
            stage.add_cached(beside + text + cached.others, budget);
        }
        let peaks = self.stages.iter().map(|stage| stage.predicted_peak);
        self.predicted_peak = peaks.max().unwrap_or_default();
        self
    }

    fn resident_of(&self, wanted: impl Fn(&StagePlan) -> bool) -> u64 {
        let stages = self.stages.iter().filter(|stage| wanted(stage));
        stages.map(|stage| stage.resident.0).max().unwrap_or_default()
    }

    /// Bytes of the VAE encoder, if there is one.
    fn encoder_bytes(&self) -> u64 {
        self.resident_of(|stage| matches!(stage.name.as_str(), ENCODE_IMAGE | ENCODE_CONTROL))
    }
}

impl StagePlan {
    /// Adds `bytes` of cache to the stage, as far as they fit into `budget`.
    pub(crate) fn add_cached(&mut self, bytes: u64, budget: u64) {
        let peak = self.predicted_peak.0;
        self.predicted_peak = Bytes((peak + bytes).min(budget.max(peak)));
    }
}

#[cfg(test)]
mod tests {
    use sd_memory::Limit;

    use super::*;
    use crate::plan::{Arithmetic, Groups};

    fn plan(budget: u64) -> Plan {
        let stage = |name: &str, resident: u64, peak: u64| StagePlan {
            name: name.to_owned(),
            resident: Bytes(resident),
            streamed: Bytes(0),
            predicted_peak: Bytes(peak),
            streaming_saves: Bytes(0),
            read_each_pass: Bytes(0),
            passes: 1,
            loads: 1,
            arithmetic: Arithmetic::default(),
            duration: None,
        };
        Plan {
            budget: Bytes(budget),
            budget_from: Limit::Requested,
            predicted_peak: Bytes(700),
            smallest_budget: Bytes(100),
            resident_budget: Bytes(700),
            blocks: 10,
            resident_blocks: 10,
            controls_stay: true,
            images_per_pass: 1,
            groups: Groups::new(1, 1, false, 20, 0, true),
            condition_bytes: Bytes(0),
            release_page_cache: false,
            duration: None,
            stages: vec![
                stage("text_encoder", 0, 200),
                stage(ENCODE_IMAGE, 30, 300),
                stage("denoise", 500, 700),
                stage("decode", 40, 400),
            ],
            kept_encoders: Vec::new(),
        }
    }

    fn peaks(plan: &Plan) -> Vec<u64> {
        plan.stages.iter().map(|stage| stage.predicted_peak.0).collect()
    }

    #[test]
    fn a_phase_has_what_is_cached_beside_it() {
        let plan = plan(2000);
        assert_eq!(plan.peak_of(Phase::Preparation), Bytes(300));
        assert_eq!(plan.leaves_cached(), 570);
        let first = plan.clone().with_cached(CachedBytes::default());
        assert_eq!(peaks(&first), [230, 330, 730, 930]);
        let next = plan.with_cached(CachedBytes {
            denoiser: 500,
            others: 40,
        });
        assert_eq!(peaks(&next), [770, 870, 770, 970]);
        assert_eq!(next.predicted_peak, Bytes(970));
    }

    #[test]
    fn a_text_encoder_that_is_kept_counts_in_every_stage() {
        let mut plan = plan(2000);
        let text = &mut plan.stages[0];
        // It is streamed through a window of 50 bytes.
        (text.streamed, text.read_each_pass) = (Bytes(100), Bytes(100));
        text.streaming_saves = Bytes(50);
        assert_eq!(plan.clone().keeping_encoders(&[]), plan);
        let kept = plan.clone().keeping_encoders(&["text_encoder"]);
        assert_eq!(
            (
                kept.stages[0].resident,
                kept.stages[0].streamed,
                kept.stages[0].read()
            ),
            (Bytes(100), Bytes(0), Bytes(100))
        );
        // Its weights are in the cache before and after its stage.
        assert_eq!(kept.peak_of(Phase::Preparation), Bytes(300));
        assert_eq!(kept.leaves_cached(), plan.leaves_cached() + 100);
        let cached = CachedBytes {
            denoiser: 500,
            others: 40,
        };
        assert_eq!(peaks(&plan.with_cached(cached)), [770, 870, 770, 970]);
        assert_eq!(peaks(&kept.with_cached(cached)), [820, 970, 870, 1070]);
    }

    #[test]
    fn no_prediction_is_raised_above_the_budget() {
        let cached = CachedBytes {
            denoiser: 500,
            others: 40,
        };
        assert_eq!(peaks(&plan(720).with_cached(cached)), [720, 720, 720, 720]);
        assert_eq!(peaks(&plan(600).with_cached(cached)), [600, 600, 700, 600]);
    }
}
