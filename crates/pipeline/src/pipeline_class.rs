//! The pipeline class of diffusers that a recipe corresponds to, and how that class reads a model's settings.
//!
//! diffusers has a class for each family and task. They read the same folder in different ways, so an image depends on its
//! class.

use sd_models::vae::Scaling;

use crate::bundle::{Bundle, Family};
use crate::scheduler::Repairs;

/// A pipeline class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipelineClass {
    family: Family,
    task: Task,
    /// Whether it runs ControlNets.
    is_controlled: bool,
    /// Whether it is the one for latent consistency models, where it draws from noise. Img2Img pictures these are drawn as any
    /// other model.
    is_latent_consistency: bool,
}

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Images start from noise.
    TextToImage,
    /// Images start from an initial image.
    ImageToImage,
    /// Pixels under a mask are replaced.
    Inpainting,
}

impl PipelineClass {
    /// The class that does `task` with the model of `bundle`.
    pub(crate) fn new(bundle: &Bundle, task: Task, is_controlled: bool) -> Self {
        Self {
            family: bundle.family,
            task,
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

    /// How it scales latents from the encoder. The inpainting classes of Stable Diffusion XL ignore
    /// `latents_mean` and `latents_std` here.
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
