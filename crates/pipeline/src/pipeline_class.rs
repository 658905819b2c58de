//! Which of diffusers' pipelines does what a recipe says, and what that does with a model's settings.
//!
//! diffusers has a class for each family and task. They differ in how they read one and the same folder, so a picture
//! depends on which of them draws it.

use sd_models::vae::Scaling;

use crate::bundle::{Bundle, Family};
use crate::recipe::Img2Img;
use crate::scheduler::Repairs;

/// A pipeline class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipelineClass {
    family: Family,
    task: Task,
    /// Whether ControlNets steer it.
    is_controlled: bool,
    /// Whether it is the one for latent consistency models, where it draws from noise. Img2Img pictures these are drawn as any
    /// other model.
    is_latent_consistency: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    TextToImage,
    ImageToImage,
    Inpainting,
}

impl PipelineClass {
    /// The class that draws `over` something, or from noise, with the model of `bundle`.
    pub(crate) fn new(bundle: &Bundle, img2img: Option<&Img2Img>, is_controlled: bool) -> Self {
        Self {
            family: bundle.family,
            task: match img2img {
                None => Task::TextToImage,
                Some(img2img) if img2img.mask.is_none() => Task::ImageToImage,
                Some(_) => Task::Inpainting,
            },
            is_controlled,
            is_latent_consistency: bundle.is_latent_consistency,
        }
    }

    /// What it changes in a model's scheduler configuration: `StableDiffusionPipeline`, `StableDiffusionImg2ImgPipeline` and
    /// `StableDiffusionInpaintPipeline` do, in their `__init__`, and no other class does.
    pub(crate) fn repairs(self) -> Repairs {
        if self.family != Family::StableDiffusion || self.is_controlled {
            return Repairs::default();
        }
        match self.task {
            Task::TextToImage if self.is_latent_consistency => Repairs::default(),
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

    /// How it scales latents from the encoder. Those of Stable Diffusion XL that fill masks do not read the latents' means
    /// and deviations here.
    pub(crate) fn encoding(self) -> Scaling {
        match (self.family, self.task) {
            (Family::StableDiffusion, _) => Scaling::Factor,
            (Family::StableDiffusion3, _) => Scaling::Shifted,
            (_, Task::Inpainting) => Scaling::Factor,
            _ => Scaling::Normalised,
        }
    }

    /// How it scales latents for the decoder.
    pub(crate) fn decoding(self) -> Scaling {
        match (self.family, self.task) {
            (_, Task::Inpainting) if self.is_controlled => self.encoding(),
            (Family::StableDiffusionXl | Family::StableDiffusionXlRefiner, _) => Scaling::Normalised,
            _ => self.encoding(),
        }
    }
}
