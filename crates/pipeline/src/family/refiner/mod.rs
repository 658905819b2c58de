//! The refiner of Stable Diffusion XL: the larger CLIP and an aesthetic score condition a UNet.

use sd_models::clip;

use super::contract::Defaults;
use super::unet::UNetFamily;
use crate::image_size::ImageSize;

/// The aesthetic scores for the prompt and the negative prompt, as in the reference implementation.
const AESTHETIC_SCORE: f32 = 6.0;
const NEGATIVE_AESTHETIC_SCORE: f32 = 2.5;

/// The refiner of Stable Diffusion XL.
#[derive(Debug)]
pub(super) struct Refiner;

impl UNetFamily for Refiner {
    const TITLE: &'static str = "refiner of Stable Diffusion XL";
    const PIPELINE_TYPE: &'static str = "stable-diffusion-xl-refiner";
    const DEFAULTS: Defaults = Defaults {
        steps: 30,
        guidance_scale: 5.0,
        side: 1024,
    };
    const CLIPS: usize = 1;
    const HIDDEN: clip::Hidden = clip::Hidden::Penultimate;
    /// Original size, crop and aesthetic score.
    const TIME_IDS: Option<usize> = Some(5);
    const KNOWS_ZEROS_FOR_EMPTY_PROMPT: bool = true;
    const NORMALISES_LATENTS: bool = true;

    fn add_time_ids(size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        let sides = [size.height() as f32, size.width() as f32];
        let crop = [0.0, 0.0];
        let of_prompt = |prompt: usize| {
            let is_negative = prompts > 1 && prompt == 0;
            let score = if is_negative {
                NEGATIVE_AESTHETIC_SCORE
            } else {
                AESTHETIC_SCORE
            };
            [&sides[..], &crop, &[score]].concat()
        };
        (0..prompts).map(of_prompt).collect()
    }
}
