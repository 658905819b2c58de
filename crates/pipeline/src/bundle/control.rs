//! A ControlNet with the picture that it has a model follow.

use std::path::Path;

use sd_models::{controlnet, unet};
use sd_weights::{Checkpoint, Holding, ModelFolder, Weights};

use crate::control::canny;
use crate::request::{ControlChoice, ControlKind, ImageSize};
use crate::save::RgbImage;
use crate::source_image::SourceImage;
use crate::{Error, Result};

/// Brightness steps from which on a photo's edges count, for sure and next to others.
const EDGES: (i32, i32) = (100, 200);

/// A ControlNet with the picture that it has a model follow.
#[derive(Debug)]
pub struct Control {
    /// As the user asked for it.
    pub choice: ControlChoice,
    /// The network's configuration.
    pub config: controlnet::Config,
    /// What is followed, in the size of the pictures that are drawn.
    pub picture: RgbImage,
    folder: ModelFolder,
    component: String,
}

impl Control {
    /// Opens what `choice` names, for a UNet that `network` describes and pictures of `size`.
    ///
    /// # Errors
    /// A file is missing or wrong, or the ControlNet is for another UNet.
    pub(super) fn open(choice: &ControlChoice, network: &unet::Config, size: ImageSize) -> Result<Self> {
        let root = &choice.folder;
        let folder = ModelFolder::on_disk(root.parent().unwrap_or(Path::new("")));
        let component = root
            .file_name()
            .unwrap_or(root.as_os_str())
            .to_string_lossy()
            .into_owned();
        let config: controlnet::Config = folder.json(&format!("{component}/config.json"))?;
        let same = (
            &config.network.cross_attention_dim,
            &config.network.block_out_channels,
        ) == (&network.cross_attention_dim, &network.block_out_channels);
        if !same {
            return Err(Error::PartsDoNotFit {
                folder: root.clone(),
                reason: "it is a ControlNet for another UNet than the model's".to_owned(),
            });
        }
        let picture = SourceImage::open(&choice.image)?.at(size);
        Ok(Self {
            picture: match choice.kind {
                ControlKind::Canny => canny(&picture, EDGES.0, EDGES.1),
                ControlKind::Pose | ControlKind::Depth => picture,
            },
            choice: choice.clone(),
            config,
            folder,
            component,
        })
    }

    /// The network's weights.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub(crate) fn weights(&self, holding: &Holding) -> Result<Weights> {
        let checkpoint: Checkpoint = self.folder.checkpoint(&self.component)?;
        Ok(Weights::new(checkpoint, holding.clone()))
    }

    /// The folder that it lies in, and its name there.
    pub(crate) fn place(&self) -> (&ModelFolder, &str) {
        (&self.folder, &self.component)
    }
}
