//! A ControlNet with the picture that it has a model follow.

use std::borrow::Cow;

use candle_core::Tensor;
use sd_models::{controlnet, mmdit, vae};
use sd_weights::{Checkpoint, ModelFolder, WeightOptions, Weights};

use super::{Denoiser, classes};
use crate::control::{canny, canny_bytes};
use crate::plan::PictureBytes;
use crate::request::{ControlChoice, ControlKind, ImageSize};
use crate::save::RgbImage;
use crate::source_image::SourceImage;
use crate::{Error, Result};

/// Brightness steps from which on a photo's edges count, next to others and for sure.
pub(crate) const EDGES: (i32, i32) = (100, 200);

/// Channels of a picture that is followed.
const COLOURS: usize = 3;

/// A ControlNet with the picture that it has a model follow.
#[derive(Debug)]
pub struct Control {
    /// As the user asked for it.
    pub choice: ControlChoice,
    /// The network's configuration.
    pub config: ControlConfig,
    source: SourceImage,
    /// The size of the pictures that are drawn.
    size: ImageSize,
    /// What is followed, once it is read.
    picture: Option<RgbImage>,
    folder: ModelFolder,
    component: String,
}

/// The configuration of a ControlNet, by the network that it steers.
#[derive(Debug, Clone)]
pub enum ControlConfig {
    /// Of one that steers a UNet.
    UNet(Box<controlnet::Config>),
    /// Of one that steers a transformer of two streams.
    Transformer(mmdit::control::Config),
}

impl Control {
    /// Opens what `choice` names, for a `denoiser` with the latents of `vae`, and pictures of `size`. Of the picture the
    /// header is read.
    ///
    /// # Errors
    /// A file is missing or wrong, or the ControlNet is for another network.
    pub(super) fn open(
        choice: &ControlChoice,
        denoiser: &Denoiser,
        vae: &vae::Config,
        size: ImageSize,
    ) -> Result<Self> {
        let root = &choice.folder;
        let (folder, component) = ModelFolder::around(root);
        let config = ControlConfig::open(&folder, &component)?;
        if let Some(reason) = config.mismatch(denoiser, vae) {
            return Err(Error::ForeignControl {
                folder: root.clone(),
                reason,
            });
        }
        Ok(Self {
            source: SourceImage::open(&choice.image)?,
            size,
            picture: None,
            choice: choice.clone(),
            config,
            folder,
            component,
        })
    }

    /// Reads the picture that is followed, which stays in memory.
    ///
    /// # Errors
    /// Its file is damaged.
    pub(super) fn read_picture(&mut self) -> Result<()> {
        self.picture = Some(self.followed()?);
        Ok(())
    }

    /// Bytes of the picture that is followed.
    pub(crate) fn picture_bytes(&self) -> PictureBytes {
        let pixels = (self.size.width() * self.size.height()) as u64;
        let edges = match self.choice.kind {
            // Beside the photo that they are found in.
            ControlKind::Canny => 3 * pixels + canny_bytes(pixels),
            ControlKind::Pose | ControlKind::Depth | ControlKind::Image => 0,
        };
        PictureBytes {
            held: 3 * pixels,
            reading: self.source.bytes_at(self.size).max(edges),
        }
    }

    /// What is followed, in the size of the pictures that are drawn.
    fn followed(&self) -> Result<RgbImage> {
        let picture = self.source.at(self.size)?;
        Ok(match self.choice.kind {
            ControlKind::Canny => canny(&picture, EDGES.0, EDGES.1),
            ControlKind::Pose | ControlKind::Depth | ControlKind::Image => picture,
        })
    }

    /// The network's weights.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub(crate) fn weights(&self, weight_options: &WeightOptions) -> Result<Weights> {
        let checkpoint: Checkpoint = self.folder.checkpoint(&self.component)?;
        Ok(Weights::new(checkpoint, weight_options.clone()))
    }

    /// Refuses a network whose configuration and headers do not fit.
    ///
    /// # Errors
    /// They do not fit, or a file is missing.
    pub(super) fn check(&self, weight_options: &WeightOptions) -> Result<()> {
        let weights = self.weights(weight_options)?;
        match &self.config {
            ControlConfig::UNet(config) => drop(controlnet::ControlNet::new(weights, config)?),
            ControlConfig::Transformer(config) => drop(mmdit::control::ControlNet::new(weights, config)?),
        }
        Ok(())
    }

    /// The picture with the values that the network was shown in training, `[1, 3, height, width]`: of a UNet's from 0 to 1,
    /// of a transformer's those that its autoencoder takes.
    ///
    /// # Errors
    /// There is no memory for it, or it was not read before and its file is damaged.
    pub(crate) fn shown(&self) -> Result<Tensor> {
        let picture = match &self.picture {
            Some(picture) => Cow::Borrowed(picture),
            None => Cow::Owned(self.followed()?),
        };
        // Between -1 and 1.
        let picture = picture.to_tensor()?;
        Ok(match &self.config {
            ControlConfig::UNet(_) => picture.affine(0.5, 0.5)?,
            // Stability AI's ControlNets for Large were trained with edges from 0.5 to 128.
            ControlConfig::Transformer(config)
                if config.joint_attention_dim.is_none() && self.choice.kind == ControlKind::Canny =>
            {
                picture.affine(0.25 * 255.0, 0.25 * 255.0 + 0.5)?
            }
            ControlConfig::Transformer(_) => picture,
        })
    }

    /// The folder that it lies in, and its name there.
    pub(crate) fn place(&self) -> (&ModelFolder, &str) {
        (&self.folder, &self.component)
    }
}

