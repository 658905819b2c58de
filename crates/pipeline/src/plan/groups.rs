//! Groups of images: how many are denoised, decoded and saved before the next are begun.

use sd_memory::Bytes;
use serde::Serialize;

use super::{DECODE, DENOISE, ENCODE_IMAGE, Plan};

/// Passes over a denoising network in host memory after which reloading its weights costs less than a tenth
/// of the time, since a pass takes at least as long as a reload.
const PASSES_A_RELOAD: usize = 10;
/// The same for a GPU with its own memory, where a pass is much faster than copying the weights there: 0.04 s
/// against 1 to 2 s with SDXL at 1024x1024 on an H100.
const PASSES_A_RELOAD_OF_GPU: usize = 256;

/// How the other stages of a run affect the groups of a model's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether a group needs only this model's networks once its prompts are encoded: neither a refiner nor
    /// an upscaler.
    pub alone: bool,
    /// Bytes of the encoded prompts of the run's other models, which are cached between groups.
    pub other_prompts: u64,
}

impl Surroundings {
    /// A run with this model alone.
    pub const ALONE: Self = Self {
        alone: true,
        other_prompts: 0,
    };
}

/// Why a group has its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupReason {
    /// Each image is finished before the next is begun.
    OneByOne,
    /// Images share forward passes over streamed weights.
    SharedPasses,
    /// Reloading the networks for each image would take longer than the later first image is worth.
    Reloading,
}

/// The groups of images of a run. Each is denoised, decoded and saved before the next is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// Images of the run.
    pub images: usize,
    /// Images of a group; the last group may have fewer.
    pub images_a_group: usize,
    /// The number of groups.
    pub groups: usize,
    /// Why a group has this size.
    pub reason: GroupReason,
    /// Whether the networks stay in memory between groups.
    pub networks_stay: bool,
    /// Denoising steps of an image in all model passes.
    pub steps_an_image: usize,
    /// Steps of all images before the first image is decoded and saved.
    pub first_image_after_steps: usize,
    /// Bytes of each image that waits for the rest of its group.
    #[serde(skip)]
    pub(crate) waiting: Bytes,
    /// The most images of a group that fit into the budget.
    #[serde(skip)]
    pub(crate) most_images: usize,
    /// Whether other networks run between those of this model in a group.
    #[serde(skip)]
    pub(crate) alone: bool,
}

impl Groups {
    /// Groups of the images that share a forward pass.
    pub(crate) fn new(
        images: usize,
        images_per_pass: usize,
        networks_stay: bool,
        steps_an_image: usize,
        waiting: u64,
        alone: bool,
    ) -> Self {
        let mut groups = Self {
            images,
            images_a_group: images_per_pass,
            groups: 1,
            reason: GroupReason::OneByOne,
            networks_stay,
            steps_an_image,
            first_image_after_steps: 0,
            waiting: Bytes(waiting),
            most_images: images,
            alone,
        };
        groups.set(images_per_pass, images_per_pass);
        groups
    }

    fn set(&mut self, images_a_group: usize, images_per_pass: usize) {
        self.images_a_group = images_a_group.clamp(1, self.images.max(1));
        self.groups = self.images.div_ceil(self.images_a_group);
        self.reason = match self.images_a_group {
            1 => GroupReason::OneByOne,
            images if images <= images_per_pass => GroupReason::SharedPasses,
            _ => GroupReason::Reloading,
        };
        self.first_image_after_steps = self.images_a_group * self.steps_an_image;
    }

    /// Steps of all images.
    pub fn steps(&self) -> usize {
        self.images.saturating_mul(self.steps_an_image)
    }

    /// Combines these groups with those of the next model pass.
    pub(super) fn followed_by(mut self, next: &Self) -> Self {
        self.steps_an_image += next.steps_an_image;
        self.first_image_after_steps = self.images_a_group * self.steps_an_image;
        if self.reason == GroupReason::OneByOne {
            self.reason = next.reason;
        }
        self
    }
}

/// The fewest images, in whole batches of `images_per_pass`, that are worth a reload of the weights.
pub(super) fn worth_a_reload(images_per_pass: usize, evaluations: usize, has_own_memory: bool) -> usize {
    let passes = if has_own_memory {
        PASSES_A_RELOAD_OF_GPU
    } else {
        PASSES_A_RELOAD
    };
    passes.div_ceil(evaluations.max(1)) * images_per_pass
}

impl Plan {
    /// Changes the plan to groups of `images_a_group` images, or as many as fit.
    #[must_use]
    pub(crate) fn in_groups_of(mut self, images_a_group: usize) -> Self {
        let images_a_group = images_a_group.min(self.groups.most_images).max(1);
        self.groups.set(images_a_group, self.images_per_pass);
        let Groups {
            images,
            images_a_group,
            groups,
            networks_stay,
            waiting,
            alone,
            ..
        } = self.groups.clone();
        let loads = if networks_stay { 1 } else { groups };
        for stage in &mut self.stages {
            let is_of_groups = !stage.name.starts_with("text_encoder") && stage.name != ENCODE_IMAGE;
            if is_of_groups {
                stage.loads = loads;
                // The arithmetic of the others is that of all images already.
                if !matches!(stage.name.as_str(), DENOISE | DECODE) {
                    stage.arithmetic = stage.arithmetic.times(loads);
                }
            }
            if stage.name == DENOISE {
                // The last group may be smaller, and need fewer passes.
                let evaluations = stage.passes;
                let batches = |images: usize| images.div_ceil(self.images_per_pass);
                let whole = images / images_a_group;
                let rest = images % images_a_group;
                stage.passes = (whole * batches(images_a_group) + batches(rest)) * evaluations;
            }
            if stage.name == DENOISE || stage.name == DECODE || !alone {
                let counted = counted(&stage.name, self.images_per_pass);
                stage.predicted_peak.0 += images_a_group.saturating_sub(counted) as u64 * waiting.0;
            }
        }
        let peaks = self.stages.iter().map(|stage| stage.predicted_peak);
        self.predicted_peak = peaks.max().unwrap_or_default();
        self
    }

    /// The most images of a group that fit into the budget.
    pub(super) fn most_images_a_group(&self) -> usize {
        let waits = |name: &str| name == DENOISE || name == DECODE || !self.groups.alone;
        let stages = self.stages.iter().filter(|stage| waits(&stage.name));
        let most = stages.map(|stage| {
            let left = self.budget.saturating_sub(stage.predicted_peak).0 / self.groups.waiting.0.max(1);
            counted(&stage.name, self.images_per_pass).saturating_add(left as usize)
        });
        most.min().unwrap_or(1).min(self.groups.images).max(1)
    }
}

/// Waiting images that a stage's prediction already includes, before the group size is known.
fn counted(stage: &str, images_per_pass: usize) -> usize {
    if stage == DENOISE { images_per_pass } else { 1 }
}
