//! The upscaling at the end of a run: its method, its plan, its share of the budget.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;
use sd_models::{WeightBytes, Work};
use sd_weights::WeightOptions;

use super::model_pass::ModelPass;
use crate::memory::PROGRAM;
use crate::plan::{Arithmetic, StagePlan};
use crate::recipe::Recipe;
use crate::request::UpscaleChoice;
use crate::upscale::lanczos3_bytes;
use crate::{Error, Result, device_budget, stage};

/// The method of upscaling.
#[derive(Debug, Clone)]
pub(crate) struct Upscaling {
    /// The scale factor of both sides.
    pub(crate) factor: usize,
    /// The file of the upscaling network; without one images are resampled.
    pub(crate) network: Option<PathBuf>,
    pub(crate) plan: StagePlan,
    /// Bytes of each image that waits for the rest of its group.
    waiting: u64,
}

impl Upscaling {
    const STAGE: &str = "upscale";
    /// The program itself after the earlier stages, with the buffers of its threads.
    const PROGRAM: u64 = PROGRAM + (2 << 20);

    /// The upscaling of `choice` after the last model `pass`, with `prompts` bytes of encoded prompts in
    /// memory. Only headers of the network are read. The plan is for one image at a time until
    /// [`Upscaling::in_groups_of`].
    ///
    /// # Errors
    /// The network's file is not supported, or the budget is too small for it.
    pub(crate) fn of(
        choice: &UpscaleChoice,
        pass: &ModelPass,
        prompts: u64,
        weight_options: &WeightOptions,
        budget: Bytes,
    ) -> Result<Self> {
        let Some(file) = &choice.network else {
            return Self::resampled(choice.factor, pass, prompts, budget);
        };
        match Self::by_network(file, choice.factor, pass, prompts, weight_options, budget) {
            Err(error) if choice.or_resampled => {
                tracing::info!(
                    "images are resampled, not upscaled by `{}`: {error}",
                    file.display()
                );
                Self::resampled(choice.factor, pass, prompts, budget)
            }
            upscaling => upscaling,
        }
    }

    /// Each image is resampled as soon as it is decoded, with the decoder in memory for the next.
    fn resampled(factor: usize, pass: &ModelPass, prompts: u64, budget: Bytes) -> Result<Self> {
        let Recipe { size, images, .. } = pass.recipe;
        let (rows, columns) = stage::latent_sides(&pass.bundle, size);
        let latents = (pass.bundle.vae.latent_channels * rows * columns * size_of::<f32>()) as u64;
        let at = |factor: usize| (factor * size.width(), factor * size.height());
        let (width, height) = at(factor);
        // The image and its file come after.
        let most = lanczos3_bytes(at(1), at(factor)).max(2 * 3 * (width * height) as u64);
        let decoder = pass.plan.stages.last().map_or(0, |stage| stage.resident.0);
        let peak = match device_budget::process(&pass.weight_options.device) {
            // Pixels are in host memory.
            Some(of_device) => of_device + decoder,
            None => Self::PROGRAM + pass.source_images.held + prompts + decoder + latents + most,
        };
        Self::within(
            budget,
            factor,
            None,
            StagePlan {
                name: Self::STAGE.to_owned(),
                resident: Bytes(0),
                streamed: Bytes(0),
                predicted_peak: Bytes(peak),
                streaming_saves: Bytes(0),
                read_each_pass: Bytes(0),
                passes: images,
                loads: 1,
                // Resampling moves few bytes beside the decoder.
                arithmetic: Arithmetic::default(),
                duration: None,
            },
            latents,
        )
    }

    fn by_network(
        file: &Path,
        factor: usize,
        pass: &ModelPass,
        prompts: u64,
        weight_options: &WeightOptions,
        budget: Bytes,
    ) -> Result<Self> {
        let Recipe { size, images, .. } = pass.recipe;
        let network = stage::upscaler(file, weight_options)?;
        let rounds = stage::rounds(network.scale(), factor);
        // The last application is on the largest image.
        let before = network.scale().pow(rounds - 1);
        let at = |factor: usize| (factor * size.width(), factor * size.height());
        let values = |(width, height): (usize, usize)| 3 * (width * height) as u64;
        let largest = at(network.scale().pow(rounds));
        let float = size_of::<f32>() as u64;
        let (width, height) = at(before);
        let moments = [
            // The network's own memory.
            values(at(before)) * float + network.footprint(height, width).bytes(),
            // The image as a tensor, before and after scaling or copying, and in bytes.
            values(largest) * (2 * float + 1),
            // It may be larger than requested.
            lanczos3_bytes(largest, at(factor)),
            // The image and its file.
            values(at(factor)) * 2,
        ];
        let most = moments.into_iter().max().unwrap_or_default();
        let most = most + device_budget::gaps(&weight_options.device, most);
        let weights = network.weight_bytes();
        // Each round is on the result of the one before.
        let of_round = |round: u32| {
            let (width, height) = at(network.scale().pow(round));
            network.work(height, width)
        };
        let arithmetic = Arithmetic::of(
            (0..rounds).map(of_round).sum::<Work>(),
            weight_options.activation_type().size_in_bytes(),
            &WeightBytes {
                blocks: Vec::new(),
                always: u64::from(rounds) * weights,
            },
        );
        let beside = device_budget::process(&weight_options.device).unwrap_or(Self::PROGRAM);
        // The images of a group are held until all are upscaled, in case the network fails.
        let waiting = values(at(1));
        let held = pass.source_images.held + prompts + waiting;
        let stage = StagePlan {
            name: Self::STAGE.to_owned(),
            resident: Bytes(weights),
            streamed: Bytes(0),
            predicted_peak: Bytes(beside + held + weights + most),
            streaming_saves: Bytes(0),
            read_each_pass: Bytes(0),
            passes: images * rounds as usize,
            loads: 1,
            arithmetic: arithmetic.times(images),
            duration: None,
        };
        Self::within(budget, factor, Some(file.to_owned()), stage, waiting)
    }

    /// The upscaling of `plan`, if it is within `budget`.
    fn within(
        budget: Bytes,
        factor: usize,
        network: Option<PathBuf>,
        plan: StagePlan,
        waiting: u64,
    ) -> Result<Self> {
        if plan.predicted_peak > budget {
            return Err(Error::BudgetTooSmall {
                budget,
                smallest: plan.predicted_peak,
                stage: Self::STAGE,
            });
        }
        Ok(Self {
            factor,
            network,
            plan,
            waiting,
        })
    }

    /// The most images of a group that fit into `budget`.
    pub(crate) fn most_images_a_group(&self, budget: Bytes) -> usize {
        let left = budget.saturating_sub(self.plan.predicted_peak).0 / self.waiting.max(1);
        (left as usize).saturating_add(1)
    }

    /// Plans for groups of `group` waiting images, and for a reload of the network in each of `groups`.
    pub(crate) fn in_groups_of(&mut self, group: usize, groups: usize) {
        self.plan.predicted_peak.0 += group.saturating_sub(1) as u64 * self.waiting;
        self.plan.loads = groups;
    }

    /// The upscaling method, for the metadata.
    pub(crate) fn method(&self) -> String {
        match &self.network {
            Some(file) => file
                .file_stem()
                .unwrap_or(file.as_os_str())
                .to_string_lossy()
                .into_owned(),
            None => "lanczos".to_owned(),
        }
    }
}
