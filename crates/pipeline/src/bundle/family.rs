//! The families of models: how each is recognised, and what it is usually drawn with.

use sd_models::{mmdit, unet};
use sd_weights::ModelFolder;

use super::classes;
use super::index::Index;
use crate::presets;
use crate::request::{ControlKind, GuidanceScale, ImageSize};
use crate::{Error, Result};

/// A family of models: the same networks, put together in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Stable Diffusion 1 and 2: one CLIP steers a UNet.
    StableDiffusion,
    /// Stable Diffusion XL: two CLIPs, and the picture's sizes, steer a larger UNet.
    StableDiffusionXl,
    /// The refiner of Stable Diffusion XL: the larger CLIP and an aesthetic score steer a UNet.
    StableDiffusionXlRefiner,
    /// Stable Diffusion 3 and 3.5: two CLIPs and T5 steer a transformer.
    StableDiffusion3,
}

/// What a model is drawn with when the user does not say: its family's customs and its own configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FamilyDefaults {
    /// Denoising steps.
    pub steps: usize,
    /// Guidance.
    pub guidance_scale: GuidanceScale,
    /// The size that the model was trained for.
    pub size: ImageSize,
}

/// The denoising network of a model, by its configuration.
#[derive(Debug, Clone)]
pub enum Denoiser {
    /// A UNet.
    UNet(Box<unet::Config>),
    /// A transformer of two streams.
    Transformer(mmdit::Config),
}

impl Family {
    /// What pictures of this family say of their making.
    pub fn pipeline_type(self) -> &'static str {
        match self {
            Self::StableDiffusion => "stable-diffusion",
            Self::StableDiffusionXl => "stable-diffusion-xl",
            Self::StableDiffusionXlRefiner => "stable-diffusion-xl-refiner",
            Self::StableDiffusion3 => "stable-diffusion-3",
        }
    }

    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::StableDiffusion => "Stable Diffusion",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlRefiner => "refiner of Stable Diffusion XL",
            Self::StableDiffusion3 => "Stable Diffusion 3",
        }
    }

    /// Whether its pipelines know `force_zeros_for_empty_prompt`.
    pub(super) fn knows_zeros_for_empty_prompt(self) -> bool {
        matches!(self, Self::StableDiffusionXl | Self::StableDiffusionXlRefiner)
    }

    /// What a picture is drawn with when neither the user nor the model's files say.
    /// `trained` are the rows and columns of pixels that the model was trained for, where its files say.
    pub(super) fn defaults(self, trained: Option<(usize, usize)>) -> FamilyDefaults {
        let (steps, guidance_scale, usual_side) = match self {
            Self::StableDiffusion => (30, 7.5, 512),
            Self::StableDiffusionXl | Self::StableDiffusionXlRefiner => (30, 5.0, 1024),
            Self::StableDiffusion3 => (28, 4.5, 1024),
        };
        let (height, width) = trained.unwrap_or((usual_side, usual_side));
        FamilyDefaults {
            steps,
            guidance_scale: GuidanceScale(guidance_scale),
            // A configuration can hold any number; one that is no size gives way to the family's.
            size: ImageSize::new(width, height)
                .or(ImageSize::new(usual_side, usual_side))
                .expect("the usual sides are sizes. This is a bug."),
        }
    }
}

impl Denoiser {
    const TRANSFORMER: &str = "transformer";
    const UNET: &str = "unet";
    /// What models with a transformer are called.
    pub(super) const TITLE_OF_TRANSFORMERS: &str = "Stable Diffusion 3";
    /// Features of a token of text in Stable Diffusion 2, and no other family.
    const CONTEXT_OF_2: usize = 1024;
    /// The folders that it can lie in, in the order in which they are looked for.
    pub(super) const COMPONENTS: [&str; 2] = [Self::TRANSFORMER, Self::UNET];
    /// The paths that its configuration can have, in the same order.
    pub const CONFIGURATIONS: [&str; 2] = ["transformer/config.json", "unet/config.json"];

    /// Reads which network the model in `folder` denoises with, by its tensors, never by a name. One that `index` or its
    /// configuration calls another class is refused.
    pub(super) fn open(folder: &ModelFolder, index: &Index) -> Result<Self> {
        let has = |component: &str| folder.contains(&format!("{component}/config.json"));
        if has(Self::TRANSFORMER) {
            classes::check(folder, Some(index), Self::TRANSFORMER, classes::TRANSFORMERS)?;
            recognise(
                folder,
                Self::TRANSFORMER,
                &[
                    "pos_embed.proj.weight",
                    "context_embedder.weight",
                    "transformer_blocks.0.attn.add_q_proj.weight",
                ],
            )?;
            let config: mmdit::Config = folder.json("transformer/config.json")?;
            config.validate()?;
            return Ok(Self::Transformer(config));
        }
        if has(Self::UNET) {
            classes::check(folder, Some(index), Self::UNET, classes::UNETS)?;
            recognise(
                folder,
                Self::UNET,
                &[
                    "conv_in.weight",
                    "time_embedding.linear_1.weight",
                    "down_blocks.0.resnets.0.conv1.weight",
                ],
            )?;
            let config: unet::Config = folder.json("unet/config.json")?;
            config.validate()?;
            return Ok(Self::UNet(Box::new(config)));
        }
        Err(unknown(
            folder,
            "it has neither transformer/config.json nor unet/config.json".to_owned(),
        ))
    }

