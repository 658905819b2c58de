//! The contract of a family of models.

use std::fmt::Debug;
use std::sync::Arc;

use sd_models::vae::{self, Scaling};
use sd_models::{Footprint, WeightBytes, Work};
use sd_weights::{EmbeddingFile, ModelPart, Naming, Residency, WeightOptions, Weights};

use super::{ControlModel, ControlWeights, Denoiser, EncodedPrompt};
use crate::components::Components;
use crate::image_size::ImageSize;
use crate::scheduler::{Repairs, SchedulerConfig};
use crate::{Error, Result};

/// A recognised model of one family, with its configurations. This trait covers all that differs between
/// families: the text encoders and the order of their results, the denoising network, and the conventions of
/// diffusers' pipelines.
pub trait Family: Debug + Send + Sync {
    /// The name of the family: "Stable Diffusion XL".
    fn title(&self) -> &'static str;

    /// The name of the models that share ControlNets with this one, as far as the network shows: "Stable
    /// Diffusion 2".
    fn network_title(&self) -> &'static str {
        self.title()
    }

    /// The name in the metadata of images: "stable-diffusion-xl".
    fn pipeline_type(&self) -> &'static str;

    /// The default settings of an image, for models whose files have none.
    fn defaults(&self) -> Defaults;

    /// Rows and columns of the latents that the model was trained for, if its files say.
    fn trained_size(&self, is_latent_consistency: bool) -> Option<(usize, usize)>;

    /// The text encoders.
    fn text_encoders(&self) -> &dyn TextEncoders;

    /// The text encoders, to which files of textual inversion can be added.
    fn text_encoders_mut(&mut self) -> &mut dyn TextEncoders;

    /// Whether the family's pipelines have the setting `force_zeros_for_empty_prompt`.
    fn knows_zeros_for_empty_prompt(&self) -> bool {
        false
    }

    /// The component of the denoising network.
    fn component(&self) -> &'static str;

    /// The namings of the denoising network's tensors in other programs, which LoRA files use.
    fn namings(&self) -> &'static [Naming] {
        &[]
    }

    /// The layout of the denoising network's latents.
    fn latents(&self) -> LatentLayout;

    /// Whether the network takes an inpainting mask and masked latents beside `latent_channels`.
    fn takes_mask(&self, _latent_channels: usize) -> bool {
        false
    }

    /// Whether the network is guidance-distilled: it takes the guidance scale as an input, and no negative
    /// prompt.
    fn takes_guidance(&self) -> bool {
        false
    }

    /// `add_time_ids`, the size conditioning for an image of `size`, for each of `prompts`. With two prompts
    /// the first is the negative one.
    fn add_time_ids(&self, _size: ImageSize, prompts: usize) -> Vec<Vec<f32>> {
        vec![Vec::new(); prompts]
    }

    /// Checks that the text encoders fit the network, and the scheduler the family, from configurations
    /// alone. `refuse` turns a reason into the error.
    ///
    /// # Errors
    /// They do not fit.
    fn check(&self, scheduler: &SchedulerConfig, refuse: &dyn Fn(String) -> Error) -> Result<()>;

    /// The denoising network with its ControlNets. No weight is read yet.
    ///
    /// # Errors
    /// A configuration is not supported, or a file lacks a tensor of it.
    fn denoiser(&self, weights: Weights, controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>>;

    /// Why the ControlNet of `control` cannot be used with this model and the autoencoder of `vae`, if it
    /// cannot.
    fn control_mismatch(&self, control: &dyn ControlModel, vae: &vae::Config) -> Option<String>;

    /// Whether there is a default ControlNet for each kind of control image.
    fn has_default_controlnets(&self) -> bool {
        false
    }

    /// The corrections of diffusers' pipeline of `task`, without ControlNets, to the scheduler's
    /// configuration.
    fn scheduler_repairs(&self, _task: Task, _is_latent_consistency: bool) -> Repairs {
        Repairs::default()
    }

    /// How diffusers' pipeline of `task` scales latents of the VAE encoder.
    fn encoding(&self, task: Task) -> Scaling;

    /// How diffusers' pipeline of `task` scales latents for the VAE decoder.
    fn decoding(&self, task: Task, _is_controlled: bool) -> Scaling {
        self.encoding(task)
    }

    /// Names of memory optimisations of the network, for the metadata.
    fn memory_optimizations(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The text encoders of a model: from prompts to conditioning.
pub trait TextEncoders: Debug + Send + Sync {
    /// Makes the word `name` of a prompt, and the word that `file` itself names, stand for the vectors of `file`
    /// in every CLIP. Only the header of the file is used here.
    ///
    /// # Errors
    /// The file has no vectors for one of the CLIPs, or vectors of another width.
    #[doc(alias = "textual inversion")]
    fn add_embedding(&mut self, name: &str, file: &Arc<EmbeddingFile>) -> Result<()>;

    /// The components, in the order in which the encoders run.
    fn components(&self) -> Vec<TextComponent>;

    /// Features of a token in the context.
    fn context_features(&self) -> usize;

    /// Features of a pooled prompt, if the network takes one.
    fn pooled_features(&self) -> Option<usize>;

    /// Tokens of the context for `prompts`, which share it.
    ///
    /// # Errors
    /// A tokenizer cannot encode a prompt.
    fn tokens(&self, prompts: &[&str]) -> Result<usize>;

    /// Encodes the prompts of each of `batches` with one encoder after the other; each is read once for all, and
    /// dropped, or returned to the cache, before the next is read. The prompts of a batch share a context. No batch changes the bits of another.
    /// `clip_skip` more of CLIP's last layers are skipped. `pause` is called after each encoder, and an error
    /// of it ends the encoding.
    ///
    /// # Errors
    /// A file is wrong, the device fails, a value is not finite, or `pause` fails.
    fn encode(
        &self,
        components: &Components,
        batches: &[&[&str]],
        clip_skip: usize,
        weights: EncoderWeights<'_>,
        pause: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>>;

    /// The memory and the arithmetic of each encoder's stage in [`encode`](Self::encode).
    ///
    /// # Errors
    /// A configuration is not supported, or headers are wrong.
    fn stages(
        &self,
        components: &Components,
        prompts: &[&str],
        clip_skip: usize,
        weight_options: &WeightOptions,
    ) -> Result<Vec<EncoderStage>>;
}

/// The default settings of an image, for models whose files have none.
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
    /// Channels of its input, including those of a mask and of masked latents.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Rows and columns of a patch; 1 for a network without patches.
    pub patch_size: usize,
    /// The most rows or columns that its position embeddings cover, if it has any.
    pub longest_side: Option<usize>,
}

/// The components of a text encoder.
#[derive(Debug, Clone, Copy)]
pub struct TextComponent {
    /// The component of the encoder.
    pub encoder: &'static str,
    /// The component of the tokenizer.
    pub tokenizer: &'static str,
    /// The encoder in the naming of LoRA files.
    pub part: ModelPart,
    /// The namings of the encoder's tensors in other programs, which LoRA files use.
    pub namings: &'static [Naming],
}

/// How the weights of the text encoders are held while they encode.
#[derive(Debug, Clone, Copy)]
pub struct EncoderWeights<'a> {
    options: &'a WeightOptions,
    kept: &'a [&'static str],
}

