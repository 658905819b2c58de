//! Where each byte will live and when: a pure function of the model's headers, the recipe and the budget.
//!
//! Nothing that could change a bit of an image is decided here. Which pass asks about what, how work is cut into
//! chunks and bands: shapes alone decide that, in the networks and their operations. A plan chooses which blocks stay
//! in memory, how many images share a pass, and how many images are saved before the next are begun.

mod groups;
mod needs;
mod search;
mod table;

use sd_memory::{Bytes, Limit};
use sd_weights::{PageCache, Residency, WeightOptions};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::recipe::Recipe;
use crate::{Error, Result, device_budget};
pub use groups::{GroupReason, Groups, Surroundings};
use needs::Needs;
pub(crate) use needs::{process_bytes, prompt_bytes};

/// The name of the denoising stage.
const DENOISE: &str = "denoise";
/// The name of the decoding stage.
const DECODE: &str = "decode";
/// The name of the stage that reads the images that the user names.
pub(crate) const SOURCE_IMAGES: &str = "source images";

/// What one stage holds and reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StagePlan {
    /// The stage: `denoise`, say.
    pub name: String,
    /// Bytes of weights that stay until the stage ends.
    pub resident: Bytes,
    /// Bytes of weights that pass through a window, each pass anew.
    pub streamed: Bytes,
    /// The most bytes that the process has while the stage works.
    pub predicted_peak: Bytes,
    /// Bytes that a pass reads: of the denoising, a step. What stays is read once beside this.
    pub read_each_pass: Bytes,
    /// How often it passes over its network.
    pub passes: usize,
    /// How often what stays is read: once, or once for each group of images.
    pub loads: usize,
}

impl StagePlan {
    /// Bytes that the whole stage reads.
    pub fn read(&self) -> Bytes {
        let resident = self.resident.0.saturating_mul(self.loads as u64);
        let streamed = self.read_each_pass.0.saturating_mul(self.passes as u64);
        Bytes(resident.saturating_add(streamed))
    }
}

/// Bytes of the images that the user names: initial images, masks and control images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceImageBytes {
    /// Of all, from the beginning of a run to its end.
    pub held: u64,
    /// What reading the one takes that takes most, beside what is held.
    pub reading: u64,
}

impl SourceImageBytes {
    /// These and those of `other` images, which are read apart from them.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            reading: self.reading.max(other.reading),
        }
    }

    /// These, when all are read.
    #[must_use]
    pub fn once_read(self) -> Self {
        Self { reading: 0, ..self }
    }

    /// The most bytes that they take at a time.
    pub fn most(self) -> u64 {
        self.held + self.reading
    }
}

/// How a run will use memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What the run may have.
    pub budget: Bytes,
    /// What the budget comes from.
    pub budget_from: Limit,
    /// Whether the run keeps to it: on Apple's GPUs it does not yet.
    pub budget_is_kept: bool,
    /// The most that it will have.
    pub predicted_peak: Bytes,
    /// The smallest budget that it could be run in.
    pub smallest_budget: Bytes,
    /// The budget from which on all blocks of the denoising network stay.
    pub resident_budget: Bytes,
    /// Blocks of the denoising network.
    pub blocks: usize,
    /// How many of them stay.
    pub resident_blocks: usize,
    /// Whether the ControlNets' blocks stay, if there are any.
    pub controls_stay: bool,
    /// Images that share a pass over the denoising network.
    #[serde(rename = "pictures_a_pass")]
    pub images_per_pass: usize,
    /// The groups in which images are made.
    pub groups: Groups,
    /// Bytes that the steps' modulations, the text and the positions take while images are denoised.
    pub condition_bytes: Bytes,
    /// Whether the system's copies of streamed weights are given back at once: there is no room for them to be of use.
    pub release_page_cache: bool,
    /// The stages, in order.
    pub stages: Vec<StagePlan>,
}

impl Plan {
    /// The fastest plan that `budget` has room for beside the `source_images` that the user names, among the run's other stages as
    /// `surroundings` says. `room` is what the machine has free, in which the system may keep copies of what is read again.
    ///
    /// # Errors
    /// A header is wrong, or the budget is smaller than the smallest that the run can be done in.
    pub fn new(
        bundle: &Bundle,
        recipe: &Recipe,
        weight_options: &WeightOptions,
        surroundings: Surroundings,
        budget: Bytes,
        room: Bytes,
        source_images: SourceImageBytes,
    ) -> Result<Self> {
        let needs = Needs::of(
            bundle,
            recipe,
            weight_options,
            surroundings,
            budget,
            source_images,
        )?;
        let smallest_budget = needs.smallest_budget();
        if budget < smallest_budget {
            return Err(Error::BudgetTooSmall {
                budget,
                smallest: smallest_budget,
                stage: needs.largest_stage(),
            });
        }
        Ok(Self {
            budget_is_kept: device_budget::is_kept(&weight_options.device),
            ..search::fastest(&needs, recipe.images, budget, room)
        })
    }

    /// This plan with that of a run's next model pass after it, as one: its numbers of blocks and bytes of a step stay those of the
    /// first.
    #[must_use]
    pub fn followed_by(mut self, next: Self) -> Self {
        self.predicted_peak = self.predicted_peak.max(next.predicted_peak);
        self.smallest_budget = self.smallest_budget.max(next.smallest_budget);
        self.resident_budget = self.resident_budget.max(next.resident_budget);
        self.groups = self.groups.followed_by(&next.groups);
        self.stages.extend(next.stages.into_iter().map(|stage| StagePlan {
            name: match stage.name.as_str() {
                DENOISE => "refine".to_owned(),
                name => format!("refiner {name}"),
            },
            ..stage
        }));
        self
    }

    /// This plan with another stage at its end.
    #[must_use]
    pub fn with(mut self, stage: StagePlan) -> Self {
        self.predicted_peak = self.predicted_peak.max(stage.predicted_peak);
        self.smallest_budget = self.smallest_budget.max(stage.predicted_peak);
        self.resident_budget = self.resident_budget.max(stage.predicted_peak);
        self.stages.push(stage);
        self
    }

    /// Which blocks of the denoising network stay.
    pub fn residency(&self) -> Residency {
        if self.resident_blocks == self.blocks {
            Residency::Resident
        } else {
            Residency::Partly(self.resident_blocks)
        }
    }

    /// What becomes of the system's copies of streamed weights.
    pub fn page_cache(&self) -> PageCache {
        if self.release_page_cache {
            PageCache::Release
        } else {
            PageCache::Keep
        }
    }

    /// Whether weights of the denoising network are read again in every step.
    pub fn streams(&self) -> bool {
        self.resident_blocks < self.blocks
    }

    /// Bytes that the denoising reads in a step.
    pub fn read_each_step(&self) -> Bytes {
        self.stages
            .iter()
            .find(|stage| stage.name == DENOISE)
            .map_or(Bytes(0), |stage| stage.read_each_pass)
    }
}
