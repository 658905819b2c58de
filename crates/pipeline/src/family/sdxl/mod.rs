//! Stable Diffusion XL: two CLIPs and the image's sizes condition a UNet.

use sd_models::clip;

use super::contract::Defaults;
use super::unet::UNetFamily;
use crate::image_size::ImageSize;

/// Stable Diffusion XL.
#[derive(Debug)]
pub(super) struct StableDiffusionXl;

impl UNetFamily for StableDiffusionXl {
    const TITLE: &'static str = "Stable Diffusion XL";
    const PIPELINE_TYPE: &'static str = "stable-diffusion-xl";
    const DEFAULTS: Defaults = Defaults {
        steps: 30,
        guidance_scale: 5.0,
        side: 1024,
    };
    const CLIPS: usize = 2;
    const HIDDEN: clip::Hidden = clip::Hidden::Penultimate;
    /// Original size, crop and target size.
    const TIME_IDS: Option<usize> = Some(6);
    const KNOWS_ZEROS_FOR_EMPTY_PROMPT: bool = true;
    const NORMALISES_LATENTS: bool = true;

    /// No crop, and the target size as the original size.
    ///
    /// Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023,
    /// section 2.2.
    fn add_time_ids(size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        let sides = [size.height() as f32, size.width() as f32];
        let crop = [0.0, 0.0];
        vec![[sides, crop, sides].concat(); prompts]
    }
}