impl<'a> EncoderWeights<'a> {
    /// Weights that are dropped as soon as they were used, because each is needed once.
    pub fn used_once(options: &'a WeightOptions) -> Self {
        Self { options, kept: &[] }
    }

    /// Weights of which those of the components `kept` stay in the [cache](WeightOptions::block_cache) for the next
    /// prompt, and the others are dropped as soon as they were used.
    pub fn keeping(options: &'a WeightOptions, kept: &'a [&'static str]) -> Self {
        Self { options, kept }
    }

    /// The options that all of them share.
    pub fn shared_options(&self) -> &'a WeightOptions {
        self.options
    }

    /// The options of the encoder `component`.
    pub fn of(&self, component: &str) -> WeightOptions {
        let once = self.options.for_one_pass();
        if !self.kept.contains(&component) {
            return once;
        }
        WeightOptions {
            residency: Residency::Resident,
            block_cache: self.options.block_cache.clone(),
            ..once
        }
    }
}

/// The memory and the arithmetic of a text encoder's stage.
#[derive(Debug)]
pub struct EncoderStage {
    /// The encoder's component.
    pub component: &'static str,
    /// Its weights.
    pub weights: WeightBytes,
    /// Its activations.
    pub footprint: Footprint,
    /// Its arithmetic.
    pub work: Work,
}

/// The task of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Images start from noise.
    TextToImage,
    /// Images start from an initial image.
    ImageToImage,
    /// Pixels under a mask are replaced.
    Inpainting,
}