impl ControlConfig {
    /// Reads of which kind the ControlNet in `folder` is, by its tensors, never by a name.
    fn open(folder: &ModelFolder, component: &str) -> Result<Self> {
        const UNET: [&str; 2] = [
            "controlnet_cond_embedding.conv_in.weight",
            "controlnet_mid_block.weight",
        ];
        const TRANSFORMER: [&str; 2] = ["pos_embed_input.proj.weight", "controlnet_blocks.0.weight"];
        let config = format!("{component}/config.json");
        let checkpoint = folder.checkpoint(component)?;
        let has = |tensors: [&str; 2]| tensors.iter().all(|tensor| checkpoint.header(tensor).is_some());
        let of_class = |known| classes::check(folder, None, component, known);
        if has(UNET) {
            of_class(classes::CONTROLNETS_OF_UNETS)?;
            Ok(Self::UNet(Box::new(folder.json(&config)?)))
        } else if has(TRANSFORMER) {
            of_class(classes::CONTROLNETS_OF_TRANSFORMERS)?;
            Ok(Self::Transformer(folder.json(&config)?))
        } else {
            let reason = format!(
                "it has neither the tensors of one for a UNet ({}) nor of one for {} ({})",
                UNET.join(", "),
                Denoiser::TITLE_OF_TRANSFORMERS,
                TRANSFORMER.join(", ")
            );
            Err(Error::ForeignControl {
                folder: folder.root().join(component),
                reason,
            })
        }
    }

    /// Why it cannot steer `denoiser`, if so.
    fn mismatch(&self, denoiser: &Denoiser, vae: &vae::Config) -> Option<String> {
        match (self, denoiser) {
            (Self::UNet(config), Denoiser::UNet(network)) => {
                let (own, wanted) = (&config.network, network);
                // What cannot be used at all is refused by name when the network is made.
                let held = own.skip_channels().ok().zip(wanted.skip_channels().ok());
                let same = own.context_features() == wanted.context_features()
                    && own.block_out_channels == wanted.block_out_channels
                    && held.is_none_or(|(own, wanted)| own == wanted);
                let numbers = [
                    (
                        "conditioning_channels",
                        config.conditioning_channels,
                        COLOURS,
                        "pictures",
                    ),
                    (
                        "in_channels",
                        own.in_channels,
                        vae.latent_channels,
                        "the model's latents",
                    ),
                    (
                        "levels of conditioning_embedding_out_channels",
                        config.conditioning_embedding_out_channels.len(),
                        vae.block_out_channels.len(),
                        "the model's autoencoder",
                    ),
                ];
                let mut numbers = numbers.into_iter();
                match numbers.find(|(_, own, wanted, _)| own != wanted) {
                    _ if !same => Some(made_for(Denoiser::title_of_unet(own), denoiser.title())),
                    Some((name, own, wanted, whose)) => {
                        Some(format!("its {name} are {own}, and {whose} have {wanted}"))
                    }
                    None => None,
                }
            }
            (Self::Transformer(config), Denoiser::Transformer(network)) => {
                let fills_masks = || {
                    let channels = config.extra_conditioning_channels;
                    (channels > 0).then(|| {
                        format!(
                            "it was made to fill masks (its extra_conditioning_channels are {channels}), and is told of none \
                             here"
                        )
                    })
                };
                config.mismatch(network).or_else(fills_masks)
            }
            (Self::UNet(config), Denoiser::Transformer(_)) => Some(made_for(
                Denoiser::title_of_unet(&config.network),
                denoiser.title(),
            )),
            (Self::Transformer(_), Denoiser::UNet(_)) => {
                Some(made_for(Denoiser::TITLE_OF_TRANSFORMERS, denoiser.title()))
            }
        }
    }
}

fn made_for(family: &str, wanted: &str) -> String {
    if family == wanted {
        format!("it is for another UNet of {family}")
    } else {
        format!("it is for {family}, and the model is {wanted}")
    }
}
