//! The decoding stage: latents become images.

use candle_core::Tensor;
use sd_models::vae::{Decoder, Scaling};
use sd_weights::{Residency, WeightOptions};

use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::save::RgbImage;
use crate::{Result, device};

const COMPONENT: &str = "vae";

/// The VAE decoder in memory.
#[derive(Debug)]
pub(crate) struct Decode<'a> {
    bundle: &'a Bundle,
    decoder: Decoder,
    scaling: Scaling,
    weight_options: WeightOptions,
}

impl<'a> Decode<'a> {
    /// Loads the decoder of `bundle`, or leaves that to the first image. Latents are scaled by `scaling`.
    ///
    /// # Errors
    /// A file is wrong, or the device is out of memory.
    pub(crate) fn load(bundle: &'a Bundle, scaling: Scaling, weight_options: &WeightOptions) -> Result<Self> {
        let weight_options = weight_options.with_residency(Residency::Resident);
        let weights = bundle.weights(COMPONENT, &weight_options)?;
        let decoder = Decoder::new(weights, &bundle.vae)?;
        if device::reads_before_passes(&weight_options.device) {
            decoder.load()?;
        }
        Ok(Self {
            bundle,
            decoder,
            scaling,
            weight_options,
        })
    }

    /// Decodes `latents`, `[1, channels, height, width]`.
    ///
    /// # Errors
    /// A file is wrong, the device fails, or a value is not finite.
    pub(crate) fn image(&self, latents: &Tensor) -> Result<RgbImage> {
        let latents = latents.to_device(&self.weight_options.device)?;
        let unscaled = self.bundle.vae.unscale(&latents, self.scaling)?;
        let image = self.decoder.decode(&unscaled)?.squeeze(0)?;
        self.bundle
            .components()
            .check_finite(&image, "the decoder", COMPONENT)?;
        RgbImage::from_tensor(&image)
    }
}

/// Decodes each of `latents`, `[1, channels, height, width]`, scaled by `scaling`, with the VAE decoder of
/// `bundle`, which is read once and dropped at the end. Each image is passed to `on_image` at once.
///
/// # Errors
/// A file is wrong, the device fails, a value is not finite, the run was interrupted, or `on_image` fails.
pub fn decode(
    bundle: &Bundle,
    latents: &[Tensor],
    scaling: Scaling,
    weight_options: &WeightOptions,
    interrupt: &Interrupt,
    mut on_image: impl FnMut(usize, RgbImage) -> Result<()>,
) -> Result<()> {
    let decode = Decode::load(bundle, scaling, weight_options)?;
    for (index, latents) in latents.iter().enumerate() {
        interrupt.check()?;
        on_image(index, decode.image(latents)?)?;
    }
    Ok(())
}