    /// The network that the text of a `config.json` describes, at `path` in a model's folder, before anything is known of its
    /// tensors. None where it lies where no network does, or cannot be understood.
    pub fn described(path: &str, text: &[u8]) -> Option<Self> {
        match path.strip_suffix("/config.json")? {
            Self::TRANSFORMER => serde_json::from_slice(text).ok().map(Self::Transformer),
            Self::UNET => serde_json::from_slice(text).ok().map(Self::UNet),
            _ => None,
        }
    }

    /// The folder that it lies in.
    pub fn component(&self) -> &'static str {
        match self {
            Self::UNet(_) => Self::UNET,
            Self::Transformer(_) => Self::TRANSFORMER,
        }
    }

    /// What models with it are called, as far as it tells, and as ControlNets are told apart.
    pub fn title(&self) -> &'static str {
        match self {
            Self::UNet(config) => Self::title_of_unet(config),
            Self::Transformer(_) => Self::TITLE_OF_TRANSFORMERS,
        }
    }

    /// What models with such a UNet are called.
    pub(super) fn title_of_unet(config: &unet::Config) -> &'static str {
        match (config.addition_embed_type.as_deref(), config.context_features()) {
            (Some(_), _) => "Stable Diffusion XL",
            (None, 768) => "Stable Diffusion 1",
            (None, Self::CONTEXT_OF_2) => "Stable Diffusion 2",
            (None, _) => "Stable Diffusion 1 or 2",
        }
    }

    /// The id on the hub of the ControlNet that usually follows a `kind` of picture beside it. Only Stable Diffusion 1 has one:
    /// those for other families are many, and each is for one model.
    pub fn usual_controlnet(&self, kind: ControlKind) -> Option<&'static str> {
        let is_first = match self {
            Self::UNet(config) => {
                config.addition_embed_type.is_none() && config.context_features() != Self::CONTEXT_OF_2
            }
            Self::Transformer(_) => false,
        };
        presets::controlnet(kind).filter(|_| is_first)
    }

    /// Channels of the latents that it takes, those of a mask and of masked latents among them.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.in_channels,
            Self::Transformer(config) => config.in_channels,
        }
    }

    /// Channels of its prediction.
    pub fn out_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.out_channels,
            Self::Transformer(config) => config.predicted_channels(),
        }
    }

    /// Features of a token of text.
    pub fn context_features(&self) -> usize {
        match self {
            Self::UNet(config) => config.context_features(),
            Self::Transformer(config) => config.joint_attention_dim,
        }
    }

    /// Latents of a side that must lie together: pictures are drawn in squares of so many.
    pub fn latents_of_a_square(&self) -> usize {
        match self {
            Self::UNet(_) => 1,
            Self::Transformer(config) => config.patch_size,
        }
    }

    /// The longest side of latents that it has positions for, where it has any.
    pub fn longest_side(&self) -> Option<usize> {
        match self {
            Self::UNet(_) => None,
            Self::Transformer(config) => Some(config.pos_embed_max_size * config.patch_size),
        }
    }

    /// Rows and columns of the latents that it was trained for, where it says.
    pub(super) fn trained_size(&self) -> Option<(usize, usize)> {
        match self {
            Self::UNet(config) => config.trained_size(),
            Self::Transformer(config) => Some((config.sample_size, config.sample_size)),
        }
    }

    /// Rows and columns of the latents that a UNet of Stable Diffusion 1 or 2 was trained for, where it says, as diffusers'
    /// pipelines of these correct it: early releases wrote down half of it or less.
    pub(super) fn corrected_size(&self) -> Option<(usize, usize)> {
        const LEAST: usize = 64;
        match (self, self.trained_size()) {
            (Self::UNet(config), Some((rows, columns)))
                if rows == columns && rows < LEAST && config.was_saved_before(0, 9) =>
            {
                Some((LEAST, LEAST))
            }
            (_, size) => size,
        }
    }
}

pub(super) fn unknown(folder: &ModelFolder, reason: String) -> Error {
    Error::UnknownArchitecture {
        folder: folder.root().to_owned(),
        reason,
    }
}

fn recognise(folder: &ModelFolder, component: &str, tensors: &[&str]) -> Result<()> {
    let checkpoint = folder.checkpoint(component)?;
    match tensors.iter().find(|tensor| checkpoint.header(tensor).is_none()) {
        Some(tensor) => Err(unknown(
            folder,
            format!("its {component} has no tensor `{tensor}`"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controlnet_is_usual_for_stable_diffusion_1_alone() {
        for (config, title, has_one) in [
            (r#"{"cross_attention_dim": 768}"#, "Stable Diffusion 1", true),
            (
                r#"{"cross_attention_dim": 768, "in_channels": 9}"#,
                "Stable Diffusion 1",
                true,
            ),
            (r#"{"cross_attention_dim": 1024}"#, "Stable Diffusion 2", false),
            (
                r#"{"cross_attention_dim": 2048, "addition_embed_type": "text_time"}"#,
                "Stable Diffusion XL",
                false,
            ),
        ] {
            let denoiser = Denoiser::described("unet/config.json", config.as_bytes()).unwrap();
            assert_eq!(denoiser.title(), title);
            for kind in [ControlKind::Pose, ControlKind::Depth, ControlKind::Canny] {
                assert_eq!(denoiser.usual_controlnet(kind).is_some(), has_one, "{title}");
            }
        }
    }
}
