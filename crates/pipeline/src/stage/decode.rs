//! From latents to a picture.

use candle_core::Tensor;
use sd_models::vae::{Decoder, Scaling};
use sd_weights::{Holding, Residency};

use super::finite;
use crate::Result;
use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::save::RgbImage;

const COMPONENT: &str = "vae";

/// Decodes each of `latents`, `[1, channels, height, width]`, with the autoencoder of `bundle`, which is read
/// once and dropped at the end, after they are scaled for it as `scaling` says. `on_picture` is given each picture as soon as it is there.
///
/// # Errors
/// A file is wrong, the device fails, a value is not finite, the run was interrupted, or `on_picture` fails.
pub fn decode(
    bundle: &Bundle,
    latents: &[Tensor],
    scaling: Scaling,
    holding: &Holding,
    interrupt: &Interrupt,
    mut on_picture: impl FnMut(usize, RgbImage) -> Result<()>,
) -> Result<()> {
    let weights = bundle.weights(COMPONENT, &holding.with_residency(Residency::Resident))?;
    let decoder = Decoder::new(weights, &bundle.vae)?;
    if super::reads_before_passes(&holding.device) {
        decoder.load()?;
    }
    for (index, latents) in latents.iter().enumerate() {
        interrupt.check()?;
        let unscaled = bundle
            .vae
            .unscale(&latents.to_device(&holding.device)?, scaling)?;
        let image = decoder.decode(&unscaled)?.squeeze(0)?;
        finite::check(&image, "the decoder", bundle, COMPONENT)?;
        on_picture(index, RgbImage::from_tensor(&image)?)?;
    }
    Ok(())
}
