//! The upscaling stage: a super-resolution network (the ESRGAN family) applied to decoded images.

use std::path::Path;

use sd_models::upscaler::Upscaler;
use sd_weights::{Checkpoint, Residency, WeightOptions, Weights};

use crate::event::Interrupt;
use crate::save::RgbImage;
use crate::upscale::lanczos3;
use crate::{Error, Result, device, finite};

/// Opens the network in the file at `path` by its headers.
///
/// # Errors
/// The file cannot be read, or its network is of an unknown architecture.
pub(crate) fn upscaler(path: &Path, weight_options: &WeightOptions) -> Result<Upscaler> {
    let weights = Weights::new(
        Checkpoint::open_file(path)?,
        WeightOptions {
            weight_type: device::wide_weight_type(weight_options.weight_type),
            ..weight_options.with_residency(Residency::Resident)
        },
    );
    Ok(Upscaler::open(weights)?)
}

/// How often a network of `scale` is applied to reach `factor`.
pub(crate) fn rounds(scale: usize, factor: usize) -> u32 {
    let mut rounds = 1;
    while scale > 1 && scale.pow(rounds) < factor {
        rounds += 1;
    }
    rounds
}

/// Upscales each of `images` by `factor` with the network in the file at `path`, which is read once and
/// dropped at the end. A network of another scale is applied repeatedly, and the result resampled.
///
/// # Errors
/// The file is wrong, a value is not finite, the device fails, the run was interrupted, or `on_image` fails.
pub(crate) fn upscale(
    path: &Path,
    factor: usize,
    images: &[(usize, RgbImage)],
    weight_options: &WeightOptions,
    interrupt: &Interrupt,
    mut on_image: impl FnMut(usize, RgbImage) -> Result<()>,
) -> Result<()> {
    let network = upscaler(path, weight_options)?;
    if device::reads_before_passes(&weight_options.device) {
        network.load()?;
    }
    for (index, image) in images {
        let (width, height) = (factor * image.width(), factor * image.height());
        // From [-1, 1] to the network's [0, 1].
        let mut values = image.to_tensor()?.affine(0.5, 0.5)?;
        for _ in 0..rounds(network.scale(), factor) {
            interrupt.check()?;
            values = network.forward(&values.to_device(&weight_options.device)?)?;
        }
        values = device::to_host(&values)?;
        finite::check(&values, "the upscaler", || {
            finite::damaged_tensor([Checkpoint::open_file(path).map_err(Error::from)])
        })?;
        values = values.affine(2.0, -1.0)?.squeeze(0)?;
        let upscaled = RgbImage::from_tensor(&values)?;
        drop(values);
        let is_exact = (upscaled.width(), upscaled.height()) == (width, height);
        on_image(
            *index,
            if is_exact {
                upscaled
            } else {
                lanczos3(&upscaled, width, height)
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_applied_until_the_image_is_large_enough() {
        assert_eq!(rounds(4, 4), 1);
        assert_eq!(rounds(4, 2), 1);
        assert_eq!(rounds(2, 4), 2);
        assert_eq!(rounds(1, 4), 1);
        assert_eq!(rounds(3, 4), 2);
    }
}
