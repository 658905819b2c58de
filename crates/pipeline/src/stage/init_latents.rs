//! The VAE encoding stage: initial images become the latents that image-to-image and inpainting start from.

use std::path::Path;

use candle_core::{Device, Tensor};
use sd_models::vae::{Encoder, Scaling};
use sd_weights::{Residency, WeightOptions};

use crate::bundle::Bundle;
use crate::image_size::ImageSize;
use crate::save::RgbImage;
use crate::source_image::SourceImage;
use crate::{Error, Result, device};

const COMPONENT: &str = "vae";

/// An inpainting mask: which pixels are inpainted.
#[derive(Debug, Clone)]
pub struct Mask {
    pixels: Vec<bool>,
    width: usize,
}

/// The latent distribution of an initial image, with a mask for inpainting.
#[doc(alias = "image-to-image")]
#[derive(Debug, Clone)]
pub struct InitLatents {
    pub(super) whole: Distribution,
    pub(super) masked: Option<Masked>,
}

/// The inpainting mask and the masked image.
#[derive(Debug, Clone)]
pub(super) struct Masked {
    /// `[1, 1, rows, columns]`: 1 where latents are inpainted, 0 elsewhere.
    pub(super) mask: Tensor,
    /// The masked image: the initial image without the inpainted pixels.
    pub(super) rest: Distribution,
}

/// A diagonal Gaussian distribution of latents, both tensors `[1, channels, rows, columns]` in host memory.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    mean: Tensor,
    deviation: Tensor,
    /// The scaling of latents for the denoising network.
    scaling: Scaling,
}

impl Mask {
    /// A mask of `pixels`, in rows of `width`; true where pixels are inpainted.
    pub fn new(width: usize, pixels: Vec<bool>) -> Self {
        Self { pixels, width }
    }

    /// Opens the image at `path` by its header as the mask of `image`, or of `image` resampled to `size`.
    ///
    /// # Errors
    /// The file is not a valid image, or has neither size.
    pub(crate) fn source(path: &Path, image: &SourceImage, size: ImageSize) -> Result<SourceImage> {
        let source = SourceImage::open(path)?;
        let (found, wanted) = (source.sides(), image.sides());
        if found == wanted || found == (size.width(), size.height()) {
            Ok(source)
        } else {
            Err(Error::MaskSize {
                path: path.to_owned(),
                found,
                wanted,
            })
        }
    }

    /// Reads the mask in `source` for an image of `size`.
    ///
    /// # Errors
    /// The file is damaged.
    pub(crate) fn read(source: &SourceImage, size: ImageSize) -> Result<Self> {
        Ok(Self::new(size.width(), source.mask_at(size)?))
    }

    /// The mask of latents, `[1, 1, rows, columns]`: each has the value of its upper left pixel.
    fn of_latents(&self, factor: usize, (rows, columns): (usize, usize)) -> Result<Tensor> {
        let at = |row: usize, column: usize| self.pixels[row * factor * self.width + column * factor];
        let values: Vec<f32> = (0..rows * columns)
            .map(|index| f32::from(u8::from(at(index / columns, index % columns))))
            .collect();
        Ok(Tensor::from_vec(values, (1, 1, rows, columns), &Device::Cpu)?)
    }

    /// Masks `image`, `[1, 3, height, width]`: inpainted pixels become 0, the middle of its range.
    fn hide(&self, image: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = image.dims4()?;
        let stays: Vec<f32> = self
            .pixels
            .iter()
            .map(|&generated| f32::from(u8::from(!generated)))
            .collect();
        let stays = Tensor::from_vec(stays, (1, 1, height, width), &Device::Cpu)?;
        Ok(image.broadcast_mul(&stays)?)
    }
}

impl Distribution {
    /// Samples the distribution with `noise`, scaled for the denoising network of `bundle`.
    pub(super) fn sample(&self, bundle: &Bundle, noise: &Tensor) -> Result<Tensor> {
        let sample = (&self.mean + (&self.deviation * noise)?)?;
        Ok(bundle.vae.scale(&sample, self.scaling)?)
    }
}

/// Encodes each of `images` with the VAE encoder of `bundle`, which is read once and dropped at the end. With
/// a `mask` of the images' size, the masked images are encoded too. Latents are scaled by `scaling`.
///
/// # Errors
/// A file is wrong, the device fails, or a value is not finite.
pub fn encode_init_images<'i>(
    bundle: &Bundle,
    images: impl IntoIterator<Item = &'i RgbImage>,
    mask: Option<&Mask>,
    scaling: Scaling,
    weight_options: &WeightOptions,
) -> Result<Vec<InitLatents>> {
    let weights = bundle.weights(COMPONENT, &weight_options.with_residency(Residency::Resident))?;
    let encoder = Encoder::new(weights, &bundle.vae)?;
    let encode = |image: &Tensor| -> Result<Distribution> {
        let encoded = encoder.encode(&image.to_device(&weight_options.device)?)?;
        let mean = device::to_host(&encoded.mean)?;
        bundle
            .components()
            .check_finite(&mean, "the encoder", COMPONENT)?;
        Ok(Distribution {
            mean,
            deviation: (device::to_host(&encoded.log_variance)? * 0.5)?.exp()?,
            scaling,
        })
    };
    let init_latents = |image: &RgbImage| -> Result<InitLatents> {
        let image = image.to_tensor()?;
        let whole = encode(&image)?;
        let masked = match mask {
            Some(mask) => {
                let (_, _, rows, columns) = whole.mean.dims4()?;
                Some(Masked {
                    mask: mask.of_latents(bundle.vae.downsampling(), (rows, columns))?,
                    rest: encode(&mask.hide(&image)?)?,
                })
            }
            None => None,
        };
        Ok(InitLatents { whole, masked })
    };
    images.into_iter().map(init_latents).collect()
}
