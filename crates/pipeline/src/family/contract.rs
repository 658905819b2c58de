//! The contract of a family of models.

use std::fmt::Debug;

use sd_models::vae::{self, Scaling};
use sd_models::{Footprint, WeightBytes};
use sd_weights::{ModelPart, WeightOptions, Weights};

use super::{ControlConfig, ControlWeights, Denoiser, EncodedPrompt};
use crate::components::Components;
use crate::request::ImageSize;
use crate::scheduler::{Repairs, SchedulerConfig};
use crate::{Error, Result};

/// A recognised model of one family, by its configurations. Whatever differs from family to family is behind this trait:
/// which text encoders there are, their order and their results, the denoising network, and the conventions of diffusers'
/// pipelines.
pub trait Family: Debug + Send + Sync {
    /// The name of the family: "Stable Diffusion XL".
    fn title(&self) -> &'static str;

    /// The name of the models that share ControlNets with this one, as far as the network tells: "Stable Diffusion 2".
    fn network_title(&self) -> &'static str {
        self.title()
    }

    /// The name in the metadata of images: "stable-diffusion-xl".
    fn pipeline_type(&self) -> &'static str;

    /// The settings of an image when neither the user nor the model's files say.
    fn defaults(&self) -> Defaults;

    /// Rows and columns of the latents that the model was trained for, where its files say.
    fn trained_size(&self, is_latent_consistency: bool) -> Option<(usize, usize)>;

    /// The text encoders.
    fn text_encoders(&self) -> &dyn TextEncoders;

    /// Whether the family's pipelines know `force_zeros_for_empty_prompt`.
    fn knows_zeros_for_empty_prompt(&self) -> bool {
        false
    }

    /// The folder of the denoising network.
    fn component(&self) -> &'static str;

    /// The latents of the denoising network.
    fn latents(&self) -> LatentLayout;

    /// Whether the network takes an inpainting mask and masked latents beside `latent_channels`.
    fn takes_mask(&self, _latent_channels: usize) -> bool {
        false
    }

    /// Whether the network is guidance-distilled: it takes the guidance scale, and needs no negative prompt.
    fn takes_guidance(&self) -> bool {
        false
    }

    /// The numbers of the size conditioning for an image of `size`, for each of so many `prompts`, of which the first is the
    /// negative prompt where there are two.
    fn add_time_ids(&self, _size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        vec![Vec::new(); prompts]
    }

    /// Whether the text encoders fit the network, and the scheduler the family, from configurations alone. `refuse` makes the
    /// error of a reason.
    ///
    /// # Errors
    /// They do not fit.
    fn check(&self, scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()>;

    /// The denoising network with its ControlNets. No weight is read yet.
    ///
    /// # Errors
    /// A configuration cannot be used, or a file does not hold what it describes.
    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>>;

    /// Why the ControlNet of `control` cannot run beside this model with the autoencoder of `vae`, if so.
    fn control_mismatch(&self, control: &ControlConfig, vae: &vae::Config) -> Option<String>;

    /// Whether there is a default ControlNet for each kind of control image.
    fn has_default_controlnets(&self) -> bool {
        false
    }

    /// What diffusers' pipeline of `task` changes in the scheduler's configuration, without ControlNets.
    fn scheduler_repairs(&self, _task: Task, _is_latent_consistency: bool) -> Repairs {
        Repairs::default()
    }

    /// How diffusers' pipeline of `task` scales latents of the VAE encoder.
    fn encoding(&self, task: Task) -> Scaling;

    /// How diffusers' pipeline of `task` scales latents for the VAE decoder.
    fn decoding(&self, task: Task, _is_controlled: bool) -> Scaling {
        self.encoding(task)
    }

    /// Measures of the network that need less memory, for the metadata.
    fn memory_optimizations(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The text encoders of a model: from prompts to conditioning.
pub trait TextEncoders: Debug + Send + Sync {
    /// The folders that are used, in the order in which the encoders run.
    fn components(&self) -> Vec<TextComponent>;

    /// Features of a token of the context.
    fn context_features(&self) -> usize;

    /// Features of a pooled prompt, where the network takes one.
    fn pooled_features(&self) -> Option<usize>;

    /// Tokens of the context that `prompts` become together.
    ///
    /// # Errors
    /// A tokenizer cannot take a prompt.
    fn tokens(&self, prompts: &[&str]) -> Result<usize>;

    /// Encodes `prompts`, one encoder after the other; each is dropped before the next is read. `clip_skip` more of CLIP's last
    /// layers are left out. `pause` is called after each encoder and may stop the work.
    ///
    /// # Errors
    /// A file is wrong, the device fails, a value is not finite, or `pause` fails.
    fn encode(
        &self,
        components: &Components,
        prompts: &[&str],
        clip_skip: usize,
        weight_options: &WeightOptions,
        pause: &dyn Fn() -> Result<()>,
    ) -> Result<EncodedPrompt>;

    /// The memory of each encoder's stage in [`encode`](Self::encode).
    ///
    /// # Errors
    /// A configuration cannot be used, or headers are wrong.
    fn stages(
        &self,
        components: &Components,
        prompts: &[&str],
        clip_skip: usize,
        weight_options: &WeightOptions,
    ) -> Result<Vec<EncoderStage>>;
}

/// The settings of an image when neither the user nor the model's files say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Denoising steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// Pixels of each side.
    pub side: usize,
}

/// The latents of a denoising network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentLayout {
    /// Channels of its input, those of a mask and of masked latents among them.
    pub in_channels: usize,
    /// Channels of its prediction.
    pub out_channels: usize,
    /// Rows and columns of a patch; 1 for a network without patches.
    pub patch_size: usize,
    /// The most rows or columns that it has positions for, where it has any.
    pub longest_side: Option<usize>,
}

/// A text encoder's folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextComponent {
    /// The encoder's.
    pub encoder: &'static str,
    /// The tokenizer's.
    pub tokenizer: &'static str,
    /// What LoRA files call the encoder.
    pub part: ModelPart,
}

/// The memory of a text encoder's stage.
#[derive(Debug)]
pub struct EncoderStage {
    /// The encoder's folder.
    pub component: &'static str,
    /// Its weights.
    pub weights: WeightBytes,
    /// Its activations.
    pub footprint: Footprint,
}

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Images start from noise.
    TextToImage,
    /// Images start from an initial image.
    ImageToImage,
    /// Pixels under a mask are replaced.
    Inpainting,
}
