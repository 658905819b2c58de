//! A ControlNet with its control image.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;
use sd_models::vae;
use sd_weights::{Checkpoint, HeaderCache, ModelSource, WeightOptions, WeightType, Weights, open_controlnet};

use crate::control::{canny, canny_bytes};
use crate::family::{self, ControlInput, ControlModel, Family};
use crate::image_size::ImageSize;
use crate::plan::SourceImageBytes;
use crate::request::{ControlChoice, ControlKind};
use crate::save::RgbImage;
use crate::source_image::SourceImage;
use crate::{Error, Result, components};

/// The low and high thresholds of the Canny edge detection.
pub(crate) const EDGES: (i32, i32) = (100, 200);

/// A ControlNet with its control image.
#[derive(Debug)]
pub struct Control {
    /// The ControlNet as the user chose it.
    pub choice: ControlChoice,
    /// The network's configuration.
    pub config: Box<dyn ControlModel>,
    source: SourceImage,
    /// The size of the generated images.
    size: ImageSize,
    /// The image of the user at the size of the generated images, once it is read.
    image: Option<RgbImage>,
    network_source: Arc<dyn ModelSource>,
    component: String,
}

impl Control {
    /// Opens the ControlNet of `choice` for a model of `family` with the latents of `vae`, and for images of
    /// `size`. Only the header of the control image is read.
    ///
    /// # Errors
    /// A file is missing or wrong, or the ControlNet is for another network.
    pub(super) fn open(
        choice: &ControlChoice,
        family: &dyn Family,
        vae: &vae::Config,
        size: ImageSize,
    ) -> Result<Self> {
        let root = &choice.folder;
        let (network_source, component) = open_controlnet(root)?;
        let network_source: Arc<dyn ModelSource> = Arc::new(HeaderCache::new(network_source));
        let config = family::recognise_control(&*network_source, &component)?;
        if let Some(reason) = family.control_mismatch(&*config, vae) {
            return Err(Error::ForeignControl {
                folder: root.clone(),
                reason,
            });
        }
        Ok(Self {
            source: SourceImage::open(&choice.image)?,
            size,
            image: None,
            choice: choice.clone(),
            config,
            network_source,
            component,
        })
    }

    /// Reads the control image, which stays in memory.
    ///
    /// # Errors
    /// The file is damaged.
    pub(super) fn read_image(&mut self) -> Result<()> {
        self.image = Some(self.control_image()?);
        Ok(())
    }

    /// Bytes of the control image: while it is read, and then.
    pub(crate) fn source_image_bytes(&self) -> SourceImageBytes {
        let pixels = (self.size.width() * self.size.height()) as u64;
        let edges = match self.choice.kind {
            // Canny needs the photo beside the edges.
            ControlKind::Canny => 3 * pixels + canny_bytes(pixels),
            ControlKind::Pose | ControlKind::Depth | ControlKind::Image => 0,
        };
        SourceImageBytes {
            held: 3 * pixels,
            reading: self.source.bytes_at(self.size).max(edges),
        }
    }

    /// The control image in pixels, at the size of the generated images.
    fn control_image(&self) -> Result<RgbImage> {
        let image = self.source.at(self.size)?;
        Ok(match self.choice.kind {
            ControlKind::Canny => canny(&image, EDGES.0, EDGES.1),
            ControlKind::Pose | ControlKind::Depth | ControlKind::Image => image,
        })
    }

    /// The tensors of the ControlNet, from their headers.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub(super) fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(self.network_source.checkpoint(&self.component)?)
    }

    /// The weights of the ControlNet.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub(crate) fn weights(&self, weight_options: &WeightOptions) -> Result<Weights> {
        let weights = Weights::new(self.checkpoint()?, weight_options.clone());
        Ok(match weight_options.block_cache {
            Some(_) => weights.cached_as(&self.cache_name(weight_options.weight_type)?),
            None => weights,
        })
    }

    /// The name of the network's weights, held as `weight_type`, in the block cache.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub(crate) fn cache_name(&self, weight_type: WeightType) -> Result<String> {
        let config = self.network_source.config(&self.component)?;
        components::cache_name(&config, &self.checkpoint()?, [], weight_type)
    }

    /// Refuses a ControlNet whose headers do not match its configuration.
    ///
    /// # Errors
    /// They do not match, or a file is missing.
    pub(super) fn check(&self, weight_options: &WeightOptions) -> Result<()> {
        self.config.check(self.weights(weight_options)?)
    }

    /// The form of the control image that the network takes.
    pub(crate) fn input(&self) -> ControlInput {
        self.config.input(self.choice.kind)
    }

    /// The control image in the range of the network's training, `[1, 3, height, width]`.
    ///
    /// # Errors
    /// The device is out of memory, or the image was not read before and its file is damaged.
    pub(crate) fn shown(&self) -> Result<Tensor> {
        let image = match &self.image {
            Some(image) => Cow::Borrowed(image),
            None => Cow::Owned(self.control_image()?),
        };
        // Between -1 and 1.
        let image = image.to_tensor()?;
        Ok(match self.input().pixels {
            Some((factor, summand)) => image.affine(factor, summand)?,
            None => image,
        })
    }

    /// The source of the ControlNet's files, and its component there.
    pub(crate) fn component(&self) -> (&dyn ModelSource, &str) {
        (&*self.network_source, &self.component)
    }
}
