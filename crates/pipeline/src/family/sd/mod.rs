//! Stable Diffusion 1 and 2: one CLIP conditions a UNet.

use sd_models::{clip, unet};

use super::contract::{Defaults, Task};
use super::unet::UNetFamily;
use crate::image_size::ImageSize;
use crate::scheduler::Repairs;

/// Stable Diffusion 1 and 2.
#[derive(Debug)]
pub(super) struct StableDiffusion;

impl UNetFamily for StableDiffusion {
    const TITLE: &'static str = "Stable Diffusion";
    const PIPELINE_TYPE: &'static str = "stable-diffusion";
    const DEFAULTS: Defaults = Defaults {
        steps: 30,
        guidance_scale: 7.5,
        side: 512,
    };
    const CLIPS: usize = 1;
    const HIDDEN: clip::Hidden = clip::Hidden::Normed;
    const TIME_IDS: Option<usize> = None;
    const KNOWS_ZEROS_FOR_EMPTY_PROMPT: bool = false;
    const NORMALISES_LATENTS: bool = false;

    /// diffusers' pipelines correct it too: configurations of early releases hold half of the size or less.
    /// The pipelines for latent consistency models do not.
    fn trained_size(network: &unet::Config, is_latent_consistency: bool) -> Option<(usize, usize)> {
        const LEAST: usize = 64;
        match network.trained_size() {
            Some((rows, columns))
                if !is_latent_consistency
                    && rows == columns
                    && rows < LEAST
                    && network.was_saved_before(0, 9) =>
            {
                Some((LEAST, LEAST))
            }
            size => size,
        }
    }

    fn add_time_ids(_size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        vec![Vec::new(); prompts]
    }

    /// `StableDiffusionPipeline`, `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline`
    /// correct the scheduler in their `__init__`; no other class does.
    fn scheduler_repairs(task: Task, is_latent_consistency: bool) -> Repairs {
        match task {
            Task::TextToImage if is_latent_consistency => Repairs::default(),
            Task::TextToImage | Task::ImageToImage => Repairs {
                steps_offset: true,
                clip_sample: true,
                skip_prk_steps: false,
            },
            Task::Inpainting => Repairs {
                steps_offset: true,
                clip_sample: false,
                skip_prk_steps: true,
            },
        }
    }
}
