//! The memory plan of a run: a pure function of the model's headers, the recipe and the budget.
//!
//! A plan decides nothing that could change a bit of an image. The batching of classifier-free guidance, the
//! chunks and the bands depend on shapes alone, inside the networks and their operations. A plan chooses
//! which blocks stay in memory, how many images share a forward pass, and how many images are saved before
//! the next are begun.

mod arithmetic;
mod cached;
mod expected_reads;
mod groups;
mod needs;
mod search;
mod table;

use std::time::Duration;

use sd_memory::{Bytes, Limit};
use sd_ops::Rates;
use sd_weights::{PageCache, Residency, WeightOptions};
use serde::{Serialize, Serializer};

use crate::bundle::Bundle;
use crate::recipe::Recipe;
use crate::{Error, Result};
pub use arithmetic::Arithmetic;
pub(crate) use cached::{CachedBytes, Phase};
pub use groups::{GroupReason, Groups, Surroundings};
use needs::Needs;
pub(crate) use needs::{encoder_bytes, encoding_peak, process_bytes, prompt_bytes};

/// The name of the denoising stage.
const DENOISE: &str = "denoise";
/// The name of the decoding stage.
const DECODE: &str = "decode";
/// The name of the stage that encodes the initial image.
const ENCODE_IMAGE: &str = "encode image";
/// The name of the stage that encodes the images of ControlNets.
const ENCODE_CONTROL: &str = "encode control";
/// The name of the stage that reads the user's images.
pub(crate) const SOURCE_IMAGES: &str = "source images";

/// The memory, the reads and the arithmetic of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StagePlan {
    /// The stage, such as `denoise`.
    pub name: String,
    /// Bytes of weights that stay in memory during the stage.
    pub resident: Bytes,
    /// Bytes of weights that are streamed, again in each pass.
    pub streamed: Bytes,
    /// The predicted peak of the process during the stage.
    pub predicted_peak: Bytes,
    /// How much higher it were if no weights of the stage's networks were streamed.
    #[serde(skip)]
    pub(crate) streaming_saves: Bytes,
    /// Bytes read per pass, or per step of the denoising. Resident weights are read once in addition.
    pub read_each_pass: Bytes,
    /// Passes over the network.
    pub passes: usize,
    /// How often the resident weights are read: once, or once per group of images.
    pub loads: usize,
    /// The arithmetic of the stage.
    #[serde(flatten)]
    pub arithmetic: Arithmetic,
    /// How long the arithmetic takes, once the rates of the device are known.
    #[serde(
        rename = "seconds",
        serialize_with = "in_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<Duration>,
}

impl StagePlan {
    /// Bytes that the stage reads in all.
    pub fn read(&self) -> Bytes {
        let resident = self.resident.0.saturating_mul(self.loads as u64);
        let streamed = self.read_each_pass.0.saturating_mul(self.passes as u64);
        Bytes(resident.saturating_add(streamed))
    }
}

/// Bytes of the user's images: initial images, masks and control images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceImageBytes {
    /// Bytes of all images, held during the whole run.
    pub held: u64,
    /// The largest working memory of reading one image.
    pub reading: u64,
}

impl SourceImageBytes {
    /// Adds `other` images, which are read separately.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            reading: self.reading.max(other.reading),
        }
    }

    /// The bytes once all images are read.
    #[must_use]
    pub fn once_read(self) -> Self {
        Self { reading: 0, ..self }
    }

    /// The peak bytes.
    pub fn most(self) -> u64 {
        self.held + self.reading
    }
}

/// The memory plan of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The budget.
    pub budget: Bytes,
    /// The limit that the budget comes from.
    pub budget_from: Limit,
    /// The predicted peak.
    pub predicted_peak: Bytes,
    /// The smallest budget that the run fits into.
    pub smallest_budget: Bytes,
    /// The budget from which on all blocks of the denoising network are resident.
    pub resident_budget: Bytes,
    /// Blocks of the denoising network.
    pub blocks: usize,
    /// How many of them are resident.
    pub resident_blocks: usize,
    /// Whether the blocks of the ControlNets are resident, if there are any.
    pub controls_stay: bool,
    /// Images that share a forward pass of the denoising network.
    #[serde(rename = "pictures_a_pass")]
    pub images_per_pass: usize,
    /// The groups of images.
    pub groups: Groups,
    /// Bytes of the conditioning during the denoising: modulations of all steps, context and positions.
    pub condition_bytes: Bytes,
    /// Whether page cache of streamed weights is released at once, because it would be evicted before its
    /// next use.
    pub release_page_cache: bool,
    /// How long the arithmetic of all stages takes, once the rates of the device are known.
    #[serde(
        rename = "seconds",
        serialize_with = "in_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<Duration>,
    /// The stages, in order.
    pub stages: Vec<StagePlan>,
    /// The text encoders whose weights stay in the cache for the next request.
    #[serde(skip)]
    pub(crate) kept_encoders: Vec<&'static str>,
}

fn in_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_secs_f64())
        .serialize(serializer)
}

impl Plan {
    /// The fastest plan within `budget`, beside the user's `source_images` and the other stages of
    /// `surroundings`. `free_memory` is the free memory of the machine, which can cache pages that are read again.
    ///
    /// # Errors
    /// A header is wrong, or the budget is smaller than the smallest that the run fits into.
    pub fn new(
        bundle: &Bundle,
        recipe: &Recipe,
        weight_options: &WeightOptions,
        surroundings: Surroundings,
        budget: Bytes,
        free_memory: Bytes,
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
        Ok(search::fastest(&needs, recipe.images, budget, free_memory))
    }

    /// Combines this plan with that of the next model pass. Numbers of blocks and bytes per step stay those
    /// of the first.
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

    /// Appends a stage.
    #[must_use]
    pub fn with(mut self, stage: StagePlan) -> Self {
        self.predicted_peak = self.predicted_peak.max(stage.predicted_peak);
        self.smallest_budget = self.smallest_budget.max(stage.predicted_peak);
        self.resident_budget = self.resident_budget.max(stage.predicted_peak);
        self.stages.push(stage);
        self
    }

    /// Predicts how long each stage takes on a device of `rates`, without reading files: weights from a disk take
    /// longer than from the page cache, and how long is not known.
    #[must_use]
    pub fn timed(mut self, rates: &Rates) -> Self {
        for stage in &mut self.stages {
            stage.duration = Some(stage.arithmetic.duration(rates));
        }
        let durations = self.stages.iter().filter_map(|stage| stage.duration);
        self.duration = Some(durations.fold(Duration::ZERO, Duration::saturating_add));
        self
    }

    /// Which blocks of the denoising network are resident.
    pub fn residency(&self) -> Residency {
        if self.resident_blocks == self.blocks {
            Residency::Resident
        } else {
            Residency::Partly(self.resident_blocks)
        }
    }

    /// What happens to the page cache of streamed weights.
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

    /// The arithmetic of a denoising step of one image.
    pub(crate) fn arithmetic_of_step(&self) -> Arithmetic {
        let denoise = self.stages.iter().find(|stage| stage.name == DENOISE);
        let all = denoise.map(|stage| stage.arithmetic).unwrap_or_default();
        all.divided_by(self.groups.steps())
    }

    /// Bytes that the denoising reads per step.
    pub fn read_each_step(&self) -> Bytes {
        self.stages
            .iter()
            .find(|stage| stage.name == DENOISE)
            .map_or(Bytes(0), |stage| stage.read_each_pass)
    }
}
